//! The program `threaded-sessions` as an operator calls it, and sessions for it to find.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use threaded_sessions::{Handle, RedisSessionStore, SessionManager};

/// The users of [`fill`]. One name holds characters with which a terminal can be tricked.
pub const USERS: [&str; 3] = ["ada", "grace", "eve\u{1b}[2J\u{202e}"];

/// The sessions of each user, and those without a user.
pub const SESSIONS_EACH: usize = 4;

/// A Redis and a prefix, as an operator names them.
#[derive(Clone)]
pub struct Tool {
    pub url: String,
    pub prefix: String,
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Tool {
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { url: url.into(), prefix: prefix.into() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threaded-sessions"));
        command.env_clear().env("REDIS_URL", &self.url).env("SESSION_PREFIX", &self.prefix);
        command.env("SESSION_DEADLINE", "20s").args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("the program starts"))
    }

    /// Runs a command that must succeed, and returns its output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    /// Runs a command that must succeed with JSON, and returns the objects.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.ok(&[args, &["--json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect()
    }
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Records the kind of the store, and puts sessions into it. Returns the ids and the handles. A plain store has no users.
pub fn fill(store: &RedisSessionStore, with_users: bool) -> Vec<(String, Handle)> {
    let _ = store.check().expect("the store works");
    let sessions = SessionManager::<Value>::builder(store.clone()).idle_timeout(Duration::from_secs(3600));
    let sessions = sessions.build().expect("the settings work");
    let mut stored = Vec::new();
    let users: &[Option<&str>] =
        if with_users { &[Some(USERS[0]), Some(USERS[1]), Some(USERS[2]), None] } else { &[None] };
    for user in users {
        for number in 0..SESSIONS_EACH {
            let mut session = sessions.open(None).expect("a new session");
            *session = serde_json::json!({ "cart": [number, "tea"] });
            if let Some(user) = user {
                session.bind(*user, format!("device {number}"));
            }
            let committed = sessions.commit(session).expect("it is stored");
            let id = committed.id().expect("it has an id");
            stored.push((id.expose().to_string(), threaded_sessions::SessionStore::handle(store, id)));
        }
    }
    stored
}

/// Ends, lists and counts on a filled store of any topology, and checks what each command prints.
pub fn check_basics(tool: &Tool, store: &RedisSessionStore, with_users: bool) {
    let stored = fill(store, with_users);
    let count = stored.len();
    assert_eq!(tool.ok(&["count"]).trim(), count.to_string());
    let listed = tool.json(&["list"]);
    let mut handles: Vec<_> = listed.iter().map(|row| row["handle"].as_str().unwrap().to_owned()).collect();
    let mut expected: Vec<_> = stored.iter().map(|(_, handle)| handle.to_string()).collect();
    handles.sort();
    expected.sort();
    assert_eq!(handles, expected);
    let first = &expected[0];
    assert_eq!(tool.ok(&["end", &first[..12], "--yes"]).trim(), first);
    if with_users {
        assert_eq!(
            tool.json(&["list", USERS[1]]).len(),
            tool.json(&["end", "--user", USERS[1], "--yes"])[0]["ended"].as_u64().unwrap() as usize
        );
        assert_eq!(tool.run(&["verify", "--dry-run"]).code, 0);
    }
    let left: u64 = tool.ok(&["count"]).trim().parse().unwrap();
    assert_eq!(tool.ok(&["end", "--everybody", "--yes"]).trim(), left.to_string());
    assert_eq!(tool.json(&["count"])[0]["sessions"], 0);
}
