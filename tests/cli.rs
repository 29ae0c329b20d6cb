//! The program `threaded-sessions`: its commands, exit codes and rejected arguments, with text and JSON output, and on a terminal.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::pty::Pty;
use support::tool::{Ran, SESSIONS_EACH, Tool, USERS, check_basics, fill};
use support::{PATIENCE, RedisServer, eventually, shared, slow_pipe, unique};
use threaded_sessions::args::{Args, OperatorArgs};
use threaded_sessions::step::{Encrypted, EncryptionKey};
use threaded_sessions::store::Write;
use threaded_sessions::{
    EndReason, Ended, RedisSessionStore, RedisSessionStoreBuilder, SessionManager, SessionStore, StepStore,
};

fn store(settings: impl FnOnce(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder) -> (Tool, RedisSessionStore) {
    let tool = Tool::new(shared().url(), unique("cli"));
    let builder = RedisSessionStore::builder().url(&tool.url).prefix(&tool.prefix);
    (tool, settings(builder).build().unwrap())
}

/// Fails if an output holds an id.
#[track_caller]
fn assert_hidden(text: &str, stored: &[(String, threaded_sessions::Handle)]) {
    let shown = stored.iter().find(|(id, _)| text.contains(id) || text.contains(&id.replace('-', "")));
    assert!(shown.is_none(), "an id is in {text}");
}

#[test]
fn commands_work_on_each_kind_of_store() {
    let (tool, plain) = store(|builder| builder);
    check_basics(&tool, &plain, false);
    let (tool, hashed) = store(|builder| builder.hashed_keys().partitions(3));
    check_basics(&tool, &hashed, false);
    let (tool, expiring) = store(RedisSessionStoreBuilder::expiring);
    check_basics(&tool, &expiring, true);
    let (tool, all) = store(|builder| builder.expiring().hashed_keys().partitions(3));
    check_basics(&tool, &all, true);
}

#[test]
fn tool_announces_ends_and_records_no_reason() {
    let (tool, redis) = store(|builder| builder.expiring().announce_ends().remember_ends(Duration::from_secs(60)));
    let stored = fill(&redis, true);
    let sessions = SessionManager::<Value>::new(redis);
    let (sender, ends) = mpsc::channel();
    let report = move |ended: Ended| sender.send((ended.handle, ended.reason)).unwrap();
    let listener = sessions.listener().on_ended(report).start().unwrap();
    assert!(eventually(PATIENCE, || listener.is_listening()), "the listener connects");

    let (id, handle) = &stored[0];
    tool.ok(&["end", &handle.to_string(), "--yes"]);
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), (*handle, EndReason::Ended));
    let cookie = format!("__Host-session={id}");
    assert_eq!(sessions.open([&*cookie]).unwrap().ended(), Some(EndReason::Unknown));

    tool.ok(&["check"]);
    let reasons = [ends.recv_timeout(PATIENCE).unwrap().1, ends.recv_timeout(PATIENCE).unwrap().1];
    assert_eq!(reasons, [EndReason::Renewed, EndReason::Destroyed], "the session of the check");
    let help = tool.ok(&["check", "--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        help.contains("Records the kind of store under PREFIX:store if no program has. Creates, renews and deletes")
    );
    assert!(help.contains("listeners get its ends"), "{help}");
}

#[test]
fn user_of_the_guide_may_run_all_commands() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    let line = guide.split_once("ACL SETUSER shop").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let (user, prefix) = (unique("operator"), unique("cli"));
    let rules = line.replace("PASSWORD", "pw").replace("~sessions:*", &format!("~{prefix}:*"));
    shared().cmd(&[&["ACL", "SETUSER", &*user][..], &rules.split_whitespace().collect::<Vec<_>>()].concat());
    let url = shared().url().replace("redis://", &format!("redis://{user}:pw@"));
    for expiring in [true, false] {
        // A prefix below that of the rules, so that the two kinds do not meet.
        let prefix = format!("{prefix}:{expiring}");
        let builder = RedisSessionStore::builder().url(&url).prefix(&prefix);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        let tool = Tool::new(&*url, prefix);
        check_basics(&tool, &store, expiring);
        tool.ok(&["check", "--strict"]);
        let mut watch = tool.command(&["watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"clients\":") && !line.contains("\"clients\":null"), "{line}");
        watch.kill().unwrap();
        watch.wait().unwrap();
    }
    shared().cmd(&["ACL", "DELUSER", &user]);
}

