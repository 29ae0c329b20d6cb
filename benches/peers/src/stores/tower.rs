//! tower-sessions: its `Session` and its Redis store on the pool of six shared connections that its documentation shows, and
//! tasks as clients.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tower_sessions::{Expiry, Session};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

use super::{Library, Operation, Values, WEEK, at_once, keys};
use crate::measure::Load;

type Store = Arc<RedisStore<Pool>>;

pub(crate) struct Tower {
    runtime: Runtime,
    store: Store,
}

impl Tower {
    pub(crate) fn new(url: &str) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let store = Arc::new(runtime.block_on(connect(url)));
        Self { runtime, store }
    }
}

/// A store as the README of the crate sets it up.
pub(crate) async fn connect(url: &str) -> RedisStore<Pool> {
    let config = Config::from_url(url).expect("the server's own URL");
    let pool = Pool::new(config, None, None, None, 6).expect("the settings are valid");
    pool.connect();
    pool.wait_for_connect().await.expect("Redis responds");
    RedisStore::new(pool)
}

pub(crate) fn expiry() -> Expiry {
    Expiry::OnInactivity(WEEK.try_into().expect("a week is short"))
}

impl Library for Tower {
    fn turn(&self, operation: Operation, load: Load) -> Duration {
        let jobs = (0..load.threads).map(|_| {
            let prepared = self.runtime.block_on(prepare(&self.store, operation, load.each));
            work(operation, prepared, keys())
        });
        let jobs = jobs.collect();
        at_once(&self.runtime, jobs)
    }
}

async fn fill(session: &Session, values: &Values) {
    for (key, value) in values {
        session.insert(key, value).await.expect("a new session needs no store");
    }
    session.save().await.expect("Redis responds");
}

async fn count(session: &Session) -> u64 {
    session.get("count").await.expect("Redis responds").expect("it is live")
}

/// What a client has before the clock starts: sessions that are new, or stored and not yet read, or read for a save.
async fn prepare(store: &Store, operation: Operation, times: usize) -> Vec<Session> {
    let session = |id| Session::new(id, store.clone(), Some(expiry()));
    let mut prepared = Vec::new();
    for _ in 0..times {
        let mut prepare = session(None);
        if operation != Operation::Create {
            fill(&prepare, &keys()).await;
            prepare = session(prepare.id());
        }
        if operation == Operation::Save {
            count(&prepare).await;
        }
        prepared.push(prepare);
    }
    prepared
}

async fn work(operation: Operation, prepared: Vec<Session>, values: Values) {
    for session in prepared {
        if operation == Operation::Create {
            fill(&session, &values).await;
            continue;
        }
        let count = count(&session).await;
        assert_eq!(count, 1);
        match operation {
            Operation::Save => {
                session.insert("count", count + 1).await.expect("it is read");
                session.save().await.expect("Redis responds");
            }
            // What the middleware does with `always_save`, because the store has no command for a new deadline alone.
            Operation::Touch => session.save().await.expect("Redis responds"),
            _ => {}
        }
    }
}
