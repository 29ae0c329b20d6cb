//! A Redis Cluster of six servers, and moves of its slots.

use std::sync::OnceLock;

use redis::{FromRedisValue, Value};

use super::{PATIENCE, RedisServer, eventually};

const SLOTS: u16 = 16_384;

/// A cluster of three masters, each with a replica. The nodes notice that one is gone after two seconds: a
/// busy machine may well keep one silent for half a second.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a cluster whose nodes have further arguments.
    pub fn with(args: &[&str]) -> Self {
        let own =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0"];
        let args = [&own, args].concat();
        let cluster = Self { nodes: (0..6).map(|_| RedisServer::with(&args)).collect() };
        for (position, node) in cluster.nodes[..3].iter().enumerate() {
            let bounds = [position, position + 1].map(|part| usize::from(SLOTS) * part / 3);
            node.cmd(&["CLUSTER", "ADDSLOTSRANGE", &bounds[0].to_string(), &(bounds[1] - 1).to_string()]);
            node.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &(position + 1).to_string()]);
        }
        for node in &cluster.nodes[1..] {
            node.cmd(&["CLUSTER", "MEET", "127.0.0.1", &cluster.nodes[0].port().to_string()]);
        }
        let meets = |node: &RedisServer| node.text(&["CLUSTER", "NODES"]).lines().count() == 6;
        assert!(eventually(PATIENCE, || cluster.nodes.iter().all(meets)), "the nodes meet");
        for (master, replica) in cluster.nodes[..3].iter().zip(&cluster.nodes[3..]) {
            let id = master.text(&["CLUSTER", "MYID"]);
            assert!(eventually(PATIENCE, || replica.knows(&id)), "the replica knows its master");
            replica.cmd(&["CLUSTER", "REPLICATE", &id]);
        }
        cluster.settle();
        cluster
    }

    /// Waits until all slots are served, and every replica has all that its master has.
    pub fn settle(&self) {
        let settled = |node: &RedisServer| {
            let replicates = node.text(&["INFO", "replication"]);
            node.text(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (replicates.contains("role:master") || replicates.contains("master_link_status:up"))
        };
        let all_serve = || self.nodes.iter().all(|node| self.slots(node) == usize::from(SLOTS));
        assert!(eventually(PATIENCE, || self.nodes.iter().all(settled) && all_serve()), "the cluster settles");
    }

    fn slots(&self, node: &RedisServer) -> usize {
        let ranges = Vec::<Vec<Value>>::from_redis_value(node.cmd(&["CLUSTER", "SLOTS"])).unwrap();
        let size = |range: &Vec<Value>| match range[..] {
            [Value::Int(from), Value::Int(to), ..] => (to - from + 1) as usize,
            _ => panic!("{range:?}"),
        };
        ranges.iter().map(size).sum()
    }

    /// The first of the nodes is enough to find the others.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// The URL with all nodes.
    pub fn full_url(&self) -> String {
        let others: Vec<String> =
            self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("{}?{}", self.url(), others.join("&"))
    }

    pub fn slot(&self, key: &str) -> u16 {
        u16::from_redis_value(self.nodes[0].cmd(&["CLUSTER", "KEYSLOT", key])).unwrap()
    }

    /// The node that serves a slot, by the account of this one.
    pub fn owner(&self, slot: u16, named_by: &RedisServer) -> Option<&RedisServer> {
        let ranges = Vec::<Vec<Value>>::from_redis_value(named_by.cmd(&["CLUSTER", "SLOTS"])).unwrap();
        let range = ranges.into_iter().find(
            |range| matches!(range[..2], [Value::Int(from), Value::Int(to)] if (from..=to).contains(&i64::from(slot))),
        )?;
        let Value::Array(master) = &range[2] else { panic!("{range:?}") };
        self.nodes.iter().find(|node| master[1] == Value::Int(i64::from(node.port())))
    }

    pub fn master_of(&self, key: &str) -> &RedisServer {
        self.owner(self.slot(key), &self.nodes[0]).expect("all slots are served")
    }

    pub fn replica_of(&self, master: &RedisServer) -> &RedisServer {
        let port = format!("master_port:{}", master.port());
        let follows = |node: &&RedisServer| node.text(&["INFO", "replication"]).lines().any(|line| line == port);
        self.nodes.iter().find(follows).expect("it has a replica")
    }

    /// Moves a slot with all its keys from its node to this one, some keys at a time, and announces the new owner to all nodes.
    pub fn migrate(&self, slot: u16, to: &RedisServer) {
        let from = self.owner(slot, to).expect("all slots are served");
        let (slot, port) = (slot.to_string(), to.port().to_string());
        let [from_id, to_id] = [from, to].map(|node| node.text(&["CLUSTER", "MYID"]));
        to.cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        loop {
            let keys: Vec<String> =
                FromRedisValue::from_redis_value(from.cmd(&["CLUSTER", "GETKEYSINSLOT", &slot, "3"])).unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            from.cmd(&migrate);
        }
        for node in [to, from].into_iter().chain(&self.nodes) {
            // Replicas learn of the move from their masters.
            if node.text(&["INFO", "replication"]).contains("role:master") {
                node.cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
            }
        }
    }

    /// The names of all keys that begin so, without marks of renewed sessions.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let masters = self.nodes.iter().filter(|node| node.text(&["INFO", "replication"]).contains("role:master"));
        let keys = masters
            .flat_map(|node| Vec::<String>::from_redis_value(node.cmd(&["KEYS", &format!("{prefix}*")])).unwrap());
        keys.collect()
    }
}

impl RedisServer {
    pub fn text(&self, command: &[&str]) -> String {
        String::from_redis_value(self.cmd(command)).unwrap().replace('\r', "")
    }

    fn knows(&self, id: &str) -> bool {
        self.text(&["CLUSTER", "NODES"]).contains(id)
    }
}

/// The cluster for tests that neither break it nor mind each other's keys.
pub fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}
