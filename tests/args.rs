//! The flags and environment variables of programs that host sessions.

mod support;

use std::process::Output;

use clap::{CommandFactory, Parser};
use support::program::{Program, command};
use support::{Client, shared, unique};
use threaded_sessions::args::Args;
use threaded_sessions::{MemorySessionStore, RedisSessionStore, SessionManager};

/// What the program says of itself
#[derive(Parser)]
struct Cli {
    /// A flag of its own
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    sessions: Args,
}

fn parse(flags: &[&str]) -> Args {
    Cli::try_parse_from([&["program"], flags].concat()).unwrap_or_else(|error| panic!("{error}")).sessions
}

fn run(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    command("serve").args(flags).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn without_flags_everything_is_as_the_builders_have_it() {
    let manager = |args: &Args| format!("{:?}", args.manager::<u32>().unwrap().build().unwrap());
    assert_eq!(manager(&parse(&[])), format!("{:?}", SessionManager::<u32>::new(MemorySessionStore::new())));
    let url = shared().url();
    let store = RedisSessionStore::builder().url(&url).build().unwrap();
    // The pool has opened another number of connections.
    let settled = |debug: String| debug.split(", state").next().unwrap().to_owned();
    let ours = format!("{:?}", parse(&["--redis-url", &url]).store().unwrap());
    assert_eq!(settled(ours), settled(format!("{store:?}")));
}

#[test]
fn every_flag_reaches_what_it_sets() {
    let url = shared().url();
    let prefix = unique("flags");
    let flags = format!(
        "--redis-url {url} --prefix {prefix} --expiring --hashed-keys --partitions 5 --idle-timeout 30m --lifetime 90d --remember-for 30d \
         --no-touch-on-read --resolution 5s --pool-size 7 --deadline 250ms --cookie-name mine --insecure-cookies"
    );
    let args = parse(&flags.split(' ').collect::<Vec<_>>());
    let debug = format!("{:?}", args.manager::<u32>().unwrap().build().unwrap());
    for setting in [
        &*format!("{prefix:?}"),
        "expiring: true",
        "deadline: 250ms",
        "max_size: 7",
        "mapper: Hashed",
        "partitions: 5",
        "name: Some(\"mine\")",
        "secure: false",
        "idle_timeout: Some(1800s)",
        "lifetime: Some(7776000s)",
        "remember_for: Some(2592000s)",
        "touch_on_read: false",
    ] {
        assert!(debug.contains(setting), "{setting}: {debug}");
    }
    assert!(format!("{args:?}").contains("resolution: 5s"));
}

#[test]
fn a_session_may_never_end_by_idling() {
    let sessions = parse(&["--idle-timeout", "never"]).manager::<u32>().unwrap().build().unwrap();
    assert!(format!("{sessions:?}").contains("idle_timeout: None"), "{sessions:?}");
}

#[derive(Parser)]
struct Silent {
    #[command(flatten)]
    _sessions: Args,
}

#[test]
fn the_program_keeps_its_own_description_and_flags() {
    assert_eq!(Silent::command().get_about().map(ToString::to_string), None);
    assert_eq!(Silent::command().get_long_about().map(ToString::to_string), None);
    let command = Cli::command();
    assert_eq!(command.get_about().unwrap().to_string(), "What the program says of itself");
    let heading = |id: &str| command.get_arguments().find(|arg| arg.get_id() == id).unwrap().get_help_heading();
    assert_eq!((heading("own"), heading("redis_url")), (None, Some("Sessions")));
    assert!(Cli::parse_from(["program", "--own"]).own);
}

#[test]
fn a_flag_has_a_variable_and_goes_before_it() {
    let prefix = unique("variables");
    let url = shared().url();
    let variables = [
        ("REDIS_URL", &*url),
        ("SESSION_PREFIX", &*prefix),
        ("SESSION_EXPIRING", "true"),
        ("SESSION_IDLE_TIMEOUT", "never"),
        ("SESSION_NO_TOUCH_ON_READ", "0"),
        ("SESSION_COOKIE_NAME", "theirs"),
        ("SESSION_INSECURE_COOKIES", "yes"),
    ];
    let program = Program::start("serve", &["--cookie-name", "ours", "--idle-timeout", "1h"], &variables);
    let response = program.client().post("/api/hit");
    let cookie = response.header("Set-Cookie").unwrap();
    let id = cookie.strip_prefix("ours=").unwrap().split(';').next().unwrap();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/"), "{cookie}");
    let ttl: i64 = redis::from_redis_value(shared().cmd(&["TTL", &format!("{prefix}:{id}")])).unwrap();
    // An hour, and the day that an expiring store adds.
    assert!((90_000 - 60..=90_000).contains(&ttl), "{ttl}");
    assert_eq!(shared().cmd(&["ZCARD", &format!("{prefix}:index")]), redis::Value::Int(1));
}

#[test]
fn the_keys_in_redis_are_as_the_variables_have_them() {
    let (prefix, url) = (unique("keys"), shared().url());
    let variables = [
        ("REDIS_URL", &*url),
        ("SESSION_PREFIX", &*prefix),
        ("SESSION_HASHED_KEYS", "on"),
        ("SESSION_PARTITIONS", "3"),
    ];
    let program = Program::start("serve", &["--insecure-cookies"], &variables);
    let response = program.client().post("/api/hit");
    let cookie = response.header("Set-Cookie").unwrap();
    let id = cookie.strip_prefix("session=").unwrap().split(';').next().unwrap().parse().unwrap();
    let builder = RedisSessionStore::builder().url(&*url).prefix(&prefix).hashed_keys().partitions(3);
    let key = builder.build().unwrap().key(&id);
    assert!(key.starts_with(&format!("{prefix}:{{")) && !key.contains(&id.expose()), "{key}");
    assert_eq!(shared().cmd(&["EXISTS", &key]), redis::Value::Int(1), "{key}");
}

#[test]
fn without_redis_it_says_that_sessions_live_in_memory() {
    for program in ["serve", "shop"] {
        let in_memory = Program::start(program, &[], &[]);
        assert!(in_memory.stderr().contains("in memory"), "{}", in_memory.stderr());
        let in_redis = Program::start(program, &["--redis-url", &shared().url(), "--prefix", &unique("say")], &[]);
        assert!(!in_redis.stderr().contains("in memory"), "{}", in_redis.stderr());
    }
}

#[test]
fn a_password_is_never_shown() {
    let with_password = "redis://:hunter2@127.0.0.1:1";
    assert!(!format!("{:?}", parse(&["--redis-url", with_password])).contains("hunter2"));
    for (flags, variables) in [
        (&["--help"][..], &[("REDIS_URL", with_password)][..]),
        (&["--redis-url", with_password, "--pool-size", "0"], &[]),
        (&["--redis-url", with_password, "--pool-size", "many"], &[]),
        (&["--redis-url", "redis:/:hunter2@nowhere"], &[]),
        (&["--redis-url", with_password, "--redis-url", with_password], &[]),
    ] {
        let output = run(flags, variables);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.is_empty() && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let url = shared().url();
    let locked = support::RedisServer::with(&["--requirepass", "secret"]);
    for (flags, why) in [
        (&["--idle-timeout", "soon"][..], "--idle-timeout"),
        (&["--idle-timeout", "0s"], "at least a millisecond"),
        (&["--remember-for", "1d"], "longer than the idle timeout"),
        (&["--cookie-name", "__Host-x", "--insecure-cookies"], "__Host-"),
        (&["--redis-url", ""], "--redis-url"),
        (&["--redis-url", "http://127.0.0.1"], "address of Redis"),
        (&["--redis-url", &url, "--pool-size", "0"], "its size is zero"),
        (&["--redis-url", &url, "--partitions", "0"], "at least one partition"),
        (&["--partitions", "some"], "--partitions"),
        (&["--redis-url", &url, "--deadline", "2h"], "an hour"),
        (&["--redis-url", &locked.url()], "not permitted"),
        (&["--listen", "127.0.0.1:0", "--resolution", "0s"], "at least a millisecond"),
        (&["--threads", "0"], "--threads"),
        (&["--listen", "nowhere"], "error"),
    ] {
        let output = run(flags, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{flags:?}: {said}");
        assert!(said.contains(why), "{flags:?}: {said}");
    }
}

#[test]
fn a_redis_that_is_away_at_the_start_is_used_when_it_is_back() {
    let server = support::RedisServer::start();
    server.kill();
    let program = Program::start("serve", &["--redis-url", &server.url(), "--insecure-cookies"], &[]);
    assert!(program.stderr().contains("starting without Redis"), "{}", program.stderr());
    let mut client: Client = program.client();
    assert_eq!(client.post("/api/hit").status, 503);
    server.restart();
    assert!(support::eventually(support::PATIENCE, || client.post("/api/hit").status == 200));
}
