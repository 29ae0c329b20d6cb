//! Any `Cookie` header has a documented outcome: the session of its first valid id, or a new session.

use threaded_sessions::{MemorySessionStore, Outcome, SessionId, SessionManager};

const NAME: &str = "__Host-session";

/// Two sessions that live, with the values 1 and 2.
fn two_sessions() -> (SessionManager<u32>, [String; 2]) {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let ids = [1, 2].map(|value| {
        let mut session = sessions.fresh();
        *session = value;
        sessions.commit(session).unwrap().id().unwrap().expose()
    });
    (sessions, ids)
}

/// Opens the session of these headers. Returns its value, or `None` if the session is new. An unchanged new session gets no cookie.
fn open(sessions: &SessionManager<u32>, headers: &[String]) -> Option<u32> {
    let session = sessions.open(headers.iter().map(String::as_str)).unwrap();
    let found = (!session.is_new()).then_some(*session);
    assert!(!session.is_detached());
    let committed = sessions.commit(session).unwrap();
    assert_eq!(committed.outcome(), Outcome::Unchanged);
    assert!(committed.headers().all(|(name, _)| name != "Set-Cookie"), "{committed:?}");
    found
}

#[test]
fn cookie_without_valid_id_opens_new_session() {
    let (sessions, [one, _]) = two_sessions();
    let value = |value: &str| format!("{NAME}={value}");
    let simple = one.replace('-', "");
    let cases = [
        vec![],
        vec![String::new()],
        vec![String::new(); 3],
        vec!["; ;;=;  = ;\t;".to_owned()],
        vec!["=".to_owned()],
        vec![NAME.to_owned()],
        vec![one.clone()],
        vec![format!("={one}")],
        vec![value("")],
        vec![value("=")],
        vec![value(&format!("={one}"))],
        vec![value(&"x".repeat(1 << 20))],
        vec![value(&one.repeat((1 << 20) / one.len()))],
        vec!["x".repeat(1 << 20)],
        vec!["a=b; ".repeat(1 << 18)],
        vec![";".repeat(1 << 20)],
        vec![value("größe ☃ \u{202e}")],
        vec![value(&one.replace('-', "\u{2010}"))],
        vec![value(&one.replacen(|c: char| c.is_ascii_digit(), "\u{ff11}", 1))],
        vec![value("\0\r\n\t")],
        vec![value(&format!("\"{one}\""))],
        vec![value(&one.replace('-', "%2D"))],
        vec![value(&one.to_uppercase().replacen(|c: char| c.is_ascii_digit(), "A", 1))],
        vec![value(&format!("{{{one}}}"))],
        vec![value(&format!("urn:uuid:{one}"))],
        vec![value(&simple)],
        vec![value(&one[..35])],
        vec![value(&format!("{one}0"))],
        vec![value(&format!("{one} x"))],
        vec![value(&format!("{one}, {one}"))],
        vec![format!("{NAME}2={one}")],
        vec![format!("{NAME}.x={one}")],
        vec![format!("x{NAME}={one}")],
        vec![format!("{}={one}", NAME.to_lowercase())],
        vec![format!("session={one}")],
        vec![format!("__Secure-session={one}")],
        vec![format!("%5F%5FHost-session={one}")],
        vec![format!("x=1, {NAME}={one}")],
        vec![value(&SessionId::random().expose())],
    ];
    for headers in cases {
        let found = open(&sessions, &headers);
        let shown: Vec<_> = headers.iter().map(|header| header.chars().take(80).collect::<String>()).collect();
        assert_eq!(found, None, "{shown:?}");
    }
}

