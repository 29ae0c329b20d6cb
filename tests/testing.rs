//! The browser for tests keeps and sends cookies as browsers do, and drives handlers of rouille and tiny_http.

use std::io::Read;
use std::thread;
use std::time::Duration;

use rouille::{Response, router};
use threaded_sessions::rouille::session;
use threaded_sessions::testing::{Browser, Page, Request};
use threaded_sessions::{Clock, MemorySessionStore, SessionManager, tiny_http as threaded_tiny_http};

const DAY: Duration = Duration::from_secs(86_400);

/// A browser whose application returns the `Cookie` header.
fn echo(origin: &str) -> Browser<'static> {
    Browser::new(|request| Page::text(request.header("Cookie").unwrap_or("none"))).with_origin(origin)
}

#[test]
fn set_cookie_follows_the_rules_of_browsers() {
    for (origin, set_cookie, accepted) in [
        ("http://localhost", "a=1", true),
        ("http://localhost:8000", "a=1; Secure", true),
        ("http://127.0.0.1", "a=1; Secure", true),
        ("http://[::1]", "a=1; Secure", true),
        ("http://shop.example", "a=1; Secure", false),
        ("https://shop.example", "a=1; Secure", true),
        ("http://localhost", "__Host-a=1; Secure; Path=/", true),
        ("http://localhost", "__Host-a=1; Path=/", false),
        ("http://localhost", "__Host-a=1; Secure", false),
        ("http://localhost", "__host-a=1; Secure; Path=/shop", false),
        ("https://shop.example", "__Host-a=1; Secure; Path=/; Domain=shop.example", false),
        ("http://localhost", "__Secure-a=1; Secure; Path=/shop", true),
        ("http://localhost", "__Http-a=1; Secure; HttpOnly", true),
        ("http://localhost", "__Http-a=1; Secure", false),
        ("http://localhost", "__Host-Http-a=1; Secure; HttpOnly; Path=/", true),
        ("http://localhost", "__Host-Http-a=1; Secure; Path=/", false),
        ("http://localhost", "__SECURE-a=1", false),
        ("http://localhost", "a=1; SameSite=None", false),
        ("http://localhost", "a=1; SameSite=None; Secure", true),
        ("http://localhost", "a=1; Partitioned", false),
        ("https://shop.example", "a=1; Domain=other.example", false),
        ("https://shop.example", "a=1; Domain=p.example", false),
        ("https://shop.example", "a=1; Domain=example", false),
        ("https://a.shop.example", "a=1; Domain=.SHOP.example", true),
        ("http://127.0.0.1", "a=1; Domain=0.0.1", false),
        ("http://127.0.0.1", "a=1; Domain=127.0.0.1", true),
        ("http://localhost", "a=1; Domain=localhost", true),
        ("http://localhost", "no pair", false),
    ] {
        let mut browser = echo(origin);
        assert_eq!(browser.set_cookie(set_cookie), accepted, "{origin} {set_cookie}");
        assert_eq!(browser.get("/").body() != "none", accepted && !set_cookie.contains("Path=/shop"), "{set_cookie}");
    }
}

#[test]
fn overlong_cookie_is_rejected() {
    let mut browser = echo("http://localhost");
    assert!(browser.set_cookie(&format!("a={}", "x".repeat(4095))));
    assert!(!browser.set_cookie(&format!("b={}", "x".repeat(4096))));
}

#[test]
fn cookie_goes_to_its_path_and_domain() {
    let mut browser = echo("https://www.shop.example");
    assert!(browser.set_cookie("here=1; Path=/"));
    assert!(browser.set_cookie("wide=2; Domain=shop.example; Path=/"));
    assert!(browser.set_cookie("cart=3; Path=/cart"));
    assert!(browser.set_cookie("safe=4; Secure; Domain=shop.example; Path=/"));
    for (address, cookies) in [
        ("/", "here=1; wide=2; safe=4"),
        ("/cart", "cart=3; here=1; wide=2; safe=4"),
        ("/cart/tea?cups=2#end", "cart=3; here=1; wide=2; safe=4"),
        ("/carts", "here=1; wide=2; safe=4"),
        ("https://shop.example/", "wide=2; safe=4"),
        ("https://api.shop.example/cart", "wide=2; safe=4"),
        ("http://www.shop.example/", "here=1; wide=2"),
        ("https://myshop.example/", "none"),
    ] {
        assert_eq!(browser.get(address).body(), cookies, "{address}");
    }
}

