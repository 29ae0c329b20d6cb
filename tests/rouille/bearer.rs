//! Clients that send their session id as a bearer token, and the promise that nothing else counts for them.

use std::time::Duration;

use rouille::{Request, Response};
use threaded_sessions::rouille::{bearer, error_response, session, try_session};
use threaded_sessions::{ErrorPage, MemorySessionStore, OpenMode, Outcome, SessionId, SessionManager, TOKEN_HEADER};

use crate::{Sessions, cookie, count, header, request, sessions, stored, value};

fn with_token(id: &SessionId) -> Request {
    request(&[("Authorization", &format!("Bearer {}", id.expose()))])
}

fn token(response: &Response) -> SessionId {
    header(response, TOKEN_HEADER)[0].parse().unwrap()
}

#[test]
fn client_gets_a_token_and_no_cookie() {
    let sessions = sessions();
    let response = bearer(&sessions, &request(&[]), count);
    assert_eq!(header(&response, "Vary"), ["Authorization"]);
    assert_eq!(header(&response, "Cache-Control"), ["no-store"]);
    assert_eq!(header(&response, "Set-Cookie"), [""; 0]);
    let id = token(&response);

    let response = bearer(&sessions, &with_token(&id), count);
    assert_eq!((header(&response, TOKEN_HEADER), header(&response, "Set-Cookie")), (vec![], vec![]));
    assert_eq!(header(&response, "Vary"), ["Authorization"]);
    assert_eq!(value(&sessions, &id), Some(2));

    let response = bearer(&sessions, &with_token(&id), |session| {
        session.renew();
        session.remember(true);
        Response::empty_204().with_additional_header("Vary", "Accept").with_additional_header("Cache-Control", "public")
    });
    let new = token(&response);
    assert_eq!(header(&response, "Vary"), ["Accept, Authorization"]);
    assert_eq!((header(&response, "Cache-Control"), header(&response, "Set-Cookie")), (vec!["no-store"], vec![]));
    assert!(new != id && value(&sessions, &id).is_none());

    let response = bearer(&sessions, &with_token(&new), |session| {
        session.destroy();
        Response::empty_204()
    });
    assert_eq!((header(&response, TOKEN_HEADER), header(&response, "Set-Cookie")), (vec![], vec![]));
    assert_eq!(value(&sessions, &new), None);
}

#[test]
fn bearer_route_ignores_cookies() {
    let sessions = sessions();
    let [mine, planted] = [stored(&sessions), stored(&sessions)];
    let authorization = format!("Bearer {}", mine.expose());
    for headers in [
        vec![("Cookie", cookie(&planted))],
        vec![("Cookie", cookie(&planted)), ("Authorization", "Basic x".to_owned())],
        vec![("Authorization", authorization.clone()), ("Authorization", authorization.clone())],
        vec![(TOKEN_HEADER, planted.expose())],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let response = bearer(&sessions, &request(&headers), |session| {
            assert!(session.is_new());
            Response::empty_204()
        });
        assert_eq!(response.status_code, 204);
    }
    let both = [("Cookie", &*cookie(&planted)), ("Authorization", &authorization)];
    let response = bearer(&sessions, &request(&both), |session| {
        session.destroy();
        Response::empty_204()
    });
    assert_eq!(header(&response, "Set-Cookie"), [""; 0]);
    assert_eq!((value(&sessions, &mine), value(&sessions, &planted)), (None, Some(1)));
    // The other way round, a route for cookies knows no token.
    session(&sessions, &with_token(&planted), |session| {
        assert!(session.is_new());
        Response::empty_204()
    });
}

#[test]
fn bearer_route_serves_other_origins() {
    let sessions = sessions();
    let id = stored(&sessions);
    let headers = [
        ("Host", "api.example".to_owned()),
        ("Origin", "https://app.example".to_owned()),
        ("Sec-Fetch-Site", "cross-site".to_owned()),
        ("Authorization", format!("Bearer {}", id.expose())),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value));
    let post = Request::fake_http("POST", "/", headers.to_vec(), Vec::new());
    assert_eq!(bearer(&sessions, &post, count).status_code, 200);
    assert_eq!(session(&sessions, &post, count).status_code, 403);
    assert_eq!(value(&sessions, &id), Some(2));
}

#[test]
fn old_token_gets_a_409() {
    let page = |failure: &threaded_sessions::Failure| {
        let outcome = failure.committed().map(threaded_sessions::Committed::outcome);
        ErrorPage::json(format!("{outcome:?} {}", failure.is_lost()))
    };
    let sessions = Sessions::builder(MemorySessionStore::new()).error_page(page).build().unwrap();
    let id = stored(&sessions);
    let renewed = bearer(&sessions, &with_token(&id), |session| {
        session.renew();
        Response::empty_204()
    });
    for status in [200, 401] {
        let response = bearer(&sessions, &with_token(&id), |session| {
            assert!(session.is_detached());
            Response::text("").with_status_code(status)
        });
        assert_eq!((response.status_code, header(&response, TOKEN_HEADER)), (409, vec![]));
        assert_eq!(header(&response, "Vary"), ["Authorization"]);
        assert_eq!(crate::body(response), "Some(Detached) true");
    }
    assert_eq!(bearer(&sessions, &with_token(&id), count).status_code, 409);
    let (_, committed) = try_session(&sessions, OpenMode::Bearer, &with_token(&id), |_| Response::empty_204()).unwrap();
    assert_eq!(committed.outcome(), Outcome::Detached);
    // A login begins a new session.
    let login = bearer(&sessions, &with_token(&id), |session| {
        session.renew();
        count(session)
    });
    assert_eq!((login.status_code, value(&sessions, &token(&login))), (200, Some(1)));
    assert_eq!(value(&sessions, &token(&renewed)), Some(1));
    // A browser's read of a detached session is as before.
    assert_eq!(session(&sessions, &crate::request_of(&id), |_| Response::empty_204()).status_code, 204);
}

#[test]
fn failed_bearer_request_sends_stored_token() {
    let sessions = sessions();
    let fails = |session: &mut threaded_sessions::Session<u32>| -> threaded_sessions::HandlerResult<Response> {
        sessions.update_in(session, |count| *count += 1)?;
        Err("later")?
    };
    let failure = try_session(&sessions, OpenMode::Bearer, &request(&[]), fails).unwrap_err();
    let response = error_response(&sessions, &failure);
    assert_eq!((response.status_code, header(&response, "Set-Cookie")), (500, vec![]));
    assert_eq!(header(&response, "Vary"), ["Authorization"]);
    assert_eq!(value(&sessions, &token(&response)), Some(1));
}

#[test]
fn token_leaves_remembered_cookie_due() {
    let clock = threaded_sessions::Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = SessionManager::<u32>::builder(store).clock(clock.clone()).idle_timeout(Duration::from_secs(60));
    let sessions = builder.remember_for(Duration::from_secs(1000)).build().unwrap();
    let response = session(&sessions, &request(&[]), |session| {
        session.remember(true);
        count(session)
    });
    let pair = header(&response, "Set-Cookie")[0].split(';').next().unwrap().to_owned();
    let id: SessionId = pair.split('=').nth(1).unwrap().parse().unwrap();
    clock.advance(Duration::from_secs(700));
    let response = bearer(&sessions, &with_token(&id), count);
    assert_eq!((header(&response, TOKEN_HEADER), header(&response, "Set-Cookie")), (vec![], vec![]));
    let response = session(&sessions, &request(&[("Cookie", &pair)]), |_| Response::empty_204());
    assert_eq!(header(&response, "Set-Cookie").len(), 1);
}
