//! The subject of the faults: a server with its stores, and an operation on a session.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use threaded_sessions::redis::{self, RedisError, Value};
use threaded_sessions::store::{Bind, Created, Found, Saved, Touch, Version, Write};
use threaded_sessions::{Error, RedisConnectionManager, RedisPool, RedisSessionStore, SessionId, SessionStore};

use crate::support::{PATIENCE, Proxy, RedisServer};

const HOUR: Duration = Duration::from_secs(3600);

/// Of stores that a hanging server is to keep waiting. All others wait for [`PATIENCE`], or rather do not.
pub(super) const SHORT: Duration = Duration::from_millis(250);

pub(super) const PASSWORD: &str = "s3cr3t";
pub(super) const PRINCIPAL: &str = "ada";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op {
    Read,
    Touch,
    Create,
    Save,
    SaveIfUnchanged,
    Rotate,
    Delete,
}

pub(super) const OPS: [Op; 7] =
    [Op::Read, Op::Touch, Op::Create, Op::Save, Op::SaveIfUnchanged, Op::Rotate, Op::Delete];

/// A server, a store on it that meets with the fault, and one that does not.
pub(super) struct Rig {
    pub(super) server: RedisServer,
    pub(super) proxy: Proxy,
    pub(super) store: RedisSessionStore,
    /// Where the host of the store leads to.
    pub(super) addresses: Arc<Mutex<Vec<SocketAddr>>>,
    /// Proxies that must live as long as the rig.
    pub(super) kept: Mutex<Vec<Proxy>>,
    pub(super) admin: RedisSessionStore,
    pub(super) bystander: SessionId,
}

pub(super) struct Setting {
    pub(super) args: &'static [&'static str],
    pub(super) deadline: Duration,
    pub(super) proxied: bool,
    /// The store's.
    pub(super) password: &'static str,
    /// After this time the store tests an idle connection.
    pub(super) idle: Duration,
    /// The most that the store opens.
    pub(super) connections: u32,
}

pub(super) const PLAIN: Setting =
    Setting { args: &[], deadline: PATIENCE, proxied: false, password: "", idle: PATIENCE, connections: 64 };
pub(super) const PROXIED: Setting = Setting { proxied: true, ..PLAIN };
pub(super) const KEEPS: Setting = Setting { args: &["--appendonly", "yes", "--appendfsync", "always"], ..PLAIN };
/// For faults that take a part of the deadline.
pub(super) const PARTLY: Setting = Setting { deadline: Duration::from_secs(2), ..PROXIED };
pub(super) const WAITS: Setting = Setting { deadline: SHORT, ..PLAIN };

impl Rig {
    pub(super) fn new(setting: &Setting, expiring: bool) -> Self {
        // The administrator can do everything, whatever is done to the others.
        let root = ["--user", "root", "on", ">root", "~*", "&*", "+@all"];
        let server = RedisServer::with(&[&root, setting.args].concat());
        let proxy = Proxy::start(&server);
        let open = |manager: RedisConnectionManager, deadline| {
            let pool = RedisPool::with_size(manager.with_deadline(deadline).unwrap(), setting.connections).unwrap();
            let builder = RedisSessionStore::builder().pool(pool).prefix("{faults}");
            if expiring { builder.expiring() } else { builder }.build().unwrap()
        };
        let manager = |login: &str| {
            RedisConnectionManager::open(&format!("redis://{login}@127.0.0.1:{}", server.port())).unwrap()
        };
        let direct = SocketAddr::from(([127, 0, 0, 1], server.port()));
        let addresses = Arc::new(Mutex::new(vec![if setting.proxied { proxy.address() } else { direct }]));
        let resolver = {
            let addresses = addresses.clone();
            Arc::new(move |_: &str, _: u16| Ok(addresses.lock().unwrap().clone()))
        };
        let store = manager(&format!(":{}", setting.password)).with_test_seams(Some(resolver), setting.idle);
        let store = open(store, setting.deadline);
        let admin = open(manager("root:root"), PATIENCE);
        let bystander = admin.fresh_id(None);
        assert!(matches!(admin.create(&bystander, write(&admin, "bystander")), Ok(Created::Stored(_))));
        Self { server, proxy, store, addresses, kept: Mutex::default(), admin, bystander }
    }

    /// Runs a command that does no harm twice: the connection may be one that was killed with others.
    pub(super) fn cmd(&self, command: &[&str]) -> Value {
        let run = || {
            let mut connection = self.admin.pool().get().unwrap();
            redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
        };
        run().or_else(|error: RedisError| if error.is_connection_dropped() { run() } else { Err(error) }).unwrap()
    }

    pub(super) fn kill_clients(&self) {
        self.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
    }