#[test]
fn cookie_without_path_belongs_to_the_folder() {
    let app = |request: &Request| match request.header("Cookie") {
        None => Page::text("none").with_header("set-cookie", "a=1"),
        Some(cookie) => Page::text(cookie),
    };
    let mut browser = Browser::new(app);
    browser.get("/shop/cart/tea");
    assert_eq!(browser.get("/shop/cart").body(), "a=1");
    assert_eq!(browser.get("/shop").body(), "none");
}

#[test]
fn cookie_expires_by_the_clock() {
    let clock = Clock::manual();
    let mut browser = echo("http://localhost").with_clock(clock.clone());
    assert!(browser.set_cookie("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"));
    assert!(browser.set_cookie("b=2; Expires=Fri, 31 Dec 9999 23:59:59 GMT"));
    assert!(browser.set_cookie("c=3"));
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(browser.get("/").body(), "a=1; b=2; c=3");
    clock.advance(Duration::from_millis(1));
    assert_eq!((browser.get("/").body(), browser.cookie("a")), ("b=2; c=3", None));
    // No browser keeps a cookie for more than 400 days.
    clock.advance(400 * DAY);
    assert_eq!(browser.get("/").body(), "c=3");
}

#[test]
fn removal_needs_the_same_path_and_domain() {
    for removal in ["Max-Age=0", "Max-Age=-1", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"] {
        let mut browser = echo("https://shop.example");
        assert!(browser.set_cookie("a=1; Path=/"));
        assert!(browser.set_cookie(&format!("a=; Path=/cart; {removal}")));
        assert!(browser.set_cookie(&format!("a=; Path=/; Domain=shop.example; {removal}")));
        assert_eq!(browser.cookie("a"), Some("1"), "{removal}");
        assert!(browser.set_cookie(&format!("a=; Path=/; {removal}")));
        assert_eq!(browser.cookie("a"), None, "{removal}");
    }
}

#[test]
fn plain_http_cannot_replace_a_secure_cookie() {
    let app = |request: &Request| match request.method() {
        "POST" => Page::text("set").with_header("Set-Cookie", "a=planted; Path=/; Domain=shop.example"),
        _ => Page::text(request.header("Cookie").unwrap_or("none")),
    };
    let mut browser = Browser::new(app).with_origin("https://shop.example");
    assert!(browser.set_cookie("a=1; Secure; Path=/; Domain=shop.example"));
    browser.post("http://www.shop.example/", "");
    assert_eq!(browser.get("/").body(), "a=1");
}

#[test]
fn restart_keeps_only_cookies_with_an_end() {
    let mut browser = echo("http://localhost");
    assert!(browser.set_cookie("a=1") && browser.set_cookie("b=2; Max-Age=60"));
    browser.restart();
    assert_eq!(browser.get("/").body(), "b=2");
}

#[test]
fn same_site_limits_requests_of_other_sites() {
    let mut browser = echo("http://localhost");
    for cookie in ["unset=1", "strict=2; SameSite=Strict", "lax=3; SameSite=Lax", "none=4; SameSite=None; Secure"] {
        assert!(browser.set_cookie(cookie));
    }
    let mut send = |method: &str| browser.send(Request::new(method, "/").from_other_site("https://evil.example"));
    assert_eq!(send("GET").body(), "unset=1; lax=3; none=4");
    assert_eq!(send("POST").body(), "none=4");
    assert_eq!(browser.post("/", "").body(), "unset=1; strict=2; lax=3; none=4");
}

#[test]
fn request_carries_the_headers_of_a_browser() {
    let names = ["Host", "Sec-Fetch-Site", "Origin", "Accept", "Content-Type"];
    let app = move |request: &Request| Page::text(names.map(|name| request.header(name).unwrap_or("-")).join(" "));
    let browser = Browser::new(app).with_header("Accept", "text/html");
    let mut local = browser.clone().with_origin("http://localhost:8000");
    assert_eq!(local.get("/").body(), "localhost:8000 same-origin - text/html -");
    let form = local.post_form("/", &[]);
    assert_eq!(
        form.body(),
        "localhost:8000 same-origin http://localhost:8000 text/html application/x-www-form-urlencoded"
    );
    let own = Request::new("PUT", "/").with_header("accept", "*/*").with_header("host", "other");
    assert_eq!(local.send(own).body(), "other same-origin http://localhost:8000 */* -");
    let other = Request::new("POST", "/").from_other_site("https://evil.example");
    assert_eq!(local.send(other).body(), "localhost:8000 cross-site https://evil.example text/html -");
    assert_eq!(browser.with_origin("http://shop.example").get("/").body(), "shop.example - - text/html -");
}

