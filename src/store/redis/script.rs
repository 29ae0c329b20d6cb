//! The scripts that run in the server, and how they are called. The Redis store uses them for each operation that takes more than
//! one command. A script runs as a whole, to one hash slot, and nothing in it may fail after its first write.

mod render;

use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

pub(super) use self::render::Ends;
use self::render::Kind;
use super::net::connection::RedisConnection;

/// A script that runs in the server: sent by its hash, and whole if the server does not know it (yet, or any more).
///
/// Not `SCRIPT LOAD`: that would be a third round trip, and on a cluster it has to succeed on every node.
pub(super) struct Script {
    code: String,
    script: redis::Script,
    /// `true` if the last argument is the key base of the partition, in a store that has an index or notes ends.
    takes_base: bool,
}

macro_rules! scripts {
    (with_base: $($based:ident)*; without_base: $($other:ident)*; parts: $($part:ident)*) => {
        /// The scripts of a store. The settings of the store are constants in them: `grace`, the milliseconds by which the data
        /// of a session outlives it, 0 in a plain store; `companions`, how many its sessions have, and their `suffixes`. In an
        /// expiring store the last of their `KEYS` is the index. The TTL of the data is the truth and the index
        /// follows from it, so an index that cannot be written (of another type, or at maxmemory) never fails an operation.
        ///
        /// The cost of a script comes, in this order, from: a payload that comes into Lua, because Lua hashes every byte of it; a
        /// command; a number that becomes the text of a command; an argument; a function, called or not. So a script of
        /// every request is straight-line code. It includes the parts that it shares with others, and it has only the lines that
        /// its store needs. `render` documents the directives.
        pub(super) struct Scripts {
            $(pub(super) $based: Script,)*
            $(pub(super) $other: Script,)*
        }

        impl Scripts {
            pub(super) fn new(grace: Duration, suffixes: &[String], ends: Ends) -> Self {
                let kind = Kind { grace, suffixes, ends };
                Self {
                    $($based: Script::new(&kind, stringify!($based), true),)*
                    $($other: Script::new(&kind, stringify!($other), false),)*
                }
            }
        }

        /// The source of a script or a part.
        fn source(name: &str) -> Option<&'static str> {
            match name {
                $(stringify!($based) => Some(include_str!(concat!("scripts/", stringify!($based), ".lua"))),)*
                $(stringify!($other) => Some(include_str!(concat!("scripts/", stringify!($other), ".lua"))),)*
                $(stringify!($part) => Some(include_str!(concat!("scripts/", stringify!($part), ".lua"))),)*
                _ => None,
            }
        }

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($based),)* $(stringify!($other),)*];
        #[cfg(test)]
        const PARTS: &[&str] = &[$(stringify!($part),)*];
    };
}

scripts! {
    with_base: clobbered create delete end end_all list_owned owned_after reap rotate save_and_bind verify verify_owned;
    without_base: change count page save touch touch_if_due;
    parts: clock companions expect has_owner is_live move_deadline note_end over_cap principals require_acl write
}

impl Script {
    fn new(kind: &Kind<'_>, name: &str, takes_base: bool) -> Self {
        let code = render::render(kind, name, source).expect("a unit test renders every script");
        Self { script: redis::Script::new(&code), code, takes_base }
    }

    /// Calls the script. `base` is the key base of the partition, in a store that has an index or notes ends; a script that
    /// needs it gets it as its last argument.
    pub(super) fn call(
        &self,
        connection: &mut RedisConnection,
        keys: &[&str],
        args: &[impl AsRef<[u8]>],
        base: Option<&str>,
    ) -> RedisResult<Value> {
        let base = base.filter(|_| self.takes_base);
        self.or_whole(|name, script| command(name, script, keys, args, base).query(connection))
    }

    /// Sends a command and calls the script behind it in one round trip. Returns both replies. Only for scripts without a base.
    pub(super) fn call_after(
        &self,
        before: &Cmd,
        connection: &mut RedisConnection,
        keys: &[&str],
        args: &[impl AsRef<[u8]>],
    ) -> RedisResult<[Value; 2]> {
        debug_assert!(!self.takes_base, "the script needs a key base");
        self.or_whole(|name, script| connection.pipeline2(before, &command(name, script, keys, args, None)))
    }

    fn or_whole<A>(&self, mut call: impl FnMut(&str, &str) -> RedisResult<A>) -> RedisResult<A> {
        match call("EVALSHA", self.script.get_hash()) {
            Err(error) if is_unknown(&error) => call("EVAL", &self.code),
            answer => answer,
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn command(name: &str, script: &str, keys: &[&str], args: &[impl AsRef<[u8]>], base: Option<&str>) -> Cmd {
    let keys_len = keys.iter().map(|key| key.len()).sum::<usize>();
    let args_len = args.iter().map(|arg| arg.as_ref().len()).sum::<usize>() + base.map_or(0, str::len);
    let mut command = Cmd::with_capacity(4 + keys.len() + args.len(), script.len() + keys_len + args_len + 64);
    command.arg(name).arg(script).arg(keys.len()).arg(keys);
    for arg in args {
        command.arg(arg.as_ref());
    }
    if let Some(base) = base {
        command.arg(base);
    }
    command
}
