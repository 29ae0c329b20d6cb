//! Settings that cannot work are rejected when the store, manager or reaper is built, without repeating secrets.

use std::error::Error as _;
use std::time::Duration;

use threaded_sessions::store::MAX_TTL;
use threaded_sessions::{
    Credentials, ErrorKind, MemorySessionStore, RedisConnectionManager, RedisPool, RedisSessionStore, SameSite,
    SessionManager, SessionManagerBuilder,
};

use super::support::{PATIENCE, shared, texts};
use super::{HOUR, redis, stores};

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn unreadable_address_is_rejected_without_repeating_it() {
    let urls = [
        "",
        "hunter2",
        "redis:",
        "redis://",
        "redis://user:hunter2@",
        "http://user:hunter2@127.0.0.1/",
        "redis://user:hunter2@127.0.0.1:port",
        "redis://user:hunter2@127.0.0.1:99999",
        "redis://user:hunter2@[::1",
        "redis://user:hunter2@127.0.0.1/hunter2",
        "redis://user:hunter2@127.0.0.1/0?protocol=hunter2",
        "redis://user:%ff@127.0.0.1?pass=hunter2",
        #[cfg(not(feature = "tls-rustls"))]
        "rediss://user:hunter2@127.0.0.1",
        "unix://user:hunter2@127.0.0.1:port",
        "redis://user:hunter2@127.0.0.1 /",
        "127.0.0.1:6379:hunter2",
        "redis-sentinel://user:hunter2@127.0.0.1",
        "redis-sentinel://user:hunter2@127.0.0.1?sentinelServiceName=m&node=hunter2:x",
        "redis-hunter2://127.0.0.1",
    ];
    for url in urls {
        let errors = [
            RedisSessionStore::open(url).err(),
            RedisSessionStore::builder().url(url).expiring().build().err(),
            RedisConnectionManager::open(url).err(),
        ];
        for error in errors {
            let error = error.unwrap_or_else(|| panic!("{url:?} was accepted"));
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{url:?}: {error:?}");
            let why = error.source().expect("it says why").to_string();
            assert_ne!(why, "invalid client config", "{url:?}");
            let texts = texts(&error);
            assert!(!texts.contains("hunter2") && (url.len() < 8 || !texts.contains(url)), "{texts}");
        }
    }
}

/// URLs, each with words of the expected error: the name of a parameter, or the remedy.
const IGNORED: &[(&str, &str)] = &[
    ("127.0.0.1:6379", "add the scheme"),
    ("redis:/localhost", "must name a host"),
    ("redis://", "must name a host"),
    ("redis://h/shop", "number of a database"),
    #[cfg(not(feature = "tls-rustls"))]
    ("rediss://h", "`tls-rustls`"),
    ("redis://h?db=3", "`db`"),
    ("redis://h/?db=3", "the path"),
    ("redis://h?pass=hunter2", "`pass`"),
    ("redis://h?password=hunter2", "`password`"),
    ("redis://h?timeout=5", "`timeout`"),
    ("redis://h?timeout=5", "deadline"),
    ("redis://h?node=other", "`node`"),
    ("redis://h?sentinelServiceName=m", "redis-sentinel"),
    ("redis://h?Protocol=resp3", "`Protocol`"),
    ("redis://h?protocol", "is empty"),
    ("redis://h?protocol=", "`protocol`"),
    ("redis://h?protocol=resp3&protocol=resp3", "twice"),
    ("redis://h?protocol=resp4", "`protocol`"),
    ("redis://h?=hunter2", "a parameter"),
    ("redis://h#3", "fragment"),
    ("redis://h/3#", "fragment"),
    ("redis://h#insecure", "fragment"),
    ("redis://h/3/4", "path"),
    ("redis://h/-1", "path"),
    ("redis://h/+3", "path"),
    ("redis://user@h", "password"),
    ("redis://user:@h", "password"),
    ("redis://:1?hunter2=x@h", "%XX"),
    ("redis://:1?hunter2#x@h", "%XX"),
    ("redis://:hun\tter2@h", "%XX"),
    ("redis+unix:///s?database=3", "`database`"),
    ("redis+unix:///s?db=x", "`db`"),
    ("redis+unix:///s?db=", "`db`"),
    ("redis+unix:///s?db=1&db=2", "twice"),
    ("redis+unix:///s?user=u", "password"),
    ("redis+unix:///s?pass=a&hunter2", "a parameter"),
    ("redis+unix:///s?node=h", "`node`"),
    ("redis+unix:///s#3", "fragment"),
    ("redis+unix://localhost/s", "no host"),
    ("unix://user:hunter2@localhost/s", "no user info"),
    ("redis+cluster://h", "-cluster"),
    ("redis+sentinel://h/mymaster", "-sentinel"),
    ("redis-cluster://h/3", "database 0"),
    ("redis-cluster://h?db=3", "database 0"),
    ("redis-cluster://h?sentinelServiceName=m", "`sentinelServiceName`"),
    ("redis-cluster://h?node=a&node=", "`node`"),
    ("redis-cluster://h?node=user:hunter2@a:1", "%XX"),
    ("redis-cluster://h?node=user:hunter2%40a:1", "`node`"),
    ("redis-cluster://h?node=a:1/3", "`node`"),
    ("redis-cluster://h#3", "fragment"),
    ("redis-sentinel://h?sentinelServiceName=", "`sentinelServiceName`"),
    ("redis-sentinel://h?sentinelServiceName=m&sentinelServiceName=n", "twice"),
    ("redis-sentinel://h?sentinelServiceName=m&sentinelUsername=u", "password"),
    ("redis-sentinel://h?sentinelServiceName=m&sentinelPassword=", "`sentinelPassword`"),
    ("redis-sentinel://h?sentinelServiceName=m&sentinelPass=hunter2", "`sentinelPass`"),
    ("redis-sentinel://h?sentinelServiceName=m&sentinelPassword=hunter2%ff", "UTF-8"),
    ("redis-sentinel://h?sentinelServiceName=m&sentinelPassword=a&hunter2=b", "a parameter"),
    ("redis-sentinel://h?sentinelServiceName=m&db=3", "`db`"),
    ("redis+unix-cluster://h", "scheme"),
    ("unix-sentinel://h?sentinelServiceName=m", "scheme"),
];

