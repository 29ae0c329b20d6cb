//! Authentication to Redis: with passwords that change while the program runs, and over connections other than TCP.

mod support;

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use support::{PATIENCE, RedisServer, eventually, texts};
#[cfg(feature = "near-cache")]
use support::{heat, near};
use threaded_sessions::redis::{self, Client, Connection};
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{
    Credentials, Error, ErrorKind, RedisSessionStore, RedisSessionStoreBuilder, SessionId, SessionStore, contract,
};

const HOUR: Duration = Duration::from_secs(3600);
const USER: &str = "a-secret-name";
const PASSWORDS: [&str; 3] = ["a-secret-first", "a-secret-second", "a-secret-third"];

/// Lets the user in with this password alone, or with this and those so far.
fn admit(operator: &mut Connection, password: &str, alone: bool) {
    let password = format!(">{password}");
    let rules = ["on", "~*", "+@all", if alone { "resetpass" } else { "on" }, &password];
    redis::cmd("ACL").arg("SETUSER").arg(USER).arg(&rules).exec(operator).unwrap();
}

fn kill_connections(operator: &mut Connection) {
    redis::cmd("CLIENT").arg(&["KILL", "USER", USER]).exec(operator).unwrap();
}

/// The current password of the program, and the number of calls that asked for it.
#[derive(Clone, Default)]
struct Vault(Arc<(Mutex<String>, AtomicUsize)>);

impl Vault {
    fn put(&self, password: &str) {
        *self.0.0.lock().unwrap() = password.to_owned();
    }

    fn asked(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }

    fn store(&self, url: &str, deadline: Duration) -> RedisSessionStore {
        self.builder(url, deadline).build().unwrap()
    }

    fn builder(&self, url: &str, deadline: Duration) -> RedisSessionStoreBuilder {
        let vault = self.clone();
        let credentials = move || {
            vault.0.1.fetch_add(1, Ordering::Relaxed);
            Credentials::user(USER, vault.0.0.lock().unwrap().clone())
        };
        let builder = RedisSessionStore::builder().url(url).credentials(credentials).deadline(deadline);
        assert!(!format!("{builder:?} {builder:#?}").contains("secret"));
        builder
    }
}

/// Asserts that no text shows the user or the password.
fn shows_no_secret(store: &RedisSessionStore, error: Option<&Error>) {
    let shown = format!("{store:?} {store:#?} {:?} {}", store.health(), error.map_or_else(String::new, |e| texts(e)));
    assert!(!shown.contains("secret"), "{shown}");
}

fn create(store: &RedisSessionStore) -> Result<SessionId, Error> {
    let id = store.fresh_id(None);
    store.create(&id, Write::new(b"v", HOUR)).map(|_| id)
}

#[test]
fn next_connection_uses_changed_password() {
    let server = RedisServer::start();
    let operator = &mut server.connection();
    let vault = Vault::default();
    admit(operator, PASSWORDS[0], true);
    vault.put(PASSWORDS[0]);
    // The credentials in the URL are not used.
    let store = vault.store(&server.url().replace("//", "//nobody:nothing@"), PATIENCE);
    let first = create(&store).unwrap();
    for password in &PASSWORDS[1..] {
        // First the server, then the program, as an operator would.
        admit(operator, password, true);
        create(&store).expect("connections that are open stay logged in");
        let asked = vault.asked();
        vault.put(password);
        kill_connections(operator);
        create(&store).expect("a new connection logs in anew");
        assert!(vault.asked() > asked);
        assert!(matches!(store.read(&first, Touch::No), Ok(Found::Live(_))));
        shows_no_secret(&store, None);
    }
    assert_eq!(store.health().failed, 0);
}

#[test]
fn wrong_password_is_reported_until_corrected() {
    let server = RedisServer::start();
    let operator = &mut server.connection();
    let vault = Vault::default();
    admit(operator, PASSWORDS[0], true);
    vault.put(PASSWORDS[0]);
    let store = vault.store(&server.url(), PATIENCE);
    create(&store).unwrap();

    admit(operator, PASSWORDS[1], true);
    kill_connections(operator);
    let denied = || create(&store).err().filter(|error| error.kind() == ErrorKind::Denied);
    // The one that notices sent its command before.
    assert!(eventually(PATIENCE, || denied().is_some()));
    let error = denied().expect("it stays so");
    assert!(error.source().is_some());
    shows_no_secret(&store, Some(&error));
    assert!(!store.health().is_healthy() && store.health().last_error.is_some());

    vault.put(PASSWORDS[1]);
    assert!(eventually(PATIENCE, || store.health().is_healthy()), "also without traffic");
    create(&store).unwrap();
}

