//! The panel "Behind this page", and the experiments that fill it.
//!
//! The frame of each page has the empty panel; the script fetches what is in it, so that the page's own request is in the story
//! too. Invariant: nothing here holds a session id, because scripts can read the page. Keys are shown with the handle.

use std::fmt::Write;
use std::time::Duration;

use rouille::{Request, Response};
use serde_json::Value;
use threaded_sessions::observer::{Operation, OperationOutcome};
use threaded_sessions::store::{Found, Stored, Touch};
use threaded_sessions::{Error, Handle, SessionId};

use crate::html::{escape, form, milliseconds, short, timer};
use crate::page::View;
use crate::redis::INSTALL;
use crate::story::{Event, Step};
use crate::{Place, Shop};

/// The panel without its content. The script opens it on wide screens.
pub(crate) const FRAME: &str = "<aside id=panel aria-label=\"Behind this page\"><details><summary>Behind this page\
     <span id=gist></span></summary><div id=story><noscript><p>This panel needs JavaScript.</p></noscript></div>\
     </details></aside>";

/// Needs no token, because the route accepts it from this site only, and changes no session.
pub(crate) const BRING_BACK: &str =
    "<form method=post action=/redis/bring-back><button>Bring Redis back</button></form>";

const TAKE_AWAY: &str = "<form method=post action=/redis/take-away><button class=quiet>Take Redis away</button></form>";

/// The experiments for visitors.
pub(crate) fn experiments(view: &View<'_>) -> String {
    let ten = form(
        &view.token,
        "/stitch",
        "<button class=quiet data-times=10 disabled>Ten stitches at once</button><output></output>",
    );
    let redis = match view.place {
        Place::OwnRedis(_) => TAKE_AWAY.to_owned(),
        Place::Redis => {
            "<p class=hint>The shop stops only a Redis of its own: start it with <code>--own-redis</code>.".to_owned()
        }
        Place::Memory { has_redis: true } => {
            "<p class=hint>Sessions live in memory. Start the shop with <code>--own-redis</code> to try this."
                .to_owned()
        }
        Place::Memory { has_redis: false } => {
            format!("<p class=hint>This machine has no <code>redis-server</code>. Get it: {INSTALL}.")
        }
    };
    format!(
        "<section class=experiments aria-label=Experiments>\
         <div class=box><h2>No lost update</h2><p>Ten requests change your session at the same time. The count is exact.{ten}</div>\
         <div class=box><h2>No stuck shop</h2><p>Without Redis each page fails at once. With it, all is there again.{redis}</div>\
         <div class=box><h2>Sign out anywhere</h2><p>Sign in twice, sign out everywhere here: the other one notices.<p>{}</div>\
         </section>",
        view.other_device()
    )
}

impl Shop {
    /// Serves the content of the panel. It works while Redis is away, because the story is in this process.
    pub(crate) fn panel(&self, request: &Request) -> Response {
        let visitor = self.stories.visitor(&self.sessions, request);
        let steps = visitor.map(|(_, handle)| self.stories.of(handle)).unwrap_or_default();
        let stored = visitor.map(|(id, _)| self.stored(&id));
        let content = format!(
            "{}<h3>What just happened</h3>{}{}",
            self.facts(visitor.map(|(_, handle)| handle), &steps, stored.as_ref()),
            story(&steps),
            stored.map(|stored| json(&stored)).unwrap_or_default()
        );
        Response::html(content).with_additional_header("Cache-Control", "no-store")
    }

    /// Reads the stored session, and leaves its deadline alone.
    fn stored(&self, id: &SessionId) -> Result<Option<Stored>, Error> {
        Ok(match self.sessions.store().read(id, Touch::Peek)? {
            Found::Live(stored) => Some(stored),
            _ => None,
        })
    }

