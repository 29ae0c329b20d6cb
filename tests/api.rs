//! The JSON API of both programs, over real connections to separate processes, with every kind of store.

mod support;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use support::program::{PROGRAMS, Program, stores};
use support::{Fault, PATIENCE, Proxy, Response, eventually, shared};
use threaded_sessions::SessionId;

/// Where requests that have nothing to do with sessions go.
const STATIC: [&str; 2] = ["/", "/about"];

/// Both programs with every kind of store.
fn everywhere(flags: &[&str], test: impl Fn(&Program)) {
    for program in PROGRAMS {
        for store in stores(&shared().url()) {
            eprintln!("{program} {store:?}");
            test(&Program::with(program, &store, &[&["--insecure-cookies"], flags].concat()));
        }
    }
}

fn session(user: Option<&str>, hits: u64, cart: &[&str]) -> Value {
    json!({ "user": user, "hits": hits, "cart": cart })
}

#[track_caller]
fn assert_session(response: &Response, user: Option<&str>, hits: u64, cart: &[&str]) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json(), session(user, hits, cart));
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    assert_eq!(response.header("Vary"), Some("Cookie"));
}

/// The id in a `Set-Cookie` that has just these attributes.
#[track_caller]
fn given(response: &Response, name: &str, attributes: &str) -> SessionId {
    let cookie = response.header("Set-Cookie").unwrap_or_else(|| panic!("no cookie: {response:?}"));
    let (pair, rest) = cookie.split_once("; ").expect("attributes");
    assert_eq!(rest, attributes);
    let id = pair.strip_prefix(name).and_then(|id| id.strip_prefix('=')).expect("the name of the cookie");
    id.parse().expect("a session id")
}

#[test]
fn visit_works_from_first_request_to_logout() {
    const COOKIE: &str = "HttpOnly; SameSite=Lax; Path=/";
    everywhere(&[], |program| {
        let mut client = program.client();
        let fresh = client.get("/api/session");
        assert_session(&fresh, None, 0, &[]);
        assert_eq!(fresh.header("Set-Cookie"), None, "nothing to remember yet");

        let first = client.post("/api/hit");
        assert_session(&first, None, 1, &[]);
        let id = given(&first, "session", COOKIE);
        let mut before_login = client.beside();
        for response in [client.post("/api/cart?item=green%20tea+%26+milk"), client.get("/api/session")] {
            assert_session(&response, None, 1, &["green tea & milk"]);
            assert_eq!(response.header("Set-Cookie"), None);
        }

        let login = client.post("/api/login?user=J%C3%BCrgen");
        assert_session(&login, Some("Jürgen"), 1, &["green tea & milk"]);
        assert_ne!(given(&login, "session", COOKIE), id);
        assert_session(&client.post("/api/hit"), Some("Jürgen"), 2, &["green tea & milk"]);

        // A request that still had the old id gets nothing of it, and does not disturb the new one.
        let late = before_login.get("/api/session");
        assert_session(&late, None, 0, &[]);
        for path in ["/api/hit", "/api/cart?item=x", "/api/logout"] {
            let late = before_login.post(path);
            assert_eq!((late.status, late.header("Set-Cookie")), (409, None), "{path}");
        }
        assert_session(&client.get("/api/session"), Some("Jürgen"), 2, &["green tea & milk"]);

        let mut elsewhere = client.beside();
        let logout = client.post("/api/logout");
        assert_eq!((logout.status, &*logout.body), (204, ""));
        assert!(logout.header("Set-Cookie").unwrap().contains("; Max-Age=0"), "{logout:?}");
        assert!(client.cookies.is_empty());
        for dead in [elsewhere.get("/api/session"), client.get("/api/session")] {
            assert_session(&dead, None, 0, &[]);
            assert_eq!(dead.header("Set-Cookie"), None);
        }
        let again = elsewhere.post("/api/hit");
        assert_session(&again, None, 1, &[]);
        given(&again, "session", COOKIE);
    });
}

#[test]
fn invalid_requests_get_400_404_or_405() {
    everywhere(&[], |program| {
        let mut client = program.client();
        for (method, path, status, allow) in [
            ("POST", "/api/login", 400, None),
            ("POST", "/api/login?user=", 400, None),
            ("POST", &format!("/api/cart?item={}", "x".repeat(201)), 400, None),
            ("POST", "/api/session", 405, Some("GET, HEAD")),
            ("GET", "/api/hit", 405, Some("POST")),
            ("DELETE", "/api/cart?item=x", 405, Some("POST")),
            ("GET", "/api/nothing", 404, None),
            ("GET", "/api/", 404, None),
            ("GET", "/nothing", 404, None),
        ] {
            let response = client.send(method, path, &[]);
            assert_eq!((response.status, response.header("Allow")), (status, allow), "{method} {path}");
            assert_eq!(response.header("Set-Cookie"), None);
        }
    });
}