#[test]
fn url_with_ignored_part_is_refused() {
    for (url, words) in IGNORED {
        for error in [RedisSessionStore::open(url).err(), RedisConnectionManager::open(url).err()] {
            let error = error.unwrap_or_else(|| panic!("{url:?} was accepted"));
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{url}: {error:?}");
            let texts = texts(&error);
            assert!(texts.contains(words), "{url}: {texts}");
            assert!(!texts.contains("hunter2"), "{url}: {texts}");
        }
    }
    #[cfg(feature = "tls-rustls")]
    for url in ["rediss://h#3", "rediss://h#", "rediss://h?db=3", "rediss-cluster://h/3", "rediss-sentinel://h?db=3"] {
        assert_eq!(RedisSessionStore::open(url).unwrap_err().kind(), ErrorKind::Misconfigured, "{url}");
    }
}

#[test]
fn url_with_effective_parts_is_accepted() {
    for url in [
        "redis://h",
        "redis://h/",
        "redis://h/3",
        "redis://h?",
        "redis://:@h",
        "redis://:p@h:1/0?protocol=resp3",
        "redis://h?protocol=2",
        " redis://h\n",
        "valkey://h/1",
        "redis+unix:///s?db=3&user=u&pass=p&protocol=resp3",
        "unix:///s",
        "redis-cluster://h",
        "redis-cluster://h/0?node=a:1&node=b&protocol=3",
        "redis-sentinel://u:p@h/3?sentinelServiceName=m&node=a&sentinelUsername=u&sentinelPassword=a%2Bb+c",
    ] {
        assert!(RedisSessionStore::open(url).is_ok(), "{url}");
    }
}

#[test]
fn client_with_ignored_setting_is_refused() {
    let client = |url: &str| threaded_sessions::redis::Client::open(url).unwrap();
    let builder = RedisSessionStore::builder;
    let master = || client("redis://127.0.0.1/2");
    let cases = [
        (builder().client(client("redis://user@h")), "password"),
        (builder().cluster([client("redis://a/3")]), "database 0"),
        (builder().cluster([client("redis://a"), client("redis://b/3")]), "database 0"),
        (builder().cluster([client("redis://a"), client("redis://:hunter2@b")]), "first client"),
        (builder().cluster([client("redis://:hunter1@a"), client("redis://:hunter2@b")]), "first client"),
        (builder().cluster([client("redis://a"), client("redis://b?protocol=resp3")]), "first client"),
        #[cfg(feature = "tls-rustls")]
        (builder().cluster([client("redis://a"), client("rediss://b")]), "first client"),
        (builder().sentinel("m", [client("redis://s/3")], master()), "no databases"),
        (builder().sentinel("m", [client("redis://user@s")], master()), "password"),
        (builder().sentinel("m", [client("redis://s")], client("unix:///s")), "Unix"),
        (builder().sentinel("m", [client("redis://s")], client("redis://user@h")), "password"),
        (builder().sentinel("", [client("redis://s")], master()), "name of the master"),
    ];
    for (builder, words) in cases {
        let shown = format!("{builder:?}");
        let error = builder.build().expect_err(words);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{shown}");
        assert!(texts(&error).contains(words) && !texts(&error).contains("hunter"), "{error:?}");
    }
    let same = || client("redis://:hunter2@a?protocol=resp3");
    assert!(builder().cluster([same(), same(), client("redis://b")]).build().is_ok());
}

