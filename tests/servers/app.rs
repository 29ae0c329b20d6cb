//! An application over the types of the crate `http`. The tests of the adapter call it, and real servers serve it.

use http::{HeaderValue, Response};
use threaded_sessions::http::{RequestHead, discard_unreadable, session, sign_in};
use threaded_sessions::{MemorySessionStore, SessionManager};

pub(crate) type Sessions = SessionManager<u32>;

/// Responds to a request with this body.
pub(crate) fn app<B: From<Vec<u8>>>(sessions: &Sessions, request: &impl RequestHead, body: &[u8]) -> Response<B> {
    match request.uri().path() {
        "/static" => text("static"),
        "/read" => session(sessions, request, |count| text(count.to_string())),
        "/count" | "/saml/acs" => session(sessions, request, |count| {
            **count += 1;
            text(count.to_string())
        }),
        "/add" => session(sessions, request, |count| {
            **count += std::str::from_utf8(body)?.parse::<u32>()?;
            Ok(Response::builder().status(201).body(format!("{} {}", request.method(), **count).into_bytes().into())?)
        }),
        "/own" => session(sessions, request, |count| {
            **count += 1;
            let headers = [("cache-control", "private"), ("VARY", "Accept"), ("Set-Cookie", "theme=dark; Path=/")];
            headers.iter().fold(text("own"), |response, (name, value)| with_header(response, name, value.as_bytes()))
        }),
        "/public" => session(sessions, request, |count| {
            **count += 1;
            let own: [(&str, &[u8]); 6] = [
                ("Cache-Control", b"public, max-age=60"),
                ("Surrogate-Control", b"max-age=60"),
                ("CDN-Cache-Control", b"max-age=60"),
                ("Vary", b"Accept"),
                ("vary", b"Origin"),
                ("X-Own", b"stays \xFF"),
            ];
            own.iter().fold(text("x".repeat(100)), |response, (name, value)| with_header(response, name, value))
        }),
        "/nested" => session(sessions, request, |count| {
            **count += 1;
            session(sessions, request, |_| -> Response<B> { panic!("it is open already") })
        }),
        "/two-managers" => session(sessions, request, |count| {
            **count += 1;
            let other = Sessions::builder(MemorySessionStore::new()).cookie_name("other").build().unwrap();
            session(&other, request, |other| {
                **other += 1;
                text("both")
            })
        }),
        "/sign-in" => sign_in(sessions, request, |count| {
            count.renew();
            text(count.to_string())
        }),
        "/start-over" => discard_unreadable(sessions, request, text("anew")),
        "/fail" => session(sessions, request, |count| {
            **count += 1;
            Err::<Response<B>, _>("as the test wants it".into())
        }),
        "/panic" => session(sessions, request, |count| -> Response<B> {
            **count += 1;
            panic!("as the test wants it")
        }),
        // Another request changes the session while this one has it.
        "/clash" => session(sessions, request, |count| {
            let mut other = sessions.open_id(count.id().unwrap())?.unwrap();
            *other += 1;
            let _ = sessions.commit(other)?;
            **count += 10;
            Ok(text(count.to_string()))
        }),
        // Another request ends the session while this one has it.
        "/lost" | "/lost-404" => session(sessions, request, |count| {
            let mut other = sessions.open_id(count.id().unwrap())?.unwrap();
            other.destroy();
            let _ = sessions.commit(other)?;
            **count += 10;
            let mut response = text("stored");
            if request.uri().path() == "/lost-404" {
                *response.status_mut() = http::StatusCode::NOT_FOUND;
            }
            Ok(response)
        }),
        path => panic!("{path}"),
    }
}

fn text<B: From<Vec<u8>>>(text: impl Into<String>) -> Response<B> {
    Response::new(text.into().into_bytes().into())
}

fn with_header<B>(mut response: Response<B>, name: &str, value: &[u8]) -> Response<B> {
    let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
    response.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    response
}