/// A program that hosts sessions, with the commands below `sessions`.
#[derive(Parser)]
struct Host {
    #[command(flatten)]
    sessions: Args,
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Subcommand)]
enum HostCommand {
    /// See and end sessions
    Sessions(OperatorArgs),
}

#[test]
fn host_offers_the_commands_below_a_subcommand() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    fill(&store, true);
    let run = |args: &[&str]| {
        let host = Host::try_parse_from([&["host"], args].concat()).unwrap_or_else(|error| panic!("{error}"));
        let HostCommand::Sessions(operator) = host.command;
        operator.run(&host.sessions)
    };
    let flags = ["--redis-url", &*tool.url, "--prefix", &*tool.prefix];
    assert_eq!(run(&[&flags[..], &["sessions", "end", "--user", "ada", "--yes"]].concat()), ExitCode::SUCCESS);
    assert_eq!(run(&[&["sessions", "count", "--json"], &flags[..]].concat()), ExitCode::SUCCESS);
    assert_eq!(store.index().unwrap().count().unwrap(), 3 * SESSIONS_EACH as u64);
    assert_eq!(run(&["sessions", "count"]), ExitCode::from(2), "a store in memory belongs to another process");
}

#[test]
fn lists_have_both_forms_and_no_id() {
    let (tool, store) = store(|builder| builder.expiring().partitions(2));
    let stored = fill(&store, true);

    let table = tool.ok(&["list"]);
    assert!(table.starts_with("HANDLE "), "{table}");
    assert_eq!(table.lines().count(), 1 + stored.len());
    for (_, handle) in &stored {
        assert!(table.contains(&handle.to_string()), "{table}");
    }
    let of_ada = tool.ok(&["list", USERS[0]]);
    assert_eq!(of_ada.lines().count(), 1 + SESSIONS_EACH);
    assert_eq!(tool.ok(&["list", "--user", USERS[0]]), of_ada);
    assert_eq!(tool.run(&["list", USERS[0], "--user", USERS[0]]).code, 2, "one user at a time");
    let of_eve = tool.ok(&["list", USERS[2]]);
    assert!(of_eve.contains("eve\\u{1b}[2J\\u{202e}"), "{of_eve:?}");
    let json = tool.ok(&["list", "--json"]);
    for text in [&table, &of_ada, &of_eve, &json] {
        assert_hidden(text, &stored);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }

    let row = &tool.json(&["list", USERS[2]])[0];
    assert_eq!(row["owner"], USERS[2]);
    assert!(row["label"].as_str().unwrap().starts_with("device "), "{row}");
    for time in ["created", "last_used", "expires"] {
        assert!(humantime::parse_rfc3339(row[time].as_str().unwrap()).is_ok(), "{row}");
    }
    assert_eq!(tool.ok(&["count", "--by-partition"]).lines().count(), 3);
    let counts = tool.json(&["count", "--by-partition"]);
    let sum: u64 = counts.iter().map(|count| count["sessions"].as_u64().unwrap()).sum();
    assert_eq!((counts.len(), sum), (2, stored.len() as u64));
}

#[test]
fn handles_name_one_session() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    let handle = stored[0].1.to_string();

    let shown = tool.ok(&["show", &handle[..8], "--data"]);
    assert!(shown.contains(&handle) && shown.contains("device 0") && shown.contains("\"tea\""), "{shown}");
    assert_hidden(&shown, &stored);
    assert!(!tool.ok(&["show", &handle]).contains("tea"));
    let details = &tool.json(&["show", &handle, "--user", USERS[0], "--data"])[0];
    assert_eq!((&details["owner"], &details["data"]["cart"][1]), (&Value::from(USERS[0]), &Value::from("tea")));
    assert_eq!(tool.run(&["show", &handle, "--user", USERS[1]]).code, 1, "another user's");

    let other = stored[1].1.to_string();
    let unknown = if handle.starts_with('0') { "100000000000" } else { "000000000000" };
    let ran = tool.run(&["end", &other, unknown, "--yes"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.ends_with("no session has ended\n"), "{}", ran.err);
    assert_eq!(tool.ok(&["end", &other, "--user", USERS[0], "--yes"]).trim(), other);
    let ran = tool.run(&["end", &other, &handle, "--yes", "--json"]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 2), "{ran:?}");
    assert!(ran.err.contains("was gone before") && ran.out.contains("\"ended\":false"), "{ran:?}");
    assert_eq!(tool.run(&["end", &other[..12], "--yes"]).code, 1, "a prefix without a match");
}

