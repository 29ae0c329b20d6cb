//! This crate: a plain Redis store with its defaults, and threads as clients.

use std::time::Duration;

use threaded_sessions::{Outcome, RedisSessionStore, SessionId, SessionManager};

use super::{Library, Operation};
use crate::measure::{Act, Load, batch};
use crate::visit::Visit;

pub(crate) struct Own {
    /// The default: a read also begins the idle timeout anew.
    touching: SessionManager<Visit>,
    reading: SessionManager<Visit>,
}

impl Own {
    pub(crate) fn new(url: &str) -> Self {
        let store = || RedisSessionStore::open(url).expect("the server's own URL");
        let reading = SessionManager::builder(store()).touch_on_read(false).build();
        Self { touching: SessionManager::new(store()), reading: reading.expect("the settings are valid") }
    }

    fn stored(&self) -> SessionId {
        let mut session = self.touching.fresh();
        *session = Visit::ordinary();
        *self.touching.commit(session).expect("Redis responds").id().expect("it is stored")
    }

    fn act(&self, operation: Operation, times: usize) -> Act<'_> {
        match operation {
            Operation::Read => self.reads(&self.reading, times),
            Operation::Touch => self.reads(&self.touching, times),
            Operation::Save => self.saves(times),
            Operation::Create => self.creates(times),
        }
    }

    fn reads<'a>(&self, sessions: &'a SessionManager<Visit>, times: usize) -> Act<'a> {
        let mut ids = (0..times).map(|_| self.stored()).collect::<Vec<_>>().into_iter();
        Box::new(move || {
            let id = ids.next().expect("one for each time");
            let session = sessions.open_id(&id).expect("Redis responds").expect("it is live");
            assert_eq!(session.count, 1);
        })
    }

    fn saves(&self, times: usize) -> Act<'_> {
        let open = |_| self.touching.open_id(&self.stored()).expect("Redis responds").expect("it is live");
        let mut opened = (0..times).map(open).collect::<Vec<_>>().into_iter();
        Box::new(move || {
            let mut session = opened.next().expect("one for each time");
            session.count += 1;
            let committed = self.touching.commit(session).expect("Redis responds");
            assert_eq!(committed.outcome(), Outcome::Stored);
        })
    }

    fn creates(&self, times: usize) -> Act<'_> {
        let fresh = |_| (self.touching.fresh(), Visit::ordinary());
        let mut fresh = (0..times).map(fresh).collect::<Vec<_>>().into_iter();
        Box::new(move || {
            let (mut session, visit) = fresh.next().expect("one for each time");
            *session = visit;
            let committed = self.touching.commit(session).expect("Redis responds");
            assert_eq!(committed.outcome(), Outcome::Stored);
        })
    }
}

impl Library for Own {
    fn turn(&self, operation: Operation, load: Load) -> Duration {
        let acts = (0..load.threads).map(|_| self.act(operation, load.each)).collect();
        batch(acts, load.each, &mut Vec::new())
    }
}
