use std::sync::LazyLock;

use redis::{Cmd, ConnectionLike, ErrorKind, RedisResult, ServerErrorKind, Value};

/// A script that runs in the server: sent by its hash, and whole if the server does not know it (yet, or any more).
///
/// Not `SCRIPT LOAD`: that would be a third round trip, and on a cluster it has to succeed on every node.
pub(super) struct Script(redis::Script, &'static str);

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)*) => {$(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(include_str!("scripts/prelude.lua"), $(include_str!(concat!("scripts/", $file))),+))
        });
    )*};
}

scripts! {
    CREATE = "write.lua" "principals.lua" "create.lua";
    READ = "read.lua";
    SAVE = "write.lua" "save.lua";
    SAVE_AND_BIND = "write.lua" "principals.lua" "save.lua";
    ROTATE = "write.lua" "principals.lua" "rotate.lua";
    DELETE = "principals.lua" "delete.lua";
    REAP = "principals.lua" "reap.lua";
    COUNT = "count.lua";
    PAGE = "page.lua";
    OF = "principals.lua" "of.lua";
    END = "principals.lua" "end.lua";
    EVERYBODY = "principals.lua" "everybody.lua";
    VERIFY = "principals.lua" "verify.lua";
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
