//! The story of each visitor: what their last requests did to their session.
//!
//! The route records each request. The events come from the manager's [`Observer`], whose methods run in the thread of the
//! request. Invariant: a story names sessions by their handles, and never holds an id.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rouille::{Request, Response, input};
use threaded_sessions::observer::{
    Conflict, Ended, ObservedSession, Operation, OperationKind, OperationOutcome, Resolution,
};
use threaded_sessions::{ErrorKind, Handle, Observer, SessionId};

use crate::common::Sessions;

/// How many visitors have a story. The one who came first loses it.
const MAX_STORIES: usize = 200;

/// How many requests a story has.
const MAX_STEPS: usize = 12;

thread_local! {
    /// The request that this thread serves.
    static STEP: RefCell<Option<Step>> = const { RefCell::new(None) };
}

/// The record of one request.
#[derive(Clone, Default)]
pub(crate) struct Step {
    /// Method and path.
    pub(crate) request: String,
    pub(crate) status: u16,
    pub(crate) operations: Vec<Operation>,
    pub(crate) events: Vec<Event>,
    /// The cookie that the response set, without its value.
    pub(crate) cookie: Option<String>,
}

#[derive(Clone)]
pub(crate) enum Event {
    Created(Handle),
    Renewed(Handle, Handle),
    /// How many sessions, and why.
    Ended(u64, &'static str),
    /// How often other requests were first.
    Conflict(&'static str, u32),
}

impl Step {
    /// How often other requests were first, and this one applied its change to theirs.
    pub(crate) fn merges(&self) -> u32 {
        let merged = |event: &Event| match event {
            Event::Conflict(resolution, attempts) if *resolution == Resolution::Merged.as_str() => *attempts,
            _ => 0,
        };
        self.events.iter().map(merged).sum()
    }
}

/// The changes of a request until it failed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Changed {
    Nothing,
    Something,
    /// A change was sent, and there was no reply.
    Unknown,
}

/// Returns what the request of this thread has changed so far.
pub(crate) fn changed() -> Changed {
    STEP.with_borrow(|step| {
        let writes = step.iter().flat_map(|step| &step.operations).filter(|operation| is_write(operation.kind));
        writes.fold(Changed::Nothing, |changed, operation| match operation.outcome {
            OperationOutcome::Failed(ErrorKind::MayHaveHappened) => Changed::Unknown,
            OperationOutcome::Done if changed == Changed::Nothing => Changed::Something,
            _ => changed,
        })
    })
}

fn is_write(kind: OperationKind) -> bool {
    use OperationKind::{Create, Delete, End, EndEverybody, EndKeys, Rotate, Save};
    matches!(kind, Create | Delete | End | EndEverybody | EndKeys | Rotate | Save)
}

/// The observer of the manager.
pub(crate) struct Recorder;

impl Observer for Recorder {
    fn on_operation(&self, operation: &Operation) {
        add(|step| step.operations.push(operation.clone()));
    }

    fn on_created(&self, session: &ObservedSession<'_>) {
        add(|step| step.events.push(Event::Created(session.handle())));
    }

    fn on_renewed(&self, from: &ObservedSession<'_>, to: &ObservedSession<'_>) {
        add(|step| step.events.push(Event::Renewed(from.handle(), to.handle())));
    }

    fn on_ended(&self, ended: &Ended<'_>) {
        add(|step| step.events.push(Event::Ended(ended.sessions, ended.reason.as_str())));
    }

    fn on_conflict(&self, conflict: &Conflict) {
        add(|step| step.events.push(Event::Conflict(conflict.resolution.as_str(), conflict.attempts)));
    }
}

/// Adds to the request of this thread, if it is recorded.
fn add(event: impl FnOnce(&mut Step)) {
    STEP.with_borrow_mut(|step| step.as_mut().map(event));
}

/// The stories of the visitors, by the handle of their session.
#[derive(Default)]
pub(crate) struct Stories(Mutex<VecDeque<(Handle, VecDeque<Step>)>>);

impl Stories {
    /// Serves a request, and adds what happened to the story of its visitor.
    pub(crate) fn record(&self, sessions: &Sessions, request: &Request, serve: impl FnOnce() -> Response) -> Response {
        let before = self.visitor(sessions, request).map(|(_, handle)| handle);
        let name = format!("{} {}", request.method(), request.url());
        STEP.set(Some(Step { request: name, ..Step::default() }));
        let response = serve();
        let mut step = STEP.take().unwrap_or_default();
        step.status = response.status_code;
        let cookie =
            response.headers.iter().find(|(name, _)| name == "Set-Cookie").and_then(|(_, set)| set.split_once('='));
        let mut after = before;
        if let Some((name, set)) = cookie {
            let (id, attributes) = set.split_once(';').unwrap_or((set, ""));
            step.cookie = Some(format!("{name}=…;{attributes}"));
            after = id.parse().ok().map(|id| sessions.store().handle(&id)).or(before);
        }
        if let Some(after) = after {
            self.add(before, after, step);
        }
        response
    }

    /// Adds a step. The story follows its visitor to a new session.
    fn add(&self, before: Option<Handle>, after: Handle, step: Step) {
        let mut stories = self.stories();
        let position = stories.iter().position(|(handle, _)| *handle == after || Some(*handle) == before);
        let (_, mut steps) = position.and_then(|at| stories.remove(at)).unwrap_or((after, VecDeque::new()));
        steps.push_front(step);
        steps.truncate(MAX_STEPS);
        stories.push_front((after, steps));
        stories.truncate(MAX_STORIES);
    }

    /// Returns the requests of a visitor, the last one first.
    pub(crate) fn of(&self, handle: Handle) -> Vec<Step> {
        let stories = self.stories();
        let story = stories.iter().find(|(other, _)| *other == handle);
        story.map(|(_, steps)| steps.iter().cloned().collect()).unwrap_or_default()
    }

    /// Returns the session of a request without asking the store: that with a story, if other programs have similar cookies.
    pub(crate) fn visitor(&self, sessions: &Sessions, request: &Request) -> Option<(SessionId, Handle)> {
        let stories = self.stories();
        let ids = input::cookies(request).filter_map(|(_, value)| value.parse().ok());
        let mut visitors = ids.map(|id: SessionId| (id, sessions.store().handle(&id))).peekable();
        let first = visitors.peek().copied();
        visitors.find(|(_, handle)| stories.iter().any(|(known, _)| known == handle)).or(first)
    }

    fn stories(&self) -> MutexGuard<'_, VecDeque<(Handle, VecDeque<Step>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
