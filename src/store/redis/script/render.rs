//! Renders a script for one kind of store. `script` uses it once for each script when a store is built.
//!
//! A line that begins with `--#` is a directive. Any other line that begins with `--` is a comment and is left out. Directives:
//! - `--#include PART (NOTE)` inserts a part, unless the script has it already. The note lists the names that the part uses and
//!   defines, and mentions that the part may return from the script.
//! - `--#if CONDITION`, up to `--#end`, keeps lines only for stores that expire (`expiring`), have companions (`companions`),
//!   note ends in any way (`ends`, `expiring_ends`), announce them (`announced`) or remember them (`remembered`).
//! - `--#define NAME(left) EXPRESSION` replaces `NAME(left)` in all later lines by the expression in parentheses.
//!
//! Rendering fails for any other directive, so a misspelt one cannot pass as a comment. `tests/scripts/rendered` has the results.

use std::time::Duration;

/// The kind of store that a script is rendered for.
pub(super) struct Kind<'a> {
    /// By how much the data of a session outlives it, zero in a plain store.
    pub(super) grace: Duration,
    /// The suffixes of the companions.
    pub(super) suffixes: &'a [String],
    /// The notes that scripts write when a session ends.
    pub(super) ends: Ends,
}

/// The notes that the scripts of a store write when a session ends. By default, nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Ends {
    /// The command that publishes the end.
    pub(in super::super) publish: Option<&'static str>,
    /// How long a tombstone keeps the reason.
    pub(in super::super) remember: Option<Duration>,
}

impl Ends {
    pub(in super::super) fn are_noted(self) -> bool {
        self.publish.is_some() || self.remember.is_some()
    }
}

impl Kind<'_> {
    fn has(&self, condition: &str) -> Option<bool> {
        match condition {
            "expiring" => Some(!self.grace.is_zero()),
            "companions" => Some(!self.suffixes.is_empty()),
            "ends" => Some(self.ends.are_noted()),
            "expiring_ends" => Some(!self.grace.is_zero() && self.ends.are_noted()),
            "announced" => Some(self.ends.publish.is_some()),
            "remembered" => Some(self.ends.remember.is_some()),
            _ => None,
        }
    }

    /// The constants that each script begins with.
    fn constants(&self) -> String {
        let mut constants = format!("local grace, companions = {}, {}\n", self.grace.as_millis(), self.suffixes.len());
        if !self.suffixes.is_empty() {
            constants += &format!("local suffixes = {{'{}'}}\n", self.suffixes.join("', '"));
        }
        if let Some(publish) = self.ends.publish {
            constants += &format!("local publish = '{publish}'\n");
        }
        if let Some(remember) = self.ends.remember {
            constants += &format!("local remember = {}\n", remember.as_millis());
        }
        constants
    }
}

/// Renders the script of this name. `source` returns the text of a script or a part.
pub(super) fn render(
    kind: &Kind<'_>,
    name: &str,
    source: impl Fn(&str) -> Option<&'static str>,
) -> Result<String, String> {
    let mut renderer =
        Renderer { kind, source: &source, code: kind.constants(), included: Vec::new(), defined: Vec::new() };
    renderer.add(name, "")?;
    Ok(renderer.code)
}

struct Renderer<'a> {
    kind: &'a Kind<'a>,
    source: &'a dyn Fn(&str) -> Option<&'static str>,
    code: String,
    included: Vec<&'a str>,
    /// Texts, and what replaces them.
    defined: Vec<(&'a str, String)>,
}

impl<'a> Renderer<'a> {
    /// Adds a script or a part, with this indentation, unless it was added already.
    fn add(&mut self, name: &'a str, indentation: &str) -> Result<(), String> {
        if self.included.contains(&name) {
            return Ok(());
        }
        self.included.push(name);
        let text = (self.source)(name).ok_or_else(|| format!("there is no part `{name}`"))?;
        let mut condition = None;
        for (number, line) in text.lines().enumerate() {
            self.add_line(line, indentation, &mut condition)
                .map_err(|why| format!("{name}.lua:{}: {why}", number + 1))?;
        }
        if condition.is_some() { Err(format!("{name}.lua: `--#if` without `--#end`")) } else { Ok(()) }
    }

