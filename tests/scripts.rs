//! The scripts do the same as the scripts in `scripts/reference`, which were rendered before the sources got directives.
//!
//! `scripts/rendered` has what runs today, by kind of store; a unit test keeps it equal to the sources. This test runs the old and
//! the new scripts on the same random keyspaces, with a fixed seed, and compares every reply, and afterwards every key, its TTL and
//! its value. Deadlines and scores that a script takes from the clock may differ by `CLOCK`.
//!
//! The arguments of old and new scripts differ in two points, see `Call::args`: new scripts take the key base of the partition, and
//! the compare mode `mark` is called `revision`. Both are the same for the scripts in `calls::CHANGED`, whose behaviour changed on
//! purpose: their references are copies of the rendering after the change. The others still run against the first references.
//!
//! If you change the behaviour of a script on purpose, add an entry to `INTENDED` that recognises the difference and gives the
//! reason. An entry that matches nothing fails the test. If you change arguments, translate them in `Call::args`. If most runs
//! of a script differ, copy its new rendering over its reference, and name the script in the commit message.
//!
//! The forms of "is live" that the old scripts have differ in one corner, which no script reaches: `left < 0` takes -2, no key, for
//! live. The old `create`, `rotate` and `expect` ask so only after `GET` has found the key, and a key does not expire while a script
//! runs. The old `delete` takes -2 for not expired, so that it removes what the index has; the new one asks for -2 by itself.

#[path = "scripts/calls.rs"]
mod calls;
#[path = "scripts/keyspace.rs"]
mod keyspace;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use calls::Version;
use keyspace::{Keyspace, Random};
use redis::{Connection, ConnectionLike, Value};
use support::RedisServer;

/// How many keyspaces each kind of store gets.
const KEYSPACES: u64 = 10_000;

/// How many keyspaces go to the server in one pipeline.
const BATCH: u64 = 100;

/// By how many ms numbers may differ that depend on the clock. All times in a keyspace are further apart.
const CLOCK: f64 = 2000.0;

/// Numbers below this are counts, and must be equal.
const SMALLEST_TIME: f64 = 10_000.0;

/// Differences between old and new scripts that are intended.
const INTENDED: &[Intended] = &[Intended {
    why: "if a command fails after the first session ended, end_all returns how many ended; the old one failed",
    applies: |difference| {
        let stopped = |new: &Value| matches!(new, Value::Array(parts) if parts.last() == Some(&Value::Int(-1)));
        let mut replies = difference.keyspace.calls.iter().zip(difference.old.iter().zip(difference.new));
        all_near(&difference.old[difference.old.len() - 1..], &difference.new[difference.new.len() - 1..])
            && replies.all(|(call, (old, new))| {
                near(old, new) || call.name == "end_all" && matches!(old, Value::ServerError(_)) && stopped(new)
            })
    },
}];

/// A difference that is intended.
struct Intended {
    why: &'static str,
    applies: fn(&Difference<'_>) -> bool,
}

/// A keyspace on which old and new scripts did not do the same.
#[derive(Debug)]
#[allow(dead_code, reason = "a panic message shows the fields")]
struct Difference<'a> {
    kind: Kind,
    keyspace: &'a Keyspace,
    old: &'a [Value],
    new: &'a [Value],
}

/// A kind of store.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// The folder of the references.
    name: &'static str,
    /// The folder of the new scripts.
    rendered: &'static str,
    expiring: bool,
    companions: bool,
}

impl Kind {
    const fn new(name: &'static str, expiring: bool, companions: bool) -> Self {
        Self { name, rendered: name, expiring, companions }
    }

    fn announces(self) -> bool {
        self.name != self.rendered
    }
}

/// The kinds of stores. Announcements change neither replies nor keys, so the last two have the references of those before.
const KINDS: [Kind; 6] = [
    Kind::new("plain", false, false),
    Kind::new("plain_companions", false, true),
    Kind::new("expiring", true, false),
    Kind::new("expiring_companions", true, true),
    Kind { rendered: "plain_announced", ..Kind::new("plain_companions", false, true) },
    Kind { rendered: "expiring_announced", ..Kind::new("expiring_companions", true, true) },
];

/// Empties the database and runs commands in it: ARGV has for each the number of its words, and the words.
const MAKE: &str = "
    redis.call('FLUSHDB', 'SYNC')
    local at = 1
    while at <= #ARGV do
      local last = at + ARGV[at]
      redis.call(unpack(ARGV, at + 1, last))
      at = last + 1
    end";