#[test]
fn handle_outside_a_users_list_fails_with_user() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    let of_ada = [stored[0].1.to_string(), stored[1].1.to_string()];
    let again = |handle: &str| {
        format!("no session of this user has the handle {handle}: run it again without --user to search all sessions\n")
    };
    for user in [USERS[1], "Ada"] {
        let ran = tool.run(&["end", &of_ada[0], "--user", user, "--yes"]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert_eq!(ran.err, again(&of_ada[0]) + "no session has ended\n");
        let ran = tool.run(&["show", &of_ada[0], "--user", user]);
        assert_eq!((ran.code, ran.err), (1, again(&of_ada[0])));
    }
    tool.ok(&["end", &of_ada[1], "--yes"]);
    let ran = tool.run(&["end", &of_ada[0], &of_ada[1], "--user", "ada", "--yes"]);
    assert!(ran.code == 1 && ran.err == again(&of_ada[1]) + "no session has ended\n", "{ran:?}");
    assert_eq!(tool.ok(&["count"]).trim(), (stored.len() - 1).to_string());
}

#[test]
fn end_by_handle_finds_sessions_the_index_lost() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    let (lost, other, short) = (stored[0].1.to_string(), stored[1].1.to_string(), &stored[2].1.to_string()[..12]);
    shared().cmd(&["DEL", &format!("{}:index", tool.prefix)]);
    for ran in [tool.run(&["show", &lost]), tool.run(&["end", short, "--yes"])] {
        assert!(ran.code == 1 && ran.err.contains("`verify` puts the missing sessions back"), "{ran:?}");
    }
    let ran = tool.run(&["end", &lost, &other, "--yes"]);
    assert_eq!((ran.code, ran.out), (0, format!("{lost}\n{other}\n")));
    assert!(ran.err.contains(&format!("the index had lost {} sessions", stored.len())), "{}", ran.err);
    let key = format!("{}:{}", tool.prefix, stored[0].0);
    assert_eq!(shared().cmd(&["EXISTS", &key]), redis::Value::Int(0), "it has ended");
    let ran = tool.run(&["end", &lost, "--yes"]);
    assert!(ran.code == 0 && ran.err.starts_with(&format!("{lost} was gone before: it ended")), "{ran:?}");
}

#[test]
fn end_of_a_renewed_session_mentions_the_renewal() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let (id, handle) = &fill(&store, true)[0];
    let sessions = SessionManager::<Value>::new(store);
    let mut session = sessions.open([&*format!("__Host-session={id}")]).unwrap();
    session.renew();
    let _ = sessions.commit(session).unwrap();
    let ran = tool.run(&["end", &handle.to_string(), "--yes"]);
    let why = format!(
        "{handle} was gone before: it ended, or was renewed and lives under another handle; run `list` again\n"
    );
    assert_eq!((ran.code, ran.out, ran.err), (0, String::new(), why));
    assert_eq!(tool.ok(&["count"]).trim(), (4 * SESSIONS_EACH).to_string());
}

#[test]
fn several_handles_take_one_walk() {
    let server = RedisServer::start();
    let tool = Tool::new(server.url(), "sessions");
    let stored = fill(&RedisSessionStore::builder().url(&tool.url).expiring().build().unwrap(), true);
    let handles: Vec<String> = stored.iter().map(|(_, handle)| handle.to_string()[..12].to_owned()).collect();
    let walks = |handles: &[String]| {
        server.cmd(&["CONFIG", "RESETSTAT"]);
        let args: Vec<&str> = ["end", "--yes"].into_iter().chain(handles.iter().map(String::as_str)).collect();
        assert_eq!(tool.ok(&args).lines().count(), handles.len());
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
        let zscan = stats.lines().find_map(|line| line.strip_prefix("cmdstat_zscan:calls="));
        zscan.and_then(|calls| calls.split(',').next()?.parse::<u64>().ok()).expect("it walks the index")
    };
    assert_eq!(walks(&handles[..1]), walks(&handles[1..]));
}

