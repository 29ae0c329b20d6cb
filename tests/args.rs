//! The flags and environment variables of programs that host sessions.

mod support;

use std::process::Output;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use support::program::{Program, command};
use support::{Client, shared, unique};
use threaded_sessions::args::{Args, Host, RedisArgs};
use threaded_sessions::{
    ErrorKind, MemorySessionStore, Outcome, RedisSessionStore, RedisSessionStoreBuilder, SessionManager, SessionStore,
};

/// What the program says of itself
#[derive(Parser)]
#[command(version = "7.8.9")]
struct Cli {
    /// An extra flag
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    sessions: Args,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Subcommand)]
enum Sub {
    Run,
}

/// A command-line tool, which needs a Redis.
#[derive(Debug, Parser)]
struct Tool {
    #[command(flatten)]
    redis: RedisArgs,
}

/// Each flag with a value that works, one that does not, and `true` if the flag needs a Redis.
const FLAGS: [(&str, &str, &str, bool); 22] = [
    ("prefix", "shop", "", true),
    ("hashed-keys", "true", "perhaps", true),
    ("partitions", "16384", "16385", true),
    ("expiring", "true", "perhaps", true),
    ("announce-ends", "true", "perhaps", true),
    ("pool-size", "1", "4000000000", true),
    ("deadline", "1ms", "61m", true),
    ("idle-timeout", "30m", "soon", false),
    ("anonymous-idle-timeout", "1h", "never", false),
    ("lifetime", "never", "0s", false),
    ("remember-for", "30d", "never", false),
    ("no-touch-on-read", "true", "perhaps", false),
    ("touch-every", "5m", "never", false),
    ("renew-every", "4h", "0s", false),
    ("max-per-principal", "1", "0", false),
    ("on-cap", "Refuse", "end-newest", false),
    ("resolution", "never", "100us", false),
    ("cookie-name", "mine", "my cookie", false),
    ("cookie-domain", "example.com", "example.com/shop", false),
    ("same-site", "Strict", "some", false),
    ("insecure-cookies", "true", "perhaps", false),
    ("trusted-origin", "https://admin.example.com", "admin.example.com", false),
];

/// The flags that a flag needs, besides that of Redis.
fn needs(flag: &str) -> &'static [&'static str] {
    if flag == "on-cap" { &["--max-per-principal=3"] } else { &[] }
}

fn variable(flag: &str) -> String {
    format!("SESSION_{}", flag.replace('-', "_").to_uppercase())
}

