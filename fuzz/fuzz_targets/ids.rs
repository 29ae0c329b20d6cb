//! Ids and handles have one textual form each.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threaded_sessions::{Handle, SessionId};
use threaded_sessions_fuzz::Damage;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Any(&'a str),
    Id(u128, Vec<Damage>),
    Handle(&'a [u8], Vec<Damage>),
}

fuzz_target!(|input: Input<'_>| {
    let (text, damages) = match &input {
        Input::Any(text) => return check(text),
        Input::Id(bits, damages) => {
            let digits = format!("{bits:032x}");
            let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            (groups.join("-"), damages)
        }
        Input::Handle(key, damages) => {
            let handle = Handle::of_key(key);
            assert_eq!(handle.to_string().parse(), Ok(handle));
            (handle.to_string(), damages)
        }
    };
    check(&text);
    let mut bytes = text.into_bytes();
    damages.iter().for_each(|damage| damage.apply(&mut bytes));
    check(&String::from_utf8_lossy(&bytes));
});

fn check(text: &str) {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let hyphens = [8, 13, 18, 23];
    let is_id = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| if hyphens.contains(&at) { byte == b'-' } else { digit(&byte) });
    let id = text.parse::<SessionId>();
    assert_eq!(id.is_ok(), is_id);
    if let Ok(id) = id {
        assert_eq!(id.expose(), text);
        assert_eq!(format!("{id:?}"), "SessionId(..)");
    }

    let is_handle = text.len() == 64 && text.as_bytes().iter().all(digit);
    let handle = text.parse::<Handle>();
    assert_eq!(handle.is_ok(), is_handle);
    if let Ok(handle) = handle {
        assert_eq!(handle.to_string(), text);
    }
}
