//! The documents agree with the code: named tests and files exist, and no setting, requirement, source file or key is left out.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::FromRedisValue;
use support::{PATIENCE, RedisServer};
use threaded_sessions::step::WrittenAt;
use threaded_sessions::{
    Handle, Outcome, RedisSessionStore, Session, SessionId, SessionManager, SessionStore, StepStore, redis,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The guides, and the documents at the root.
fn documents() -> Vec<PathBuf> {
    let guides = fs::read_dir(root().join("docs")).expect("there are guides").map(|entry| entry.unwrap().path());
    let own = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name));
    guides.filter(|path| path.extension().is_some_and(|extension| extension == "md")).chain(own).collect()
}

/// Returns the code spans outside of code blocks.
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
fn every_test_named_by_a_document_exists() {
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
fn every_test_of_security_guide_has_a_row() {
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
fn every_file_linked_by_a_document_exists() {
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

/// The guides by name, without the documents at the root.
fn guides() -> Vec<(String, String)> {
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    documents()
        .iter()
        .filter(|path| path.starts_with(root().join("docs")))
        .map(|path| (name(path), read(path)))
        .collect()
}

/// The link definitions in a text, by label.
fn definitions<'a>(text: &'a str) -> BTreeMap<&'a str, &'a str> {
    let definition =
        |line: &'a str| line.strip_prefix('[')?.split_once("]: ").filter(|(label, _)| !label.contains(']'));
    text.lines().filter_map(definition).collect()
}

/// Returns the address on docs.rs, or the guide, that an item of the crate has.
fn address(item: &str, sources: &str) -> String {
    const DOCS: &str = "https://docs.rs/threaded-sessions/latest/threaded_sessions/";
    let (path, anchor) = item.split_once('#').map_or((item, None), |(path, anchor)| (path, Some(anchor)));
    let anchored = |address: String| anchor.map_or(address.clone(), |anchor| format!("{address}#{anchor}"));
    let path = path.strip_prefix("crate::").unwrap_or("");
    let file = format!("{}.md", path.replace('_', "-"));
    if root().join("docs").join(&file).exists() {
        return anchored(file);
    }
    if let Some((module, function)) = path.strip_suffix("()").and_then(|path| path.split_once("::")) {
        return format!("{DOCS}{module}/fn.{function}.html");
    }
    let is_module = |part: &&str| part.starts_with(char::is_lowercase);
    let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
    let modules: String = parts.iter().copied().take_while(is_module).map(|module| format!("{module}/")).collect();
    let mut rest = parts.iter().copied().skip_while(is_module);
    let Some(name) = rest.next() else { return anchored(format!("{DOCS}{modules}index.html")) };
    let is_kind = |kind: &&str| sources.contains(&format!("pub {kind} {name}"));
    let kind = ["struct", "enum", "trait"].into_iter().find(is_kind).unwrap_or_else(|| panic!("no type {name}"));
    let page = format!("{DOCS}{modules}{kind}.{name}.html");
    let (_, body) = sources.split_once(&format!("pub {kind} {name}")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    match rest.next() {
        None => page,
        Some(variant) if variant.starts_with(char::is_uppercase) => format!("{page}#variant.{variant}"),
        Some(field) if body.contains(&format!("    pub {field}: ")) => {
            format!("{page}#structfield.{field}")
        }
        Some(method) if kind == "trait" && !body.contains(&format!("    fn {method}(&self) -> Health {{")) => {
            format!("{page}#tymethod.{method}")
        }
        Some(method) => format!("{page}#method.{method}"),
    }
}

/// GitHub follows the definition at the end of a guide, rustdoc the one in `src/guides.md`, because it comes first.
#[test]
fn guide_links_work_on_github_and_in_rustdoc() {
    let sources: String =
        files_below(&root().join("src"), "src/").iter().filter(|file| file.ends_with(".rs")).map(read).collect();
    let (map, mut used) = (read("src/guides.md"), BTreeSet::new());
    let items = definitions(&map);
    for (name, text) in guides() {
        let labels: BTreeSet<&str> = text
            .split("][")
            .skip(1)
            .filter_map(|rest| rest.split_once(']'))
            .map(|(label, _)| label)
            .filter(|label| !label.contains(' '))
            .collect();
        let defined = definitions(&text);
        assert_eq!(
            labels,
            defined.keys().copied().collect(),
            "{name}: the labels that are used, and those that are defined"
        );
        for (label, target) in defined {
            let item = items.get(label).unwrap_or_else(|| panic!("src/guides.md lacks {label} of {name}"));
            assert_eq!(target, address(item, &sources), "{name}: {label}");
            used.insert(label.to_owned());
        }
        assert!(!text.contains("](crate"), "{name}: GitHub cannot follow a link to an item of the crate");
    }
    assert_eq!(used, items.keys().map(|label| (*label).to_owned()).collect(), "the labels of src/guides.md");
}

#[test]
fn guides_read_well_on_github() {
    for (name, text) in guides() {
        assert!(text.starts_with("# "), "{name} has no title");
        let mut in_block = false;
        for line in text.lines() {
            if let Some(language) = line.strip_prefix("```") {
                assert!(in_block || !language.is_empty(), "{name}: a code block without a language");
                in_block = !in_block;
            }
            assert!(
                !in_block || !(line == "#" || line.starts_with("# ")),
                "{name}: GitHub shows the hidden line {line:?}"
            );
            assert!(in_block || !line.starts_with("# ") || text.starts_with(line), "{name}: a second title, {line:?}");
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
fn every_feature_is_in_both_tables() {
    let manifest = read("Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").expect("there are features");
    let features = features.split("\n[").next().unwrap().lines().filter_map(|line| line.split_once(" = "));
    let features: Vec<&str> = features.map(|(name, _)| name).collect();
    assert!(features.len() > 10, "{features:?}");
    for document in ["README.md", "src/lib.rs"] {
        let text = read(document);
        for feature in &features {
            assert!(text.contains(&format!("| `{feature}` | ")), "{document} does not list the feature {feature}");
        }
    }
}

#[test]
fn every_log_target_is_in_the_guide() {
    let is_target = |text: &&str| text.starts_with("threaded_sessions::");
    let source = read("src/target.rs");
    let source = source.split("const TARGETS").nth(1).unwrap().split("];").next().unwrap();
    let targets: BTreeSet<&str> = source.split('"').filter(is_target).collect();
    let guide = section("docs/operating.md", "What is logged");
    let spans = code_spans(&guide);
    assert_eq!(spans.iter().map(String::as_str).filter(is_target).collect::<BTreeSet<_>>(), targets);
}

/// The Rust that a file shows: an example as it is, and of a document or a source file the comments or the whole text.
fn shown(path: &Path) -> Vec<String> {
    let text = read(path);
    let line = |line: &str| line.trim_start().trim_start_matches("//!").trim_start_matches("///").trim().to_owned();
    text.lines().map(line).collect()
}

/// The types that a file shows, as the lines from a `derive` of `Default` and `Deserialize` to the line with the name.
fn shown_types(path: &Path) -> Vec<String> {
    let lines = shown(path);
    let is_derive =
        |line: &str| line.starts_with("#[derive(") && line.contains("Default") && line.contains("Deserialize");
    let starts = (0..lines.len()).filter(|&n| is_derive(&lines[n]));
    let item = |n: usize| lines[n..].iter().take_while(|line| line.starts_with("#[")).count() + n;
    starts.map(|n| lines[n..=item(n)].join("\n")).collect()
}

#[test]
fn sample_types_survive_a_new_field() {
    let sources = ["src", "examples"].into_iter().flat_map(|folder| {
        files_below(&root().join(folder), &format!("{folder}/")).into_iter().filter(|file| file.ends_with(".rs"))
    });
    let files = documents().into_iter().chain(sources.map(PathBuf::from));
    let mut count = 0;
    for file in files {
        for shown in shown_types(&file).iter().filter(|shown| shown.contains("struct ") && shown.ends_with(['{', '}']))
        {
            count += 1;
            assert!(shown.contains("\n#[serde(default)]\n"), "{}: {shown}", file.display());
        }
    }
    assert!(count > 6, "{count} types");
}

#[test]
fn picture_is_small_and_keeps_words_as_text() {
    let picture = read("docs/how-it-works.svg");
    assert!(picture.len() < 12 * 1024);
    for word in ["<title", "<desc", "SessionManager", "Set-Cookie", "on_expired"] {
        assert!(picture.contains(word), "{word}");
    }
}

/// The lines of a guide from this heading to the next one of the same level.
fn section(guide: &str, heading: &str) -> String {
    let text = read(guide);
    let lines = text.lines().skip_while(|line| *line != format!("## {heading}")).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    assert!(!lines.is_empty(), "{guide} has no section {heading:?}");
    lines.join("\n")
}

/// The cells of the first table in this text, without its head.
fn first_table(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.skip(2).map(cells).collect()
}

/// Returns `true` if a code span is the path of a file or a folder.
fn is_path(span: &str) -> bool {
    let is_file = [".rs", ".lua", ".md", ".toml"].iter().any(|extension| span.ends_with(extension));
    (is_file || span.ends_with('/')) && !span.contains(char::is_whitespace)
}

/// The files below a folder, by their paths from there.
fn files_below(folder: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.flat_map(|entry| {
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() { files_below(&entry.path(), &format!("{name}/")) } else { vec![name] }
    });
    files.collect()
}

#[test]
fn design_names_only_existing_files() {
    let paths: BTreeSet<String> =
        code_spans(&read("docs/design.md")).into_iter().filter(|span| is_path(span)).collect();
    assert!(paths.len() > 60, "{paths:?}");
    let exists = |path: &String| {
        [root().join(path), root().join("src").join(path)].iter().any(|path| path.is_file() || path.is_dir())
    };
    let missing: Vec<&String> = paths.iter().filter(|path| !exists(path)).collect();
    assert!(missing.is_empty(), "docs/design.md names {missing:#?}");
}

#[test]
fn design_maps_every_source_file() {
    let map = first_table(&section("docs/design.md", "Where things are"));
    let mapped: BTreeSet<String> = map.iter().flat_map(|row| code_spans(&row[0])).collect();
    let named: BTreeSet<String> = code_spans(&read("docs/design.md")).into_iter().collect();
    let is_mapped = |file: &String| {
        let folder = file.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
        mapped.contains(file) || folder.is_some_and(|folder| mapped.contains(&folder))
    };
    let files = files_below(&root().join("src"), "");
    assert!(files.len() > 60, "{files:?}");
    let unmapped: Vec<&String> = files.iter().filter(|file| !is_mapped(file)).collect();
    assert!(unmapped.is_empty(), "the file map lacks {unmapped:#?}");
    let unnamed: Vec<&String> = files.iter().filter(|file| file.ends_with(".lua") && !named.contains(*file)).collect();
    assert!(unnamed.is_empty(), "the section on scripts lacks {unnamed:#?}");
}

const IDLE: Duration = Duration::from_secs(3600);

/// How long the operations of a test may take, in milliseconds.
const SLACK: i64 = 600_000;

/// For how long the stores remember why sessions ended.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// A row of the table of keys.
#[derive(Debug)]
struct KeyRow {
    pattern: String,
    kind: String,
    /// The cells for a plain and an expiring store; `None` if the store has no such key.
    ttls: [Option<String>; 2],
}

impl KeyRow {
    fn all() -> Vec<Self> {
        let rows = first_table(&section("docs/design.md", "Keys"));
        let ttl = |cell: &String| (cell != "–").then(|| cell.clone());
        let row = |cells: Vec<String>| Self {
            pattern: cells[0].trim_matches('`').to_owned(),
            kind: cells[1].clone(),
            ttls: [ttl(&cells[2]), ttl(&cells[3])],
        };
        rows.into_iter().map(row).collect()
    }

    /// Returns `true` if the row describes this key, from which the hash tag was removed.
    fn describes(&self, key: &str, hashed: bool) -> bool {
        let matches = |pattern: &str, part: &str| match pattern {
            "ID" if hashed => part.parse::<Handle>().is_ok(),
            "ID" => part.parse::<SessionId>().is_ok(),
            "SUFFIX" => part == "written-at",
            "HASH" => part.len() == 32 && part.chars().all(|c| c.is_ascii_hexdigit()),
            "TIME" => part.len() == 13 && part.chars().all(|c| c.is_ascii_digit()),
            literal => part == literal,
        };
        let (patterns, parts): (Vec<_>, Vec<_>) = (self.pattern.split(':').collect(), key.split(':').collect());
        patterns.len() == parts.len() && patterns.iter().zip(parts).all(|(pattern, part)| matches(pattern, part))
    }
}

/// The replies of `PTTL` that agree with this cell.
fn bounds(ttl: &str) -> RangeInclusive<i64> {
    let idle = IDLE.as_millis() as i64;
    let up_to = |most: i64| most - SLACK..=most;
    match ttl {
        "none" => -1..=-1,
        "as set" => up_to(REMEMBERED.as_millis() as i64),
        "time left" => up_to(idle),
        "time left + 24 h" => up_to(idle + 86_400_000),
        "30 s" => 1..=30_000,
        other => panic!("no TTL is described as {other:?}"),
    }
}

fn ask<R: FromRedisValue>(server: &RedisServer, command: &[&str]) -> R {
    redis::from_redis_value(server.cmd(command)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn commit(sessions: &SessionManager<u32>, mut session: Session<u32>) -> SessionId {
    *session += 1;
    let committed = sessions.commit(session).expect("the store works");
    assert_eq!(committed.outcome(), Outcome::Stored);
    *committed.id().expect("it is stored")
}

/// Stores a session, renews it, and binds it if the store has an index.
fn log_in(sessions: &SessionManager<u32>) -> SessionId {
    let id = commit(sessions, sessions.fresh());
    let mut session = sessions.open_id(&id).unwrap().expect("it lives");
    session.renew();
    if sessions.store().index().is_some() {
        session.bind("ada", "laptop");
    }
    commit(sessions, session)
}

/// Leaves a key of every kind that the store can have.
fn leave_every_key(server: &RedisServer, store: &RedisSessionStore) {
    let with_step = StepStore::builder(store.clone()).step(WrittenAt::new()).build().unwrap();
    let with_step = SessionManager::<u32>::builder(with_step).idle_timeout(IDLE).build().unwrap();
    let without = SessionManager::<u32>::builder(store.clone()).idle_timeout(IDLE).build().unwrap();
    assert_eq!(store.check().unwrap(), []);
    store.delete(&log_in(&without)).unwrap();
    log_in(&without);
    without.end_everybody().unwrap();
    let id = log_in(&without);
    if let Some(index) = store.index() {
        let key = store.key(&id);
        let (base, _) = key.rsplit_once(':').unwrap();
        for name in ["index", "principals"] {
            server.cmd(&["SET", &format!("{base}:{name}"), "of another type"]);
        }
        let sets: Vec<String> = redis::from_redis_value(server.cmd(&["KEYS", &format!("{base}:principal:*")])).unwrap();
        server.cmd(&["SET", &sets[0], "of another type"]);
        assert_eq!(index.verify(Default::default()).unwrap().displaced, 3);
    }
    log_in(&without);
    log_in(&with_step);
}

/// Removes the hash tag, which a key has if and only if there are several partitions. The marker never has one.
fn untagged(key: &str, partitions: u32) -> String {
    let parts: Vec<&str> = key.split(':').collect();
    let is_tag = |part: &str| {
        part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).is_some_and(|tag| tag.parse::<u32>().is_ok())
    };
    let tagged = partitions > 1 && key != "sessions:store";
    assert_eq!(parts.iter().filter(|part| is_tag(part)).count(), usize::from(tagged), "{key}");
    if tagged {
        assert!(is_tag(parts[1]), "{key}");
    }
    parts.into_iter().filter(|part| !is_tag(part)).collect::<Vec<_>>().join(":")
}

#[test]
fn design_lists_every_key_in_redis() {
    let rows = KeyRow::all();
    let mut seen = BTreeSet::new();
    for (expiring, partitions, hashed) in
        [(false, 1, false), (false, 4, true), (true, 1, false), (true, 1, true), (true, 4, false)]
    {
        let server = RedisServer::start();
        let mut builder = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).partitions(partitions);
        builder = builder.remember_ends(REMEMBERED);
        if expiring {
            builder = builder.expiring();
        }
        if hashed {
            builder = builder.hashed_keys();
        }
        leave_every_key(&server, &builder.build().unwrap());
        for key in ask::<Vec<String>>(&server, &["KEYS", "*"]) {
            let name = untagged(&key, partitions);
            let position: Vec<usize> =
                (0..rows.len()).filter(|&position| rows[position].describes(&name, hashed)).collect();
            assert_eq!(position.len(), 1, "rows {position:?} describe {key}");
            let row = &rows[position[0]];
            let kind: String = ask(&server, &["TYPE", &key]);
            assert!(row.kind == kind || row.kind == "any", "{key} is a {kind}, documented is {row:?}");
            let documented = row.ttls[usize::from(expiring)].as_ref();
            let documented = documented.unwrap_or_else(|| panic!("{key} exists, documented is {row:?}"));
            let ttl: i64 = ask(&server, &["PTTL", &key]);
            assert!(bounds(documented).contains(&ttl), "{key} has a TTL of {ttl} ms, documented is {row:?}");
            seen.insert((position[0], expiring));
        }
    }
    for (position, row) in rows.iter().enumerate() {
        for expiring in [false, true] {
            let documented = row.ttls[usize::from(expiring)].is_some();
            assert_eq!(seen.contains(&(position, expiring)), documented, "expiring: {expiring}, {row:?}");
        }
    }
}
