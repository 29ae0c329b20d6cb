//! Redis over TLS, with a custom certificate authority: a connection works only if both certificates are valid.

#[path = "../support/mod.rs"]
mod support;

use std::error::Error as _;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{DeadEnd, PATIENCE, RedisServer, Signals, Victims, eventually, heat, is_gone, near, slow_pipe};
use tempfile::TempDir;
use threaded_sessions::r2d2::ManageConnection;
use threaded_sessions::redis::{self, Client};
use threaded_sessions::rustls::crypto::ring;
use threaded_sessions::rustls::pki_types::PrivatePkcs8KeyDer;
use threaded_sessions::rustls::{ClientConfig, RootCertStore};
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{
    ErrorKind, NearCache, RedisConnectionManager, RedisPool, RedisSessionStore, RedisSessionStoreBuilder, SessionId,
    SessionStore, contract,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name, and its key.
fn certificate(authority: &Authority, name: &str) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, authority).unwrap(), key)
}

/// The settings of a server that accepts only TLS, has a certificate for this name, and requires client certificates.
fn tls_only(files: &TempDir, authority: &Authority, name: &str) -> Vec<String> {
    let (certificate, key) = certificate(authority, name);
    let file = |option: &str, text: &str| {
        let path = files.path().join(option);
        fs::write(&path, text).unwrap();
        [format!("--tls-{option}"), path.to_str().unwrap().to_owned()]
    };
    let all = [("ca-cert-file", authority.pem()), ("cert-file", certificate.pem()), ("key-file", key.serialize_pem())];
    let own = all.iter().flat_map(|(option, text)| file(option, text));
    ["--port", "0", "--tls-port", "{port}"].map(str::to_owned).into_iter().chain(own).collect()
}

fn url(host: &str, port: u16) -> String {
    format!("rediss://{host}:{port}")
}

/// Trusts one authority, and shows a certificate of another one, if there is one.
fn config(trusted: &Authority, client: Option<&Authority>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let (certificate, key) = certificate(authority, "client");
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    })
}

/// A server that talks TLS only, and wants a certificate of its clients.
struct Rig {
    server: RedisServer,
    authority: Authority,
    _files: TempDir,
}

static RIG: LazyLock<Rig> = LazyLock::new(|| {
    let (authority, files) = (authority("ours"), TempDir::new().unwrap());
    let args = tls_only(&files, &authority, "localhost");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Rig { server: RedisServer::with(&args), authority, _files: files }
});

impl Rig {
    fn builder(&self, host: &str, trusted: &Authority, own: Option<&Authority>) -> RedisSessionStoreBuilder {
        let url = url(host, self.server.port());
        RedisSessionStore::builder().url(url).tls_config(config(trusted, own)).expiring()
    }

    fn store(&self, host: &str, trusted: &Authority, own: Option<&Authority>) -> RedisSessionStore {
        self.builder(host, trusted, own).build().unwrap()
    }
}

#[test]
fn the_contract_holds_over_tls() {
    contract::all(&RIG.store("localhost", &RIG.authority, Some(&RIG.authority)), sleep);
}

#[test]
fn near_cache_serves_and_forgets_over_tls() {
    const HOUR: Duration = Duration::from_secs(3600);
    let builder = RIG.builder("localhost", &RIG.authority, Some(&RIG.authority));
    let store = builder.near_cache(NearCache::new().lease(HOUR)).build().unwrap();
    let elsewhere = RIG.store("localhost", &RIG.authority, Some(&RIG.authority));
    assert_eq!(store.check().unwrap(), []);
    // One that fits into a TLS record, and one that does not.
    for length in [10, 40_000] {
        let id = elsewhere.fresh_id(None);
        let _ = elsewhere.create(&id, Write::new(&vec![b'x'; length], HOUR)).unwrap();
        heat(&store, &id);
        assert!(elsewhere.delete(&id).unwrap());
        assert!(eventually(PATIENCE, || is_gone(&store, &id)), "{:?}", near(&store));
    }
}

