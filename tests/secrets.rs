//! Ids, values and passwords are secrets.

mod support;

use std::error::Error;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use support::{PATIENCE, RedisServer};
use threaded_sessions::store::Touch;
use threaded_sessions::{
    Attributes, MemorySessionStore, RedisSessionStore, Result, SessionId, SessionManager, SessionStore, Unreadable,
};

#[test]
fn row_32_no_secret_is_in_a_log_an_error_or_a_debug_text() {
    static LOG: Log = Log(Mutex::new(Vec::new()));
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = RedisServer::with(&["--requirepass", "secret-password"]);
    let redis = || {
        let builder = RedisSessionStore::builder().deadline(PATIENCE);
        builder.url(format!("redis://:secret-password@127.0.0.1:{}", server.port()))
    };
    LOG.tell(redis());
    let stores: [Arc<dyn SessionStore>; 3] = [
        Arc::new(redis().build().unwrap()),
        Arc::new(redis().prefix("expiring").expiring().build().unwrap()),
        Arc::new(MemorySessionStore::new()),
    ];
    let mut ids = Vec::new();
    for store in &stores {
        let settings = SessionManager::<Attributes>::builder(store.clone()).max_payload(200);
        LOG.tell(&settings);
        let sessions = settings.build().unwrap();
        let commit = |session| {
            let result = sessions.commit(session);
            LOG.tell_result(&result);
            result.ok().and_then(|committed| committed.id().copied())
        };
        let mut session = sessions.fresh();
        session.insert("secret-name", "secret-value").unwrap();
        let id = commit(session).expect("it is stored");
        let open = || sessions.open([&*format!("__Host-session={}", id.expose())]).unwrap();
        let (mut renewed, mut late, mut too_large) = (open(), open(), open());
        LOG.tell((&sessions, &renewed, &id, store.handle(&id), store.read(&id, Touch::No)));
        // The payload is of another type.
        let numbers = || SessionManager::<u32>::builder(store.clone());
        LOG.tell_result(&numbers().build().unwrap().open_id(&id));
        LOG.tell_result(&numbers().unreadable(Unreadable::StartFresh).build().unwrap().open_id(&id));
        too_large.insert("large", "secret-value".repeat(20)).unwrap();
        assert_eq!(commit(too_large), None);
        renewed.renew();
        ids.extend([id, commit(renewed).expect("it is stored")]);
        late.clear();
        assert_eq!(commit(late), None);
        LOG.tell(open());
    }
    server.kill();
    for store in &stores {
        LOG.tell_result(&store.read(&ids[0], Touch::No));
        LOG.tell((store, store.health()));
    }

    let told = LOG.0.lock().unwrap();
    for expected in ["is left to expire", "over the limit", "Redis does not answer", "Detached", "Set-Cookie"] {
        assert!(told.iter().any(|text| text.contains(expected)), "{expected} was not told");
    }
    let secrets = ids.iter().map(SessionId::expose).chain(["secret".to_owned()]);
    for secret in secrets {
        let leaks: Vec<&String> = told.iter().filter(|text| text.contains(&secret)).collect();
        assert_eq!(leaks, [""; 0]);
    }
}

/// Everything that was logged, and all that was shown of values.
struct Log(Mutex<Vec<String>>);

impl Log {
    fn tell(&self, value: impl Debug) {
        self.0.lock().unwrap().push(format!("{value:?} {value:#?}"));
    }

    fn tell_result(&self, result: &Result<impl Debug>) {
        self.tell(result);
        let mut cause = result.as_ref().err().map(|error| error as &dyn Error);
        while let Some(error) = cause {
            self.0.lock().unwrap().push(error.to_string());
            cause = error.source();
        }
    }
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}
