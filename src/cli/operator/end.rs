//! The command `end`: sessions by handle, all of a user, or all.
//!
//! [`OperatorArgs`](super::OperatorArgs) calls it. Invariant: no session ends unless the operator consents, by `--yes` or after a
//! question. All sessions that handles name must be found, and the question shows each. If a user or all visitors are named, it shows
//! the number of sessions.

use serde_json::json;

use super::output::{Output, shown};
use super::progress::Bar;
use super::resolve::Target;
use super::stop::{Done, Stop, say};
use super::{Context, EndArgs, confirm, resolve};
use crate::store::{Ending, Verified, VerifyOptions};
use crate::{Handle, HandlePrefix, SessionStore, operation};

/// The least number of digits that name a session without a question.
const MIN_UNASKED_DIGITS: usize = 12;

/// A session to end, or the handle of one that is gone.
enum Named {
    Live(Box<Target>),
    Gone(Handle),
}

impl EndArgs {
    /// Rejects what needs a question if there is no terminal to ask it, and short prefixes with `--yes`.
    pub(super) fn require_long_handles(&self) -> Done {
        if !self.yes {
            return confirm::require_terminal();
        }
        match self.sessions.iter().find(|prefix| prefix.as_str().len() < MIN_UNASKED_DIGITS) {
            Some(short) => {
                let why = format!("with --yes, a handle needs its first {MIN_UNASKED_DIGITS} digits or more: {short}");
                Err(Stop::Usage(why))
            }
            None => Ok(()),
        }
    }

    pub(super) fn run(&self, context: &mut Context) -> Done {
        if self.everybody {
            self.end_everybody(context)
        } else if self.sessions.is_empty() {
            self.end_user(context, self.user.as_deref().unwrap_or_default())
        } else {
            self.end_named(context)
        }
    }

    fn end_named(&self, context: &mut Context) -> Done {
        let named = self.find_named(context).map_err(|stop| stop.after("no session has ended"))?;
        let live: Vec<_> = named.iter().filter_map(Named::live).collect();
        if !live.is_empty() {
            self.consent(context, live.iter().map(|target| target.line()), "End these sessions?")?;
        }
        end_each(context, &named)
    }

    /// Finds all sessions, or fails.
    fn find_named(&self, context: &Context) -> Result<Vec<Named>, Stop> {
        let user = self.user.as_deref();
        let mut found = resolve::find_each(context, &self.sessions, user)?;
        let is_gone = |(prefix, target): (&HandlePrefix, &Option<Target>)| prefix.is_whole() && target.is_none();
        let is_any_gone = self.sessions.iter().zip(&found).any(is_gone);
        // The index may have lost a session that it does not have. Without an index, the search has looked at all keys.
        if user.is_none() && is_any_gone && context.store.index().is_some() {
            let lost = find_lost(context)?;
            if lost > 0 {
                say(&format!("note: the index had lost {lost} sessions, which it has again"));
                found = resolve::find_each(context, &self.sessions, None)?;
            }
        }
        let mut named = Vec::new();
        for (prefix, found) in self.sessions.iter().zip(found) {
            match (found, prefix.to_handle()) {
                (Some(target), _) => named.push(Named::Live(Box::new(target))),
                (None, Some(handle)) if user.is_none() => named.push(Named::Gone(handle)),
                (None, _) => say(&resolve::not_found(context, prefix, user)),
            }
        }
        if named.len() == self.sessions.len() {
            Ok(named)
        } else {
            Err(Stop::Negative("no session has ended".to_owned()))
        }
    }

    fn end_user(&self, context: &mut Context, user: &str) -> Done {
        if !self.yes {
            let listed = context.index(operation::END)?.list_by_principal(user)?.len();
            if listed == 0 {
                say(&resolve::no_session_of(user));
                return print_count(context, 0);
            }
            self.consent(context, None, &question(user, listed))?;
        }
        let ended = context
            .index(operation::END)?
            .end(user, Ending::All)
            .inspect_err(|_| say("some sessions may have ended; you can safely run it again"))?;
        if ended == 0 {
            say(&resolve::no_session_of(user));
        }
        print_count(context, ended)
    }

    fn end_everybody(&self, context: &mut Context) -> Done {
        if !self.yes {
            let sessions = context.all().count()?;
            self.consent(context, None, &format!("End the sessions of all visitors, {sessions} in all?"))?;
        }
        let mut ended = end_all(context, 0)?;
        if context.store.index().is_some() {
            let lost = find_lost(context).or_else(|stop| {
                let so_far = format!("{ended} sessions have ended");
                stopped_after(context, ended, stop.after(&so_far))
            })?;
            if lost > 0 {
                ended = end_all(context, ended)?;
            }
        }
        print_count(context, ended)
    }

    /// Asks the operator, unless `--yes` is given.
    fn consent(&self, context: &Context, lines: impl IntoIterator<Item = String>, question: &str) -> Done {
        if self.yes {
            return Ok(());
        }
        lines.into_iter().for_each(|line| say(&line));
        say(&format!("store: {}", context.store.place()));
        confirm::ask(question, &context.interrupt)
    }
}

