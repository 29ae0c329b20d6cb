//! Any `Cookie` headers open a session: the one of the first well-formed id if it lives, else a new one.
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
    Stored,
    Unknown,
    Any(&'a str),
    Junk(&'a [u8]),
}

static STORED: LazyLock<(SessionManager<u32>, SessionId)> = LazyLock::new(|| {
    let sessions = SessionManager::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    *session = 1;
    let id = *sessions.commit(session).unwrap().id().unwrap();
    (sessions, id)
});

fuzz_target!(|pieces: Vec<Vec<Piece<'_>>>| {
    let (sessions, stored) = &*STORED;
    let unknown = SessionId::random();
    let header = |pieces: &Vec<Piece<'_>>| -> String {
        let text = |piece: &Piece<'_>| match piece {
            Piece::Name => NAME.to_owned(),
            Piece::Equals => "=".to_owned(),
            Piece::Semicolon => ";".to_owned(),
            Piece::Space => " ".to_owned(),
            Piece::Stored => stored.expose(),
            Piece::Unknown => unknown.expose(),
            Piece::Any(text) => (*text).to_owned(),
            Piece::Junk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        pieces.iter().map(text).collect()
    };
    let headers: Vec<String> = pieces.iter().map(header).collect();

    let mut session = sessions.open(headers.iter().map(String::as_str)).unwrap();
    let expected = first_well_formed(&headers).filter(|id| id == stored);
    assert_eq!(session.id(), expected.as_ref());
    assert_eq!((session.is_new(), *session), (expected.is_none(), u32::from(expected.is_some())));
    if expected.is_some() {
        return;
    }

    // The new session never gets the id that the visitor sent.
    *session = 2;
    let committed = sessions.commit(session).unwrap();
    assert_eq!(committed.outcome(), Outcome::Stored);
    let id = committed.id().unwrap();
    assert!(headers.iter().all(|header| !header.contains(&id.expose())));
    assert!(sessions.open_id(&unknown).unwrap().is_none());
    let set_cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie").unwrap();
    assert_eq!(set_cookie.1, format!("{NAME}={}; HttpOnly; SameSite=Lax; Secure; Path=/", id.expose()));
    assert!(sessions.store().delete(id).unwrap());
});

/// The same, read off the grammar: pairs between semicolons, with white space around names and values.
fn first_well_formed(headers: &[String]) -> Option<SessionId> {
    let pairs = headers.iter().flat_map(|header| header.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| name.trim() == NAME).find_map(|(_, value)| value.trim().parse().ok())
}
