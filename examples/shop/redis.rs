//! A Redis of the shop's own, which visitors can take away and bring back.
//!
//! `main` starts it for `--own-redis`. It listens at a Unix socket in a folder that only this user can enter, and writes each
//! change to a file there. Invariants: no other Redis is ever stopped, and the server ends with the shop.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use threaded_sessions::BoxError;

/// How to get the program.
pub(crate) const INSTALL: &str = "apt install redis-server, dnf install redis or brew install redis";

/// The longest time that the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct OwnRedis {
    folder: TempDir,
    /// `None` while Redis is away.
    server: Mutex<Option<Child>>,
}

impl OwnRedis {
    /// Starts `redis-server`. Returns `None` if this machine has none.
    pub(crate) fn start() -> Result<Option<Self>, BoxError> {
        if !is_installed() {
            return Ok(None);
        }
        let redis = Self { folder: tempfile::tempdir()?, server: Mutex::new(None) };
        redis.bring_back()?;
        Ok(Some(redis))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket())
    }

    fn socket(&self) -> String {
        self.folder.path().join("redis.sock").display().to_string()
    }

    pub(crate) fn is_away(&self) -> bool {
        self.server().is_none()
    }

    /// Kills the server, as a crash would.
    pub(crate) fn take_away(&self) {
        if let Some(mut server) = self.server().take() {
            end(&mut server);
        }
    }

    /// Starts the server with what it had, and waits until it accepts connections.
    pub(crate) fn bring_back(&self) -> Result<(), BoxError> {
        let mut server = self.server();
        if server.is_some() {
            return Ok(());
        }
        let mut started = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", &self.socket(), "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--dir"])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()?;
        let began = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if began.elapsed() > START_TIMEOUT || started.try_wait()?.is_some() {
                end(&mut started);
                return Err("redis-server does not start".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        *server = Some(started);
        Ok(())
    }

    /// Ends the server for good, and removes its folder.
    ///
    /// Threads of the server still have this value when `main` returns, so it is not dropped then.
    pub(crate) fn close(&self) {
        self.take_away();
        let _ = fs::remove_dir_all(self.folder.path());
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the server if the shop cannot start.
impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.take_away();
    }
}

pub(crate) fn is_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Both calls fail only if the process has ended already.
fn end(server: &mut Child) {
    let _ = server.kill();
    let _ = server.wait();
}
