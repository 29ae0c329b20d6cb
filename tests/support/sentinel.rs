//! A master, its replicas and three Sentinels.

use redis::{Client, FromRedisValue, Value};

use super::{PATIENCE, RedisServer, eventually};

/// A master with two replicas, and three Sentinels that replace it when it is gone for two seconds: on a busy machine a
/// new one may well seem gone for half a second.
pub struct Sentinels {
    // Dropped, and so ended, before the servers they would find gone.
    pub sentinels: Vec<RedisServer>,
    /// The first is the master at the start.
    pub servers: Vec<RedisServer>,
    passwords: Option<[&'static str; 2]>,
}

impl Sentinels {
    /// The name of the master.
    pub const NAME: &str = "sessions-master";

    pub fn start() -> Self {
        Self::build(None)
    }

    /// The servers want the first password, the Sentinels the second one.
    pub fn with_passwords(passwords: [&'static str; 2]) -> Self {
        Self::build(Some(passwords))
    }

    fn build(passwords: Option<[&'static str; 2]>) -> Self {
        let own = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let login = passwords.map(|[server, _]| ["--requirepass", server, "--masterauth", server]);
        let args = [&own[..], login.as_ref().map_or(&[], |login| &login[..])].concat();
        let master = RedisServer::with(&args);
        let port = master.port().to_string();
        let replica = || RedisServer::with(&[&args[..], &["--replicaof", "127.0.0.1", &port]].concat());
        let servers = vec![master, replica(), replica()];
        let name = Self::NAME;
        let mut configuration = format!(
            "sentinel monitor {name} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {name} 2000\n\
             sentinel failover-timeout {name} 3000\n\
             sentinel parallel-syncs {name} 2\n"
        );
        if let Some([server, sentinel]) = passwords {
            configuration += &format!("sentinel auth-pass {name} {server}\nrequirepass {sentinel}\n");
        }
        let mut new = Self { sentinels: Vec::new(), servers, passwords };
        new.settle();
        new.sentinels.extend((0..3).map(|_| RedisServer::sentinel(&configuration)));
        // They find each other by way of the master.
        let knows_all = |sentinel: &RedisServer| {
            let others: Vec<Value> = new.ask(sentinel, &["SENTINEL", "SENTINELS", name]);
            let replicas: Vec<Value> = new.ask(sentinel, &["SENTINEL", "REPLICAS", name]);
            (others.len(), replicas.len()) == (2, 2) && new.try_ask(sentinel, &["SENTINEL", "CKQUORUM", name]).is_ok()
        };
        assert!(eventually(PATIENCE * 3, || new.sentinels.iter().all(knows_all)), "the Sentinels meet");
        new
    }

    /// Waits until two servers are replicas with all that their master has.
    pub fn settle(&self) {
        let replicates = |server: &&RedisServer| self.replication(server).contains("master_link_status:up");
        assert!(
            eventually(PATIENCE * 3, || self.servers.iter().filter(replicates).count() == 2),
            "two servers are replicas"
        );
    }

    pub fn replication(&self, server: &RedisServer) -> String {
        self.try_ask(server, &["INFO", "replication"])
            .map(|info| String::from_redis_value(info).unwrap())
            .unwrap_or_default()
    }

    pub fn is_master(&self, server: &RedisServer) -> bool {
        self.replication(server).contains("role:master")
    }

    /// The server that this Sentinel names as the master.
    pub fn named_by(&self, sentinel: &RedisServer) -> &RedisServer {
        let (_, port): (String, u16) = self.ask(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]);
        self.servers.iter().find(|server| server.port() == port).expect("it is one of the servers")
    }

    /// The store's URL, with all Sentinels.
    pub fn url(&self) -> String {
        self.url_by(&self.sentinels.iter().collect::<Vec<_>>())
    }

    /// The URL with these Sentinels, which are asked in this order.
    pub fn url_by(&self, sentinels: &[&RedisServer]) -> String {
        let others: String =
            sentinels[1..].iter().map(|sentinel| format!("&node=127.0.0.1:{}", sentinel.port())).collect();
        let (login, own) = match self.passwords {
            Some([server, sentinel]) => (format!(":{server}@"), format!("&sentinelPassword={sentinel}")),
            None => Default::default(),
        };
        let (port, name) = (sentinels[0].port(), Self::NAME);
        format!("redis-sentinel://{login}127.0.0.1:{port}?sentinelServiceName={name}{own}{others}")
    }

    /// Has a server or a Sentinel run a command.
    #[track_caller]
    pub fn ask<V: FromRedisValue>(&self, server: &RedisServer, command: &[&str]) -> V {
        let reply = self.try_ask(server, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        V::from_redis_value(reply).unwrap()
    }

    pub fn try_ask(&self, server: &RedisServer, command: &[&str]) -> redis::RedisResult<Value> {
        let is_sentinel = self.sentinels.iter().any(|sentinel| sentinel.port() == server.port());
        let password = self.passwords.map(|passwords| passwords[usize::from(is_sentinel)]);
        let login = password.map_or_else(String::new, |password| format!(":{password}@"));
        let client = Client::open(format!("redis://{login}127.0.0.1:{}", server.port()))?;
        let mut connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }
}