    /// `condition` is whether the open `--#if` holds, if one is open.
    fn add_line(&mut self, line: &'static str, indentation: &str, condition: &mut Option<bool>) -> Result<(), String> {
        let code = line.trim_start();
        let Some(directive) = code.strip_prefix("--#") else {
            if !code.starts_with("--") && *condition != Some(false) {
                self.push(line, indentation);
            }
            return Ok(());
        };
        let (directive, rest) = directive.trim_end().split_once(' ').unwrap_or((directive, ""));
        match directive {
            "if" if condition.is_some() => return Err("`--#if` within `--#if`".to_owned()),
            "if" => *condition = Some(self.kind.has(rest).ok_or_else(|| format!("unknown condition `{rest}`"))?),
            "end" if condition.take().is_none() => return Err("`--#end` without `--#if`".to_owned()),
            "end" => {}
            "include" => {
                let (part, _) = include(rest)?;
                if *condition != Some(false) {
                    let own = &line[..line.len() - code.len()];
                    self.add(part, &[indentation, own].concat())?;
                }
            }
            "define" => {
                let end = rest.find(") ").ok_or_else(|| format!("`{rest}` defines nothing"))? + 1;
                self.defined.push((&rest[..end], format!("({})", &rest[end + 1..])));
            }
            _ => return Err(format!("unknown directive `--#{directive}`")),
        }
        Ok(())
    }

    fn push(&mut self, line: &str, indentation: &str) {
        let mut line = line.trim_end().to_owned();
        for (text, replacement) in &self.defined {
            line = line.replace(text, replacement);
        }
        if !line.is_empty() {
            self.code += indentation;
            self.code += &line;
        }
        self.code.push('\n');
    }
}