#[track_caller]
fn usage_error(flags: &[&str]) -> String {
    let error = Cli::try_parse_from([&["program"], flags].concat()).map(drop).expect_err("a usage error");
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

fn parse(flags: &[&str]) -> Args {
    Cli::try_parse_from([&["program"], flags].concat()).unwrap_or_else(|error| panic!("{error}")).sessions
}

fn run(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    command("serve").args(flags).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn without_flags_builder_defaults_apply() {
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
fn every_flag_reaches_its_setting() {
    let url = shared().url();
    let prefix = unique("flags");
    let flags = format!(
        "--redis-url {url} --prefix {prefix} --expiring --announce-ends --hashed-keys --partitions 5 --idle-timeout 30m --anonymous-idle-timeout 10m --lifetime 90d --remember-for 30d \
         --no-touch-on-read --resolution 5s --pool-size 7 --deadline 250ms --cookie-name mine --insecure-cookies --cookie-domain example.com \
         --same-site strict --max-per-principal 3 --trusted-origin https://one.example,https://two.example --trusted-origin https://three.example"
    );
    let args = parse(&flags.split(' ').collect::<Vec<_>>());
    let debug = format!("{:?}", args.manager::<u32>().unwrap().build().unwrap());
    for setting in [
        &*format!("{prefix:?}"),
        "expiring: true",
        "publish: Some(",
        "deadline: 250ms",
        "max_size: 7",
        "mapper: Hashed",
        "partitions: 5",
        "name: Some(\"mine\")",
        "domain: Some(\"example.com\")",
        "same_site: Strict",
        "secure: false",
        "idle_timeout: Some(1800s)",
        "anonymous_idle_timeout: Some(600s)",
        "lifetime: Some(7776000s)",
        "remember_for: Some(2592000s)",
        "touch_on_read: false",
        "one.example",
        "two.example",
        "three.example",
    ] {
        assert!(debug.contains(setting), "{setting}: {debug}");
    }
    assert!(format!("{args:?}").contains("5s"));
}

#[test]
fn cap_ends_the_oldest_session_of_user() {
    let sessions = parse(&["--max-per-principal", "2"]).manager::<u32>().unwrap().build().unwrap();
    for _ in 0..3 {
        let mut session = sessions.fresh();
        session.renew();
        session.bind("ada", "a browser");
        let _ = sessions.commit(session).unwrap();
    }
    assert_eq!(sessions.list("ada").unwrap().len(), 2);
}

#[test]
fn refusing_cap_rejects_further_login() {
    let flags = ["--max-per-principal", "1", "--on-cap", "refuse"];
    let sessions = parse(&flags).manager::<u32>().unwrap().build().unwrap();
    let outcomes = [Outcome::Stored, Outcome::Refused].map(|expected| {
        let mut session = sessions.fresh();
        session.bind("ada", "a browser");
        (sessions.commit(session).unwrap().outcome(), expected)
    });
    assert!(outcomes.iter().all(|(outcome, expected)| outcome == expected), "{outcomes:?}");
}

#[test]
fn cap_policy_without_cap_is_a_usage_error() {
    for flags in [&["--on-cap", "refuse"][..], &["run", "--on-cap=end-oldest"]] {
        let text = usage_error(flags);
        assert!(text.contains("'--on-cap'") && text.contains("--max-per-principal <COUNT>"), "{text}");
    }
    parse(&["--max-per-principal=3", "run", "--on-cap=refuse"]);
    let output = run(&[], &[("SESSION_ON_CAP", "refuse")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn intervals_reach_their_settings() {
    let debug = format!(
        "{:?}",
        parse(&["--touch-every", "5m", "--renew-every", "4h"]).manager::<u32>().unwrap().build().unwrap()
    );
    assert!(debug.contains("touch_every: Some(300s), renew_every: Some(14400s)"), "{debug}");
}

#[test]
fn touch_interval_without_touches_is_a_usage_error() {
    let text = usage_error(&["--no-touch-on-read", "run", "--touch-every=5m"]);
    assert!(text.contains("'--touch-every'") && text.contains("'--no-touch-on-read'"), "{text}");
    parse(&["--no-touch-on-read=false", "--touch-every=5m"]);
}

#[test]
fn never_lifts_the_limits_of_program() {
    let limited = SessionManager::<u32>::builder(MemorySessionStore::new())
        .idle_timeout(Duration::from_secs(5))
        .lifetime(Duration::from_secs(50));
    let sessions = parse(&["--idle-timeout", "never", "--lifetime", "never"]).apply(limited).build().unwrap();
    let debug = format!("{sessions:?}");
    assert!(debug.contains("idle_timeout: None") && debug.contains("lifetime: None"), "{debug}");
}

#[test]
fn missing_flag_leaves_the_setting_of_program() {
    let hour = Duration::from_secs(3600);
    let own = || SessionManager::<u32>::builder(MemorySessionStore::new()).idle_timeout(hour).cookie_name("ours");
    let debug = |flags: &[&str]| format!("{:?}", parse(flags).apply(own()).build().unwrap());
    assert_eq!(debug(&[]), format!("{:?}", own().build().unwrap()));
    assert!(debug(&["--idle-timeout", "2h"]).contains("idle_timeout: Some(7200s)"));
}

#[test]
fn flag_works_before_and_after_subcommand() {
    let default = format!("{:?}", parse(&["--redis-url", "redis://localhost", "run"]));
    for (flag, good, _, needs_redis) in FLAGS {
        let others = if needs_redis { &["--redis-url", "redis://localhost"][..] } else { needs(flag) };
        let flag = format!("--{flag}={good}");
        let before = format!("{:?}", parse(&[others, &[&flag, "run"]].concat()));
        let after = format!("{:?}", parse(&[&["run", &flag], others].concat()));
        let split = format!("{:?}", parse(&[others, &["run", &flag]].concat()));
        assert_eq!((&after, &split), (&before, &before), "{flag}");
        assert_ne!(before, default, "{flag}");
    }
    let twice = format!("{:?}", parse(&["--cookie-name", "outer", "run", "--cookie-name", "inner"]));
    assert!(twice.contains("inner") && !twice.contains("outer"), "{twice}");
}

#[test]
fn bad_value_is_a_usage_error() {
    for (flag, _, bad, _) in FLAGS {
        let given = format!("--{flag}={bad}");
        for flags in [&[&*given][..], &["run", &given]] {
            let text = usage_error(&[&["--redis-url", "redis://localhost"], flags].concat());
            assert!(text.contains(&format!("'--{flag}")), "{text}");
        }
    }
    assert!(usage_error(&["--redis-url", "http://localhost"]).contains("'--redis-url <URL>'"));
    assert!(usage_error(&["--redis-url", "redis://localhost", "--deadline", "never"]).contains("cannot be `never`"));
}

#[test]
fn time_in_months_is_a_usage_error() {
    for time in ["30M", "1h30M", "1 M"] {
        let texts = [
            usage_error(&["--idle-timeout", time]),
            usage_error(&["--remember-for", time]),
            String::from_utf8(run(&[], &[("SESSION_LIFETIME", time)]).stderr).unwrap(),
        ];
        for text in texts {
            assert!(text.contains("write `m` for minutes") && text.contains("<TIME>'"), "{text}");
        }
    }
    assert!(format!("{:?}", parse(&["--lifetime", "1month 30m"])).contains("2631816s"));
}

#[test]
fn bad_variable_is_a_usage_error() {
    for (flag, _, bad, _) in FLAGS {
        let output = run(&[], &[("REDIS_URL", "redis://localhost"), (&variable(flag), bad)]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag}: {said}");
        assert!(said.contains(&format!("'--{flag}")), "{said}");
    }
}

#[test]
fn redis_flag_without_redis_is_a_usage_error() {
    for (flag, good, _, needs_redis) in FLAGS {
        let given = format!("--{flag}={good}");
        if !needs_redis {
            parse(&[&[&*given], needs(flag)].concat());
            continue;
        }
        for flags in [&[&*given][..], &["run", &given]] {
            let text = usage_error(flags);
            assert!(text.contains(&format!("'--{flag}")) && text.contains("--redis-url <URL>"), "{text}");
        }
        let output = run(&[], &[(&variable(flag), good)]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(&variable(flag)), "{said}");
    }
    parse(&["--expiring=false"]);
}

/// A program that needs an index.
#[derive(Parser)]
#[command(mut_arg("expiring", |flag| flag.default_value("true")))]
struct WithUsers {
    #[command(flatten)]
    sessions: Args,
}

#[test]
fn program_sets_default_of_expiring() {
    let url = shared().url();
    let prefix = unique("default");
    let redis = ["program", "--redis-url", &url, "--prefix", &prefix];
    let has_index = |flags: &[&str], is_expected: bool| {
        let args = WithUsers::try_parse_from(flags).unwrap_or_else(|error| panic!("{error}")).sessions;
        assert_eq!(args.store().unwrap().index().is_some(), is_expected, "{flags:?}");
    };
    has_index(&["program"], true); // in memory
    has_index(&redis, true);
    has_index(&[&redis[..3], &["--prefix", &unique("plain"), "--expiring=false"]].concat(), false);
    let given = WithUsers::try_parse_from(["program", "--expiring"]).map(drop).unwrap_err();
    assert!(given.to_string().contains("needs a Redis"), "{given}");
}

#[test]
fn switch_overrides_its_variable() {
    // A store in memory cannot be expiring, so the program would not start.
    let program = Program::start("serve", &["--expiring=false"], &[("SESSION_EXPIRING", "true")]);
    assert_eq!(program.client().post("/api/hit").status, 200);
}

#[test]
fn tool_without_redis_is_a_usage_error() {
    let error = Tool::try_parse_from(["tool"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("'--redis-url <URL>'"), "{error}");
    let tool = Tool::parse_from(["tool", "--redis-url", "redis://:hunter2@localhost", "--prefix", "shop"]);
    assert!(format!("{tool:?}").contains("shop") && !format!("{tool:?}").contains("hunter2"), "{tool:?}");
}

/// The store that a tool opens with these flags, under this prefix of the shared server.
fn recorded(prefix: &str, flags: &[&str]) -> threaded_sessions::Result<RedisSessionStore> {
    let url = shared().url();
    Tool::parse_from([&["tool", "--redis-url", &url, "--prefix", prefix], flags].concat()).redis.recorded_store()
}

#[test]
fn tool_opens_the_recorded_kind_of_store() {
    let kinds: [fn(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder; 3] =
        [|store| store, |store| store.expiring().partitions(3), |store| store.hashed_keys()];
    for kind in kinds {
        let prefix = unique("recorded");
        let store = kind(RedisSessionStore::builder().url(shared().url()).prefix(&prefix)).build().unwrap();
        store.check().unwrap();
        let sessions = SessionManager::<u32>::new(store.clone());
        let mut session = sessions.fresh();
        *session = 7;
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let tool = recorded(&prefix, &[]).unwrap();
        assert_eq!((tool.key(&id), tool.index().is_some()), (store.key(&id), store.index().is_some()));
        assert_eq!(SessionManager::<u32>::new(tool).open_id(&id).unwrap().map(|session| *session), Some(7));
    }
}

#[test]
fn tool_rejects_flags_contradicting_the_record() {
    let prefix = unique("contradiction");
    let builder = RedisSessionStore::builder().url(shared().url()).prefix(&prefix);
    builder.expiring().partitions(3).build().unwrap().check().unwrap();
    recorded(&prefix, &["--expiring", "--partitions", "3", "--hashed-keys=false"]).unwrap();
    for flag in ["--expiring=false", "--partitions=4", "--hashed-keys"] {
        let error = recorded(&prefix, &[flag]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        let text = format!("{error:#}");
        assert!(text.contains(flag.split('=').next().unwrap()), "{text}");
        assert!(text.contains("`kind=expiring partitions=3 keys=plain`"), "{text}");
    }
}

#[test]
fn tool_asks_for_the_kind_without_a_record() {
    let prefix = unique("unrecorded");
    let error = recorded(&prefix, &["--expiring"]).unwrap_err();
    let text = format!("{error:#}");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(text.contains("set --partitions=COUNT, --hashed-keys=BOOL"), "{text}");
    let store = recorded(&prefix, &["--expiring", "--partitions=2", "--hashed-keys=false"]).unwrap();
    assert_eq!(store.index().map(|index| index.partitions()), Some(2));
    assert_eq!(shared().cmd(&["EXISTS", &format!("{prefix}:store")]), redis::Value::Int(0), "the tool writes nothing");
}

#[test]
fn tool_rejects_unusable_record() {
    for (stored, kind) in [
        ("something else", ErrorKind::Misconfigured),
        ("kind=plain partitions=1 keys=custom", ErrorKind::Unsupported),
        ("kind=plain partitions=0 keys=plain", ErrorKind::Misconfigured),
    ] {
        let prefix = unique("unusable");
        shared().cmd(&["SET", &format!("{prefix}:store"), stored]);
        assert_eq!(recorded(&prefix, &[]).unwrap_err().kind(), kind, "{stored}");
    }
    let prefix = unique("unusable");
    shared().cmd(&["RPUSH", &format!("{prefix}:store"), "a list"]);
    assert_eq!(recorded(&prefix, &[]).unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[test]
fn program_can_share_the_pool_of_its_store() {
    let args = parse(&["--redis-url", &shared().url(), "--prefix", &unique("pool"), "--pool-size", "3"]);
    let store = args.redis().unwrap().store().unwrap();
    let pool = store.pool().clone();
    let sessions = args.apply(SessionManager::<u32>::builder(store)).build().unwrap();
    let connection = pool.get().unwrap();
    assert_eq!((sessions.health().connections_in_use, sessions.health().connections_max), (1, 3));
    drop(connection);
    assert!(parse(&[]).redis().is_none());
}

#[test]
fn host_gives_access_to_its_reaper() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let host = parse(&["--resolution", "1h"]).host(sessions.reaper()).unwrap();
    let reaper = host.reaper().unwrap();
    assert_eq!(reaper.reap_now().unwrap(), 0);
    assert_eq!(reaper.stats().errors, 0);
    let without_args = Host::start(sessions.reaper()).unwrap();
    assert!(without_args.reaper().is_some());
    assert!(parse(&["--resolution", "never"]).host(sessions.reaper()).unwrap().reaper().is_none());
    let plain = parse(&["--redis-url", &shared().url(), "--prefix", &unique("plain")]).manager::<u32>().unwrap();
    assert!(Host::start(plain.build().unwrap().reaper()).unwrap().reaper().is_none());
}

#[test]
fn example_shows_the_statistics_of_its_reaper() {
    let program = Program::start("serve", &["--insecure-cookies"], &[]);
    let health = program.client().get("/api/health").json();
    assert!(health["reaper"]["removed"].is_u64(), "{health}");
}

#[test]
fn program_keeps_its_own_version() {
    let error = Cli::try_parse_from(["program", "--version"]).map(drop).unwrap_err();
    assert_eq!((error.exit_code(), error.to_string()), (0, "threaded-sessions 7.8.9\n".to_owned()));
    let output = run(&["--version"], &[]);
    assert!(String::from_utf8(output.stdout).unwrap().contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_is_wrapped() {
    for columns in ["60", "100"] {
        let help = String::from_utf8(run(&["--help"], &[("COLUMNS", columns)]).stdout).unwrap();
        assert!(help.contains("--trusted-origin <ORIGIN>"), "{help}");
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= columns.parse().unwrap(), "{longest}: {help}");
    }
}

#[test]
fn guide_lists_every_flag_and_variable() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    for arg in Silent::command().get_arguments().filter(|arg| arg.get_env().is_some()) {
        let (flag, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_str().unwrap());
        let row = format!("| `--{flag}` | `{variable}` |");
        assert!(guide.contains(&row), "{row}");
        let has_case = flag == "redis-url" || FLAGS.iter().any(|(known, ..)| *known == flag);
        assert!(has_case, "{flag}");
    }
}

mod namesake {
    //! A program whose type has the name of the flattened one.

    #[derive(clap::Parser)]
    pub(super) struct Args {
        #[command(flatten)]
        pub(super) sessions: threaded_sessions::args::Args,
    }
}

#[test]
fn program_may_call_its_type_args() {
    let args: namesake::Args = Parser::parse_from(["program", "--lifetime", "3s"]);
    assert!(format!("{:?}", args.sessions).contains("3s"));
}

#[test]
fn update_keeps_omitted_flags() {
    let mut cli = Silent::parse_from(["program", "--lifetime", "3s", "--cookie-name", "first"]);
    cli.update_from(["program", "--cookie-name", "second"]);
    let debug = format!("{:?}", cli.sessions);
    assert!(debug.contains("3s") && debug.contains("second") && !debug.contains("first"), "{debug}");
}

#[derive(Parser)]
struct Silent {
    #[command(flatten)]
    sessions: Args,
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
fn flag_overrides_its_variable() {
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
fn variables_decide_the_keys_in_redis() {
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
fn without_redis_program_reports_sessions_in_memory() {
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
        (&["--trusted-origin", "https://user:hunter2,x@host"], &[]),
        (&["--trusted-origin", "https://user:80,hunter2,x@host"], &[]),
    ] {
        let output = run(flags, variables);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.is_empty() && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn contradicting_settings_end_the_program() {
    let url = shared().url();
    let locked = support::RedisServer::with(&["--requirepass", "secret"]);
    for (flags, why) in [
        (&["--remember-for", "1d"][..], "longer than `idle_timeout`"),
        (&["--anonymous-idle-timeout", "30d"], "longer than `idle_timeout`"),
        (&["--touch-every", "30d"], "longer than `idle_timeout`"),
        (&["--cookie-name", "__Host-x", "--insecure-cookies"], "__Host-"),
        (&["--same-site", "none", "--insecure-cookies"], "SameSite=None"),
        (&["--redis-url", &url, "--partitions", "2", "--prefix", "{x}"], "braces"),
        (&["--redis-url", &url, "--prefix", &unique("cap"), "--max-per-principal", "2"], "with an index"),
        (&["--redis-url", &locked.url()], "not permitted"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--threads", "0"], "--threads"),
    ] {
        let output = run(flags, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{flags:?}: {said}");
        assert!(said.contains(why), "{flags:?}: {said}");
    }
}

#[test]
fn redis_unreachable_at_start_is_used_once_back() {
    let server = support::RedisServer::start();
    server.kill();
    let program = Program::start("serve", &["--redis-url", &server.url(), "--insecure-cookies"], &[]);
    assert!(program.stderr().contains("starting without Redis"), "{}", program.stderr());
    let mut client: Client = program.client();
    assert_eq!(client.post("/api/hit").status, 503);
    server.restart();
    assert!(support::eventually(support::PATIENCE, || client.post("/api/hit").status == 200));
}
