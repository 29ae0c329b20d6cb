//! Knowledge about commands of Redis: their kind, whether they change their connection, and which replies they give.
//!
//! A [connection](super::connection) asks for each command of an application. The lists are sorted. The store builds commands about
//! one key here.
//!
//! Invariant: a command that is on no list counts as one that may change its connection, and neither its reply nor its silence
//! proves anything about commands on data.

use redis::{Arg, Cmd, Value};

use super::circuit::Kind;

/// Commands that only read.
#[rustfmt::skip]
const READS: &[&str] = &[
    "BITCOUNT", "BITFIELD_RO", "BITPOS", "CLUSTER", "DBSIZE", "DUMP", "EVALSHA_RO", "EVAL_RO", "EXISTS", "EXPIRETIME",
    "FCALL_RO", "GEODIST", "GEOHASH", "GEOPOS", "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH", "GET", "GETBIT",
    "GETRANGE", "HEXISTS", "HEXPIRETIME", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HPEXPIRETIME", "HPTTL",
    "HRANDFIELD", "HSCAN", "HSTRLEN", "HTTL", "HVALS", "INFO", "KEYS", "LCS", "LINDEX", "LLEN", "LPOS", "LRANGE", "MGET",
    "OBJECT", "PEXPIRETIME", "PTTL", "RANDOMKEY", "SCAN", "SCARD", "SDIFF", "SINTER", "SINTERCARD", "SISMEMBER", "SMEMBERS",
    "SMISMEMBER", "SORT_RO", "SRANDMEMBER", "SSCAN", "STRLEN", "SUBSTR", "SUNION", "TIME", "TOUCH", "TTL", "TYPE", "XINFO",
    "XLEN", "XPENDING", "XRANGE", "XREAD", "XREVRANGE", "ZCARD", "ZCOUNT", "ZDIFF", "ZINTER", "ZINTERCARD", "ZLEXCOUNT",
    "ZMSCORE", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN", "ZSCORE", "ZUNION",
];

/// Commands that may write, or that Redis pauses with the writes. They leave their connection as it is.
#[rustfmt::skip]
const WRITES: &[&str] = &[
    "APPEND", "BITFIELD", "BITOP", "BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN",
    "COPY", "DECR", "DECRBY", "DEL", "EVAL", "EVALSHA", "EXPIRE", "EXPIREAT", "FCALL", "FLUSHALL", "FLUSHDB", "GEOADD",
    "GEORADIUS", "GEORADIUSBYMEMBER", "GEOSEARCHSTORE", "GETDEL", "GETEX", "GETSET", "HDEL", "HEXPIRE", "HEXPIREAT",
    "HINCRBY", "HINCRBYFLOAT", "HMSET", "HPERSIST", "HPEXPIRE", "HPEXPIREAT", "HSET", "HSETNX", "INCR", "INCRBY",
    "INCRBYFLOAT", "LINSERT", "LMOVE", "LMPOP", "LPOP", "LPUSH", "LPUSHX", "LREM", "LSET", "LTRIM", "MSET", "MSETNX",
    "PERSIST", "PEXPIRE", "PEXPIREAT", "PFADD", "PFCOUNT", "PFMERGE", "PSETEX", "PUBLISH", "RENAME", "RENAMENX", "RESTORE",
    "RPOP", "RPOPLPUSH", "RPUSH", "RPUSHX", "SADD", "SDIFFSTORE", "SET", "SETBIT", "SETEX", "SETNX", "SETRANGE",
    "SINTERSTORE", "SMOVE", "SORT", "SPOP", "SPUBLISH", "SREM", "SUNIONSTORE", "UNLINK", "XACK", "XADD", "XAUTOCLAIM", "XCLAIM",
    "XDEL", "XGROUP", "XREADGROUP", "XSETID", "XTRIM", "ZADD", "ZDIFFSTORE", "ZINCRBY",
    "ZINTERSTORE", "ZMPOP", "ZPOPMAX", "ZPOPMIN", "ZRANGESTORE", "ZREM", "ZREMRANGEBYLEX", "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE", "ZUNIONSTORE",
];

/// Commands whose reply, or silence, proves nothing about commands on data: a proxy may reply by itself, an order to the server may
/// take long, and paused writes do not stop them. They leave their connection as it is.
#[rustfmt::skip]
const NO_PROOF: &[&str] = &[
    "ACL", "BGREWRITEAOF", "BGSAVE", "COMMAND", "CONFIG", "ECHO", "FUNCTION", "LASTSAVE", "LATENCY", "MEMORY", "PING",
    "PUBSUB", "REPLICAOF", "ROLE", "SLAVEOF", "SLOWLOG", "SWAPDB", "WAIT", "WAITAOF",
];

