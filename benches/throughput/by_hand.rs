//! The commands that the crate sends for each operation, written by hand. If an operation needs a script, the script here runs the
//! same commands and makes only the checks of the operation itself. (It compares an expected payload as a whole; the crate
//! compares revisions.)

use std::time::Duration;

use redis::{Cmd, Value};

use super::floor::{Bound, Floor};

pub(crate) const WEEK: Duration = Duration::from_secs(604_800);

/// By how much data outlives its session in an expiring store, and how long a renewed id is known as such.
const GRACE: u64 = 86_400_000;
const MARK: u64 = 30_000;

/// An operation of a store, in one of its forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Touch,
    Save,
    SaveIfUnchanged,
    Create,
    Renew,
    Destroy,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] =
        [Self::Read, Self::Touch, Self::Save, Self::SaveIfUnchanged, Self::Create, Self::Renew, Self::Destroy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Touch => "read with touch",
            Self::Save => "save, last write wins",
            Self::SaveIfUnchanged => "save if unchanged",
            Self::Create => "create",
            Self::Renew => "renew",
            Self::Destroy => "destroy",
        }
    }

    /// Keys: the session (for `Renew` old, new and mark), and the index of an expiring store.
    /// Arguments: the payload, milliseconds to live in Redis, the payload that is expected.
    fn script(self, expiring: bool) -> Option<&'static str> {
        Some(match (self, expiring) {
            (Self::Read | Self::Touch | Self::Save | Self::Create | Self::Destroy, false) | (Self::Read, true) => {
                return None;
            }
            (Self::SaveIfUnchanged, false) => {
                "local there = redis.call('GET', KEYS[1])
                if there ~= ARGV[3] then return 0 end
                redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                return 1"
            }
            (Self::Renew, false) => {
                "redis.call('GET', KEYS[2])
                local there = redis.call('GET', KEYS[1])
                if there ~= ARGV[3] then return 0 end
                redis.call('SET', KEYS[3], '', 'PX', ARGV[4])
                redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
                redis.call('DEL', KEYS[1])
                return 1"
            }
            (Self::Touch, true) => {
                "local left = redis.call('PTTL', KEYS[1])
                local now = redis.call('PEXPIRETIME', KEYS[1]) - left
                redis.call('PEXPIREAT', KEYS[1], now + ARGV[1])
                return ARGV[1] - 86400000"
            }
            (Self::Save, true) => {
                "redis.call('GET', KEYS[1])
                redis.call('PTTL', KEYS[1])
                redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                redis.call('ZADD', KEYS[2], redis.call('PEXPIRETIME', KEYS[1]) - 86400000, KEYS[1])
                return 1"
            }
            (Self::SaveIfUnchanged, true) => {
                "local there = redis.call('GET', KEYS[1])
                redis.call('PTTL', KEYS[1])
                if there ~= ARGV[3] then return 0 end
                redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                redis.call('ZADD', KEYS[2], redis.call('PEXPIRETIME', KEYS[1]) - 86400000, KEYS[1])
                return 1"
            }
            (Self::Create, true) => {
                "redis.call('GET', KEYS[1])
                redis.call('HGET', 'principals', KEYS[1])
                redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                redis.call('ZADD', KEYS[2], redis.call('PEXPIRETIME', KEYS[1]) - 86400000, KEYS[1])
                return 1"
            }
            (Self::Renew, true) => {
                "redis.call('GET', KEYS[2])
                local there = redis.call('GET', KEYS[1])
                redis.call('PTTL', KEYS[1])
                if there ~= ARGV[3] then return 0 end
                redis.call('HGET', 'principals', KEYS[1])
                redis.call('SET', KEYS[3], '', 'PX', ARGV[4])
                redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
                redis.call('ZADD', KEYS[4], redis.call('PEXPIRETIME', KEYS[2]) - 86400000, KEYS[2])
                redis.call('DEL', KEYS[1])
                redis.call('ZREM', KEYS[4], KEYS[1])
                return 1"
            }
            (Self::Destroy, true) => {
                "redis.call('TYPE', KEYS[1])
                redis.call('HGET', 'principals', KEYS[1])
                redis.call('PTTL', KEYS[1])
                redis.call('DEL', KEYS[1])
                redis.call('ZREM', KEYS[2], KEYS[1])
                return 1"
            }
        })
    }
}

