use std::sync::LazyLock;

use redis::{Cmd, ConnectionLike, ErrorKind, RedisResult, ServerErrorKind, Value};

/// A script that runs in the server: sent by its hash, and whole if the server does not know it (yet, or any more).
///
/// Not `SCRIPT LOAD`: that would be a third round trip, and on a cluster it has to succeed on every node.
pub(super) struct Script(redis::Script, &'static str);

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {$(
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("scripts/prelude.lua"), include_str!($file))));
    )*};
}

scripts! {
    CREATE = "scripts/create.lua";
    READ = "scripts/read.lua";
    SAVE = "scripts/save.lua";
    ROTATE = "scripts/rotate.lua";
    DELETE = "scripts/delete.lua";
    REAP = "scripts/reap.lua";
    COUNT = "scripts/count.lua";
    PAGE = "scripts/page.lua";
    VERIFY = "scripts/verify.lua";
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self(redis::Script::new(code), code)
    }

    pub(super) fn call(
        &self,
        connection: &mut impl ConnectionLike,
        keys: &[&str],
        args: &[&[u8]],
    ) -> RedisResult<Value> {
        let command = |name, script| {
            let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), 256);
            command.arg(name).arg(script).arg(keys.len()).arg(keys).arg(args);
            command
        };
        match command("EVALSHA", self.0.get_hash()).query(connection) {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                command("EVAL", self.1).query(connection)
            }
            answer => answer,
        }
    }
}
