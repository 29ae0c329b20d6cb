//! Checks that the source files keep the layout rules of the crate: a header in each file, short functions, shallow blocks, no
//! nested results, one meaning for each constant, plain names for tests, and plain summaries in the documentation.
//!
//! The checks read lines as rustfmt writes them. Each check lists all places that break its rule.

#[path = "layout/rustdoc.rs"]
mod rustdoc;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FUNCTION: usize = 50;
const DEEPEST_BLOCK: usize = 4;
const MOST_WORDS_OF_A_TEST: usize = 8;

/// Words that begin a clause or name no one in particular.
const NOT_IN_TEST_NAMES: [&str; 12] =
    ["that", "which", "who", "whom", "whose", "what", "his", "nor", "anybody", "everybody", "nobody", "somebody"];

/// The source files, with their paths below the root of the crate.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    paths.sort();
    assert!(paths.len() > 40, "{} files", paths.len());
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("target") {
            continue;
        } else if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line without the visibility in front.
fn without_visibility(line: &str) -> &str {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("pub") else { return line };
    match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(") ").map_or(line, |(_, item)| item),
        None => rest.trim_start(),
    }
}

fn is_function(line: &str) -> bool {
    let item = without_visibility(line);
    item.strip_prefix("const ").unwrap_or(item).starts_with("fn ")
}

/// The functions that have a body, each as the number of its first line and its lines.
fn functions(source: &str) -> Vec<(usize, Vec<&str>)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let depth = indent(line);
        // rustfmt puts the end of the signature and of the body into the column of the first line.
        let ends = |line: &&&str| indent(line) == depth && (line.ends_with([';', '}']));
        let length = lines[start..].iter().position(|line| ends(&line)).expect("the function ends");
        found.push((start + 1, lines[start..=start + length].to_vec()));
    }
    found
}

/// Returns `true` if the line opens a block, and not a struct literal or pattern.
fn opens_block(line: &str) -> bool {
    let Some(head) = line.strip_suffix('{') else { return false };
    let word = head.trim_end().rsplit([' ', ':', '(']).next().unwrap_or_default();
    !(word.starts_with(char::is_uppercase) && word.contains(char::is_lowercase))
}

/// The depth of the deepest block in a function, where its body has depth 0.
fn deepest_block(function: &[&str]) -> usize {
    let (mut open, mut deepest) = (Vec::new(), 0);
    let signature = function.iter().position(|line| line.ends_with('{')).unwrap_or(0);
    for line in function[signature + 1..].iter().filter(|line| !line.trim().is_empty()) {
        while open.last().is_some_and(|above| indent(line) <= *above) {
            open.pop();
        }
        if opens_block(line) {
            open.push(indent(line));
        }
        deepest = deepest.max(open.len());
    }
    deepest
}

#[track_caller]
fn assert_none(rule: &str, places: Vec<String>) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

#[test]
fn every_source_file_has_a_header() {
    let bare = sources().into_iter().filter(|(_, source)| !source.starts_with("//!")).map(|(name, _)| name);
    assert_none("these files do not begin with //!", bare.collect());
}

#[test]
fn no_result_holds_a_result() {
    let nested = sources().into_iter().filter(|(_, source)| {
        let code: String = source.split_whitespace().collect();
        code.contains("Result<Result<")
    });
    assert_none("these files have a Result in a Result", nested.map(|(name, _)| name).collect());
}

#[test]
fn private_constants_have_different_names() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (file, source) in sources() {
        for line in source.lines() {
            // A constant of a trait or an implementation is indented, and belongs to its type.
            let Some(rest) = line.strip_prefix("const ") else { continue };
            let Some((name, _)) = rest.split_once(':') else { continue };
            places.entry(name.to_owned()).or_default().push(file.clone());
        }
    }
    assert!(places.len() > 10, "{places:?}");
    let shared = places.into_iter().filter(|(name, files)| name != "_" && files.len() > 1);
    assert_none("these constants share a name", shared.map(|(name, files)| format!("{name}: {files:?}")).collect());
}

#[test]
fn logging_parts_have_targets() {
    let sources = sources();
    let (_, targets) = sources.iter().find(|(name, _)| name == "src/target.rs").expect("the file of the targets");
    let is_logging = |(name, source): &&(String, String)| name != "src/fence.rs" && source.contains("fence::log!(");
    let parts = sources.iter().filter(is_logging).map(|(name, _)| {
        let path = name.strip_prefix("src/").expect("a source file");
        path.split(['/', '.']).next().unwrap_or_default()
    });
    let without = parts.filter(|part| !targets.contains(&format!("(\"{part}\", "))).map(str::to_owned);
    assert_none("these parts log without a target of their own", without.collect());
}

#[test]
fn functions_are_short_and_shallow() {
    let (mut count, mut places) = (0, Vec::new());
    for (file, source) in sources() {
        for (start, lines) in functions(&source) {
            count += 1;
            let (length, depth) = (lines.len(), deepest_block(&lines));
            if length > LONGEST_FUNCTION || depth > DEEPEST_BLOCK {
                places.push(format!("{file}:{start} has {length} lines, and blocks {depth} deep"));
            }
        }
    }
    assert!(count > 400, "{count} functions");
    assert_none("functions have at most 50 lines, and blocks at most 4 deep", places);
}

/// The names of the tests in a file; a macro's placeholder is none.
fn test_names(source: &str) -> Vec<&str> {
    let tests = source.split("#[test]\n").skip(1);
    let heads = tests.filter_map(|test| test.lines().find_map(|line| line.trim_start().strip_prefix("fn ")));
    heads.filter(|head| !head.starts_with('$')).map(|head| head.split(['(', '<']).next().unwrap()).collect()
}

fn is_plain(test: &str) -> bool {
    let words: Vec<&str> = test.split('_').collect();
    words.len() <= MOST_WORDS_OF_A_TEST && !words.iter().any(|word| NOT_IN_TEST_NAMES.contains(word))
}

#[test]
fn test_names_are_short_and_plain() {
    let (root, mut paths) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        collect(&root.join(folder), &mut paths);
    }
    let (mut count, mut places) = (0, Vec::new());
    for path in paths {
        let source = fs::read_to_string(&path).unwrap();
        let names = test_names(&source);
        count += names.len();
        let file = path.strip_prefix(root).unwrap().display();
        places.extend(names.into_iter().filter(|name| !is_plain(name)).map(|name| format!("{file}: {name}")));
    }
    assert!(count > 800, "{count} tests");
    assert_none("test names have at most 8 words, and none of a clause or an indefinite person", places);
}

#[test]
fn layout_checks_see_length_and_depth() {
    let source = "fn outer(\n    a: u8,\n) -> u8 {\n    let b = Some {\n        a,\n    };\n    if a {\n        match b {\n            \
                  c => {\n                d\n            }\n        }\n    }\n}\nfn other();\n";
    let found = functions(source);
    let seen: Vec<_> = found.iter().map(|(start, lines)| (*start, lines.len(), deepest_block(lines))).collect();
    assert_eq!(seen, [(1, 14, 3), (15, 1, 0)]);
}
