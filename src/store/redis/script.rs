use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::net::connection::RedisConnection;

/// A script that runs in the server: sent by its hash, and whole if the server does not know it (yet, or any more).
///
/// Not `SCRIPT LOAD`: that would be a third round trip, and on a cluster it has to succeed on every node.
pub(super) struct Script {
    code: String,
    script: redis::Script,
}

macro_rules! scripts {
    ($($name:ident)*; $($part:ident)*) => {
        /// The scripts of a store. What it was told once is a constant in them: `grace`, the milliseconds by which the data
        /// of a session outlives it, 0 in a plain store; `companions`, how many its sessions have, and their `suffixes`. In an
        /// expiring store the last of their `KEYS` is the index. The time to live of the data is the truth and the index
        /// follows from it, so an index that cannot be written (of another type, or at maxmemory) never fails an operation.
        ///
        /// What costs in a script is, in this order: a payload that comes into Lua, for it is hashed byte by byte; a command;
        /// a number that is made the text of a command; an argument; a function, called or not. So what is done with every
        /// request is written straight on, `include`s what it has in common with others, and has no line that its store does
        /// not need: those that end in `-- expiring` are for expiring stores, in `-- companions` for those with companions.
        pub(super) struct Scripts { $(pub(super) $name: Script,)* }

        impl Scripts {
            pub(super) fn new(grace: Duration, suffixes: &[String]) -> Self {
                let store = Store { expiring: !grace.is_zero(), companions: !suffixes.is_empty() };
                let mut constants = format!("local grace, companions = {}, {}\n", grace.as_millis(), suffixes.len());
                if store.companions {
                    constants += &format!("local suffixes = {{'{}'}}\n", suffixes.join("', '"));
                }
                Self { $($name: store.script(constants.clone(), stringify!($name)),)* }
            }
        }

        fn text_of(name: &str) -> &'static str {
            match name {
                $(stringify!($name) => include_str!(concat!("scripts/", stringify!($name), ".lua")),)*
                $(stringify!($part) => include_str!(concat!("scripts/", stringify!($part), ".lua")),)*
                _ => unreachable!("scripts include parts that there are"),
            }
        }
    };
}

scripts! {
    clobbered count create delete end end_all list_owned page reap rotate save save_and_bind touch verify;
    clock companions expect has_owner principals require_acl write
}

/// What scripts are put together for.
struct Store {
    expiring: bool,
    companions: bool,
}

impl Store {
    fn script(&self, mut code: String, name: &'static str) -> Script {
        self.add(&mut code, &mut Vec::new(), name);
        Script { script: redis::Script::new(&code), code }
    }

    /// Adds the lines of a script or a part, unless they are there already.
    fn add(&self, code: &mut String, included: &mut Vec<&'static str>, name: &'static str) {
        if included.contains(&name) {
            return;
        }
        included.push(name);
        for line in text_of(name).lines() {
            let line = match line.trim_end().rsplit_once(" -- ") {
                Some((line, "expiring")) if self.expiring => line,
                Some((line, "companions")) if self.companions => line,
                Some((_, "expiring" | "companions")) => continue,
                _ => line,
            };
            if let Some(part) = line.trim_start().strip_prefix("-- include ") {
                self.add(code, included, part);
            } else if !line.trim_start().starts_with("--") {
                code.push_str(line);
                code.push('\n');
            }
        }
    }
}

impl Script {
    pub(super) fn call(
        &self,
        connection: &mut RedisConnection,
        keys: &[&str],
        args: &[impl AsRef<[u8]>],
    ) -> RedisResult<Value> {
        self.or_whole(|name, script| command(name, script, keys, args).query(connection))
    }

    /// The same behind a command, in one go. What came of both.
    pub(super) fn call_after(
        &self,
        before: &Cmd,
        connection: &mut RedisConnection,
        keys: &[&str],
        args: &[impl AsRef<[u8]>],
    ) -> RedisResult<[Value; 2]> {
        self.or_whole(|name, script| connection.both(before, &command(name, script, keys, args)))
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

fn command(name: &str, script: &str, keys: &[&str], args: &[impl AsRef<[u8]>]) -> Cmd {
    let room = keys.iter().map(|key| key.len()).chain(args.iter().map(|arg| arg.as_ref().len())).sum::<usize>();
    let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), script.len() + room + 64);
    command.arg(name).arg(script).arg(keys.len()).arg(keys);
    for arg in args {
        command.arg(arg.as_ref());
    }
    command
}
