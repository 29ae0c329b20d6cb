//! Redis over TLS, with a certificate authority of one's own.

mod support;

use std::error::Error as _;
use std::fs;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{PATIENCE, RedisServer, eventually};
use tempfile::TempDir;
use threaded_sessions::redis::{self, Client, ClientTlsConfig, TlsCertificates};
use threaded_sessions::store::Touch;
use threaded_sessions::{ErrorKind, RedisSessionStore, RedisSessionStoreBuilder, SessionId, SessionStore, contract};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name and its key, both as PEM.
fn certificate(authority: &Authority, name: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    [certificate.pem(), key.serialize_pem()]
}

/// What a server takes to talk TLS only, under this name, and to want a certificate of its clients.
fn tls_only(files: &TempDir, authority: &Authority, name: &str) -> Vec<String> {
    let [certificate, key] = certificate(authority, name);
    let file = |option: &str, text: &str| {
        let path = files.path().join(option);
        fs::write(&path, text).unwrap();
        [format!("--tls-{option}"), path.to_str().unwrap().to_owned()]
    };
    let all = [("ca-cert-file", authority.pem()), ("cert-file", certificate), ("key-file", key)];
    let own = all.iter().flat_map(|(option, text)| file(option, text));
    ["--port", "0", "--tls-port", "{port}"].map(str::to_owned).into_iter().chain(own).collect()
}

/// For the server at this port. The client has a certificate of an authority, if it has one.
fn client(host: &str, port: u16, trusted: &Authority, client: Option<&Authority>) -> Client {
    let client_tls = client.map(|authority| {
        let [client_cert, client_key] = certificate(authority, "client").map(String::into_bytes);
        ClientTlsConfig { client_cert, client_key }
    });
    let certificates = TlsCertificates { client_tls, root_cert: Some(trusted.pem().into_bytes()) };
    Client::build_with_tls(format!("rediss://{host}:{port}"), certificates).unwrap()
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
    fn store(&self, host: &str, trusted: &Authority, own: Option<&Authority>) -> RedisSessionStore {
        let client = client(host, self.server.port(), trusted, own);
        RedisSessionStore::builder().client(client).expiring().build().unwrap()
    }
}

#[test]
fn the_contract_holds_over_tls() {
    contract::all(&RIG.store("localhost", &RIG.authority, Some(&RIG.authority)), sleep);
}

/// What Sentinels and nodes of a cluster call a server is what its certificate has to be for: an address, or a name if they are
/// told so.
#[test]
fn the_contract_holds_over_tls_to_a_sentinel_and_the_master_it_names_and_to_a_cluster() {
    let check = |builder: RedisSessionStoreBuilder| {
        let store = builder.expiring().deadline(PATIENCE).build().unwrap();
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
        let to = |server: &RedisServer| client(host, server.port(), &authority, Some(&authority));

        let master = RedisServer::with(&with(&[]));
        let watch = format!("{naming}sentinel monitor sessions {host} {} 1\n", master.port());
        let sentinel = RedisServer::sentinel_with(&watch, &with(&["--tls-replication", "yes"]));
        check(RedisSessionStore::builder().sentinel("sessions", [to(&sentinel)], to(&master)));

        let cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
        let node = RedisServer::with(&with(&[&cluster, node_naming].concat()));
        let ask = |command: &str| {
            let mut connection = to(&node).get_connection().unwrap();
            let mut parts = command.split(' ');
            redis::cmd(parts.next().unwrap()).arg(parts.collect::<Vec<_>>()).query::<String>(&mut connection).unwrap()
        };
        ask("CLUSTER ADDSLOTSRANGE 0 16383");
        assert!(eventually(PATIENCE, || ask("CLUSTER INFO").contains("cluster_state:ok")), "the cluster serves");
        check(RedisSessionStore::builder().cluster([to(&node)]));
    }
}

#[test]
fn whom_nobody_trusts_and_who_talks_otherwise_gets_a_clear_error_in_time() {
    let stranger = authority("another");
    let plain = RedisServer::start();
    let url = |scheme: &str, port: u16| RedisSessionStore::open(&format!("{scheme}://localhost:{port}")).unwrap();
    for (case, store, words) in [
        ("wrong host", RIG.store("127.0.0.1", &RIG.authority, Some(&RIG.authority)), "not valid for name"),
        ("wrong authority", RIG.store("localhost", &stranger, Some(&RIG.authority)), "UnknownIssuer"),
        ("authorities of the system", url("rediss", RIG.server.port()), "UnknownIssuer"),
        ("client without a certificate", RIG.store("localhost", &RIG.authority, None), "ertificate"),
        ("client of another authority", RIG.store("localhost", &RIG.authority, Some(&stranger)), "fatal alert"),
        ("plain TCP where TLS is spoken", url("redis", RIG.server.port()), "rediss://"),
        // Most servers wait for the end of the line that they take the greeting for.
        ("TLS where plain TCP is spoken", url("rediss", plain.port()), "corrupt message|redis://"),
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
fn a_server_that_hangs_in_the_handshake_holds_nobody_longer_than_the_deadline() {
    let rig = &*RIG;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(rig.authority.pem().into_bytes()) };
    let url = format!("rediss://localhost:{}", listener.local_addr().unwrap().port());
    let client = Client::build_with_tls(url, certificates).unwrap();
    let builder = RedisSessionStore::builder().client(client).deadline(Duration::from_millis(200));
    let store = builder.build().unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let error = store.read(&SessionId::random(), Touch::No).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error:?}");
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    }
}
