use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use redis::{RedisResult, Value};

use super::connection::RedisConnection;
use super::connector::RedisConnectionManager;
use super::error;
use crate::{Error, ErrorKind, Result};

/// How long somebody who waits for a connection waits before looking whether it still makes sense, for r2d2 tells nobody
/// that connecting failed. Each wait is twice as long as the one before: r2d2 opens another connection for each.
const FIRST_CHECKOUT_WAIT: Duration = Duration::from_millis(10);

/// How often Sentinels are asked whether there is another master, besides when a connection is opened.
const MASTER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// One server, or the master that Sentinels name: the connections to it. Whether it can be reached its manager knows.
pub(crate) struct Server {
    pub(crate) pool: r2d2::Pool<RedisConnectionManager>,
    pub(crate) manager: RedisConnectionManager,
}

impl Server {
    pub(crate) fn open(manager: RedisConnectionManager, settings: r2d2::Builder<RedisConnectionManager>) -> Arc<Self> {
        let pool = settings
            .min_idle(Some(1))
            .test_on_check_out(true)
            .connection_timeout(Duration::from_millis(200))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager.clone());
        let server = Arc::new(Self { pool, manager });
        if server.manager.follows_a_master() {
            server.watch();
        }
        server
    }

    /// Looks now and then whether there is another master, until the server is dropped.
    fn watch(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        let look = move || {
            while let Some(server) = server.upgrade() {
                if server.manager.follow_new_master() {
                    // Has r2d2 throw away idle connections and open another.
                    drop(server.pool.try_get());
                }
                drop(server);
                thread::sleep(MASTER_CHECK_INTERVAL);
            }
        };
        // Without the thread, connections that fail show it.
        let _ = thread::Builder::new().name("redis-master".to_owned()).spawn(look);
    }

    /// Sends a command over one connection. The outer error: it was not sent.
    pub(crate) fn send(
        &self,
        operation: &'static str,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<RedisResult<Value>> {
        match self.exchange(operation, until, &command)? {
            // The one that was asked did nothing. If there is another master by now, the next connection leads to it.
            Err(error) if self.manager.follows_a_master() && error::cannot_serve(&error) => {
                self.exchange(operation, until, &command)
            }
            answer => Ok(answer),
        }
    }

    fn exchange(
        &self,
        operation: &'static str,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<RedisResult<Value>> {
        let mut connection = self.checkout(operation, until)?;
        let answer = connection.with_deadline(until, command);
        drop(connection);
        if let Err(error) = &answer {
            self.manager.breaker().on_error(error);
            // The idle connections may have become useless with this one. Taking one out has r2d2 throw them away and open
            // another, which finds out when Redis is back, also if nobody asks any more.
            drop(self.pool.try_get());
        }
        Ok(answer)
    }

    pub(crate) fn checkout(
        &self,
        operation: &'static str,
        until: Instant,
    ) -> Result<PooledConnection<RedisConnectionManager>> {
        let mut look = FIRST_CHECKOUT_WAIT;
        loop {
            if let Some(connection) = self.pool.try_get() {
                return Ok(connection);
            }
            if let Err(error) = self.manager.breaker().check() {
                return Err(error::connect_error(operation, &error));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("none of up to {} connections came free", self.pool.max_size());
                return Err(Error::new(ErrorKind::TimedOut, operation).with_source(why));
            }
            if let Ok(connection) = self.pool.get_timeout(left.min(look)) {
                return Ok(connection);
            }
            look *= 2;
        }
    }

    /// Why nobody waits for it.
    pub(crate) fn check(&self) -> RedisResult<()> {
        self.manager.breaker().check()
    }
}
