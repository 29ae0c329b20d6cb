//! A flash value: set by one page, shown by the next one, and gone.
//!
//! Applications use it as a field of their session value. It is a plain value without I/O: the session that holds it is stored
//! by the rules of every other change, so an empty flash that is taken stores nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value for the next page, such as the message "Saved." after a form, as a field of your session value.
///
/// A handler [sets](Self::set) it, and the next page [takes](Self::take) it once. The payload holds it as the value itself, or as
/// `null`. Give the field `#[serde(default)]`, so that sessions from before the field can still be read. For several messages,
/// use a `Flash<Vec<V>>`. An `Option` as `V` is not useful, because a stored `None` is read back as an empty
/// flash.
///
/// # Parallel pages
///
/// Two pages that are open at the same time may both show the value, because each takes it from its own copy of the session. A
/// value that another request sets in between may be removed with it. To take each value exactly once, take it with
/// [`update_in`](crate::SessionManager::update_in), which stores at once and takes from the latest version. It costs a command, so
/// look first:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use threaded_sessions::{Flash, MemorySessionStore, Result, Session, SessionManager};
/// # #[derive(Default, Deserialize, Serialize)]
/// # struct Visit { message: Flash<String> }
/// fn message(sessions: &SessionManager<Visit>, visit: &mut Session<Visit>) -> Result<Option<String>> {
///     if !visit.message.is_set() {
///         return Ok(None);
///     }
///     Ok(sessions.update_in(visit, |visit| visit.message.take())?.flatten())
/// }
/// # let sessions = SessionManager::<Visit>::new(MemorySessionStore::new());
/// # let mut visit = sessions.fresh();
/// # visit.message.set("Saved.".into());
/// # assert_eq!(message(&sessions, &mut visit)?.as_deref(), Some("Saved."));
/// # assert_eq!(message(&sessions, &mut visit)?, None);
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use threaded_sessions::{Flash, MemorySessionStore, SessionManager};
///
/// #[derive(Default, Deserialize, Serialize)]
/// #[serde(default)]
/// struct Visit {
///     message: Flash<String>,
/// }
///
/// let sessions = SessionManager::<Visit>::new(MemorySessionStore::new());
/// let mut form = sessions.open(None)?;
/// form.message.set("Saved.".to_owned());
/// let id = *sessions.commit(form)?.id().expect("it is stored");
///
/// for shown in [Some("Saved."), None] {
///     let mut page = sessions.open_id(&id)?.expect("it lives");
///     assert_eq!(page.message.take().as_deref(), shown);
///     let _ = sessions.commit(page)?;
/// }
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(alias("message", "messages"))]
pub struct Flash<V>(Option<V>);

impl<V> Flash<V> {
    /// Sets the value. It replaces a value that was not taken.
    #[doc(alias("Put", "add_message"))]
    pub fn set(&mut self, value: V) {
        self.0 = Some(value);
    }

    /// Returns the value and removes it.
    #[doc(alias = "Pop")]
    pub fn take(&mut self) -> Option<V> {
        self.0.take()
    }

    /// Returns the value, and keeps it for the next page.
    pub fn peek(&self) -> Option<&V> {
        self.0.as_ref()
    }

    /// Returns `true` if there is a value.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

/// An empty flash.
impl<V> Default for Flash<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> From<V> for Flash<V> {
    fn from(value: V) -> Self {
        Self(Some(value))
    }
}

/// Hides the value, because it may be secret.
impl<V> fmt::Debug for Flash<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Flash(..)" } else { "Flash(empty)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemorySessionStore, Outcome, Session, SessionId, SessionManager};

    #[derive(Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Visit {
        message: Flash<String>,
        pages: u32,
    }

    struct World(SessionManager<Visit>, SessionId);

    impl World {
        fn with_message(message: &str) -> Self {
            let sessions = SessionManager::new(MemorySessionStore::new());
            let mut session: Session<Visit> = sessions.fresh();
            session.message.set(message.to_owned());
            let id = *sessions.commit(session).unwrap().id().unwrap();
            Self(sessions, id)
        }

        fn open(&self) -> Session<Visit> {
            self.0.open_id(&self.1).unwrap().unwrap()
        }

        fn commit(&self, session: Session<Visit>) -> Outcome {
            self.0.commit(session).unwrap().outcome()
        }
    }

    #[test]
    fn value_is_taken_once() {
        let world = World::with_message("Saved.");
        let page = world.open();
        assert_eq!(page.message.peek().map(String::as_str), Some("Saved."));
        assert_eq!(world.commit(page), Outcome::Unchanged);

        let mut page = world.open();
        assert_eq!(page.message.take().as_deref(), Some("Saved."));
        assert_eq!(page.message.take(), None);
        assert_eq!(world.commit(page), Outcome::Stored);

        let mut page = world.open();
        assert_eq!((page.message.is_set(), page.message.take()), (false, None));
        assert_eq!(world.commit(page), Outcome::Unchanged, "an empty flash stores nothing");
    }

    #[test]
    fn parallel_pages_take_both_unless_updated() {
        let world = World::with_message("Saved.");
        let (mut one, mut other) = (world.open(), world.open());
        assert!(one.message.take().is_some() && other.message.take().is_some());
        other.pages += 1;
        assert_eq!((world.commit(one), world.commit(other)), (Outcome::Stored, Outcome::Stored));
        assert_eq!((world.open().message.is_set(), world.open().pages), (false, 1));

        let world = World::with_message("Saved.");
        let taken = [world.open(), world.open()]
            .map(|mut page| world.0.update_in(&mut page, |visit| visit.message.take()).unwrap().unwrap());
        assert_eq!(taken, [Some("Saved.".to_owned()), None]);
    }

    #[test]
    fn message_survives_logout_by_reset() {
        let world = World::with_message("old");
        let mut logout = world.open();
        logout.reset();
        assert!(!logout.message.is_set());
        logout.message.set("You are signed out.".to_owned());
        let id = *world.0.commit(logout).unwrap().id().unwrap();
        assert!(world.0.open_id(&world.1).unwrap().is_none());
        let mut page = world.0.open_id(&id).unwrap().unwrap();
        assert_eq!(page.message.take().as_deref(), Some("You are signed out."));
    }

    #[test]
    fn older_payload_has_empty_flash() {
        let visit: Visit = serde_json::from_str(r#"{"pages":1}"#).unwrap();
        assert!(!visit.message.is_set());
        let visit = Visit { message: "Saved.".to_owned().into(), pages: 1 };
        assert_eq!(serde_json::to_string(&visit).unwrap(), r#"{"message":"Saved.","pages":1}"#);
        assert_eq!(serde_json::to_string(&Visit::default()).unwrap(), r#"{"message":null,"pages":0}"#);
    }

    #[test]
    fn debug_hides_the_value() {
        assert_eq!(format!("{:?} {:?}", Flash::from("secret"), Flash::<u32>::default()), "Flash(..) Flash(empty)");
    }
}