impl Named {
    fn live(&self) -> Option<&Target> {
        match self {
            Self::Live(target) => Some(target),
            Self::Gone(_) => None,
        }
    }

    /// Ends the session. Returns `false` if it has ended before.
    fn end(&self, context: &Context) -> Result<bool, Stop> {
        let (handle, ended) = match self {
            Self::Live(target) => (target.info.handle, target.end(context)?),
            Self::Gone(handle) => (*handle, false),
        };
        if !ended {
            let why = "it ended, or was renewed and lives under another handle; run `list` again";
            say(&format!("{handle} was gone before: {why}"));
        }
        Ok(ended)
    }

    /// Prints the whole handle.
    fn print(&self, output: &mut Output, ended: bool) -> Done {
        let handle = match self {
            Self::Live(target) => target.info.handle,
            Self::Gone(handle) => *handle,
        };
        match output.is_json() {
            true => output.object(&json!({ "handle": handle, "ended": ended })),
            false if ended => output.line(&handle.to_string()),
            false => Ok(()),
        }
    }
}

/// Ends the sessions, and prints their handles. If the output fails, the other sessions end too, because the operator has
/// consented to all.
fn end_each(context: &mut Context, named: &[Named]) -> Done {
    let (all, mut printed) = (named.len(), Ok(()));
    let so_far = |done: usize| format!("{done} of {all} sessions have ended");
    for (done, one) in named.iter().enumerate() {
        if context.interrupt.came() {
            say_left(&named[done..]);
            return Err(Stop::Interrupted(so_far(done)));
        }
        let ended = one.end(context).inspect_err(|_| {
            say(&so_far(done));
            say_left(&named[done..]);
        })?;
        printed = printed.and_then(|()| one.print(&mut context.output, ended));
    }
    printed.and_then(|()| context.output.flush()).inspect_err(|_| say(&so_far(all)))
}

/// Prints the command that ends the sessions which are left. It has whole handles, because a second run fails if no session has a
/// prefix, or if a session of a user is gone.
fn say_left(left: &[Named]) {
    let handles: Vec<_> = left.iter().filter_map(Named::live).map(|target| target.info.handle.to_string()).collect();
    if !handles.is_empty() {
        say(&format!("to end the other sessions, run: end {} --yes", handles.join(" ")));
    }
}

/// The question before all sessions of a user end.
fn question(user: &str, listed: usize) -> String {
    let or_more = if listed >= resolve::LONGEST_USER_LIST { " or more" } else { "" };
    format!("End all sessions of the user \"{}\" ({listed}{or_more} listed)?", shown(user))
}

/// Ends all sessions that the store knows. Returns how many have ended, with those that ended `before`.
fn end_all(context: &mut Context, before: u64) -> Result<u64, Stop> {
    let bar = Bar::new("ending");
    let all = context.all().end_everybody(|progress| {
        bar.set(progress);
        context.interrupt.flow()
    });
    let looked_at = bar.clear();
    let all = all.inspect_err(|_| {
        say(&format!("some sessions may have ended, looked at {looked_at}; you can safely run it again"));
    })?;
    let ended = before + all.ended;
    if all.interrupted {
        let stop = Stop::Interrupted(format!("{ended} sessions have ended, looked at {looked_at}"));
        return stopped_after(context, ended, stop);
    }
    Ok(ended)
}

/// Puts sessions back into the index that it has lost, so that they can end too. Returns how many there were.
fn find_lost(context: &Context) -> Result<u64, Stop> {
    let bar = Bar::new("looking for sessions that the index lost");
    let on_progress = |_: &Verified, progress| {
        bar.set(progress);
        context.interrupt.flow()
    };
    let options = VerifyOptions::new().on_progress(&on_progress);
    let verified = context.index(operation::VERIFY)?.verify(options)?;
    let looked_at = bar.clear();
    if verified.interrupted {
        let text = format!("sessions that the index lost may live, looked at {looked_at} keys for them");
        return Err(Stop::Interrupted(text));
    }
    Ok(verified.added)
}

/// Prints how many sessions have ended, and fails with the reason to stop, even if the output fails too.
fn stopped_after<T>(context: &mut Context, ended: u64, stop: Stop) -> Result<T, Stop> {
    let _ = print_count(context, ended);
    Err(stop)
}

fn print_count(context: &mut Context, ended: u64) -> Done {
    let output = &mut context.output;
    let printed = match output.is_json() {
        true => output.object(&json!({ "ended": ended })),
        false => output.line(&ended.to_string()),
    };
    printed.and_then(|()| output.flush()).inspect_err(|_| say(&format!("{ended} sessions have ended")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_shows_number_up_to_the_cap() {
        assert_eq!(question("ada", 999), "End all sessions of the user \"ada\" (999 listed)?");
        assert_eq!(question("ada", 1000), "End all sessions of the user \"ada\" (1000 or more listed)?");
    }
}
