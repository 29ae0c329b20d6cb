//! Cross-origin protection: which requests pass, and which settings are invalid.
//!
//! The first tables retell the cases of Go 1.25 (`src/net/http/csrf_test.go`) for this crate. Go's patterns of paths do not exist
//! here, because exempt paths are whole and are compared undecoded.

use std::error::Error as StdError;

use threaded_sessions::{ErrorKind, MemorySessionStore, Result, SessionManager, SessionManagerBuilder};

type Sessions = SessionManager<u32>;
type Headers<'a> = &'a [(&'a str, &'a str)];

const HOST: (&str, &str) = ("Host", "example.com");
const OWN: (&str, &str) = ("Origin", "https://example.com");
const ATTACKER: (&str, &str) = ("Origin", "https://attacker.example");
const CROSS_SITE: (&str, &str) = ("Sec-Fetch-Site", "cross-site");

fn builder() -> SessionManagerBuilder<u32> {
    Sessions::builder(MemorySessionStore::new())
}

fn passes(checked: Result<()>) -> bool {
    match checked {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::CrossOrigin, "{error:?}");
            false
        }
    }
}

/// Checks a request to `https://example.com` with these headers.
#[track_caller]
fn assert_passes(sessions: &Sessions, method: &str, target: &str, headers: Headers<'_>, expected: bool) {
    let all = headers.iter().copied().chain([HOST]);
    assert_eq!(passes(sessions.check_cross_origin(method, target, all)), expected, "{method} {target} {headers:?}");
}

#[test]
fn sec_fetch_site_decides_before_origin() {
    let sessions = builder().build().unwrap();
    let site = |value| ("Sec-Fetch-Site", value);
    for (method, headers, expected) in [
        ("POST", &[site("same-origin")][..], true),
        ("POST", &[site("none")], true),
        ("POST", &[site("cross-site")], false),
        ("POST", &[site("same-site")], false),
        ("POST", &[], true),
        ("POST", &[OWN], true),
        ("POST", &[ATTACKER], false),
        ("POST", &[("Origin", "null")], false),
        ("GET", &[CROSS_SITE], true),
        ("HEAD", &[CROSS_SITE], true),
        ("OPTIONS", &[CROSS_SITE], true),
        ("PUT", &[CROSS_SITE], false),
        ("PATCH", &[CROSS_SITE], false),
        ("DELETE", &[CROSS_SITE], false),
        ("TRACE", &[CROSS_SITE], false),
        ("QUERY", &[CROSS_SITE], false),
        ("get", &[CROSS_SITE], false),
        ("", &[CROSS_SITE], false),
        // The browser knows better than a Host that a proxy changed.
        ("POST", &[site("same-origin"), ATTACKER], true),
        ("POST", &[site("same-site"), OWN], false),
        ("POST", &[site("cross-site"), OWN], false),
        ("POST", &[site("cross-site"), ("Origin", "null")], false),
    ] {
        assert_passes(&sessions, method, "/", headers, expected);
    }
}

#[test]
fn trusted_origins_pass_from_any_site() {
    let sessions = builder()
        .trusted_origin("https://trusted.example")
        .trusted_origin(String::from("HTTPS://Second.Example:443"))
        .trusted_origin("tauri://localhost")
        .trusted_origin("http://[0::1]:8000")
        .build()
        .unwrap();
    for (origin, expected) in [
        ("https://trusted.example", true),
        ("https://trusted.example:443", true),
        ("https://second.example", true),
        ("tauri://localhost", true),
        ("http://[::1]:8000", true),
        ("https://attacker.example", false),
        ("http://trusted.example", false),
        ("https://trusted.example:8443", false),
        ("https://trusted.example:80", false),
        ("https://trusted.example/", false),
        ("https://trusted.example.", false),
        ("https://www.trusted.example", false),
        ("https://trusted.example.attacker.example", false),
        ("https://attacker.example#https://trusted.example", false),
        ("https://trusted.example@attacker.example", false),
        ("https://trusted.example https://attacker.example", false),
        ("tauri://localhost:443", false),
        ("http://[::1]", false),
    ] {
        for site in [None, Some(("Sec-Fetch-Site", "cross-site")), Some(("Sec-Fetch-Site", "same-site"))] {
            let headers: Vec<_> = site.into_iter().chain([("Origin", origin)]).collect();
            assert_passes(&sessions, "POST", "/", &headers, expected);
        }
    }
    // Without the header there is nothing to trust.
    assert_passes(&sessions, "POST", "/", &[CROSS_SITE], false);
    assert_passes(&sessions, "POST", "/", &[("Origin", "https://trusted.example"), ATTACKER], false);
}