/// A certificate must match the name that Sentinels and cluster nodes announce: an address, or a host name if one is configured.
#[test]
fn contract_holds_over_tls_with_sentinel_and_cluster() {
    let check = |builder: RedisSessionStoreBuilder, config: &Arc<ClientConfig>| {
        let store = builder.expiring().deadline(PATIENCE).tls_config(config.clone()).build().unwrap();
        assert_eq!(store.check().unwrap(), []);
        contract::all(&store, sleep);
    };
    let by_name = "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n";
    let node_by_name = ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"];
    for (host, naming, node_naming) in [("127.0.0.1", "", &[][..]), ("localhost", by_name, &node_by_name)] {
        let (authority, files) = (authority("ours"), TempDir::new().unwrap());
        let tls = tls_only(&files, &authority, host);
        let with =
            |more: &[&'static str]| tls.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>();
        let config = config(&authority, Some(&authority));
        let to = |server: &RedisServer| Client::open(url(host, server.port())).unwrap();

        let master = RedisServer::with(&with(&[]));
        let watch = format!("{naming}sentinel monitor sessions {host} {} 1\n", master.port());
        let sentinel = RedisServer::sentinel_with(&watch, &with(&["--tls-replication", "yes"]));
        check(RedisSessionStore::builder().sentinel("sessions", [to(&sentinel)], to(&master)), &config);

        let cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
        let node = RedisServer::with(&with(&[&cluster, node_naming].concat()));
        // Over a separate store, because the node accepts only TLS.
        let admin = RedisSessionStore::builder().client(to(&node)).tls_config(config.clone()).build().unwrap();
        let ask = |command: &str| {
            let mut parts = command.split(' ');
            let mut command = redis::cmd(parts.next().unwrap());
            command.arg(parts.collect::<Vec<_>>()).query::<String>(&mut admin.pool().get().unwrap()).unwrap()
        };
        ask("CLUSTER ADDSLOTSRANGE 0 16383");
        assert!(eventually(PATIENCE, || ask("CLUSTER INFO").contains("cluster_state:ok")), "the cluster serves");
        check(RedisSessionStore::builder().cluster([to(&node)]), &config);
    }
}

#[test]
fn tls_failures_name_their_cause_in_time() {
    let stranger = authority("another");
    let plain = RedisServer::start();
    let open = |scheme: &str, port: u16| RedisSessionStore::open(&format!("{scheme}://localhost:{port}")).unwrap();
    for (case, store, words) in [
        ("wrong host", RIG.store("127.0.0.1", &RIG.authority, Some(&RIG.authority)), "not valid for name"),
        ("wrong authority", RIG.store("localhost", &stranger, Some(&RIG.authority)), "UnknownIssuer"),
        ("authorities of the system", open("rediss", RIG.server.port()), "UnknownIssuer"),
        ("client without a certificate", RIG.store("localhost", &RIG.authority, None), "ertificate"),
        ("client of another authority", RIG.store("localhost", &RIG.authority, Some(&stranger)), "fatal alert"),
        ("plain TCP where TLS is spoken", open("redis", RIG.server.port()), "rediss://"),
        // Most servers wait for the end of the line that they take the greeting for.
        ("TLS where plain TCP is spoken", open("rediss", plain.port()), "corrupt message|redis://"),
    ] {
        let start = Instant::now();
        let error = store.read(&SessionId::random(), Touch::No).expect_err(case);
        let why = error.source().expect(case).to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{case}: {why}");
        assert!(words.split('|').any(|words| why.contains(words)), "{case}: {why}");
        assert!(start.elapsed() < PATIENCE / 2, "{case}: {:?}", start.elapsed());
    }
}

#[test]
fn hanging_tls_handshake_ends_at_the_deadline() {
    let rig = &*RIG;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url("localhost", listener.local_addr().unwrap().port());
    let builder = RedisSessionStore::builder().url(url).tls_config(config(&rig.authority, None));
    let store = builder.deadline(Duration::from_millis(200)).build().unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let error = store.read(&SessionId::random(), Touch::No).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error:?}");
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    }
}

#[test]
fn certificate_is_for_the_name_at_each_address() {
    let (dead, live) = (DeadEnd::start(), SocketAddr::from(([127, 0, 0, 1], RIG.server.port())));
    let addresses = Arc::new(move |_: &str, _: u16| Ok(vec![dead.address(), live]));
    let read = |host: &str| {
        let manager =
            RedisConnectionManager::open(&url(host, live.port())).unwrap().with_deadline(PATIENCE / 5).unwrap();
        let manager = manager.with_tls_config(config(&RIG.authority, Some(&RIG.authority))).unwrap();
        let pool = RedisPool::new(manager.with_test_seams(Some(addresses.clone()), PATIENCE));
        let store = RedisSessionStore::builder().pool(pool).build().unwrap();
        store.read(&SessionId::random(), Touch::No)
    };
    assert!(matches!(read("localhost"), Ok(Found::Absent)));
    let error = read("redis.internal").unwrap_err();
    assert!(error.source().unwrap().to_string().contains("not valid for name"), "{error:?}");
}

#[test]
fn signals_fail_no_handshake_and_no_command() {
    let port = slow_pipe(RIG.server.port(), Duration::from_millis(30));
    let manager = RedisConnectionManager::open(&url("localhost", port)).unwrap();
    let manager = manager.with_tls_config(config(&RIG.authority, Some(&RIG.authority))).unwrap();
    let _signals = Signals::start(Victims::ThisThread);
    for _ in 0..5 {
        let mut connection = manager.connect().unwrap();
        redis::cmd("PING").exec(&mut connection).unwrap();
    }
}

#[test]
fn tls_settings_without_effect_are_refused() {
    let config = || config(&RIG.authority, None);
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(RIG.authority.pem().into_bytes()) };
    let own = Client::build_with_tls("rediss://localhost", certificates).unwrap();
    let builder = RedisSessionStore::builder;
    for (builder, word) in [
        (builder().url("redis://localhost").tls_config(config()), "rediss"),
        (builder().url("redis+unix:///run/redis.sock").tls_config(config()), "rediss"),
        (builder().url("redis-sentinel://localhost?sentinelServiceName=m").tls_config(config()), "rediss"),
        (builder().url("redis-cluster://localhost").tls_config(config()), "rediss"),
        (builder().url("rediss://localhost#insecure"), "tls_config"),
        (builder().client(own.clone()), "tls_config"),
        (builder().client(own.clone()).tls_config(config()), "tls_config"),
        (builder().sentinel("m", [own.clone()], Client::open("redis://localhost").unwrap()), "tls_config"),
        (builder().cluster([own]), "tls_config"),
        (
            builder().pool(RIG.store("localhost", &RIG.authority, None).pool().clone()).tls_config(config()),
            "ready pool",
        ),
    ] {
        let shown = format!("{builder:?}");
        let error = builder.build().expect_err(&shown);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{shown}");
        assert!(error.source().unwrap().to_string().contains(word), "{shown}: {error:?}");
    }
}