#[test]
fn cookie_is_secure_by_default() {
    for (flags, name, attributes) in [
        (&[][..], "__Host-session", "HttpOnly; SameSite=Lax; Secure; Path=/"),
        (&["--cookie-name", "mine"], "mine", "HttpOnly; SameSite=Lax; Secure; Path=/"),
        (&["--cookie-name", "mine", "--insecure-cookies"], "mine", "HttpOnly; SameSite=Lax; Path=/"),
    ] {
        for program in PROGRAMS {
            let program = Program::start(program, flags, &[]);
            given(&program.client().post("/api/hit"), name, attributes);
        }
    }
}

#[test]
fn pipelined_requests_all_count_in_order() {
    const HITS: u64 = 10;
    everywhere(&[], |program| {
        let mut client = program.client();
        client.post("/api/hit");
        for _ in 0..HITS {
            client.write("POST", "/api/hit", &[]).unwrap();
            client.write("GET", "/api/nothing", &[]).unwrap();
        }
        let mut hits = BTreeSet::new();
        for _ in 0..HITS {
            hits.insert(client.read("POST").unwrap().json()["hits"].as_u64().unwrap());
            assert_eq!(client.read("GET").unwrap().status, 404);
        }
        assert_eq!(hits, (2..=HITS + 1).collect());
        assert_session(&client.get("/api/session"), None, HITS + 1, &[]);
    });
}

#[test]
fn parallel_requests_of_one_visitor_all_count() {
    const REQUESTS: usize = 32;
    everywhere(&[], |program| {
        let mut client = program.client();
        client.post("/api/login?user=ada");
        let start = Barrier::new(REQUESTS);
        thread::scope(|scope| {
            for n in 0..REQUESTS {
                let (mut client, start) = (client.beside(), &start);
                scope.spawn(move || {
                    start.wait();
                    let path = if n % 2 == 0 { "/api/hit".to_owned() } else { format!("/api/cart?item={n}") };
                    for _ in 0..3 {
                        let response = client.post(&path);
                        assert_eq!((response.status, response.header("Set-Cookie")), (200, None));
                    }
                });
            }
        });
        let mut kept = client.get("/api/session").json();
        let mut cart: Vec<String> = serde_json::from_value(kept["cart"].take()).unwrap();
        cart.sort_unstable();
        let mut items: Vec<String> =
            (0..REQUESTS * 3).map(|n| n % REQUESTS).filter(|n| n % 2 == 1).map(|n| n.to_string()).collect();
        items.sort_unstable();
        assert_eq!((kept["hits"].as_u64(), cart), (Some(48), items));
    });
}

#[test]
fn head_is_get_without_a_body() {
    everywhere(&[], |program| {
        let mut client = program.client();
        client.post("/api/cart?item=tea");
        for path in ["/api/session", "/api/health", "/api/nothing"] {
            let get = client.get(path);
            let head = client.send("HEAD", path, &[]);
            let about = |response: &Response| {
                let headers = ["Content-Type", "Content-Length", "Cache-Control", "Vary", "Set-Cookie"];
                (response.status, headers.map(|name| response.header(name).map(str::to_owned)))
            };
            assert_eq!(about(&head), about(&get));
            assert_eq!(head.body, "");
        }
    });
}