/// The part and the note of an `--#include`.
fn include(rest: &str) -> Result<(&str, &str), String> {
    rest.split_once(" (")
        .and_then(|(part, note)| Some((part, note.strip_suffix(')')?)))
        .ok_or_else(|| format!("`--#include {rest}` has no note in parentheses"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use super::super::{NAMES, PARTS, source};
    use super::*;
    use crate::store::DATA_GRACE_PERIOD;

    /// If it is set, the snapshots are written instead of compared.
    const UPDATE: &str = "UPDATE_SCRIPTS";

    /// The scripts that work on the index. A plain store has none and never runs them.
    const ON_INDEX: [&str; 12] = [
        "change",
        "clobbered",
        "count",
        "end",
        "end_all",
        "list_owned",
        "owned_after",
        "page",
        "reap",
        "save_and_bind",
        "verify",
        "verify_owned",
    ];

    /// The names of the kinds of store, which are the folders of their snapshots.
    const KINDS: [&str; 8] = [
        "plain",
        "plain_companions",
        "plain_announced",
        "plain_remembered",
        "expiring",
        "expiring_companions",
        "expiring_announced",
        "expiring_remembered",
    ];

    /// The names of the scripts that a store with or without an index runs.
    fn names(expiring: bool) -> impl Iterator<Item = &'static str> {
        NAMES.iter().copied().filter(move |name| expiring || !ON_INDEX.contains(name))
    }

    /// The eight kinds of store, with the names of their snapshots.
    fn each_kind(mut check: impl FnMut(&str, &Kind<'_>)) {
        let suffixes = ["device".to_owned(), "seen".to_owned()];
        for (expiring, grace) in [("plain", Duration::ZERO), ("expiring", DATA_GRACE_PERIOD)] {
            let none = Ends::default();
            check(expiring, &Kind { grace, suffixes: &[], ends: none });
            check(&format!("{expiring}_companions"), &Kind { grace, suffixes: &suffixes, ends: none });
            let ends = Ends { publish: Some("PUBLISH"), ..none };
            check(&format!("{expiring}_announced"), &Kind { grace, suffixes: &suffixes, ends });
            let ends = Ends { remember: Some(Duration::from_secs(300)), ..none };
            check(&format!("{expiring}_remembered"), &Kind { grace, suffixes: &[], ends });
        }
    }

    fn render_text(text: &'static str) -> Result<String, String> {
        render(&Kind { grace: Duration::ZERO, suffixes: &[], ends: Ends::default() }, "script", |name| match name {
            "script" => Some(text),
            "part" => Some("a = is_live(left)\n"),
            _ => None,
        })
    }

    #[test]
    fn rendered_scripts_equal_their_snapshots() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/rendered");
        let mut expected = Vec::<PathBuf>::new();
        each_kind(|kind_name, kind| {
            for name in names(!kind.grace.is_zero()) {
                let path = dir.join(kind_name).join(name).with_extension("lua");
                let code = render(kind, name, source).unwrap();
                if env::var_os(UPDATE).is_some() {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, &code).unwrap();
                }
                let snapshot = fs::read_to_string(&path).unwrap_or_default();
                let how = format!("set {UPDATE}=1, run this test again, and review what changed");
                assert!(snapshot == code, "{kind_name}/{name}.lua differs from its snapshot; {how}");
                expected.push(path);
            }
        });
        let mut found: Vec<PathBuf> = KINDS
            .iter()
            .flat_map(|kind| fs::read_dir(dir.join(kind)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "each snapshot has a script");
    }

    #[test]
    fn all_scripts_render_without_directives_left() {
        each_kind(|kind_name, kind| {
            for name in NAMES {
                let code = render(kind, name, source).unwrap();
                assert!(!code.contains("--"), "{kind_name}/{name} has a directive or a comment left");
                assert!(!code.contains("is_live(") && !code.contains("time_left("), "{kind_name}/{name} lacks is_live");
            }
        });
    }

    #[test]
    fn malformed_directives_fail() {
        for (text, why) in [
            ("--#iff expiring\n--#end\n", "unknown directive `--#iff`"),
            ("--# include part (defines a)\n", "unknown directive `--#`"),
            ("--#if expired\n--#end\n", "unknown condition `expired`"),
            ("--#if expiring\n", "`--#if` without `--#end`"),
            ("--#end\n", "`--#end` without `--#if`"),
            ("--#if expiring\n--#if companions\n--#end\n--#end\n", "`--#if` within `--#if`"),
            ("--#include part\n", "has no note"),
            ("--#include other (defines b)\n", "there is no part `other`"),
            ("--#define is_live\n", "defines nothing"),
        ] {
            let error = render_text(text).expect_err(text);
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn directives_keep_include_and_replace() {
        let text = "-- A comment.\n--#define is_live(left) left > 0\n--#if expiring\nb = 1\n--#include part (x)\n--#end\n  \
                    --#include part (x)\n--#include part (x)\nreturn is_live(left)\n";
        let code = "local grace, companions = 0, 0\n  a = (left > 0)\nreturn (left > 0)\n";
        assert_eq!(render_text(text).unwrap(), code);
    }

    /// Checks that all includes of a part have the same note, that the part contains each name of the note, and that the note
    /// mentions a return from the script.
    #[test]
    fn include_notes_describe_their_part() {
        for part in PARTS {
            let text = source(part).unwrap();
            let sources = NAMES.iter().chain(PARTS).flat_map(|name| source(name).unwrap().lines());
            let includes = sources.filter_map(|line| line.trim_start().strip_prefix("--#include "));
            let mut notes: Vec<&str> = includes
                .map(|rest| include(rest).unwrap())
                .filter(|(name, _)| name == part)
                .map(|(_, note)| note)
                .collect();
            notes.dedup();
            let [note] = notes[..] else { panic!("{part} has these notes: {notes:?}") };
            let names =
                note.split([' ', ',', ';']).filter(|word| !["", "uses", "defines", "may", "return"].contains(word));
            for name in names {
                assert!(text.contains(name), "{part} has no {name}");
            }
            let returns = text
                .lines()
                .any(|line| line.starts_with("return") || line.starts_with("if") && line.contains("return"));
            assert_eq!(note.contains("may return"), returns, "{part}: {note}");
        }
    }
}