    fn facts(&self, handle: Option<Handle>, steps: &[Step], stored: Option<&Result<Option<Stored>, Error>>) -> String {
        let mut facts = String::new();
        let mut fact = |name: &str, value: &str| _ = write!(facts, "<dt>{name}<dd>{value}");
        if let Some(handle) = handle {
            fact("Session", &format!("<code>{}…</code> <span class=hint>a handle, not the id</span>", short(handle)));
        }
        if let Some(left) = stored.and_then(|stored| stored.as_ref().ok()?.as_ref()?.expires_in) {
            fact("Ends in", &format!("{}<progress max={1} value={1}></progress>", timer(left), left.as_millis()));
        }
        if let Some(cookie) = steps.iter().find_map(|step| step.cookie.as_ref()) {
            fact("Cookie", &format!("<code>{}</code>", escape(cookie)));
        }
        let merges: u32 = steps.iter().map(Step::merges).sum();
        fact("Merged", &format!("<span id=merged>{merges}</span> times onto the change of another request"));
        fact("Kept in", self.place.name(self.sessions.store().index().is_some()));
        if let Some(time) = self.sessions.health().failing_for {
            fact("Redis", &format!("<strong>away</strong> for {} s: operations fail fast", time.as_secs()));
        }
        format!("<dl>{facts}</dl>")
    }
}

fn story(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "<p class=hint>Nothing yet.</p>".to_owned();
    }
    let steps: String = steps.iter().map(step).collect();
    format!("<ol class=steps reversed>{steps}</ol>")
}

fn step(step: &Step) -> String {
    let events: String = step.events.iter().map(event).collect();
    let operations: String = step.operations.iter().map(operation).collect();
    let cookie = if step.cookie.is_some() { "<li>The response sets the cookie.</li>" } else { "" };
    let took: Duration = step.operations.iter().map(|operation| operation.duration).sum();
    let gist = match step.operations.len() {
        0 => "Nothing to ask the store".to_owned(),
        1 => format!("1 operation, {}", milliseconds(took)),
        count => format!("{count} operations, {}", milliseconds(took)),
    };
    format!(
        "<li><p class=request><code>{}</code> <span>{}</span></p><p class=hint>{gist}</p>\
         <ul>{operations}{events}{cookie}</ul>",
        escape(&step.request),
        step.status
    )
}

fn operation(operation: &Operation) -> String {
    let outcome = match operation.outcome {
        OperationOutcome::Done => String::new(),
        OperationOutcome::Failed(kind) => format!(" <strong>failed: {kind}</strong>"),
        other => format!(" <strong>{}</strong>", other.as_str()),
    };
    let size = operation.payload.map(|bytes| format!(", {bytes} bytes")).unwrap_or_default();
    let name = operation.kind.as_str().replace('_', " ");
    format!("<li><code>{name}</code> {}{size}{outcome}</li>", milliseconds(operation.duration))
}

fn event(event: &Event) -> String {
    let text = match *event {
        Event::Created(handle) => format!("New session <code>{}…</code>", short(handle)),
        Event::Renewed(from, to) => format!("New id: <code>{}…</code> became <code>{}…</code>", short(from), short(to)),
        Event::Ended(1, why) => format!("A session ended: {}", why.replace('_', " ")),
        Event::Ended(sessions, why) => format!("{sessions} sessions ended: {}", why.replace('_', " ")),
        Event::Conflict(resolution, attempts) => format!("Another request was first, {attempts}×: {resolution}"),
    };
    format!("<li class=event>{text}</li>")
}

/// The stored session as it is in Redis, or why it cannot be shown.
fn json(stored: &Result<Option<Stored>, Error>) -> String {
    let text = match stored {
        Ok(Some(stored)) => match serde_json::from_slice::<Value>(&stored.payload) {
            Ok(value) => format!("{value:#}"),
            Err(_) => "It is no JSON.".to_owned(),
        },
        Ok(None) => "There is none.".to_owned(),
        Err(error) => error.to_string(),
    };
    format!("<h3>The stored session</h3><pre tabindex=0 aria-label=\"The stored session\">{}</pre>", escape(&text))
}