#[test]
fn store_with_unworkable_settings_is_rejected() {
    let ready = || redis().url(shared().url()).build().unwrap().pool().clone();
    let other = || RedisSessionStore::builder().url(shared().url());
    let cluster = || other().url("redis-cluster://127.0.0.1:1");
    let by_id = |id: &threaded_sessions::SessionId| id.expose();
    let cases = [
        (other().prefix(""), "prefix"),
        (other().prefix("").key_mapper(by_id), "prefix"),
        (other().partitions(0), "at least one partition"),
        (other().partitions(16_385), "slots"),
        (other().prefix("{app}").partitions(2), "braces"),
        (other().prefix("app}").partitions(2), "braces"),
        (other().prefix("{").partitions(2), "braces"),
        (other().key_mapper(by_id).partitions(2), "custom key mapper"),
        (other().deadline(Duration::ZERO), "deadline"),
        (other().deadline(Duration::from_micros(999)), "deadline"),
        (other().deadline(HOUR + MILLISECOND), "deadline"),
        (other().deadline(Duration::MAX), "deadline"),
        (other().pool_size(0), "size"),
        (other().pool_size(u32::MAX), "size"),
        (other().pool(ready()).deadline(PATIENCE), "ready pool"),
        (other().pool(ready()).pool_size(8), "ready pool"),
        (other().pool(ready()).credentials(|| Credentials::password("")), "ready pool"),
        (cluster().prefix("{app}"), "braces"),
        (cluster().key_mapper(by_id), "custom key mapper"),
        (cluster().pool_size(65_536), "size"),
        (other().cluster([]), "address"),
        (other().cluster([threaded_sessions::redis::Client::open("unix:///socket").unwrap()]), "Unix"),
        (other().url("127.0.0.1:6379"), "HOST:PORT"),
        (other().url("localhost:6379"), "HOST:PORT"),
        (other().url("my-host:6379"), "HOST:PORT"),
        (other().url("http://localhost"), "HOST:PORT"),
        (other().url("redis://user:a#b@localhost"), "%XX"),
        (other().url("redis-sentinel://127.0.0.1"), "sentinelServiceName"),
        (other().url("redis-cluster://127.0.0.1?node=a:b"), "node"),
        (other().url("redis-cluster://127.0.0.1?node="), "node"),
        (other().url("redis-hive://127.0.0.1"), "scheme"),
        (other().sentinel("master", [], threaded_sessions::redis::Client::open("redis://a").unwrap()), "no Sentinels"),
    ];
    for (builder, words) in cases {
        let shown = format!("{builder:?}");
        let error = builder.build().expect_err(&shown);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{shown}");
        let why = error.source().expect("it says why").to_string();
        assert!(why.contains(words), "{why}: {shown}");
    }
    // The same at the edge of what works.
    for builder in [
        other().deadline(MILLISECOND),
        other().deadline(HOUR),
        other().key_mapper(by_id).partitions(1),
        cluster().partitions(1),
        #[cfg(feature = "tls-rustls")]
        other().url("rediss-cluster://user:hunter2@[::1]:7000?node=[::1]:7001&node=localhost&protocol=resp3"),
        other().url("redis-sentinel://:hunter2@localhost/3?sentinelServiceName=m&sentinelPassword=x&node=other"),
        other().partitions(16_384),
        other().prefix("\u{0}größe \r\n*"),
        other().pool_size(1),
    ] {
        let shown = format!("{builder:?}");
        assert!(builder.build().is_ok(), "{shown}");
    }
}

