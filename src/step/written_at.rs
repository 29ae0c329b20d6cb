//! The step [`WrittenAt`], which records when each session was last written.
//!
//! Applications add it to a [`StepStore`](crate::StepStore). The time is a companion, so it is written in the same command as its
//! session and ends with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Next, Step, WriteOperation, Written};
use crate::{Clock, Error, ErrorKind, Result, SessionId, SessionStore, operation};

/// The suffix of the companion, as in rrss.
const COMPANION_SUFFIX: &str = "written-at";

/// A step that keeps the time of the last write of each session (rrss `time-sessions-step`).
///
/// The time is a companion `written-at`: milliseconds since 1970, as text. It costs no command, and ends with the session,
/// whatever ends the session.
///
/// # Examples
///
/// ```
/// use threaded_sessions::step::WrittenAt;
/// use threaded_sessions::{MemorySessionStore, SessionManager, StepStore};
///
/// let store = StepStore::builder(MemorySessionStore::new()).step(WrittenAt::new()).build()?;
/// let sessions = SessionManager::<u32>::new(store);
/// let mut session = sessions.fresh();
/// *session += 1;
/// let committed = sessions.commit(session)?;
///
/// let id = committed.id().expect("the session is stored");
/// assert!(WrittenAt::of(sessions.store(), id)?.is_some());
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WrittenAt {
    clock: Clock,
}

impl WrittenAt {
    /// Creates the step, on the system's clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock. Defaults to the system's.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock }
    }

    /// Returns when a session was last written, in one round trip.
    ///
    /// `None` means that there is no such session, or that the session was written without this step.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`] if the store keeps no companions.
    /// - Returns [`ErrorKind::Payload`] if the companion holds something else.
    /// - Returns another error if the store cannot be reached.
    pub fn of(store: &dyn SessionStore, id: &SessionId) -> Result<Option<SystemTime>> {
        let Some(value) = store.companion(id, COMPANION_SUFFIX)? else { return Ok(None) };
        let millis = str::from_utf8(&value).ok().and_then(|millis| millis.parse().ok());
        let time = millis.and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
        match time {
            Some(time) => Ok(Some(time)),
            None => Err(Error::new(ErrorKind::Payload, operation::READ_WRITTEN_AT)
                .with_source("the companion `written-at` is not a time")),
        }
    }
}

impl Step for WrittenAt {
    fn companions(&self) -> Vec<String> {
        vec![COMPANION_SUFFIX.to_owned()]
    }

    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        operation.set_companion(COMPANION_SUFFIX, now.to_string());
        next.write(operation)
    }
}