#[test]
fn exempt_paths_pass_only_in_this_spelling() {
    let sessions = builder().exempt_path("/saml/acs").exempt_path("/callback/").build().unwrap();
    for (target, expected) in [
        ("/saml/acs", true),
        ("/saml/acs?RelayState=1", true),
        ("/saml/acs?a?b", true),
        ("/callback/", true),
        ("/", false),
        ("/saml", false),
        ("/saml/", false),
        ("/saml/acs/", false),
        ("/saml/acs/more", false),
        ("/saml/ac", false),
        ("/SAML/acs", false),
        ("//saml/acs", false),
        ("/saml//acs", false),
        ("/saml/./acs", false),
        ("/saml/x/../acs", false),
        ("/saml/acs/../../admin", false),
        ("/saml/acs%2F..%2F..%2Fadmin", false),
        ("/saml%2Facs", false),
        ("/s%61ml/acs", false),
        ("/saml/acs;x", false),
        ("/saml/acs#x", false),
        ("/admin?/saml/acs", false),
        ("/callback", false),
        ("saml/acs", false),
        ("https://example.com/saml/acs", false),
        ("*", false),
        ("", false),
    ] {
        for headers in [&[ATTACKER][..], &[ATTACKER, CROSS_SITE], &[CROSS_SITE]] {
            assert_passes(&sessions, "POST", target, headers, expected);
        }
    }
}

#[test]
fn origin_must_equal_host_and_port() {
    let sessions = builder().build().unwrap();
    for (origin, host, expected) in [
        ("https://example.com", "example.com", true),
        ("http://example.com", "example.com", true),
        ("http://example.com:8000", "example.com:8000", true),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", true),
        ("http://[::1]:8000", "[::1]:8000", true),
        ("http://[::1]", "[::1]", true),
        ("http://[::1]", "[0:0:0:0:0:0:0:1]:80", true),
        ("https://my_host.example", "my_host.example", true),
        // Upper case.
        ("https://EXAMPLE.com", "example.COM", true),
        ("HTTPS://example.com", "example.com", true),
        // Default ports.
        ("https://example.com", "example.com:443", true),
        ("https://example.com:443", "example.com", true),
        ("http://example.com", "example.com:80", true),
        ("https://example.com", "example.com:80", false),
        ("http://example.com", "example.com:443", false),
        // Wrong ports.
        ("http://example.com:8000", "example.com", false),
        ("http://example.com", "example.com:8000", false),
        ("http://example.com:8000", "example.com:8001", false),
        ("http://[::1]:8000", "[::1]:8001", false),
        ("http://example.com:65536", "example.com:65536", false),
        ("http://example.com:+80", "example.com:+80", false),
        ("http://example.com:", "example.com:", false),
        // Other hosts.
        ("https://attacker.example", "example.com", false),
        ("https://example.com.attacker.example", "example.com", false),
        ("https://attackerexample.com", "example.com", false),
        ("https://www.example.com", "example.com", false),
        ("https://example.com.", "example.com", false),
        ("http://[::2]", "[::1]", false),
        // No origins.
        ("null", "null", false),
        ("NULL", "example.com", false),
        ("example.com", "example.com", false),
        ("//example.com", "example.com", false),
        ("://example.com", "example.com", false),
        ("https:example.com", "example.com", false),
        ("https://", "example.com", false),
        ("https://example.com/", "example.com", false),
        ("https://example.com/path", "example.com", false),
        ("https://example.com?query", "example.com", false),
        ("https://user@example.com", "example.com", false),
        ("https://example.com@attacker.example", "example.com", false),
        ("https://attacker.example\\@example.com", "example.com", false),
        ("https://exam ple.com", "exam ple.com", false),
        ("https://*", "*", false),
        ("*", "example.com", false),
        ("http://[::1", "[::1", false),
        ("http://[example.com]", "[example.com]", false),
        ("https://größe.example", "größe.example", false),
        // Schemes without a Host.
        ("capacitor://example.com", "example.com", false),
        ("capacitor://example.com:80", "example.com:80", false),
        ("file://", "example.com", false),
        ("chrome-extension://example.com", "example.com", false),
        // No host.
        ("https://example.com", "", false),
        ("https://example.com", "https://example.com", false),
    ] {
        let headers = [("origin", origin), ("HOST", host)];
        assert_eq!(passes(sessions.check_cross_origin("POST", "/", headers)), expected, "{headers:?}");
    }
    assert!(!passes(sessions.check_cross_origin("POST", "/", [OWN])), "without Host");
}