#[test]
fn cookie_headers_of_any_size_and_shape() {
    everywhere(&[], |program| {
        let mut client = program.client();
        client.post("/api/hit");
        let ours = format!("session={}", client.cookies["session"]);
        client.cookies.clear();

        let many: String = (0..3000).map(|n| format!("cookie-{n}=value; ")).collect();
        let long = format!("long={}", "x".repeat(256 * 1024));
        for (headers, hits) in [
            (vec![ours.clone()], 1),
            (vec![format!("{many}{ours}")], 1),
            (vec![long.clone(), ours.clone()], 1),
            (vec![format!("{long}; {ours}; {long}")], 1),
            (vec![format!(" ;;= ;a; =b; \"c\"=\"; {ours};;")], 1),
            (vec![format!("session=; session=x; {ours}")], 1),
            (vec![format!("  {}  ", ours.replace('=', " = "))], 1),
            (vec![ours.to_uppercase()], 0),
            (vec![format!("x{ours}"), format!("{ours}0"), ours.replace("session", "Session")], 0),
            (vec![format!("session={}", SessionId::random().expose())], 0),
            (vec!["session".to_owned(), String::new(), "session=%00%ff../../*".to_owned()], 0),
        ] {
            let headers: Vec<_> = headers.iter().map(|header| ("Cookie", &**header)).collect();
            let response = client.send("GET", "/api/session", &headers);
            let start: String = format!("{headers:?}").chars().take(200).collect();
            assert_eq!((response.status, &response.json()["hits"]), (200, &json!(hits)), "{start}");
            assert_eq!(response.header("Set-Cookie"), None);
        }
        // Invalid HTTP may end the connection, and must have no other effect.
        client.write_raw(b"GET /api/session HTTP/1.1\r\nCookie: session=\xff\xfe\r\n\r\n").unwrap();
        let _ = client.read("GET");
        client.reconnect();
        assert_session(&client.get("/api/session"), None, 0, &[]);
    });
}

#[test]
fn unused_session_expires() {
    everywhere(&["--idle-timeout", "300ms", "--no-touch-on-read", "--resolution", "50ms"], |program| {
        let mut client = program.client();
        client.post("/api/hit");
        assert!(eventually(PATIENCE, || client.get("/api/session").json()["hits"] == 0));
        assert_session(&client.post("/api/hit"), None, 1, &[]);
    });
}

#[test]
fn unreachable_store_is_reported_and_loses_nothing() {
    let proxy = Proxy::start(shared());
    for (program, static_page) in PROGRAMS.into_iter().zip(STATIC) {
        let [_, redis @ ..] = stores(&proxy.url());
        for store in redis {
            let process = Program::with(program, &store, &["--insecure-cookies"]);
            let mut client = process.client();
            client.post("/api/hit");
            assert_eq!(
                (client.get("/api/health").status, &client.get("/api/health").json()["healthy"]),
                (200, &json!(true))
            );

            proxy.set(Fault::Refuse);
            for (method, path) in [("GET", "/api/session"), ("POST", "/api/hit"), ("POST", "/api/logout")] {
                let away = client.send(method, path, &[]);
                assert_eq!((away.status, away.header("Retry-After")), (503, Some("1")), "{path}: {away:?}");
                assert_eq!(away.header("Set-Cookie"), None);
            }
            let health = client.get("/api/health");
            assert_eq!((health.status, &health.json()["healthy"]), (503, &json!(false)));
            assert_eq!(client.get(static_page).status, 200);
            if program == "shop" {
                let page = client.get("/");
                assert_eq!((page.status, page.header("Retry-After")), (503, Some("1")));
                assert!(page.body.contains("One moment, please"), "{page:?}");
            }

            proxy.set(Fault::None);
            assert!(eventually(PATIENCE, || client.get("/api/health").status == 200));
            assert!(eventually(PATIENCE, || client.get("/api/session").status == 200));
            assert_session(&client.get("/api/session"), None, 1, &[]);
        }
    }
}

#[test]
fn shop_forms_work_with_every_store() {
    for (store, knows_devices) in stores(&shared().url()).iter().zip([true, false, true]) {
        let program = Program::with("shop", store, &["--insecure-cookies"]);
        let mut client = program.client();
        let page = client.get("/sign-in").body;
        let token = page.split("name=token value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");

        let refused = client.post_form("/sign-in", "token=guessed&user=Ada");
        assert_eq!((refused.status, refused.header("Location")), (303, Some("/")));
        assert!(client.get("/").body.contains("Your session had ended, so nothing was changed"));
        let too_large = format!("token={token}&user=Ada&more={}", "x".repeat(5000));
        assert_eq!(client.post_form("/sign-in", &too_large).header("Location"), Some("/"));
        assert!(!client.get("/account").body.contains("Ada"));

        let signed_in = client.post_form("/sign-in", &format!("token={token}&user=Ada"));
        assert_eq!((signed_in.status, signed_in.header("Location")), (303, Some("/account")));
        let account = client.get("/account").body;
        assert!(account.contains("Hello, Ada"), "{account}");
        assert_eq!(account.contains("this one"), knows_devices, "{store:?}");
        assert_eq!(account.contains("--expiring"), !knows_devices, "{store:?}");
        assert!(!account.contains(token), "a renewed session has a token of its own");
    }
}
