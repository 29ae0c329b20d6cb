//! Tokens against cross-site request forgery.
//!
//! [`Session`](crate::Session) makes and verifies them. A token is a code under the id of the session, so it needs no storage, and
//! it does not give the id away.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::SessionId;

const BYTES: usize = 32;

fn code(id: &SessionId) -> Hmac<Sha256> {
    let key = id.expose();
    let mut code = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    code.update(b"threaded-sessions: CSRF token, version 1");
    code
}

/// Makes a token for the session with this id: a random mask, and the masked code, in hexadecimal digits.
///
/// Every token is different, so that a compressed response does not give the code away (BREACH).
pub(crate) fn token(id: &SessionId) -> String {
    let mut mask = [0; BYTES];
    getrandom::fill(&mut mask).expect("the operating system's random number generator works");
    let code = code(id).finalize().into_bytes();
    let masked: Vec<u8> = code.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    hex::encode([&mask[..], &masked].concat())
}

/// Returns `true` if the token was made for the session with this id. It compares in constant time.
pub(crate) fn verify(id: &SessionId, token: &str) -> bool {
    let mut bytes = [0; 2 * BYTES];
    // Only lower-case digits are well-formed, so that a token has one spelling.
    if hex::decode_to_slice(token, &mut bytes).is_err() || token.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return false;
    }
    let (mask, masked) = bytes.split_at(BYTES);
    let unmasked: Vec<u8> = masked.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    code(id).verify_slice(&unmasked).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_fits_only_its_session() {
        let id = SessionId::random();
        let token = token(&id);
        assert!(verify(&id, &token));
        assert!((0..200).all(|_| !verify(&SessionId::random(), &token)));
    }

    #[test]
    fn tokens_of_one_session_differ_in_both_halves() {
        let id = SessionId::random();
        let (one, other) = (token(&id), token(&id));
        assert_ne!(one[..64], other[..64]);
        assert_ne!(one[64..], other[64..]);
    }

    #[test]
    fn changed_token_is_refused() {
        let id = SessionId::random();
        let token = token(&id);
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(!verify(&id, &String::from_utf8(bytes).unwrap()), "bit {bit} of digit {at}");
            }
        }
        for malformed in ["", "0", &token[1..], &token[..64], &format!("{token}00"), &token.to_uppercase(), "ü"] {
            assert!(!verify(&id, malformed), "{malformed}");
        }
    }
}