#[test]
fn odd_headers_never_let_requests_pass() {
    let sessions = builder().build().unwrap();
    let site = |value| ("Sec-Fetch-Site", value);
    for (headers, expected) in [
        // Several headers.
        (&[OWN, ATTACKER][..], false),
        (&[ATTACKER, OWN], false),
        (&[OWN, OWN], false),
        (&[OWN, ("Host", "attacker.example")], false),
        (&[site("same-origin"), CROSS_SITE], false),
        (&[CROSS_SITE, site("same-origin")], false),
        (&[("sec-fetch-site", "none"), ("SEC-FETCH-SITE", "same-origin")], false),
        // Values that no browser sends.
        (&[site("Same-Origin")], false),
        (&[site("same-origin, none")], false),
        (&[site("unknown"), OWN], false),
        // White space around a value, and empty values.
        (&[site(" same-origin\t")], true),
        (&[("Origin", " https://example.com ")], true),
        (&[site(""), OWN], true),
        (&[site(" "), ATTACKER], false),
        (&[site(""), CROSS_SITE], false),
        (&[("Origin", ""), ATTACKER], false),
        (&[("Origin", "")], true),
        // The names of headers have no case.
        (&[("SEC-FETCH-SITE", "cross-site")], false),
        (&[("oRIGIN", "https://attacker.example")], false),
        // Forwarded headers are ignored.
        (&[ATTACKER, ("X-Forwarded-Host", "attacker.example")], false),
        (&[ATTACKER, ("Forwarded", "host=attacker.example")], false),
        (&[ATTACKER, ("X-Original-Host", "attacker.example"), ("Referer", "https://example.com/")], false),
        (&[OWN, ("X-Forwarded-Host", "attacker.example"), ("X-Forwarded-Proto", "http")], true),
        (&[("Referer", "https://attacker.example/")], true),
    ] {
        assert_passes(&sessions, "POST", "/", headers, expected);
    }
}

#[test]
fn headers_not_in_utf_8_are_rejected() {
    let sessions = builder().trusted_origin("https://trusted.example").build().unwrap();
    let host: (&str, &[u8]) = ("Host", b"example.com");
    for header in [
        ("Origin", &b"https://example.com\xFF"[..]),
        ("Origin", b"https://trusted.example\xFF"),
        ("Origin", b"\xFF"),
        ("Sec-Fetch-Site", b"same-origin\xFF"),
        ("Sec-Fetch-Site", b"\x80"),
    ] {
        let error = sessions.check_cross_origin("POST", "/", [header, host]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CrossOrigin, "{header:?}");
    }
    let own: (&str, &[u8]) = ("Origin", b"https://example.com");
    assert!(!passes(sessions.check_cross_origin("POST", "/", [own, ("Host", b"example.com\xFF")])));
    assert!(passes(sessions.check_cross_origin("POST", "/", [own, host])));
}

