//! The command `end`: sessions by handle, all of a user, or all.
//!
//! [`OperatorArgs`](super::OperatorArgs) calls it. Invariant: no session ends unless all handles were found and the operator
//! consents, by `--yes` or after a question that names the sessions.

use serde_json::json;

use super::progress::Bar;
use super::resolve::Target;
use super::stop::{Done, Stop, say};
use super::{Context, EndArgs, confirm, resolve};
use crate::store::{Ending, Verified, VerifyOptions};
use crate::{Handle, SessionStore, operation};

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
        let (mut named, mut missing) = (Vec::new(), 0);
        let found = resolve::find_each(context, &self.sessions, self.user.as_deref())?;
        for (prefix, found) in self.sessions.iter().zip(found) {
            match (found, prefix.to_handle()) {
                (Some(target), _) => named.push(Named::Live(Box::new(target))),
                (None, Some(handle)) => named.push(Named::Gone(handle)),
                (None, None) => {
                    say(&format!("no live session has a handle that begins with {prefix}"));
                    missing += 1;
                }
            }
        }
        if missing > 0 {
            return Err(Stop::Negative("no session has ended".to_owned()));
        }
        let live: Vec<_> = named.iter().filter_map(Named::live).collect();
        if !live.is_empty() {
            self.consent(context, live.iter().map(|target| target.line()), "End these sessions?")?;
        }
        let mut ended = 0;
        for named in &named {
            if context.interrupt.came() {
                context.output.flush()?;
                return Err(Stop::Interrupted(format!("{ended} of {} sessions have ended", self.sessions.len())));
            }
            ended += u64::from(named.end(context)?);
        }
        Ok(())
    }

    fn end_user(&self, context: &mut Context, user: &str) -> Done {
        let index = context.index(operation::END)?;
        if !self.yes {
            let sessions = index.list_by_principal(user)?.len();
            if sessions > 0 {
                self.consent(context, None, &format!("End {sessions} sessions of this user?"))?;
            }
        }
        let ended = index.end(user, Ending::All)?;
        if ended == 0 {
            say(resolve::NO_SESSION_OF_USER);
        }
        print_count(context, ended)
    }

    fn end_everybody(&self, context: &mut Context) -> Done {
        if !self.yes {
            let sessions = context.all().count()?;
            self.consent(context, None, &format!("End the sessions of all visitors, {sessions} in all?"))?;
        }
        let mut ended = end_all(context, 0)?;
        if context.store.index().is_some() && find_lost(context, ended)? > 0 {
            ended = end_all(context, ended)?;
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

    /// Ends the session, and prints its whole handle.
    fn end(&self, context: &mut Context) -> Result<bool, Stop> {
        let (handle, ended) = match self {
            Self::Live(target) => (target.info.handle, target.end(context)?),
            Self::Gone(handle) => (*handle, false),
        };
        if !ended {
            say(&format!("{handle} was gone before"));
        }
        let output = &mut context.output;
        if output.is_json() {
            output.object(&json!({ "handle": handle, "ended": ended }))?;
        } else if ended {
            output.line(&handle.to_string())?;
        }
        Ok(ended)
    }
}

/// Ends all sessions that the store knows. Returns how many have ended, with those that ended `before`.
fn end_all(context: &mut Context, before: u64) -> Result<u64, Stop> {
    let bar = Bar::new("ending");
    let all = context.all().end_everybody(|progress| {
        bar.set(progress);
        context.interrupt.flow()
    })?;
    let (looked_at, ended) = (bar.clear(), before + all.ended);
    if all.interrupted {
        print_count(context, ended)?;
        return Err(Stop::Interrupted(format!("{ended} sessions have ended, looked at {looked_at}")));
    }
    Ok(ended)
}

/// Puts sessions back into the index that it has lost, so that they can end too. Returns how many there were.
fn find_lost(context: &mut Context, ended: u64) -> Result<u64, Stop> {
    let bar = Bar::new("looking for sessions that the index lost");
    let on_progress = |_: &Verified, progress| {
        bar.set(progress);
        context.interrupt.flow()
    };
    let verified = context.index(operation::VERIFY)?.verify(VerifyOptions::new().on_progress(&on_progress));
    let looked_at = bar.clear();
    let stop = match verified {
        Ok(verified) if !verified.interrupted => return Ok(verified.added),
        Ok(_) => {
            let what = "sessions that the index lost may live";
            Stop::Interrupted(format!("{ended} sessions have ended; {what}, looked at {looked_at} keys for them"))
        }
        Err(error) => error.into(),
    };
    print_count(context, ended)?;
    Err(stop)
}

fn print_count(context: &mut Context, ended: u64) -> Done {
    let output = &mut context.output;
    if output.is_json() {
        output.object(&json!({ "ended": ended }))?
    } else {
        output.line(&ended.to_string())?
    }
    output.flush()
}
