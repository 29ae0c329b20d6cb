//! actix-session: its Redis store on the one shared connection that its documentation shows, and tasks as clients.
//!
//! A session of the middleware is bound to a request. So this file calls the store as the middleware does, and encodes and
//! decodes values as `Session::insert` and `Session::get` do.

use std::collections::HashMap;
use std::time::Duration;

use actix_session::storage::{RedisSessionStore, SessionKey, SessionStore};
use actix_web::cookie::time;
use tokio::runtime::Runtime;

use super::{Library, Operation, Values, WEEK, at_once, keys};
use crate::measure::Load;

type State = HashMap<String, String>;

pub(crate) struct Actix {
    runtime: Runtime,
    store: RedisSessionStore,
}

impl Actix {
    pub(crate) fn new(url: &str) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let store = runtime.block_on(RedisSessionStore::new(url)).expect("Redis responds");
        Self { runtime, store }
    }
}

impl Library for Actix {
    fn turn(&self, operation: Operation, load: Load) -> Duration {
        let jobs = (0..load.threads).map(|_| {
            let prepared = self.runtime.block_on(prepare(&self.store, operation, load.each));
            work(self.store.clone(), operation, prepared, keys())
        });
        let jobs = jobs.collect();
        at_once(&self.runtime, jobs)
    }
}

fn ttl() -> time::Duration {
    WEEK.try_into().expect("a week is short")
}

/// The values as a handler inserts them.
fn state(values: &Values) -> State {
    let encode = |value| serde_json::to_string(value).expect("it can be encoded");
    values.iter().map(|(key, value)| (key.clone(), encode(value))).collect()
}

fn count(state: &State) -> u64 {
    serde_json::from_str(&state["count"]).expect("it was encoded")
}

async fn load(store: &RedisSessionStore, key: &SessionKey) -> State {
    store.load(key).await.expect("Redis responds").expect("it is live")
}

/// What a client has before the clock starts: stored keys, and the state that a save changes.
async fn prepare(store: &RedisSessionStore, operation: Operation, times: usize) -> Vec<(Option<SessionKey>, State)> {
    let mut prepared = Vec::new();
    for _ in 0..times {
        prepared.push(match operation {
            Operation::Create => (None, State::new()),
            _ => {
                let key = store.save(state(&keys()), &ttl()).await.expect("Redis responds");
                let state = if operation == Operation::Save { load(store, &key).await } else { State::new() };
                (Some(key), state)
            }
        });
    }
    prepared
}

async fn work(
    store: RedisSessionStore,
    operation: Operation,
    prepared: Vec<(Option<SessionKey>, State)>,
    values: Values,
) {
    let ttl = ttl();
    for (key, mut changed) in prepared {
        let Some(key) = key else {
            store.save(state(&values), &ttl).await.expect("Redis responds");
            continue;
        };
        if operation == Operation::Save {
            let next = count(&changed) + 1;
            changed.insert("count".to_owned(), serde_json::to_string(&next).expect("it can be encoded"));
            store.update(key, changed, &ttl).await.expect("Redis responds");
            continue;
        }
        assert_eq!(count(&load(&store, &key).await), 1);
        if operation == Operation::Touch {
            store.update_ttl(&key, &ttl).await.expect("Redis responds");
        }
    }
}