#[test]
fn refusal_names_headers_and_remedy() {
    let sessions = builder().build().unwrap();
    let why = |headers: Headers<'_>| {
        let error = sessions.check_cross_origin("POST", "/reset?token=hidden", headers.iter().copied()).unwrap_err();
        assert_eq!(error.to_string(), "checking the origin of a request: the request comes from another origin");
        let why = error.source().expect("it says why").to_string();
        assert!(!why.contains("hidden") && !why.contains("reset"), "{why}");
        why
    };
    assert_eq!(
        why(&[("Origin", "https://shop.example"), ("Host", "backend:8000")]),
        "method \"POST\", Sec-Fetch-Site absent, Origin \"https://shop.example\", Host \"backend:8000\": let the proxy pass \
         Host, or name the origin with trusted_origin"
    );
    assert_eq!(
        why(&[CROSS_SITE, ATTACKER, OWN, HOST]),
        "method \"POST\", Sec-Fetch-Site \"cross-site\", Origin \"https://attacker.example\" and more, Host \"example.com\": if \
         it is meant to be accepted, name the origin with trusted_origin, or the path with exempt_path"
    );
    // The text is one line and short, whatever the request has.
    let long = format!("https://\n\u{1b}[31m{}", "é".repeat(10_000));
    let shown = why(&[("Origin", &long), HOST]);
    assert!(shown.len() < 500 && !shown.contains(char::is_control) && shown.contains("é\"…"), "{shown}");
}

#[test]
fn protection_turned_off_lets_all_pass() {
    let sessions = builder().cross_origin_protection(false).build().unwrap();
    assert_passes(&sessions, "POST", "/", &[CROSS_SITE, ATTACKER], true);
    let sessions = builder().cross_origin_protection(false).cross_origin_protection(true).build().unwrap();
    assert_passes(&sessions, "POST", "/", &[CROSS_SITE, ATTACKER], false);
}

#[test]
fn owned_headers_are_accepted() {
    let sessions = builder().build().unwrap();
    let headers =
        vec![("Host".to_owned(), b"example.com".to_vec()), ("Origin".to_owned(), b"https://a.example".to_vec())];
    assert!(!passes(sessions.check_cross_origin("POST", "/", headers)));
}

#[test]
fn invalid_origins_and_paths_are_misconfigured() {
    let misconfigured = |builder: SessionManagerBuilder<u32>, words: &[&str]| {
        let shown = format!("{builder:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = builder.trusted_origin("https://valid.example").exempt_path("/valid").build().expect_err(&shown);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{shown}");
        let why = error.source().expect("it says why").to_string();
        assert!(words.iter().all(|word| why.contains(word)) && !why.contains("hunter2"), "{why}: {shown}");
    };
    for origin in [
        "example.com",
        "https://",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?query=value",
        "https://example.com#fragment",
        "https://ex ample.com",
        "",
        "null",
        "*",
        "https://*.example.com",
        "https://größe.example",
        "https://example.com:port",
        "https://example.com:99999",
        "https://example.com:",
        "https://[::1",
        "1https://example.com",
        "https:/example.com",
        "https:\\\\example.com",
        " https://example.com",
    ] {
        misconfigured(builder().trusted_origin(origin), &["trusted_origin", "SCHEME://HOST", &format!("{origin:?}")]);
    }
    misconfigured(builder().trusted_origin("https://user:hunter2@example.com"), &["trusted_origin", "\"example.com\""]);
    for path in ["", "saml", "/saml?x", "/saml#x", "/sa ml", "/größe", "/saml\n", "https://example.com/saml"] {
        misconfigured(builder().exempt_path(path), &["exempt_path", &format!("{path:?}")]);
    }
    for origin in ["https://example.com", "https://example.com:8080", "http://example.com", "app.x+y-z://id"] {
        assert!(builder().trusted_origin(origin).build().is_ok(), "{origin}");
    }
    for path in ["/", "/a/b", "/a%2Fb", "/a;b=c,d"] {
        assert!(builder().exempt_path(path).build().is_ok(), "{path}");
    }
}
