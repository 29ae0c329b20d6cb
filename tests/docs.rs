//! What the documents say of the repository is so: the tests they name exist, the files they lead to are there, and no
//! setting and no requirement is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The README, the changelog and the guides.
fn documents() -> Vec<PathBuf> {
    let guides = fs::read_dir(root().join("docs")).expect("there are guides").map(|entry| entry.unwrap().path());
    let own = ["README.md", "CHANGELOG.md"].map(|name| root().join(name));
    guides.filter(|path| path.extension().is_some_and(|extension| extension == "md")).chain(own).collect()
}

/// What stands in backticks, outside of code blocks.
fn code_spans(text: &str) -> Vec<String> {
    let mut in_block = false;
    let prose = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !fence && !in_block
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let (mut named, suite) = (0, read("src/contract/checks.rs"));
    for document in documents() {
        for span in code_spans(&read(&document)) {
            let Some((file, test)) = span.split_once(".rs: ") else { continue };
            named += 1;
            let source = read(format!("{file}.rs"));
            let at = source.find(&format!("fn {test}("));
            let at = at.unwrap_or_else(|| panic!("{}: no {test} in {file}.rs", document.display()));
            // The list of checks runs in the tests of every store.
            let is_test = source[..at].trim_end().ends_with("#[test]");
            let of_contract = file.starts_with("src/contract/") && suite.contains(&format!("::{test}: \""));
            assert!(is_test || of_contract, "{}: {span} is no test", document.display());
        }
    }
    assert!(named > 20, "{named} tests are named");
}

#[test]
fn every_requirement_of_the_chapter_has_one_row() {
    let sections = [3, 4, 2, 5, 3, 2];
    let numbers = (1..).zip(sections).flat_map(|(section, last)| (1..=last).map(move |n| format!("V7.{section}.{n}")));
    let security = read("docs/security.md");
    let rows: Vec<&str> = security.lines().filter_map(|line| line.strip_prefix("| V7.")).collect();
    let rows: Vec<String> = rows.iter().map(|row| format!("V7.{}", row.split(' ').next().unwrap())).collect();
    assert_eq!(rows, numbers.collect::<Vec<_>>());
}

#[test]
fn every_test_of_the_guide_to_security_shows_something() {
    let security = read("docs/security.md");
    let numbers = |row: &str, cell: fn(&str) -> Option<&str>| -> Vec<u32> {
        cell(row).into_iter().flat_map(|cell| cell.split(", ")).map_while(|number| number.parse().ok()).collect()
    };
    let rows = || security.lines().filter(|line| line.starts_with("| "));
    let listed: BTreeSet<u32> = rows().flat_map(|row| numbers(row, |row| row.split(' ').nth(1))).collect();
    let used: BTreeSet<u32> =
        rows().flat_map(|row| numbers(row, |row| row.strip_suffix(" |")?.rsplit(" | ").next())).collect();
    assert!(listed.len() > 20);
    assert_eq!(used, listed);
}

#[test]
fn every_file_that_a_document_leads_to_is_there() {
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") || file.starts_with("crate") {
                continue;
            }
            let path = document.parent().unwrap().join(file);
            assert!(path.exists(), "{} leads to {target}", document.display());
        }
    }
}

/// The settings of a builder: its methods that take it by value.
fn settings(source: &str, builder: &str) -> BTreeSet<String> {
    let source = read(source);
    let start = source.find(builder).unwrap_or_else(|| panic!("no {builder}"));
    let methods = source[start..].split("\n    pub fn ").skip(1);
    let names = methods.filter_map(|method| method.split_once("(self").map(|(name, _)| name.to_owned()));
    names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect()
}

#[test]
fn every_setting_is_in_the_guide_to_migrating() {
    let guide = read("docs/migrating.md");
    let told: BTreeSet<String> = guide.lines().filter(|line| line.starts_with("| `")).flat_map(code_spans).collect();
    for (source, builder) in [
        ("src/store/redis/builder.rs", "impl RedisSessionStoreBuilder {"),
        ("src/manager/builder.rs", "impl<T: 'static> SessionManagerBuilder<T> {"),
        ("src/reaper.rs", "impl<T: 'static> ReaperBuilder<T> {"),
    ] {
        let mut settings = settings(source, builder);
        for end in ["build", "start", "stop"] {
            settings.remove(end);
        }
        assert!(settings.len() > 3, "{source}: {settings:?}");
        let missing: Vec<&String> = settings.difference(&told).collect();
        assert!(missing.is_empty(), "{source}: {missing:?}");
    }
}

#[test]
fn the_picture_is_small_and_its_words_are_text() {
    let picture = read("docs/how-it-works.svg");
    assert!(picture.len() < 12 * 1024);
    for word in ["<title", "<desc", "SessionManager", "Set-Cookie", "on_expired"] {
        assert!(picture.contains(word), "{word}");
    }
}