/// Returns all keys of the database in order, as one text: name, type, deadline and value of each, all separated by null bytes.
const DUMP: &str = "
    local keys, dump = redis.call('KEYS', '*'), {}
    local function add(text) dump[#dump + 1] = text end
    table.sort(keys)
    for _, key in ipairs(keys) do
      local kind = redis.call('TYPE', key).ok
      add(key) add(kind) add(redis.call('PEXPIRETIME', key))
      if kind == 'string' then
        add(redis.call('GET', key))
      elseif kind == 'list' then
        for _, element in ipairs(redis.call('LRANGE', key, 0, -1)) do add(element) end
      else
        local entries = kind == 'hash' and redis.call('HGETALL', key) or redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
        local members, by_member = {}, {}
        for at = 1, #entries, 2 do
          members[#members + 1] = entries[at]
          by_member[entries[at]] = entries[at + 1]
        end
        table.sort(members)
        for _, member in ipairs(members) do add(member) add(by_member[member]) end
      end
    end
    return table.concat(dump, '\\0')";

/// A server with the old and the new scripts of one kind of store.
struct Rig {
    kind: Kind,
    connection: Connection,
    /// The hashes of the scripts by version and name.
    hashes: BTreeMap<(Version, &'static str), String>,
    make: String,
    dump: String,
}

impl Rig {
    /// `change` may change the text of a new script.
    fn new(server: &RedisServer, kind: Kind, change: impl Fn(&str, String) -> String) -> Self {
        let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        let mut load =
            |code: &str| redis::cmd("SCRIPT").arg("LOAD").arg(code).query::<String>(&mut connection).unwrap();
        let mut hashes = BTreeMap::new();
        for name in calls::names(kind) {
            let dirs = [format!("reference/{}", kind.name), format!("rendered/{}", kind.rendered)];
            for (version, dir) in [Version::Old, Version::New].into_iter().zip(dirs) {
                let path = format!("{}/tests/scripts/{dir}/{name}.lua", env!("CARGO_MANIFEST_DIR"));
                let code = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                let code = if version == Version::New { change(name, code) } else { code };
                hashes.insert((version, name), load(&code));
            }
        }
        let [make, dump] = [load(MAKE), load(DUMP)];
        Self { kind, connection, hashes, make, dump }
    }

    /// Runs the calls of each keyspace with the old and with the new scripts. Returns the replies and the dump for both.
    fn run(&mut self, keyspaces: &[Keyspace]) -> Vec<[Vec<Value>; 2]> {
        let (mut packed, mut count) = (Vec::new(), 0);
        for keyspace in keyspaces {
            let make = redis::cmd("EVALSHA").arg(&self.make).arg(0).arg(&keyspace.commands).get_packed_command();
            for version in [Version::Old, Version::New] {
                redis::cmd("SELECT").arg(version as u8).write_packed_command(&mut packed);
                packed.extend(&make);
                for call in &keyspace.calls {
                    let hash = &self.hashes[&(version, call.name)];
                    let args = call.args(version, self.kind, &keyspace.base);
                    let mut command = redis::cmd("EVALSHA");
                    command.arg(hash).arg(call.keys.len()).arg(&call.keys).arg(args).write_packed_command(&mut packed);
                }
                redis::cmd("EVALSHA").arg(&self.dump).arg(0).write_packed_command(&mut packed);
                count += 3 + keyspace.calls.len();
            }
        }
        let mut replies = self.connection.req_packed_commands(&packed, 0, count).unwrap().into_iter();
        let mut next = |keyspace: &Keyspace| {
            assert_eq!(replies.next(), Some(Value::Okay));
            assert_eq!(replies.next(), Some(Value::Nil), "{keyspace:?} is made");
            replies.by_ref().take(keyspace.calls.len() + 1).collect()
        };
        keyspaces.iter().map(|keyspace| [next(keyspace), next(keyspace)]).collect()
    }

    /// Returns `true` if old and new scripts do the same. A difference that does not come again is one of the clock.
    fn same(&mut self, keyspace: &Keyspace, [old, new]: &[Vec<Value>; 2]) -> bool {
        all_near(old, new)
            || (0..3).any(|_| {
                let [old, new] = &self.run(std::slice::from_ref(keyspace))[0];
                all_near(old, new)
            })
    }
}

/// Returns `true` if two values are equal, except for the clock.
fn near(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => all_near(one, other),
        (Value::Int(one), Value::Int(other)) => one == other || near_times(*one as f64, *other as f64),
        (Value::BulkString(one), Value::BulkString(other)) => one == other || near_texts(one, other),
        (Value::ServerError(one), Value::ServerError(other)) => {
            // Behind this the text has the hash of the script and the line.
            let what = |text: Option<&str>| text.and_then(|text| text.split(" script: ").next()).map(str::to_owned);
            one.code() == other.code() && what(one.details()) == what(other.details())
        }
        _ => one == other,
    }
}

fn near_times(one: f64, other: f64) -> bool {
    one >= SMALLEST_TIME && other >= SMALLEST_TIME && (one - other).abs() <= CLOCK
}

/// Compares texts whose parts are separated by null bytes.
fn near_texts(one: &[u8], other: &[u8]) -> bool {
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<f64>().ok();
    let near_parts = |(one, other): (&[u8], &[u8])| {
        one == other || number(one).zip(number(other)).is_some_and(|(one, other)| near_times(one, other))
    };
    let parts = |text| <[u8]>::split(text, |byte| *byte == 0);
    parts(one).count() == parts(other).count() && parts(one).zip(parts(other)).all(near_parts)
}

fn all_near(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| near(one, other))
}

/// The kind of a reply, to see that the keyspaces lead to more than one.
fn class(reply: &Value) -> String {
    match reply {
        Value::Int(number) if *number as f64 >= SMALLEST_TIME => "time".to_owned(),
        Value::Array(parts) => format!("array of {}", parts.len().min(3)),
        Value::ServerError(error) => error.code().to_owned(),
        Value::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// Runs old and new scripts on `count` keyspaces. Returns the classes of the replies of each script, and how often each intended
/// difference was seen.
fn compare(rig: &mut Rig, count: u64) -> (BTreeMap<&'static str, BTreeMap<String, u64>>, Vec<u64>) {
    let mut classes = BTreeMap::<_, BTreeMap<_, _>>::new();
    let mut intended = vec![0; INTENDED.len()];
    for first in (0..count).step_by(BATCH as usize) {
        let seeds = first..count.min(first + BATCH);
        let keyspaces: Vec<Keyspace> = seeds.map(|seed| Keyspace::random(rig.kind, &mut Random::new(seed))).collect();
        for (keyspace, replies) in keyspaces.iter().zip(rig.run(&keyspaces)) {
            for (call, reply) in keyspace.calls.iter().zip(&replies[1]) {
                *classes.entry(call.name).or_default().entry(class(reply)).or_default() += 1;
            }
            if rig.same(keyspace, &replies) {
                continue;
            }
            let [old, new] = &replies;
            let difference = Difference { kind: rig.kind, keyspace, old, new };
            match INTENDED.iter().position(|intended| (intended.applies)(&difference)) {
                Some(position) => intended[position] += 1,
                None => panic!("old and new scripts differ: {difference:#?}"),
            }
        }
    }
    (classes, intended)
}

#[test]
fn scripts_match_their_references() {
    let server = RedisServer::start();
    let mut seen = vec![0; INTENDED.len()];
    for kind in KINDS {
        let keyspaces = if kind.announces() { KEYSPACES / 5 } else { KEYSPACES };
        let (classes, intended) = compare(&mut Rig::new(&server, kind, |_, code| code), keyspaces);
        seen.iter_mut().zip(intended).for_each(|(seen, more)| *seen += more);
        let called: BTreeSet<&str> = classes.keys().copied().collect();
        assert_eq!(called, calls::names(kind).collect(), "{}: every script is called", kind.rendered);
        for (name, classes) in classes {
            let calls: u64 = classes.values().sum();
            assert!(calls >= keyspaces / 20, "{}/{name} is called {calls} times", kind.name);
            assert!(classes.len() > 1, "{}/{name} always replies alike: {classes:?}", kind.name);
        }
    }
    for (intended, seen) in INTENDED.iter().zip(seen) {
        assert!(seen > 0, "no keyspace shows this intended difference: {}", intended.why);
    }
}

/// Each is a mistake that a change of the scripts could make.
#[test]
fn comparison_finds_a_changed_script() {
    let server = RedisServer::start();
    for (kind, name, before, after) in [
        (KINDS[2], "create", "left > grace", "left >= 0"),
        (KINDS[2], "delete", "left ~= -2 and ", ""),
        (KINDS[2], "list_owned", "left == -1 or ", ""),
        (KINDS[2], "rotate", "redis.pcall('ZREM', index, old)", ""),
        (KINDS[3], "touch", "companions_expire(key)\nlocal by", "local by"),
        (KINDS[0], "touch_if_due", "left > ARGV[2] + 0", "left >= 0"),
        (KINDS[2], "touch_if_due", " and left <= data_ttl", ""),
        (KINDS[3], "reap", "p.unbind_all(gone)", ""),
        (KINDS[3], "save", "left == -1 and -1 or left - grace", "left - grace"),
    ] {
        let change = |changed: &str, code: String| {
            if changed != name {
                return code;
            }
            assert!(code.contains(before), "{name} has {before:?}");
            code.replace(before, after)
        };
        let mut rig = Rig::new(&server, kind, change);
        let keyspaces: Vec<Keyspace> = (0..2000).map(|seed| Keyspace::random(kind, &mut Random::new(seed))).collect();
        let replies = rig.run(&keyspaces);
        let found = keyspaces.iter().zip(&replies).any(|(keyspace, replies)| !rig.same(keyspace, replies));
        assert!(found, "the comparison does not find {after:?} instead of {before:?} in {name}");
    }
}