#[test]
fn first_live_id_counts_in_any_position() {
    let (sessions, [one, two]) = two_sessions();
    let (one, two) = (format!("{NAME}={one}"), format!("{NAME}={two}"));
    let unknown = format!("{NAME}={}", SessionId::random().expose());
    let others = |count| {
        vec![0; count].into_iter().map(|_| format!("{NAME}={}", SessionId::random().expose())).collect::<Vec<_>>()
    };
    let junk = format!("{NAME}=\"x\"; {NAME}; {NAME}=; {NAME}={}", SessionId::random().expose().to_uppercase());
    let some = |headers: &[&String]| headers.iter().map(|header| (*header).clone()).collect::<Vec<_>>();
    let cases = [
        (some(&[&one]), Some(1)),
        (some(&[&one, &one]), Some(1)),
        (vec![format!("{one}; {one}")], Some(1)),
        (some(&[&one, &two]), Some(1)),
        (some(&[&two, &one]), Some(2)),
        (vec![format!("{two}; {one}")], Some(2)),
        (vec![format!("{junk}; {two}; {one}")], Some(2)),
        (some(&[&junk, &one, &two]), Some(1)),
        (vec!["lang=de".to_owned(), String::new(), one.clone()], Some(1)),
        (vec![format!("a=1; {one}; z=\"quoted; text\"")], Some(1)),
        (vec![format!("größe=☃; naïve; {one};")], Some(1)),
        (vec![format!(" ;\t{} \t;", one.replace('=', " = "))], Some(1)),
        (vec![format!("{}{one}", "a=b; ".repeat(1 << 18))], Some(1)),
        (vec![format!("{}{one}", format!("{junk}; ").repeat(1 << 13))], Some(1)),
        (vec![format!("{unknown}; {one}")], Some(1)),
        (some(&[&unknown, &two, &one]), Some(2)),
        (vec![unknown.clone(); 9].into_iter().chain([one.clone()]).collect(), Some(1)),
        // Four different ids are tried, and no more.
        (others(3).into_iter().chain([one.clone()]).collect(), Some(1)),
        (others(4).into_iter().chain([one.clone()]).collect(), None),
    ];
    for (headers, value) in cases {
        let found = open(&sessions, &headers);
        let shown: Vec<_> = headers.iter().map(|header| header.chars().take(80).collect::<String>()).collect();
        assert_eq!(found, value, "{shown:?}");
    }
}

/// Browsers judge the name with whatever stands around it, so a sibling host can plant such a cookie for the whole domain.
#[test]
fn only_space_and_tab_are_trimmed() {
    let (sessions, [planted, own]) = two_sessions();
    let spaces = "\u{a0}\u{1680}\u{2000}\u{2003}\u{2007}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{85}";
    let no_spaces = "\u{feff}\u{200b}\u{200e}\u{b}\u{c}\0\u{1}\u{8}\u{1c}\u{1f}\u{7f}\r\n";
    for around in spaces.chars().chain(no_spaces.chars()) {
        for cookie in [
            format!("{around}{NAME}={planted}"),
            format!("{NAME}{around}={planted}"),
            format!(" {around} {NAME}={planted}"),
            format!("{NAME}={around}{planted}"),
            format!("{NAME}={planted}{around}"),
        ] {
            assert_eq!(open(&sessions, std::slice::from_ref(&cookie)), None, "{cookie:?}");
            assert_eq!(open(&sessions, &[format!("{cookie}; {NAME}={own}")]), Some(2), "{cookie:?}");
        }
    }
    for around in [" ", "\t", " \t "] {
        let cookie = format!("{around}{NAME}{around}={around}{planted}{around}");
        assert_eq!(open(&sessions, &[cookie]), Some(1), "{around:?}");
    }
}

#[test]
fn unknown_id_is_never_adopted() {
    let (sessions, _) = two_sessions();
    let unknown = SessionId::random();
    let mut session = sessions.open([&*format!("{NAME}={}", unknown.expose())]).unwrap();
    assert!(session.is_new());
    *session = 7;
    let committed = sessions.commit(session).unwrap();
    assert_ne!(committed.id(), Some(&unknown));
    assert!(sessions.open_id(&unknown).unwrap().is_none());
}