#[test]
fn redirects_are_followed_on_request() {
    let app = |request: &Request| match request.path_and_query() {
        "/start" => Page::new(303, "").with_header("Location", "next?n=1").with_header("Set-Cookie", "a=1"),
        "/kept" => Page::new(307, "").with_header("Location", "/end"),
        "/away" => Page::new(302, "").with_header("Location", "https://other.example/"),
        "/loop" => Page::new(302, "").with_header("Location", "/loop"),
        path => {
            let body = String::from_utf8_lossy(request.body());
            Page::text(format!("{} {path} {body} {}", request.method(), request.header("Cookie").unwrap_or("none")))
        }
    };
    let mut browser = Browser::new(app);
    assert_eq!(browser.post("/start", "tea").status(), 303);
    let mut browser = browser.follow_redirects(true);
    assert_eq!(browser.post("/start", "tea").body(), "GET /next?n=1  a=1");
    assert_eq!(browser.post("/kept", "tea").body(), "POST /end tea a=1");
    assert_eq!(browser.get("/away").header("location"), Some("https://other.example/"));
    thread::scope(|scope| assert!(scope.spawn(|| browser.get("/loop")).join().is_err()));
}

#[test]
fn page_reads_text_bytes_and_json() {
    let mut browser = Browser::new(|_| Page::text("[1,2]"));
    let page = browser.get("/");
    assert_eq!((page.status(), page.bytes(), page.json::<Vec<u8>>()), (200, &b"[1,2]"[..], vec![1, 2]));
}

#[test]
fn debug_texts_have_no_values() {
    let app = |_: &Request| Page::text("hidden").with_header("Set-Cookie", "a=hidden");
    let mut browser = Browser::new(app).with_header("Authorization", "hidden");
    let request = Request::new("POST", "/?token=hidden").with_header("X-Token", "hidden").with_body("hidden");
    let texts = format!("{request:?} {:?} {browser:?}", browser.send(request.clone()));
    assert!(!texts.contains("hidden"), "{texts}");
    assert!(["Set-Cookie", "X-Token", "\"a\""].iter().all(|name| texts.contains(name)), "{texts}");
}

#[test]
fn rouille_handler_counts_for_each_browser() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let app = Browser::rouille(|request| {
        router!(request,
            (POST) (/add) => {
                let mut body = String::new();
                request.data().unwrap().read_to_string(&mut body).unwrap();
                session(&sessions, request, |sum| {
                    **sum += body.parse::<u32>().unwrap();
                    Response::text(format!("{} {}", **sum, request.is_secure()))
                })
            },
            (GET) (/out) => {
                session(&sessions, request, |sum| {
                    sum.destroy();
                    Response::empty_204()
                })
            },
            _ => Response::empty_404()
        )
    });
    let (mut ada, mut bob) = (app.clone(), app.with_origin("https://shop.example"));
    assert_eq!(ada.post("/add", "2").body(), "2 false");
    assert_eq!(bob.post("/add", "3").body(), "3 true");
    let mut thief = ada.clone();
    assert_eq!(ada.post("/add", "2").body(), "4 false");
    assert_eq!(ada.get("/out").status(), 204);
    assert_eq!(ada.cookie("__Host-session"), None);
    assert_eq!(thief.post("/add", "1").body(), "1 false");
    assert_eq!(ada.get("/none").status(), 404);
}

#[test]
fn tiny_http_handler_counts_for_each_browser() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let app = Browser::tiny_http(|request| {
        threaded_tiny_http::session(&sessions, request, |sum, request| {
            let mut body = String::new();
            request.as_reader().read_to_string(&mut body).unwrap();
            **sum += body.parse::<u32>().unwrap_or(0);
            let text = format!("{} {} {}", **sum, request.secure(), request.url());
            tiny_http::Response::from_string(text).with_status_code(201)
        })
    });
    let (mut ada, mut bob) = (app.clone(), app.with_origin("https://shop.example"));
    assert_eq!(ada.post("/add?n=1", "2").body(), "2 false /add?n=1");
    assert_eq!(bob.get("/").body(), "0 true /");
    let page = ada.post("/", "5");
    assert_eq!((page.status(), page.body()), (201, "7 false /"));
    assert!(ada.cookie("__Host-session").is_some());
}

#[test]
fn parallel_pages_of_a_browser_share_the_session() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let mut browser = Browser::rouille(|request| {
        session(&sessions, request, |visits| {
            let visits = sessions.update_in(visits, |visits| {
                *visits += 1;
                *visits
            });
            Response::text(format!("{:?}", visits.unwrap()))
        })
    });
    browser.get("/");
    thread::scope(|scope| {
        for mut tab in vec![browser.clone(); 4] {
            scope.spawn(move || tab.get("/"));
        }
    });
    assert_eq!(browser.get("/").body(), "Some(6)");
}
