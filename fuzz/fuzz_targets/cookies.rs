//! Any `Cookie` headers open a session: the first live one of the ids that are tried, else a new one.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threaded_sessions::{MemorySessionStore, Outcome, SessionId, SessionManager};

const NAME: &str = "__Host-session";

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Name,
    Equals,
    Semicolon,
    Space,
    Stored(bool),
    Unknown(u8),
    Any(&'a str),
    Junk(&'a [u8]),
}

/// How many different ids of one request are tried.
const TRIED: usize = 4;

static STORED: LazyLock<(SessionManager<u32>, [SessionId; 2])> = LazyLock::new(|| {
    let sessions = SessionManager::new(MemorySessionStore::new());
    let ids = [1, 2].map(|value| {
        let mut session = sessions.fresh();
        *session = value;
        *sessions.commit(session).unwrap().id().unwrap()
    });
    (sessions, ids)
});

fuzz_target!(|pieces: Vec<Vec<Piece<'_>>>| {
    let (sessions, stored) = &*STORED;
    let unknown = [(); 3 * TRIED].map(|()| SessionId::random());
    let header = |pieces: &Vec<Piece<'_>>| -> String {
        let text = |piece: &Piece<'_>| match piece {
            Piece::Name => NAME.to_owned(),
            Piece::Equals => "=".to_owned(),
            Piece::Semicolon => ";".to_owned(),
            Piece::Space => " ".to_owned(),
            Piece::Stored(second) => stored[usize::from(*second)].expose(),
            Piece::Unknown(at) => unknown[usize::from(*at) % unknown.len()].expose(),
            Piece::Any(text) => (*text).to_owned(),
            Piece::Junk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        pieces.iter().map(text).collect()
    };
    let headers: Vec<String> = pieces.iter().map(header).collect();

    let mut session = sessions.open(headers.iter().map(String::as_str)).unwrap();
    let expected = tried(&headers).into_iter().find(|id| stored.contains(id));
    assert_eq!(session.id(), expected.as_ref());
    let value = expected.and_then(|id| stored.iter().position(|stored| *stored == id)).map_or(0, |at| at as u32 + 1);
    assert_eq!((session.is_new(), *session), (expected.is_none(), value));
    if expected.is_some() {
        return;
    }

    // The new session never gets the id that the visitor sent.
    *session = 3;
    let committed = sessions.commit(session).unwrap();
    assert_eq!(committed.outcome(), Outcome::Stored);
    let id = committed.id().unwrap();
    assert!(headers.iter().all(|header| !header.contains(&id.expose())));
    assert!(unknown.iter().all(|id| sessions.open_id(id).unwrap().is_none()));
    let set_cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie").unwrap();
    assert_eq!(set_cookie.1, format!("{NAME}={}; HttpOnly; SameSite=Lax; Secure; Path=/", id.expose()));
    assert!(sessions.store().delete(id).unwrap());
});

/// Returns the ids that are tried, by the grammar: pairs between semicolons, with spaces and tabs around names and values.
fn tried(headers: &[String]) -> Vec<SessionId> {
    let pairs = headers.iter().flat_map(|header| header.split(';')).filter_map(|pair| pair.split_once('='));
    let blank = [' ', '\t'];
    let named = pairs.filter(|(name, _)| name.trim_matches(blank) == NAME);
    let mut ids: Vec<SessionId> = Vec::new();
    for id in named.filter_map(|(_, value)| value.trim_matches(blank).parse().ok()) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids.truncate(TRIED);
    ids
}