#[test]
fn pool_rejects_unworkable_size_and_takes_any_deadline() {
    let manager = || RedisConnectionManager::open(&shared().url()).unwrap();
    for size in [0, 65_536] {
        assert_eq!(RedisPool::with_size(manager(), size).unwrap_err().kind(), ErrorKind::Misconfigured);
    }
    for out_of_range in [Duration::ZERO, Duration::from_micros(999), HOUR + MILLISECOND, Duration::MAX] {
        let error = manager().with_deadline(out_of_range).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert_eq!(error.source().unwrap().to_string(), "the deadline must be from 1 millisecond to an hour");
    }
    let pool = RedisPool::new(manager().with_deadline(HOUR).unwrap());
    let store = RedisSessionStore::builder().pool(pool).build().unwrap();
    store.check().expect("an hour is enough");
    let pool = RedisPool::new(manager().with_deadline(MILLISECOND).unwrap());
    // A millisecond can be too short; whatever it is then, it is no panic and no wait.
    if let Err(error) = pool.get() {
        assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable), "{error:?}");
    }
}

#[test]
fn manager_with_unworkable_settings_is_rejected() {
    type Settings = fn(SessionManagerBuilder<u32>) -> SessionManagerBuilder<u32>;
    const TINY: Duration = Duration::from_nanos(999_999);
    let cases: &[(Settings, &str)] = &[
        (|b| b.idle_timeout(Duration::ZERO), "at least 1 ms"),
        (|b| b.idle_timeout(TINY), "at least 1 ms"),
        (|b| b.lifetime(Duration::ZERO), "at least 1 ms"),
        (|b| b.remember_for(Duration::ZERO), "at least 1 ms"),
        (|b| b.remember_for(HOUR), "`remember_for` must be longer than `idle_timeout`"),
        (|b| b.idle_timeout(HOUR).remember_for(HOUR), "must be longer than `idle_timeout`"),
        (|b| b.idle_timeout(None).remember_for(HOUR), "must be longer than `idle_timeout`"),
        (|b| b.idle_timeout(HOUR).remember_for(HOUR * 3).lifetime(HOUR * 2), "must not be longer than `lifetime`"),
        (|b| b.touch_every(TINY), "`touch_every` must be at least 1 ms"),
        (|b| b.idle_timeout(HOUR).touch_every(HOUR + TINY), "must not be longer than `idle_timeout`"),
        (|b| b.anonymous_idle_timeout(HOUR).touch_every(HOUR * 2), "or `anonymous_idle_timeout`"),
        (|b| b.idle_timeout(None).touch_every(HOUR), "needs an `idle_timeout`"),
        (|b| b.touch_on_read(false).touch_every(HOUR), "needs `touch_on_read`"),
        (|b| b.renew_every(TINY), "`renew_every` must be at least 1 ms"),
        (|b| b.touch_on_read(false).renew_every(HOUR), "`renew_every` needs `touch_on_read`"),
        (|b| b.lifetime(HOUR).renew_every(HOUR), "must be shorter than `lifetime`"),
        (|b| b.max_payload(0), "greater than 0"),
        (|b| b.max_per_principal(0), "at least 1"),
        (|b| b.same_site(SameSite::None).secure(false), "SameSite=None"),
        (|b| b.partitioned(true).secure(false), "a Partitioned cookie"),
        (|b| b.cookie_name("__Host-s").secure(false), "__Host-"),
        (|b| b.cookie_name("__Host-s").cookie_path("/app"), "__Host-"),
        (|b| b.cookie_name("__Host-s").cookie_domain("example.com"), "__Host-"),
        (|b| b.cookie_name("__hOST-s").cookie_domain("example.com"), "__Host-"),
        (|b| b.cookie_name("__Secure-s").secure(false), "__Secure-"),
        (|b| b.cookie_name("__secure-s").secure(false), "__Secure-"),
        (|b| b.cookie_name("__Http-s").http_only(false), "__Http-"),
        (|b| b.cookie_name("__Http-s").secure(false), "__Http-"),
        (|b| b.cookie_name("__hTTP-s").secure(false), "__Http-"),
        (|b| b.cookie_name("__Host-Http-s").http_only(false), "__Host-Http-"),
        (|b| b.cookie_name("__host-http-s").http_only(false), "__Host-Http-"),
        (|b| b.cookie_name("__Host-Http-s").cookie_path("/app"), "__Host-"),
        (|b| b.cookie_name(""), "name"),
        (|b| b.cookie_name("a b"), "name"),
        (|b| b.cookie_name("a=b"), "name"),
        (|b| b.cookie_name("a;b"), "name"),
        (|b| b.cookie_name("a\r\nSet-Cookie: x"), "name"),
        (|b| b.cookie_name("größe"), "name"),
        (|b| b.cookie_path(""), "path"),
        (|b| b.cookie_path("app"), "path"),
        (|b| b.cookie_path("/app; Domain=example.com"), "path"),
        (|b| b.cookie_path("/app\r\nSet-Cookie: x"), "path"),
        (|b| b.cookie_path("/größe"), "path"),
        (|b| b.cookie_domain(""), "domain"),
        (|b| b.cookie_domain("example.com; Path=/x"), "domain"),
        (|b| b.cookie_domain("example.com\n"), "domain"),
        (|b| b.cookie_domain("größe.example"), "domain"),
        (|b| b.cookie_domain("https://example.com/"), "domain"),
        (|b| b.cookie_domain("example.com:8000"), "domain"),
    ];
    for (settings, words) in cases {
        let builder = settings(SessionManager::builder(MemorySessionStore::new()));
        let shown = format!("{builder:?}");
        let error = builder.build().expect_err(&shown);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{shown}");
        let why = error.source().expect("it says why").to_string();
        assert!(why.contains(words), "{why}: {shown}");
    }
}