#[test]
fn failed_output_does_not_keep_sessions_alive() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    // More handles than the buffer of stdout holds, so that it fails between two of them.
    let stored: Vec<_> = (0..9).flat_map(|_| fill(&store, true)).collect();
    let outputs = || -> [Stdio; 2] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        [std::io::pipe().unwrap().1.into(), full.into()]
    };
    let handles: Vec<String> = stored.iter().map(|(_, handle)| handle.to_string()).collect();
    let run = |args: &[&str], output: Stdio| Ran::of(tool.command(args).stdout(output).output().unwrap());
    for (some, output) in handles.chunks(handles.len() / 2).zip(outputs()) {
        let args: Vec<&str> = ["end", "--yes"].into_iter().chain(some.iter().map(String::as_str)).collect();
        let ran = run(&args, output);
        assert!(ran.code == 1 && ran.err.starts_with("72 of 72 sessions have ended\nerror: the "), "{ran:?}");
    }
    assert_eq!(tool.ok(&["count"]).trim(), "0");
    for output in outputs() {
        fill(&store, true);
        let ran = run(&["end", "--user", USERS[0], "--yes"], output);
        assert!(ran.code == 1 && ran.err.starts_with("4 sessions have ended\nerror: the "), "{ran:?}");
    }
    for (args, code) in [(&["reap"][..], 1), (&["verify"], 1), (&["count"], 0), (&["verify", "--dry-run"], 0)] {
        let [closed, full] = outputs();
        assert_eq!((run(args, closed).code, run(args, full).code), (code, 1), "{args:?}");
    }
}

#[test]
fn rejected_end_shows_how_many_ended() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    let (user, prefix) = (unique("operator"), &tool.prefix);
    let own = [&stored[0].0, "index*", "principal*", "store"].map(|name| format!("~{prefix}:{name}"));
    let reads = format!("%R~{prefix}:*");
    let rules = ["ACL", "SETUSER", &*user, "on", ">pw", "+@all", "&*", &*reads];
    shared().cmd(&[&rules[..], &own.each_ref().map(String::as_str)].concat());
    let limited = Tool::new(shared().url().replace("redis://", &format!("redis://{user}:pw@")), &**prefix);
    let handles = [stored[0].1.to_string(), stored[1].1.to_string()];
    let ran = limited.run(&["end", &handles[0][..12], &handles[1][..12], "--yes"]);
    assert_eq!((ran.code, ran.out), (77, format!("{}\n", handles[0])), "{}", ran.err);
    let left = format!("1 of 2 sessions have ended\nto end the other sessions, run: end {} --yes\nerror: ", handles[1]);
    assert!(ran.err.starts_with(&left), "{}", ran.err);
    assert_eq!(tool.ok(&["end", &handles[1], "--yes"]).trim(), handles[1]);
    for (flags, why) in [
        (&["--everybody"][..], "some sessions may have ended, looked at "),
        (&["--user", USERS[1]], "some sessions may have ended; you can safely run it again\nerror: "),
    ] {
        let ran = limited.run(&[&["end", "--yes"], flags].concat());
        assert!(ran.code == 77 && ran.out.is_empty() && ran.err.starts_with(why), "{ran:?}");
    }
    shared().cmd(&["ACL", "DELUSER", &user]);
}