/// Commands that may wait on purpose, so that their silence proves nothing.
#[rustfmt::skip]
const BLOCKING: &[&str] = &[
    "BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "WAIT", "WAITAOF", "XREAD",
    "XREADGROUP",
];

/// The traits of the commands of one exchange, as a connection needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    /// The kind whose circuit admits the exchange, and learns from its reply. Absent if a reply proves nothing.
    pub(crate) kind: Option<Kind>,
    /// True if the exchange may get no reply from a healthy server, because it waits on purpose for example.
    pub(crate) may_be_silent: bool,
    /// True if the exchange leaves its connection as it was.
    pub(crate) keeps_connection: bool,
}

impl Traits {
    const NONE: Self = Self { kind: None, may_be_silent: false, keeps_connection: true };
    /// The traits of commands that may change their connection, and of all commands after them: `SELECT` gets a reply while
    /// writes are paused, and after `CLIENT REPLY OFF` or `SUBSCRIBE` over RESP3 no reply comes.
    pub(crate) const UNKNOWN: Self = Self { kind: None, may_be_silent: true, keeps_connection: false };

    /// Returns the traits of commands of a store, which are all on one of the first two lists.
    pub(crate) fn of_store(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::NONE }
    }

    /// Returns the traits of commands that are sent together.
    pub(crate) fn of(commands: &[&Cmd]) -> Self {
        commands.iter().map(|command| Self::named(name(command))).fold(Self::NONE, Self::and)
    }

    /// Returns the traits of packed commands.
    ///
    /// A transaction in one piece, from `MULTI` to `EXEC`, leaves its connection as it was.
    pub(crate) fn of_packed(packed: &[u8]) -> Self {
        let Some(names) = names(packed) else { return Self::UNKNOWN };
        let inner = match &*names {
            [first, inner @ .., last] if is(first, "MULTI") && is(last, "EXEC") => inner,
            all => all,
        };
        inner.iter().map(|name| Self::named(name)).fold(Self::NONE, Self::and)
    }

    fn named(name: &[u8]) -> Self {
        let mut buffer = [0; 24];
        let Some(upper) = buffer.get_mut(..name.len()) else { return Self::UNKNOWN };
        upper.copy_from_slice(name);
        upper.make_ascii_uppercase();
        let is_in = |list: &[&str]| list.binary_search_by(|known| known.as_bytes().cmp(upper)).is_ok();
        let kind = match () {
            () if is_in(READS) => Some(Kind::Reads),
            () if is_in(WRITES) => Some(Kind::Others),
            () if is_in(NO_PROOF) => None,
            () => return Self::UNKNOWN,
        };
        Self { kind, may_be_silent: is_in(BLOCKING), keeps_connection: true }
    }

    fn and(self, other: Self) -> Self {
        if !(self.keeps_connection && other.keeps_connection) {
            return Self::UNKNOWN;
        }
        let kind = match (self.kind, other.kind) {
            (Some(Kind::Others), _) | (_, Some(Kind::Others)) => Some(Kind::Others),
            (one, other) => one.or(other),
        };
        Self { kind, may_be_silent: self.may_be_silent || other.may_be_silent, keeps_connection: true }
    }
}

/// Returns `true` unless the reply is of a type that the command never gives.
///
/// Such a reply belongs to another command, or the connection is in a transaction. Only commands of the store are checked.
pub(crate) fn may_give(command: &Cmd, reply: &Value) -> bool {
    match name(command) {
        b"GET" | b"GETEX" => matches!(reply, Value::Nil | Value::BulkString(_)),
        b"SET" => matches!(reply, Value::Nil | Value::BulkString(_) | Value::Okay),
        b"DEL" | b"EXISTS" | b"PTTL" => matches!(reply, Value::Int(_)),
        b"SCAN" | b"ZSCAN" | b"HSCAN" | b"TIME" | b"CLUSTER" => matches!(reply, Value::Array(_)),
        b"EVAL" | b"EVALSHA" => !matches!(reply, Value::SimpleString(_) | Value::Okay),
        _ => !matches!(reply, Value::SimpleString(status) if status == "QUEUED"),
    }
}

/// Builds a command about one key. More arguments may follow.
pub(crate) fn command(name: &str, key: &(impl AsRef<[u8]> + ?Sized)) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key.as_ref());
    command
}

