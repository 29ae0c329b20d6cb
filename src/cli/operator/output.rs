//! The output of commands: tables for people, or one JSON object per line for programs.
//!
//! All commands write data through it. Invariant: nothing else writes to stdout, and no text of a session reaches a terminal with
//! characters that deceive its reader.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::stop::Done;
use crate::error::is_deceptive;

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

/// Escapes the deceptive characters that JSON allows in a string, because some terminals obey them.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' => escaped.push('\n'),
            _ if is_deceptive(character) => {
                let units = character.encode_utf16(&mut [0; 2]).to_vec();
                units.iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Returns a text without characters that change how a terminal shows what comes after them.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_deceptive(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("a\u{1b}[2Jb\u{9b}\u{202e}ü"), "a\\u{1b}[2Jb\\u{9b}\\u{202e}ü");
        let hidden = "\u{1b}\u{9b}\u{7f}\u{202e}\u{61c}\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}\u{e0041}";
        assert!(hidden.chars().all(is_deceptive) && !"aü\u{301}東 –…👍".chars().any(is_deceptive));
        assert_eq!(shown("ad\u{200b}a"), "ad\\u{200b}a");
        let text = format!("{hidden}ü");
        let escaped = escape_json(&serde_json::to_string(&text).unwrap());
        assert!(!escaped.chars().any(is_deceptive), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