#[test]
fn usage_errors_exit_with_2() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let handle = fill(&store, true)[0].1.to_string();
    for (args, why) in [
        (&["end", &handle[..11], "--yes"][..], "12 digits"),
        (&["end", &handle], "--yes"),
        (&["end", "--everybody"], "--yes"),
        (&["end", "--user", USERS[0]], "--yes"),
        (&["end"], "required"),
        (&["end", "--everybody", "--user", USERS[0]], "cannot be used with"),
        (&["show", "abc"], "8 or more"),
        (&["list", "--data"], "--json"),
        (&["watch", "--interval", "soon"], "--interval"),
        (&["watch", "--interval", "61m"], "at most 1h"),
        (&["watch", "--interval", "400000000000y"], "at most 1h"),
        (&["list", "--partitions", "0"], "--partitions"),
    ] {
        let ran = tool.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains(why), "{args:?}: {}", ran.err);
    }
    for args in [
        &["REDIS_URL=redis://:secret@h", "count"][..],
        &["redis://:secret@h", "count"],
        &["end", "redis://:secret@h", "--yes"],
        &["count", "redis://:secret@h"],
        &["count", "--pool-size=redis://h?password=secret"],
    ] {
        let ran = tool.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains("--redis-url") && !ran.err.contains("secret"), "{args:?}: {}", ran.err);
    }
    let not_text = std::ffi::OsStr::from_bytes(b"a\xff");
    let ran = Ran::of(tool.command(&["count"]).env("SESSION_PREFIX", not_text).output().unwrap());
    assert!(ran.code == 2 && ran.err.contains("'--prefix <TEXT>': the text is not UTF-8"), "{ran:?}");
    let mut without_url = tool.command(&["count"]);
    let ran = Ran::of(without_url.env_remove("REDIS_URL").output().unwrap());
    assert!(ran.code == 2 && ran.err.contains("--redis-url"), "{ran:?}");
    assert_eq!(tool.ok(&["count"]).trim(), (4 * SESSIONS_EACH).to_string(), "none has ended");
}

#[test]
fn failures_have_documented_exit_codes() {
    let (tool, plain) = store(|builder| builder);
    let ran = tool.run(&["count"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    for flag in ["--expiring", "--partitions", "--hashed-keys"] {
        assert!(ran.err.contains(flag), "{}", ran.err);
    }
    fill(&plain, false);
    for (variable, flag, value) in [
        ("SESSION_EXPIRING", "--expiring", "true"),
        ("SESSION_PARTITIONS", "--partitions", "7"),
        ("SESSION_HASHED_KEYS", "--hashed-keys", "true"),
    ] {
        let ran = Ran::of(tool.command(&["count"]).env(variable, value).output().unwrap());
        let why = format!("{flag} (or {variable}) is {value}, but \"{}:store\" records `kind=plain", tool.prefix);
        assert!(ran.code == 78 && ran.err.contains(&why), "{ran:?}");
    }
    for args in [&["list", "ada"][..], &["end", "--user", "ada", "--yes"], &["verify"], &["reap"]] {
        let ran = tool.run(args);
        assert!(ran.code == 69 && ran.err.contains("a plain store has no index"), "{args:?}: {ran:?}");
    }
    let ran = Tool::new("redis://127.0.0.1:1", "sessions").run(&["count"]);
    assert!(ran.code == 75 && ran.err.starts_with("error: "), "{ran:?}");
    assert!(ran.err.ends_with("\nstore: prefix \"sessions\" in Redis at 127.0.0.1:1\n"), "{ran:?}");

    let server = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]);
    server.cmd(&["ACL", "SETUSER", "limited", "on", ">pw", "~*", "+ping", "+hello"]);
    let denied = server.url().replace("redis://", "redis://limited:pw@");
    assert_eq!(Tool::new(denied, "sessions").run(&["count"]).code, 77);
    let evicting = Tool::new(server.url(), "sessions");
    let flags = ["--expiring", "--partitions=1", "--hashed-keys=false"];
    let ran = evicting.run(&[&["check"][..], &flags].concat());
    assert!(ran.code == 0 && ran.err.starts_with("warning: ") && ran.out.contains("kind=expiring"), "{ran:?}");
    assert_eq!(evicting.run(&["check", "--strict"]).code, 1);
    assert_eq!(evicting.json(&["check"])[0]["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn verify_and_reap_correct_the_index() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    let index = format!("{}:index", tool.prefix);
    let key = format!("{}:{}", tool.prefix, stored[0].0);
    shared().cmd(&["ZREM", &index, &key]);
    let ran = tool.run(&["verify", "--dry-run", "--json"]);
    assert!(ran.code == 1 && ran.out.contains("\"added\":1"), "{ran:?}");
    let corrected = tool.ok(&["verify"]);
    assert!(corrected.lines().any(|line| line.split_whitespace().eq(["added", "1"])), "{corrected}");
    assert_eq!(tool.run(&["verify", "--dry-run"]).code, 0);

    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(b"expired", Duration::from_millis(1))).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(tool.ok(&["reap"]).trim(), "1");
    assert_eq!(tool.json(&["reap"])[0]["removed"], 0);
    assert_eq!(tool.ok(&["count"]).trim(), stored.len().to_string());
}

#[test]
fn lost_index_is_noticed_and_end_reaches_all() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    shared().cmd(&["DEL", &format!("{}:index", tool.prefix)]);
    for args in [&["count"][..], &["list"]] {
        let ran = tool.run(args);
        assert!(ran.code == 0 && ran.err.contains("`verify` puts the missing sessions back"), "{ran:?}");
    }
    let ran = tool.run(&["check", "--strict"]);
    assert!(ran.code == 1 && ran.err.contains("has fewer entries than there are sessions with an owner"), "{ran:?}");
    assert_eq!(tool.ok(&["end", "--everybody", "--yes"]).trim(), stored.len().to_string());
    assert!(
        stored
            .iter()
            .all(|(id, _)| shared().cmd(&["EXISTS", &format!("{}:{id}", tool.prefix)]) == redis::Value::Int(0))
    );
}

