//! A private Redis server, which ends with its value or with the test process.

use std::collections::hash_map::RandomState;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::Duration;

use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// Runs the server, and sends it the signals named on stdin. End of file there
/// means the test process is gone, however it went: the server is killed, and
/// the directory removed that the test process can no longer remove.
///
/// The watcher outlives signals sent to the whole process group, because a
/// stopped server would outlive them too. It is dismissed once the server is
/// reaped, so it never signals a process id that was given out again.
///
/// Nothing here ends before the first line, which comes when `spawn` is done:
/// while that has its thread's signals blocked, a child's death would go to
/// other threads and interrupt their socket reads, if those have a timeout.
/// For the same reason tests had better not run short-lived commands.
const GUARD: &str = r#"
dir=$1; shift
read -r go || exit
exec 3<&0
"$@" 3<&- >/dev/null &
server=$!
{
    trap '' HUP INT TERM
    while read -r signal; do
        kill -$signal $server
        # The signal is only queued so far; a command sent now might still run.
        while [ $signal = STOP ] && ps -o stat= -p $server | grep -q '^[^T]'; do :; done
        echo sent
    done
    trap '' USR1
    kill -KILL $server
    rm -rf "$dir"
} <&3 &
watcher=$!
echo $server
wait $server; status=$?
kill -USR1 $watcher
exit $status
"#;

/// The configuration of a server that is a Sentinel.
const SENTINEL: &str = "sentinel.conf";

/// A private Redis server, on a loopback port and on a unix socket. Dropping
/// the value ends the server, and so does the end of the test process.
pub struct RedisServer {
    // Declared, and so dropped, before the directory it runs in.
    process: Mutex<Process>,
    port: u16,
    args: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    dir: TempDir,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with further arguments, which override the kit's. `{port}` in them is the server's port.
    pub fn with(args: &[&str]) -> Self {
        Self::within(TempDir::new().expect("a temporary directory"), args, &[])
    }

    /// Starts a server with further environment variables.
    #[cfg(target_os = "linux")]
    pub fn with_environment(environment: &[(&'static str, OsString)]) -> Self {
        Self::within(TempDir::new().expect("a temporary directory"), &[], environment)
    }

    /// Starts a Sentinel with this configuration, which it may rewrite.
    pub fn sentinel(configuration: &str) -> Self {
        Self::sentinel_with(configuration, &[])
    }

    /// The same with further arguments, as [`with`](Self::with) takes them.
    pub fn sentinel_with(configuration: &str, args: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        fs::write(dir.path().join(SENTINEL), configuration).unwrap();
        Self::within(dir, args, &[])
    }

    fn within(dir: TempDir, args: &[&str], environment: &[(&'static str, OsString)]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        loop {
            let port = next_port();
            if let Some(process) = Process::launch(dir.path(), port, &args, environment) {
                let process = Mutex::new(process);
                return Self { process, port, args, environment: environment.to_vec(), dir };
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", socket(self.dir.path()).display())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().server
    }

    /// The server's directory: its log, its socket, its persisted data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection().unwrap()
    }

    /// Runs one command on a fresh connection.
    #[track_caller]
    pub fn cmd(&self, command: &[&str]) -> redis::Value {
        redis::cmd(command[0])
            .arg(&command[1..])
            .query(&mut self.connection())
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Kills the server as a crash would.
    pub fn kill(&self) {
        self.process.lock().unwrap().kill();
    }

    /// Starts the server again on the same port, killing it first if need be.
    pub fn restart(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill();
        let launched = Process::launch(self.dir.path(), self.port, &self.args, &self.environment);
        *process = launched.expect("the server's port is still free");
    }

    /// Freezes the server: the kernel still accepts connections for it, but
    /// the server replies to nothing until [`resume`](Self::resume).
    pub fn stop(&self) {
        self.process.lock().unwrap().signal("STOP");
    }

    pub fn resume(&self) {
        self.process.lock().unwrap().signal("CONT");
    }
}

/// The server for tests that neither break it nor mind each other's keys.
pub fn shared() -> &'static RedisServer {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    SHARED.get_or_init(RedisServer::start)
}

/// A name that no other call returns, nor any name that starts with it.
pub fn unique(name: &str) -> String {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{name}", CALLS.fetch_add(1, Ordering::Relaxed))
}

/// The guard and the server under it.
struct Process {
    guard: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    server: u32,
}

impl Process {
    /// Starts a server and waits until it responds; `None` if the port is taken.
    fn launch(dir: &Path, port: u16, args: &[String], environment: &[(&'static str, OsString)]) -> Option<Self> {
        let binary = env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let log = dir.join("redis.log");
        let _ = fs::remove_file(&log);
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .args([dir.as_os_str(), &binary])
            .args(
                Some(dir.join(SENTINEL))
                    .filter(|file| file.exists())
                    .into_iter()
                    .flat_map(|file| [file.into_os_string(), "--sentinel".into()]),
            )
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--unixsocket".as_ref(), socket(dir).as_os_str()])
            .args(["--dir".as_ref(), dir.as_os_str()])
            .args(["--logfile".as_ref(), log.as_os_str()])
            .args(["--loglevel", "warning", "--daemonize", "no"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--protected-mode", "no", "--enable-debug-command", "yes"])
            .args(args.iter().map(|arg| arg.replace("{port}", &port.to_string())))
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        let orders = guard.stdin.take().unwrap();
        let replies = BufReader::new(guard.stdout.take().unwrap());
        let mut process = Self { guard, orders, replies, server: 0 };
        process.server = process.order("go").parse().expect("the server's pid");

        let mut exit = None;
        let settled = eventually(PATIENCE, || {
            exit = process.guard.try_wait().unwrap();
            exit.is_some() || is_ready(&socket(dir))
        });
        let log = fs::read_to_string(log).unwrap_or_default();
        match exit.map(|status| status.code()) {
            None => assert!(settled, "redis-server does not respond:\n{log}"),
            Some(Some(126 | 127)) => {
                panic!("cannot start {binary:?}; run scripts/test, which provides a redis-server")
            }
            Some(_) if log.contains("Address already in use") => return None,
            Some(_) => panic!("redis-server exited:\n{log}"),
        }
        Some(process)
    }

    /// Sends an order to the guard, and returns its reply. The reply is empty
    /// if the server has ended, because the guard ends with it.
    fn order(&mut self, order: &str) -> String {
        let mut reply = String::new();
        let _ = writeln!(self.orders, "{order}");
        let _ = self.replies.read_line(&mut reply);
        reply.trim_end().to_owned()
    }

    fn signal(&mut self, signal: &str) {
        assert_eq!(self.order(signal), "sent", "the server runs");
    }

    fn kill(&mut self) {
        self.order("KILL");
        let _ = self.guard.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}

/// Returns `true` if the server behind `socket` serves commands. Uses the
/// socket because another process may listen on the port.
fn is_ready(socket: &Path) -> bool {
    let ping = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).map(|()| reply)
    };
    ping().is_ok_and(|reply| matches!(&reply, b"+PONG\r\n" | b"-NOAUTH"))
}

/// Ports below the range from which the system takes the local ports of
/// outgoing connections: none of those can occupy a killed server's port, or,
/// dialling it, be connected to itself. The nodes of a cluster also listen
/// 10000 ports above.
fn next_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 20_000..22_700;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one(0) as u16));
    PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u16
}