/// One operation, ready to be carried out through the floor.
pub(crate) struct ByHand {
    floor: Floor,
    operation: Operation,
    script: Option<Bound>,
    index: Option<String>,
    ttl: u64,
}

impl ByHand {
    pub(crate) fn new(floor: &Floor, operation: Operation, index: Option<&str>) -> Self {
        let script = operation.script(index.is_some()).map(|code| Bound::new(floor, code));
        let (floor, index) = (floor.clone(), index.map(str::to_owned));
        Self { floor, operation, script, index, ttl: WEEK.as_millis() as u64 }
    }

    /// Reads, also with a touch: the payload.
    pub(crate) fn read(&self, key: &str) -> Vec<u8> {
        let mut get = redis::cmd("GET");
        get.arg(key);
        let reply = match (&self.script, self.operation) {
            (Some(script), _) => {
                let mut touch = self.with_keys(script, &[key]);
                touch.arg(self.in_redis());
                self.floor.query_both(get, touch)
            }
            (None, Operation::Touch) => self.floor.query(redis::cmd("GETEX").arg(key).arg("PX").arg(self.ttl)),
            (None, _) if self.index.is_some() => {
                let mut pttl = redis::cmd("PTTL");
                pttl.arg(key);
                self.floor.query_both(get, pttl)
            }
            (None, _) => self.floor.query(&get),
        };
        match reply {
            Value::BulkString(payload) => payload,
            other => panic!("no session: {other:?}"),
        }
    }

    /// Creates or saves.
    pub(crate) fn write(&self, key: &str, payload: &[u8], expected: &[u8]) {
        let reply = match (&self.script, self.operation) {
            (Some(script), operation) => {
                let mut command = self.with_keys(script, &[key]);
                command.arg(payload).arg(self.in_redis());
                if operation == Operation::SaveIfUnchanged {
                    command.arg(expected);
                }
                self.floor.query(&command)
            }
            (None, operation) => {
                let condition = if operation == Operation::Create { "NX" } else { "XX" };
                self.floor.query(self.set(key, payload).arg(condition).arg("GET"))
            }
        };
        let created = self.operation == Operation::Create && reply == Value::Nil;
        assert!(created || matches!(reply, Value::Int(1) | Value::BulkString(_)), "{reply:?}");
    }

    pub(crate) fn renew(&self, old: &str, new: &str, payload: &[u8], expected: &[u8]) {
        let script = self.script.as_ref().expect("renewing takes a script");
        let mut command = self.with_keys(script, &[old, new, &format!("{old}:renewed")]);
        command.arg(payload).arg(self.in_redis()).arg(expected).arg(MARK);
        assert_eq!(self.floor.query(&command), Value::Int(1));
    }

    pub(crate) fn destroy(&self, key: &str) {
        let reply = match &self.script {
            Some(script) => self.floor.query(&self.with_keys(script, &[key])),
            None => self.floor.query(redis::cmd("DEL").arg(key)),
        };
        assert_eq!(reply, Value::Int(1));
    }

    /// `SET key payload PX ttl`, without a condition.
    pub(crate) fn set(&self, key: &str, payload: &[u8]) -> Cmd {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(payload).arg("PX").arg(self.ttl);
        set
    }

    /// Milliseconds after which Redis itself drops it.
    fn in_redis(&self) -> u64 {
        if self.index.is_some() { self.ttl + GRACE } else { self.ttl }
    }

    fn with_keys(&self, script: &Bound, keys: &[&str]) -> Cmd {
        let keys: Vec<&str> = keys.iter().copied().chain(self.index.as_deref()).collect();
        script.command(&keys)
    }
}

/// Clears Redis and stores a session with this payload under each key, as the crate lays them out.
pub(crate) fn seed(connection: &mut redis::Connection, keys: &[String], payload: &[u8], index: Option<&str>) {
    redis::cmd("FLUSHALL").exec(connection).expect("Redis responds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let ttl = WEEK.as_millis() as u64;
    for keys in keys.chunks(1000) {
        let mut pipe = redis::pipe();
        for key in keys {
            let in_redis = if index.is_some() { ttl + GRACE } else { ttl };
            pipe.cmd("SET").arg(key).arg(payload).arg("PX").arg(in_redis).ignore();
            if let Some(index) = index {
                pipe.cmd("ZADD").arg(index).arg(now + ttl).arg(key).ignore();
            }
        }
        pipe.exec(connection).expect("Redis responds");
    }
}
