//! The output of commands: tables for people, or one JSON object per line for programs.
//!
//! All commands write data through it. Invariant: nothing else writes to stdout, and no text of a session reaches a terminal with
//! control characters.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::stop::Done;

#[derive(Debug)]
pub(super) struct Output {
    out: BufWriter<Stdout>,
    json: bool,
    width: Option<usize>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let width = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        let width = width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { out: BufWriter::new(stdout), json, width }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Returns the columns of the terminal, or `None` if stdout is none.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes an object as one line.
    pub(super) fn object(&mut self, object: &impl Serialize) -> Done {
        let json = serde_json::to_string(object).map_err(io::Error::from)?;
        self.line(&escape_json(&json))
    }

    /// Writes an object in several lines, for people.
    pub(super) fn pretty(&mut self, object: &impl Serialize) -> Done {
        let json = serde_json::to_string_pretty(object).map_err(io::Error::from)?;
        self.line(&escape_json(&json))
    }

    pub(super) fn line(&mut self, line: &str) -> Done {
        self.out.write_all(line.as_bytes())?;
        Ok(self.out.write_all(b"\n")?)
    }

    pub(super) fn flush(&mut self) -> Done {
        Ok(self.out.flush()?)
    }
}

/// Escapes the control characters that JSON allows in a string, because some terminals obey them.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' => escaped.push('\n'),
            _ if is_unsafe(character) => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Returns a text without characters that change how a terminal shows what comes after them.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Returns `true` for control characters, and for those that turn the direction of a text.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("a\u{1b}[2Jb\u{9b}\u{202e}ü"), "a\\u{1b}[2Jb\\u{9b}\\u{202e}ü");
        let json = serde_json::to_string("\u{1b}\u{9b}\u{7f}\u{202e}ü").unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.chars().any(is_unsafe), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), "\u{1b}\u{9b}\u{7f}\u{202e}ü");
    }
}