fn name(command: &Cmd) -> &[u8] {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => name,
        _ => b"",
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// Returns the names of packed commands, or `None` if the bytes are none.
fn names(mut packed: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names = Vec::new();
    while !packed.is_empty() {
        let (count, mut rest) = head(packed, b'*')?;
        for position in 0..count {
            let (length, text) = head(rest, b'$')?;
            let (argument, after) = (text.get(..length)?, text.get(length..)?);
            rest = after.strip_prefix(b"\r\n")?;
            if position == 0 {
                names.push(argument);
            }
        }
        packed = rest;
    }
    Some(names)
}

/// Reads `*3\r\n` or `$3\r\n`. Returns the number and the bytes that follow.
fn head(bytes: &[u8], sign: u8) -> Option<(usize, &[u8])> {
    let rest = bytes.strip_prefix(&[sign])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let number = str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((number, rest[end..].strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Traits {
        let mut command = redis::Cmd::new();
        command.arg(words);
        let traits = Traits::of(&[&command]);
        assert_eq!(traits, Traits::of_packed(&command.get_packed_command()), "{words:?}");
        traits
    }

    #[test]
    fn lists_are_sorted() {
        for list in [READS, WRITES, NO_PROOF, BLOCKING] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }

    #[test]
    fn commands_have_their_kind_for_paused_writes() {
        for (command, kind) in [
            ("get", Some(Kind::Reads)),
            ("EXISTS", Some(Kind::Reads)),
            ("CLUSTER", Some(Kind::Reads)),
            ("GETEX", Some(Kind::Others)),
            ("EVALSHA", Some(Kind::Others)),
            ("PUBLISH", Some(Kind::Others)),
            ("TOUCH", Some(Kind::Reads)),
            ("WAIT", None),
            ("WAITAOF", None),
            ("SELECT", None),
            ("SOME.MODULE.COMMAND.WITH.A.LONG.NAME", None),
            ("PING", None),
        ] {
            assert_eq!(of(&[command, "key"]).kind, kind, "{command}");
        }
        let commands = [redis::cmd("GET"), redis::cmd("EVALSHA")];
        assert_eq!(Traits::of(&[&commands[0], &commands[1]]).kind, Some(Kind::Others));
        assert_eq!(Traits::of(&[&commands[0], &commands[0]]).kind, Some(Kind::Reads));
        assert_eq!(Traits::of(&[&redis::cmd("SELECT"), &commands[1]]), Traits::UNKNOWN);
    }

    #[test]
    fn connection_changing_commands_are_on_no_list() {
        for command in [
            "SELECT",
            "MULTI",
            "EXEC",
            "DISCARD",
            "WATCH",
            "UNWATCH",
            "SUBSCRIBE",
            "PSUBSCRIBE",
            "SSUBSCRIBE",
            "UNSUBSCRIBE",
            "MONITOR",
            "CLIENT",
            "HELLO",
            "AUTH",
            "RESET",
            "QUIT",
            "ASKING",
            "READONLY",
            "READWRITE",
            "SYNC",
            "PSYNC",
            "REPLCONF",
            "SCRIPT",
            "FAILOVER",
            "SHUTDOWN",
            "DEBUG",
        ] {
            assert_eq!(of(&[command, "1"]), Traits::UNKNOWN, "{command}");
            assert_eq!(of(&[&command.to_lowercase(), "1"]), Traits::UNKNOWN, "{command}");
        }
    }

    #[test]
    fn whole_transaction_keeps_its_connection() {
        let packed = |pipeline: &redis::Pipeline| Traits::of_packed(&pipeline.get_packed_pipeline());
        let transaction = packed(redis::pipe().atomic().cmd("SET").arg("k").arg("EXEC").cmd("GET").arg("k"));
        assert_eq!(transaction, Traits { kind: Some(Kind::Others), may_be_silent: false, keeps_connection: true });
        assert!(!packed(redis::pipe().atomic().cmd("SELECT").arg(1)).keeps_connection);
        assert!(!packed(redis::pipe().cmd("MULTI").cmd("GET").arg("EXEC")).keeps_connection);
        assert!(!packed(redis::pipe().cmd("MULTI").cmd("EXEC").cmd("MULTI").cmd("EXEC")).keeps_connection);
        for malformed in [&b"GET k\r\n"[..], b"*1\r\n$9999\r\nGET\r\n", b"*1\r\n", b"*x\r\n", b"*2\r\n$3\r\nGET\r\n"] {
            assert!(!Traits::of_packed(malformed).keeps_connection, "{malformed:?}");
        }
    }

    #[test]
    fn reply_of_a_wrong_type_is_noticed() {
        let queued = || Value::SimpleString("QUEUED".to_owned());
        for name in
            ["GET", "GETEX", "SET", "DEL", "EXISTS", "PTTL", "SCAN", "TIME", "CLUSTER", "EVALSHA", "EVAL", "INFO"]
        {
            assert!(!may_give(&redis::cmd(name), &queued()), "{name}");
        }
        assert!(!may_give(&redis::cmd("GET"), &Value::Int(1)));
        assert!(!may_give(&redis::cmd("DEL"), &Value::Nil));
        assert!(may_give(&redis::cmd("GET"), &Value::Nil));
        assert!(may_give(&redis::cmd("EVALSHA"), &Value::Int(1)));
    }
}