#[test]
fn user_without_sessions_gets_a_note() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    fill(&store, true);
    for args in [&["list", "Ada"][..], &["end", "--user", "Ada", "--yes"]] {
        let ran = tool.run(args);
        assert!(ran.code == 0 && ran.err.contains("for the user \"Ada\"; names are compared exactly"), "{ran:?}");
    }
    for args in [&["list", "--expiring", "true"][..], &["list", "--json", "true"]] {
        let ran = tool.run(args);
        assert!(
            ran.code == 0 && ran.err.contains("the user \"true\"; a switch takes a value only after `=`"),
            "{ran:?}"
        );
    }
    let mut pty = Pty::start(tool.command(&["end", "--user", "Ada"]), 200, 5);
    assert_eq!(pty.wait().code(), Some(0), "there is nothing to ask");
}

#[test]
fn list_with_data_has_the_values() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let stored = fill(&store, true);
    for (args, count) in [(&["list", "--data"][..], stored.len()), (&["list", USERS[0], "--data"], SESSIONS_EACH)] {
        let rows = tool.json(args);
        assert_eq!(rows.iter().filter(|row| row["data"]["cart"][1] == "tea").count(), count);
    }
    assert_eq!(tool.ok(&["--json", "list", "--data"]).lines().count(), stored.len(), "the flag comes first");
    assert!(tool.json(&["list"]).iter().all(|row| row.get("data").is_none()));
}

#[test]
fn list_counts_values_it_cannot_show() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let (id, _) = &fill(&store, true)[0];
    let key = format!("{}:{id}", tool.prefix);
    let redis::Value::BulkString(payload) = shared().cmd(&["GET", &key]) else { panic!("a session") };
    // Valid JSON, but no program has such a number.
    let payload = String::from_utf8(payload).unwrap().replace("\"tea\"", "1e999");
    shared().cmd(&["SET", &key, &payload, "KEEPTTL"]);
    for args in [&["list", "--json", "--data"][..], &["list", USERS[0], "--json", "--data"]] {
        let ran = tool.run(args);
        let rows: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let is_null = |row: &&Value| row.get("data") == Some(&Value::Null);
        let row = rows.iter().find(is_null).expect("a row without its value");
        assert_eq!((&row["owner"], &row["unreadable"]), (&"ada".into(), &"the value cannot be shown as JSON".into()));
        let note = format!("note: 1 of {} sessions could not be read: the value cannot be shown as JSON\n", rows.len());
        assert_eq!((ran.code, ran.err), (0, note));
    }
}

