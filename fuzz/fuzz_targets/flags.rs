//! A flag takes a value or names itself in the error, shows no password, and a manager accepts each value that a flag takes.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use clap::{Args as _, Command, Error as UsageError, FromArgMatches};
use libfuzzer_sys::fuzz_target;
use threaded_sessions::args::Args;
use threaded_sessions::{ErrorKind, MemorySessionStore, SessionManager};
use threaded_sessions_fuzz::{SECRETS, Secret, has_secret};

#[derive(Arbitrary, Debug)]
enum Flag<'a> {
    Time(Timed, Time<'a>),
    Count(Counted, Count<'a>),
    Switch(Switch, &'a str),
    CookieName(&'a str),
    CookieDomain(&'a str),
    SameSite(&'a str),
    Prefix(&'a str),
    TrustedOrigin(Option<Secret>, &'a str),
    RedisUrl(Secret, &'a str),
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Timed {
    IdleTimeout,
    Lifetime,
    RememberFor,
    Resolution,
    Deadline,
}

#[derive(Arbitrary, Debug)]
enum Time<'a> {
    Never,
    Known(u32, Unit),
    Any(&'a str),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Unit {
    Nanos,
    Micros,
    Millis,
    Seconds,
    Minutes,
    Hours,
    Days,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Counted {
    MaxPerPrincipal,
    Partitions,
    PoolSize,
}

#[derive(Arbitrary, Debug)]
enum Count<'a> {
    Known(u64),
    Any(&'a str),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Switch {
    NoTouchOnRead,
    InsecureCookies,
    HashedKeys,
    Expiring,
}

static COMMAND: LazyLock<Command> = LazyLock::new(|| Args::augment_args(Command::new("program")));

fuzz_target!(|flags: Vec<Flag<'_>>| {
    if flags.iter().any(|flag| has_secret(&flag.value(""))) {
        return;
    }
    let [first, second] = SECRETS.map(|secret| {
        let text = match parse(&flags, secret) {
            Ok(args) => {
                check_parsed(&args, &flags);
                format!("{args:?}")
            }
            Err(error) => {
                check_error(&error, &flags);
                format!("{error} {error:?}")
            }
        };
        assert!(!text.contains(secret), "{text}");
        text
    });
    assert_eq!(first, second);
});

fn parse(flags: &[Flag<'_>], secret: &str) -> Result<Args, UsageError> {
    let is_of_redis = |flag: &Flag<'_>| flag.is_of_redis();
    let url = flags.iter().any(is_of_redis) && !flags.iter().any(|flag| matches!(flag, Flag::RedisUrl(..)));
    let url = url.then(|| "--redis-url=redis://h".to_owned());
    let texts = flags.iter().map(|flag| format!("--{}={}", flag.name(), flag.value(secret)));
    let texts = ["program".to_owned()].into_iter().chain(url).chain(texts);
    Args::from_arg_matches(&COMMAND.clone().try_get_matches_from(texts)?)
}

/// A manager takes these settings, unless two of them contradict each other.
fn check_parsed(args: &Args, flags: &[Flag<'_>]) {
    let shown = format!("{args:?}");
    for flag in flags {
        if let Flag::Time(timed, Time::Known(number, unit)) = flag {
            let time = unit.time(*number);
            assert!(time >= Duration::from_millis(1));
            assert!(shown.contains(&format!("{time:?}")), "{timed:?} {shown}");
        }
    }
    let built = args.apply(SessionManager::<u32>::builder(MemorySessionStore::new())).build();
    match (built, flags) {
        (Ok(_), _) => {}
        // The idle timeout is at most that of remembered visitors.
        (Err(error), [Flag::Time(Timed::RememberFor, _)] | [_, _, ..]) => {
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
        }
        (Err(error), _) => panic!("{error:#}"),
    }
}

fn check_error(error: &UsageError, flags: &[Flag<'_>]) {
    let text = error.to_string();
    assert_eq!(error.exit_code(), 2);
    assert!(flags.iter().any(|flag| text.contains(&format!("--{}", flag.name()))), "{text}");
    if let [Flag::Time(timed, Time::Known(number, unit))] = flags {
        let (time, longest) = (unit.time(*number), Duration::from_secs(3600));
        let is_short = time < Duration::from_millis(1);
        assert!(is_short || *timed == Timed::Deadline && time > longest, "{text}");
    }
}

impl Flag<'_> {
    fn is_of_redis(&self) -> bool {
        let texts = ["prefix", "hashed-keys", "partitions", "expiring", "pool-size", "deadline", "redis-url"];
        texts.contains(&self.name())
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Time(Timed::IdleTimeout, _) => "idle-timeout",
            Self::Time(Timed::Lifetime, _) => "lifetime",
            Self::Time(Timed::RememberFor, _) => "remember-for",
            Self::Time(Timed::Resolution, _) => "resolution",
            Self::Time(Timed::Deadline, _) => "deadline",
            Self::Count(Counted::MaxPerPrincipal, _) => "max-per-principal",
            Self::Count(Counted::Partitions, _) => "partitions",
            Self::Count(Counted::PoolSize, _) => "pool-size",
            Self::Switch(Switch::NoTouchOnRead, _) => "no-touch-on-read",
            Self::Switch(Switch::InsecureCookies, _) => "insecure-cookies",
            Self::Switch(Switch::HashedKeys, _) => "hashed-keys",
            Self::Switch(Switch::Expiring, _) => "expiring",
            Self::CookieName(_) => "cookie-name",
            Self::CookieDomain(_) => "cookie-domain",
            Self::SameSite(_) => "same-site",
            Self::Prefix(_) => "prefix",
            Self::TrustedOrigin(..) => "trusted-origin",
            Self::RedisUrl(..) => "redis-url",
        }
    }

    fn value(&self, secret: &str) -> String {
        match self {
            Self::Time(_, Time::Never) => "never".to_owned(),
            Self::Time(_, Time::Known(number, unit)) => format!("{number}{}", unit.text()),
            Self::Count(_, Count::Known(number)) => number.to_string(),
            Self::Time(_, Time::Any(text))
            | Self::Count(_, Count::Any(text))
            | Self::Switch(_, text)
            | Self::CookieName(text)
            | Self::CookieDomain(text)
            | Self::SameSite(text)
            | Self::Prefix(text) => (*text).to_owned(),
            Self::TrustedOrigin(None, host) => format!("https://{host}"),
            Self::TrustedOrigin(Some(password), host) => format!("https://u:{}@{host}", password.text(secret)),
            Self::RedisUrl(password, host) => format!("redis://u:{}@{host}", password.text(secret)),
        }
    }
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::Minutes => "m",
            Self::Hours => "h",
            Self::Days => "d",
        }
    }

    fn time(self, number: u32) -> Duration {
        let number = u64::from(number);
        match self {
            Self::Nanos => Duration::from_nanos(number),
            Self::Micros => Duration::from_micros(number),
            Self::Millis => Duration::from_millis(number),
            Self::Seconds => Duration::from_secs(number),
            Self::Minutes => Duration::from_secs(number * 60),
            Self::Hours => Duration::from_secs(number * 3600),
            Self::Days => Duration::from_secs(number * 86_400),
        }
    }
}
