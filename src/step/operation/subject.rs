//! The session that an operation or a payload belongs to.
//!
//! Operations carry a [`Subject`], and steps get one to restore a payload. A subject without an id always has a handle; the
//! handle of a known id is computed at the first use only.

use std::cell::OnceCell;
use std::fmt;

use crate::store::SessionStore;
use crate::{Handle, SessionId};

/// The session that an operation, or a payload, belongs to.
pub struct Subject<'a> {
    store: &'a dyn SessionStore,
    id: Option<SessionId>,
    handle: OnceCell<Handle>,
}

impl<'a> Subject<'a> {
    pub(super) fn known(store: &'a dyn SessionStore, id: &SessionId) -> Self {
        Self { store, id: Some(*id), handle: OnceCell::new() }
    }

    /// Creates a subject of which only the handle is known.
    pub(in crate::step) fn shown(store: &'a dyn SessionStore, handle: Handle) -> Self {
        Self { store, id: None, handle: OnceCell::from(handle) }
    }

    /// Returns the id of the session; `None` for a session that was reaped or listed, which has only a handle.
    pub fn id(&self) -> Option<&SessionId> {
        self.id.as_ref()
    }

    /// Returns the handle of the session, the hash of its key.
    pub fn handle(&self) -> Handle {
        *self.handle.get_or_init(|| {
            let id = self.id.as_ref().expect("without an id there is a handle");
            self.store.handle(id)
        })
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.handle())
    }
}