    pub(super) fn serves(&self) -> bool {
        self.store.read(&self.bystander, Touch::No).is_ok()
    }

    /// Returns the payload of `id` in Redis. Panics if the session is not complete.
    pub(super) fn payload(&self, id: &SessionId) -> Option<Vec<u8>> {
        let (key, found) = (self.admin.key(id), self.admin.read(id, Touch::No).unwrap());
        let payload = match &found {
            Found::Live(stored) => Some(stored.payload.to_vec()),
            Found::Renewed | Found::Ended(_) | Found::Absent => None,
        };
        let left = self.cmd(&["PTTL", &key]);
        assert_eq!(matches!(left, Value::Int(1..)), payload.is_some(), "half a session: {found:?}, {left:?}");
        if let Some(index) = self.admin.index() {
            let entry = self.cmd(&["ZSCORE", "{faults}:index", &key]);
            let owned =
                index.list_by_principal(PRINCIPAL).unwrap().iter().any(|entry| entry.handle == self.admin.handle(id));
            assert_eq!((entry != Value::Nil, owned), (payload.is_some(), payload.is_some()), "half a session");
        }
        payload
    }
}

/// The payload, and a principal whom it belongs to if the store knows such.
pub(super) fn write<'a>(store: &RedisSessionStore, payload: &'a str) -> Write<'a> {
    let bind = store.index().map_or(Bind::Keep, |_| Bind::To { principal: PRINCIPAL, cap: Some(1000) });
    Write::new(payload.as_bytes(), HOUR).with_bind(bind)
}

/// The session of an operation, and the payload that the operation must leave.
pub(super) struct Subject {
    pub(super) op: Op,
    pub(super) id: SessionId,
    /// The id that it has after it was renewed.
    pub(super) new: SessionId,
    pub(super) version: Option<Version>,
    pub(super) before: String,
    pub(super) after: String,
}

pub(super) type Sessions = (Option<Vec<u8>>, Option<Vec<u8>>);

impl Subject {
    /// No session.
    pub(super) fn absent(op: Op) -> Self {
        let (id, new) = (SessionId::random(), SessionId::random());
        let payload = |when| format!("{op:?}, {when}, of {}", id.expose());
        Self { op, id, new, version: None, before: payload("before"), after: payload("after") }
    }

    pub(super) fn prepare(rig: &Rig, op: Op) -> Self {
        let subject = Self::absent(op);
        if op == Op::Create {
            return subject;
        }
        let created = rig.admin.create(&subject.id, write(&rig.admin, &subject.before)).unwrap();
        let Created::Stored(version) = created else { panic!("{created:?}") };
        Self { version: Some(version), ..subject }
    }

    /// Runs the operation. `lives` is `true` if the session is live, because the result can depend on it.
    pub(super) fn run(&self, store: &RedisSessionStore, lives: bool) -> Result<(), Error> {
        let write = write(store, &self.after);
        let is_right = match self.op {
            Op::Read | Op::Touch => {
                let touch = if self.op == Op::Touch { Touch::Set(HOUR) } else { Touch::No };
                match store.read(&self.id, touch)? {
                    Found::Live(stored) => lives && *stored.payload == *self.before.as_bytes(),
                    Found::Absent => !lives,
                    Found::Renewed | Found::Ended(_) => false,
                }
            }
            Op::Create => matches!(store.create(&self.id, write)?, Created::Stored(_)),
            Op::Delete => {
                // At the second attempt there may be none any more.
                let _ = store.delete(&self.id)?;
                true
            }
            Op::Save | Op::SaveIfUnchanged | Op::Rotate => {
                let saved = match self.op {
                    Op::Save => store.save(&self.id, write, None),
                    Op::SaveIfUnchanged => store.save(&self.id, write, self.version.as_ref()),
                    _ => store.rotate(&self.id, &self.new, write, self.version.as_ref()),
                };
                matches!((saved?, lives), (Saved::Stored(_), true) | (Saved::Missing, false))
            }
        };
        assert!(is_right, "{:?} returned a false result", self.op);
        Ok(())
    }

    /// The sessions in Redis if the operation did not happen, and if it did.
    pub(super) fn outcomes(&self, lives: bool) -> (Sessions, Sessions) {
        let payload = |text: &String| Some(text.as_bytes().to_vec());
        let undone = (if lives && self.op != Op::Create { payload(&self.before) } else { None }, None);
        let done = match self.op {
            Op::Create => (payload(&self.after), None),
            _ if !lives => (None, None),
            Op::Read | Op::Touch => undone.clone(),
            Op::Save | Op::SaveIfUnchanged => (payload(&self.after), None),
            Op::Rotate => (None, payload(&self.after)),
            Op::Delete => (None, None),
        };
        (undone, done)
    }
}