#[test]
fn reaper_with_unworkable_settings_is_rejected() {
    let reaper = || SessionManager::<u32>::new(MemorySessionStore::new()).reaper();
    for (settings, words) in [
        (reaper().resolution(Duration::ZERO), "at least 1 ms"),
        (reaper().resolution(Duration::from_micros(999)), "at least 1 ms"),
        (reaper().batch(0), "between 1 and 1000"),
        (reaper().batch(1001), "between 1 and 1000"),
        (reaper().batch(usize::MAX), "between 1 and 1000"),
    ] {
        let shown = format!("{settings:?}");
        let error = settings.start().expect_err(&shown);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{shown}");
        assert!(error.source().expect("it says why").to_string().contains(words), "{error:?}: {shown}");
    }
    for settings in [
        reaper().resolution(MILLISECOND).batch(1),
        reaper().resolution(MAX_TTL + MILLISECOND).batch(1000),
        reaper().resolution(Duration::MAX),
    ] {
        let shown = format!("{settings:?}");
        assert!(settings.start().is_ok(), "{shown}");
    }
    assert_eq!(format!("{:?}", reaper().resolution(Duration::MAX)), format!("{:?}", reaper().resolution(MAX_TTL)));
    // Settings are also checked on a store that needs no reaper.
    let plain = SessionManager::<u32>::new(RedisSessionStore::open(&shared().url()).unwrap());
    assert_eq!(plain.reaper().batch(0).start().unwrap_err().kind(), ErrorKind::Misconfigured);
    let error = plain.reaper().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.source().expect("it says why").to_string().contains("needs no reaper"));
}

#[test]
fn cap_without_an_index_is_rejected() {
    let plain = RedisSessionStore::open(&shared().url()).unwrap();
    let error = SessionManager::<u32>::builder(plain).max_per_principal(3).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.source().unwrap().to_string().contains("index"));
}

#[test]
fn idle_timeout_is_a_century_or_none() {
    let opened = |builder: SessionManagerBuilder<u32>, remember: bool| {
        let sessions = builder.build().unwrap();
        let mut session = sessions.fresh();
        *session = 1;
        session.remember(remember);
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let mut session = sessions.open_id(&id).unwrap().expect("it lives");
        *session = 2;
        session.renew();
        let id = *sessions.commit(session).unwrap().id().unwrap();
        sessions.open_id(&id).unwrap().expect("it lives").expires_in()
    };
    for store in stores() {
        let builder = || SessionManager::<u32>::builder(store.clone());
        let ages = [Duration::MAX, MAX_TTL, MAX_TTL + MILLISECOND];
        for age in ages {
            for left in [
                opened(builder().idle_timeout(age), false),
                opened(builder().remember_for(age), true),
                opened(builder().idle_timeout(age).lifetime(Duration::MAX), true),
            ] {
                let left = left.expect("it expires");
                assert!(left <= MAX_TTL && left >= MAX_TTL - HOUR, "{left:?} in {store:?}");
            }
        }
        assert_eq!(opened(builder().idle_timeout(None), false), None, "{store:?}");
        assert_eq!(opened(builder().idle_timeout(None).lifetime(None), true), None, "{store:?}");
    }
}
