//! A request has the session of its only bearer token if that session lives, and otherwise a new one that no visitor named.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threaded_sessions::{MemorySessionStore, Outcome, SessionId, SessionManager, TOKEN_HEADER};
use threaded_sessions_fuzz::Damage;

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Bearer,
    Scheme(u8),
    Space,
    Tab,
    Comma,
    Stored,
    Unknown,
    Any(&'a str),
}

static STORED: LazyLock<(SessionManager<u32>, SessionId)> = LazyLock::new(|| {
    let sessions = SessionManager::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    *session = 1;
    let id = *sessions.commit(session).unwrap().id().unwrap();
    (sessions, id)
});

fuzz_target!(|input: Vec<(Vec<Piece<'_>>, Vec<Damage>)>| {
    let (sessions, stored) = &*STORED;
    let unknown = SessionId::random();
    let header = |(pieces, damages): &(Vec<Piece<'_>>, Vec<Damage>)| -> String {
        let text = |piece: &Piece<'_>| match piece {
            Piece::Bearer => "Bearer ".to_owned(),
            Piece::Scheme(letters) => in_mixed_case("bearer", *letters),
            Piece::Space => " ".to_owned(),
            Piece::Tab => "\t".to_owned(),
            Piece::Comma => ",".to_owned(),
            Piece::Stored => stored.expose(),
            Piece::Unknown => unknown.expose(),
            Piece::Any(text) => (*text).to_owned(),
        };
        let mut bytes = pieces.iter().map(text).collect::<String>().into_bytes();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let headers: Vec<String> = input.iter().map(header).collect();

    let mut session = sessions.open_bearer(headers.iter().map(String::as_str)).unwrap();
    let expected = only_token(&headers).filter(|id| id == stored);
    assert_eq!(session.id(), expected.as_ref());
    assert_eq!((session.is_new(), *session), (expected.is_none(), u32::from(expected.is_some())));
    if expected.is_some() {
        let committed = sessions.commit(session).unwrap();
        assert!(committed.headers().all(|(name, _)| !["Set-Cookie", TOKEN_HEADER].contains(&name)));
        return;
    }

    // The new session never gets the id that the client sent, and no cookie carries it.
    *session = 2;
    let committed = sessions.commit(session).unwrap();
    assert_eq!(committed.outcome(), Outcome::Stored);
    let id = committed.id().unwrap();
    assert!(headers.iter().all(|header| !header.contains(&id.expose())));
    assert!(sessions.open_id(&unknown).unwrap().is_none());
    let given: Vec<_> = committed.headers().filter(|(name, _)| ["Set-Cookie", TOKEN_HEADER].contains(name)).collect();
    assert_eq!(given.len(), 1);
    assert_eq!((given[0].0, given[0].1), (TOKEN_HEADER, &*id.expose()));
    assert!(committed.headers().any(|(name, value)| (name, value) == ("Vary", "Authorization")));
    assert!(sessions.store().delete(id).unwrap());
});

/// Returns the token by the grammar: white space, the scheme in any case, spaces, an id, white space.
fn only_token(headers: &[String]) -> Option<SessionId> {
    let [header] = headers else { return None };
    let bytes = header.as_bytes();
    let is_blank = |byte: &&u8| matches!(**byte, b' ' | b'\t');
    let start = bytes.iter().take_while(is_blank).count();
    let end = bytes.len() - bytes.iter().rev().take_while(is_blank).count();
    let rest = header.get(start..end.max(start))?;
    let (scheme, rest) = (rest.get(..6)?, rest.get(6..)?);
    if !scheme.eq_ignore_ascii_case("bearer") || !rest.starts_with(' ') {
        return None;
    }
    rest.trim_start_matches(' ').parse().ok()
}

fn in_mixed_case(text: &str, letters: u8) -> String {
    let letter =
        |(at, letter): (usize, char)| if letters >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter };
    text.chars().enumerate().map(letter).collect()
}