#[test]
#[cfg(feature = "near-cache")]
fn near_cache_logs_in_with_the_new_password() {
    let server = RedisServer::start();
    let operator = &mut server.connection();
    let vault = Vault::default();
    admit(operator, PASSWORDS[0], true);
    vault.put(PASSWORDS[0]);
    let cache = threaded_sessions::NearCache::new().lease(HOUR);
    let store = vault.builder(&server.url(), PATIENCE).near_cache(cache).build().unwrap();
    let id = create(&store).unwrap();
    for password in &PASSWORDS[1..] {
        heat(&store, &id);
        admit(operator, password, true);
        kill_connections(operator);
        assert!(eventually(PATIENCE, || near(&store).out_of_service_for.is_some()));
        vault.put(password);
        heat(&store, &id);
        assert_eq!(near(&store).out_of_service_for, None);
        shows_no_secret(&store, None);
    }
}

#[test]
fn panicking_or_slow_vault_respects_the_deadline() {
    let server = RedisServer::start();
    for is_slow in [false, true] {
        let shut = Arc::new(Mutex::new(true));
        let credentials = {
            let shut = shut.clone();
            move || {
                while *shut.lock().unwrap() {
                    assert!(is_slow, "the vault is shut");
                    sleep(Duration::from_millis(10));
                }
                Credentials::password("")
            }
        };
        let builder = RedisSessionStore::builder().url(server.url()).credentials(credentials);
        let store = builder.deadline(Duration::from_millis(300)).build().unwrap();
        let begun = std::time::Instant::now();
        let error = create(&store).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error:?}");
        assert!(begun.elapsed() < PATIENCE / 2);
        *shut.lock().unwrap() = false;
        // The default user takes any password.
        assert!(eventually(PATIENCE, || create(&store).is_ok()), "{:?}", store.health());
    }
}

#[test]
fn contract_holds_with_every_connection_setting() {
    let server = RedisServer::with(&["--requirepass", PASSWORDS[0]]);
    let login = format!("redis://:{}@127.0.0.1:{}", PASSWORDS[0], server.port());
    let socket = server.unix_url();
    for (database, url) in [
        (1, format!("{login}/1")),
        (2, format!("{login}/2?protocol=resp3")),
        (3, format!("{socket}?pass={}&db=3", PASSWORDS[0])),
        (4, format!("{socket}?pass={}&db=4&protocol=resp3", PASSWORDS[0])),
    ] {
        for expiring in [false, true] {
            let builder = RedisSessionStore::builder().url(&*url).deadline(PATIENCE);
            let builder = if expiring { builder.expiring().prefix("expiring") } else { builder };
            let store = builder.build().unwrap();
            contract::all(&store, sleep);
            shows_no_secret(&store, None);
        }
        let client = Client::open(login.as_str()).unwrap();
        let keyspace: String = redis::cmd("INFO").arg("keyspace").query(&mut client.get_connection().unwrap()).unwrap();
        assert_eq!(keyspace.matches("db").count(), database, "only there: {keyspace}");
        assert!(keyspace.contains(&format!("db{database}:keys=")), "{keyspace}");
    }
    // Credentials that change have the database of the URL.
    let builder = RedisSessionStore::builder().url(format!("{socket}?db=5"));
    let store = builder.credentials(|| Credentials::password(PASSWORDS[0])).build().unwrap();
    let id = create(&store).unwrap();
    assert_eq!(redis::cmd("EXISTS").arg(store.key(&id)).query(&mut store.pool().get().unwrap()), Ok(1));
    let mut there = Client::open(format!("{login}/5")).unwrap().get_connection().unwrap();
    assert_eq!(redis::cmd("EXISTS").arg(store.key(&id)).query(&mut there), Ok(1));

    let error = create(&RedisSessionStore::open(&socket).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let error = create(&RedisSessionStore::open(&format!("{socket}?pass=a-secret-wrong")).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!texts(&error).contains("secret"));
}
