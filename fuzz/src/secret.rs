//! Passwords that may not reach the text of an error. The targets `urls` and `flags` use them.

use std::error::Error;

use arbitrary::Arbitrary;

/// Two secrets of the same form. The outcome is the same for both, if no error depends on them.
pub const SECRETS: [&str; 2] = ["hunter", "walrus"];

/// A password with a secret in some places.
#[derive(Arbitrary, Debug)]
pub struct Secret(Vec<Piece>);

#[derive(Arbitrary, Debug)]
enum Piece {
    Secret,
    /// A character that means something in a URL.
    Special(u8),
    Escaped(u8),
    Other(char),
}

impl Secret {
    pub fn text(&self, secret: &str) -> String {
        let specials: Vec<char> = ":/?#[]@%+&=,\\ \t;.`-*".chars().collect();
        let text = |piece: &Piece| match piece {
            Piece::Secret => secret.to_owned(),
            Piece::Special(at) => specials[usize::from(*at) % specials.len()].to_string(),
            Piece::Escaped(byte) => format!("%{byte:02X}"),
            Piece::Other(other) => other.to_string(),
        };
        self.0.iter().map(text).collect()
    }
}

/// Returns `true` if a text without a secret has one by chance, because the fuzzer knows the constants of the program.
pub fn has_secret(text: &str) -> bool {
    SECRETS.iter().any(|secret| text.contains(secret))
}

/// Returns every text of an error: its own, and those of its sources.
pub fn full_text(error: &dyn Error) -> String {
    let (mut text, mut next) = (format!("{error} {error:?} {error:#?}"), error.source());
    while let Some(source) = next {
        text += &format!("\n{source} {source:?}");
        next = source.source();
    }
    text
}