#[test]
fn watch_waits_for_an_unreachable_redis() {
    let tool = Tool::new("redis://127.0.0.1:1", "sessions");
    let mut command = tool.command(&["watch", "--interval", "10ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..2 {
        assert!(lines.next().unwrap().unwrap().ends_with("; waiting for Redis"));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn encrypted_session_shows_no_value() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let _ = store.check().unwrap();
    let step = Encrypted::new(EncryptionKey::from_bytes([7; 32]));
    let sessions = SessionManager::<u32>::new(StepStore::builder(store).step(step).build().unwrap());
    let mut session = sessions.open(None).unwrap();
    session.bind("ada", "phone");
    let _ = sessions.commit(session).unwrap();

    let ran = tool.run(&["list", "--json"]);
    let row: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(row["owner"].is_null() && row["owner_hash"].is_string() && row["expires"].is_string(), "{row}");
    assert_eq!(ran.err, "note: 1 of 1 sessions could not be read: the payload is encrypted\n");
    let row = &tool.json(&["list", "--data"])[0];
    assert!(row.get("data") == Some(&Value::Null) && row["unreadable"] == "the payload is encrypted", "{row}");
    assert!(tool.ok(&["list"]).contains(&format!("#{}", &row["owner_hash"].as_str().unwrap()[..12])));
    let ran = tool.run(&["show", row["handle"].as_str().unwrap(), "--data"]);
    assert!(ran.code == 69 && ran.out.is_empty() && ran.err.contains("encrypted"), "{ran:?}");
}

#[test]
fn watch_without_terminal_prints_lines() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    fill(&store, true);
    let start = |args: &[&str]| {
        let mut command = tool.command(&[&["watch", "--interval", "10ms"], args].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = start(&["--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let samples: Vec<Value> = (0..2).map(|_| serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()).collect();
    assert!(samples[0]["change_per_second"].is_null() && samples[1]["change_per_second"].is_number(), "{samples:?}");
    assert_eq!((&samples[1]["sessions"], &samples[1]["backlog"]), (&Value::from(4 * SESSIONS_EACH), &Value::from(0)));
    for figure in ["round_trip_ms", "memory_bytes", "clients", "commands_per_second"] {
        assert!(samples[1][figure].is_number(), "{figure}: {samples:?}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest = lines.count();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest} lines after the signal");
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "interrupted: the store is no longer watched\n");

    let mut child = start(&[]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(" sessions=16 change=–/s round_trip="), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(0), "the pipe is closed");
}

#[test]
fn watch_draws_resizes_and_restores_the_terminal() {
    let (tool, store) = store(|builder| builder.expiring().partitions(2));
    let stored = fill(&store, true);
    let mut pty = Pty::start(tool.command(&["watch", "--interval", "50ms"]), 80, 24);
    pty.expect("HANDLE        OWNER                LABEL                LAST USED    EXPIRES IN");
    pty.expect("sessions   16");
    pty.expect("kind=expiring partitions=2 keys=plain");
    assert_hidden(&pty.raw(), &stored);
    pty.resize(30, 9);
    pty.expect("backlog    0");
    pty.expect("sessions  quit: q");
    pty.resize(200, 24);
    pty.expect("CREATED               LAST USED             EXPIRES IN");
    pty.expect(&format!("prefix {:?} in Redis at ", tool.prefix));
    pty.expect("backlog    0");
    pty.keys("q");
    assert_eq!(pty.wait().code(), Some(0));
    assert!(pty.raw().contains("\u{1b}[?1049l"), "the screen of before is back");

    let mut pty = Pty::start(tool.command(&["watch", "--interval", "50ms"]), 80, 24);
    pty.expect("sessions   16");
    pty.keys("\u{3}");
    assert_eq!(pty.wait().code(), Some(0), "Ctrl-C quits");
}

#[test]
fn end_asks_before_it_ends() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    let handle = fill(&store, true)[0].1.to_string();
    for (answer, code, left) in [("n\n", 1, 16), ("\n", 1, 16), ("y\n", 0, 15)] {
        let mut pty = Pty::start(tool.command(&["end", &handle[..8]]), 200, 5);
        pty.expect("owner ada, label device 0, created 2");
        pty.expect(&format!("store: prefix {:?} in Redis at 127.0.0.1:{}", tool.prefix, shared().port()));
        pty.expect("End these sessions? [y/N]");
        pty.keys(answer);
        assert_eq!(pty.wait().code(), Some(code), "{answer:?}");
        assert_eq!(tool.ok(&["count"]).trim(), left.to_string());
    }
    let mut pty = Pty::start(tool.command(&["end", "--everybody"]), 80, 5);
    pty.expect("End the sessions of all visitors, 15 in all? [y/N]");
    pty.signal(Signal::INT);
    assert_eq!(pty.wait().code(), Some(130));
    assert_eq!(tool.ok(&["count"]).trim(), "15");
}

#[test]
fn question_without_a_visible_stderr_is_refused() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    fill(&store, true);
    let log = tempfile::NamedTempFile::new().unwrap();
    let end = tool.command(&["end", "--everybody"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 2>\"$LOG\""]).arg(end.get_program()).args(end.get_args());
    shell.envs(end.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("LOG", log.path());
    let mut pty = Pty::start(shell, 80, 5);
    assert_eq!(pty.wait().code(), Some(2));
    let said = std::fs::read_to_string(log.path()).unwrap();
    assert!(said.ends_with("add --yes, because stderr is no terminal\n"), "{said}");
    assert_eq!(tool.ok(&["count"]).trim(), (4 * SESSIONS_EACH).to_string());
}

#[test]
fn end_of_a_users_sessions_names_the_user() {
    let (tool, store) = store(RedisSessionStoreBuilder::expiring);
    fill(&store, true);
    let question = "End all sessions of the user \"eve\\u{1b}[2J\\u{202e}\" (4 listed)? [y/N]";
    for (answer, code, left) in [("n\n", 1, "16"), ("y\n", 0, "12")] {
        let mut pty = Pty::start(tool.command(&["end", "--user", USERS[2]]), 200, 5);
        pty.expect(&format!("store: prefix {:?} in Redis at ", tool.prefix));
        pty.expect(question);
        pty.keys(answer);
        assert_eq!(pty.wait().code(), Some(code), "{answer:?}");
        assert_eq!(tool.ok(&["count"]).trim(), left);
    }
}

#[test]
fn end_of_no_listed_sessions_needs_yes() {
    let server = RedisServer::start();
    let tool = Tool::new(server.url(), "sessions");
    fill(&RedisSessionStore::builder().url(&tool.url).expiring().build().unwrap(), true);
    let scripts = |run: &dyn Fn()| {
        run();
        server.cmd(&["CONFIG", "RESETSTAT"]);
        run();
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
        let calls = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.map(|calls| calls.split(',').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let list = || drop(tool.ok(&["list", "Ada"]));
    let ask = || {
        let mut pty = Pty::start(tool.command(&["end", "--user", "Ada"]), 200, 5);
        assert_eq!(pty.wait().code(), Some(0));
        pty.expect("names are compared exactly");
    };
    let end = || assert_eq!(tool.ok(&["end", "--user", "Ada", "--yes"]), "0\n");
    assert_eq!(scripts(&ask), scripts(&list), "a login after the list would end without a question");
    assert_ne!(scripts(&end), 0);
}

#[test]
fn interrupted_work_shows_how_far_it_got() {
    let (tool, store) = store(|builder| builder.expiring().partitions(16));
    let handle = fill(&store, true)[0].1.to_string();
    // Each partition takes several round trips.
    let slow = Tool::new(
        format!("redis://127.0.0.1:{}", slow_pipe(shared().port(), Duration::from_millis(20))),
        &*tool.prefix,
    );
    for (args, title, far, result) in [
        (&["show", &handle[..8]][..], "searching", "interrupted: looked at", ""),
        (&["end", &handle[..12], "--yes"], "searching", "interrupted: no session has ended; looked at", ""),
        (&["verify", "--dry-run"], "verifying", "looked at", "and counted the findings so far"),
        (&["verify"], "verifying", "looked at", "and corrected the findings so far"),
        (&["end", "--everybody", "--yes"], "ending", "sessions have ended, looked at", ""),
    ] {
        let mut pty = Pty::start(slow.command(args), 80, 24);
        pty.expect(title);
        pty.expect(" of ");
        pty.signal(Signal::INT);
        assert_eq!(pty.wait().code(), Some(130), "{args:?}: {:#?}", pty.screen());
        pty.expect("interrupted: ");
        pty.expect(far);
        pty.expect(result);
        let shows = pty.screen().iter().any(|line| line.contains("no session has ended"));
        assert_eq!(shows, args[0] == "end" && title == "searching", "{args:?}");
    }
    assert_ne!(tool.ok(&["count"]).trim(), "0", "most sessions are left");
}
