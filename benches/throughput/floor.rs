//! The floor: bare commands through a pool that does nothing but hand out connections.

use std::time::Duration;

use r2d2::{ManageConnection, Pool};
use redis::{Client, Cmd, Connection, IntoConnectionInfo, RedisError, RedisResult, Value};

const LIMIT: Duration = Duration::from_secs(1);

/// Bare connections of the `redis` crate, with the time limits that every program needs.
#[derive(Debug)]
pub(crate) struct Bare(Client);

impl ManageConnection for Bare {
    type Connection = Connection;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.0.get_connection_with_timeout(LIMIT)?;
        connection.set_read_timeout(Some(LIMIT))?;
        connection.set_write_timeout(Some(LIMIT))?;
        Ok(connection)
    }

    fn is_valid(&self, _: &mut Connection) -> RedisResult<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

/// A pool of so many connections. Clones are the same.
#[derive(Clone)]
pub(crate) struct Floor(Pool<Bare>);

impl Floor {
    pub(crate) fn new(url: &str, connections: usize) -> Self {
        let info = url.into_connection_info().expect("the server's own URL");
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(tcp)).expect("the server's own URL");
        let pool = Pool::builder().max_size(connections as u32).test_on_check_out(false);
        Self(pool.build(Bare(client)).expect("the server runs"))
    }

    pub(crate) fn query(&self, command: &Cmd) -> Value {
        let mut connection = self.0.get().expect("there are as many connections as threads");
        command.query(&mut *connection).expect("Redis responds")
    }

    /// Sends two commands in one pipeline, and returns the reply to the first.
    pub(crate) fn query_both(&self, one: Cmd, other: Cmd) -> Value {
        let mut connection = self.0.get().expect("there are as many connections as threads");
        let both = redis::pipe().add_command(one).add_command(other).query(&mut *connection);
        let [reply, _]: [Value; 2] = both.expect("Redis responds");
        reply
    }
}

/// A script that the server knows already.
pub(crate) struct Bound {
    hash: String,
}

impl Bound {
    pub(crate) fn new(floor: &Floor, code: &str) -> Self {
        let hash = floor.query(redis::cmd("SCRIPT").arg("LOAD").arg(code));
        Self { hash: redis::from_redis_value(hash).expect("the hash of the script") }
    }

    pub(crate) fn command(&self, keys: &[&str]) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len()).arg(keys);
        command
    }
}
