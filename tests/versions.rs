//! Checks the versions in `Cargo.toml` against the locked dependencies. The reason for each bound must still hold, and
//! `rust-version` must be high enough for every package that a user of the crate compiles, and the first command of the README must
//! compile few of them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The version that the bound on `scheduled-thread-pool` allows.
const THREAD_POOL: [u64; 3] = [0, 2, 7];

/// The most crates that the first command of the README may compile, this crate included. Some platforms need a few more than
/// Linux, where there are 125.
const MOST_QUICK_START_CRATES: usize = 128;

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The locked packages for this platform. Packages for other platforms may not be downloaded, and tests must run offline.
fn metadata() -> Value {
    let rustc = String::from_utf8(output(Command::new("rustc").arg("-vV"))).expect("rustc prints UTF-8");
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its platform");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--all-features", "--format-version", "1", "--filter-platform", host]);
    serde_json::from_slice(&output(&mut cargo)).expect("cargo prints JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// The parts of a version, where a missing part is 0.
fn version(text: &str) -> [u64; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("{text} is no plain version")));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// Returns `true` if a caret requirement such as `^0.2` accepts a version.
fn caret_accepts(requirement: &str, version_: [u64; 3]) -> bool {
    let low_text = requirement.strip_prefix('^').unwrap_or_else(|| panic!("{requirement} is no caret requirement"));
    let low = version(low_text);
    let parts = low_text.split('.').count();
    // A caret keeps the first part that is not 0, or the last part that the requirement names.
    let kept = low.iter().position(|part| *part > 0).map_or(parts, |first| first + 1);
    version_ >= low && version_[..kept] == low[..kept]
}

/// The ids of this crate and of all packages that it needs at run time or build time, without development dependencies.
fn normal_tree(metadata: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let mut found = BTreeSet::new();
    let mut queue = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = queue.pop() {
        if !found.insert(id) {
            continue;
        }
        let normal = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
        queue.extend(list(&nodes[id]["deps"]).iter().filter(normal).map(|dependency| text(&dependency["pkg"])));
    }
    found
}

/// The crates that cargo compiles for a program of this package, with development dependencies, as `name vVERSION`.
fn compiled(features: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--edges", "normal,build,dev", "--prefix", "none"]).args(features);
    let tree = String::from_utf8(output(&mut cargo)).expect("cargo prints UTF-8");
    let crates = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        Some(format!("{name} v{}", rest.split(' ').next()?))
    });
    crates.collect()
}

#[test]
fn quick_start_compiles_few_crates() {
    let crates = compiled(&["--features", "rouille"]);
    assert!(crates.iter().any(|name| name.starts_with("rouille ")), "{crates:#?}");
    assert!(
        crates.len() <= MOST_QUICK_START_CRATES,
        "{} crates; put a large development dependency into tests/heavy: {crates:#?}",
        crates.len()
    );
    let needs_c = crates.iter().any(|name| name.starts_with("ring ") || name.starts_with("cc "));
    assert!(!needs_c, "the quick start needs a C compiler: {crates:#?}");
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let crates = compiled(&["--all-features"]);
    assert!(crates.len() > 100, "{crates:#?}");
    let runtime = crates.iter().find(|name| ["tokio ", "async-std ", "smol "].iter().any(|it| name.starts_with(it)));
    assert_eq!(runtime, None);
}

#[test]
fn caret_requirement_accepts_compatible_versions_only() {
    for (requirement, accepted) in [
        ("^0.2", true),
        ("^0.2.7", true),
        ("^0.2.8", false),
        ("^0.3", false),
        ("^0", true),
        ("^0.0.7", false),
        ("^1", false),
    ] {
        assert_eq!(caret_accepts(requirement, THREAD_POOL), accepted, "{requirement}");
    }
}

#[test]
fn r2d2_still_accepts_the_bounded_thread_pool() {
    let metadata = metadata();
    let r2d2 = list(&metadata["packages"]).iter().find(|package| package["name"] == "r2d2").expect("r2d2 is locked");
    let pool = list(&r2d2["dependencies"]).iter().find(|dependency| dependency["name"] == "scheduled-thread-pool");
    let requirement = text(&pool.expect("r2d2 needs it; otherwise remove the bound in Cargo.toml")["req"]);
    let advice = "remove the bound on scheduled-thread-pool from Cargo.toml and README.md";
    assert!(caret_accepts(requirement, THREAD_POOL), "r2d2 requires {requirement}: {advice}");
}

#[test]
fn no_dependency_needs_a_newer_rust() {
    let metadata = metadata();
    let tree = normal_tree(&metadata);
    let packages = || list(&metadata["packages"]).iter().filter(|package| tree.contains(text(&package["id"])));
    let needs = |package: &Value| package["rust_version"].as_str().map(version);
    let own = packages().find(|package| package["name"] == env!("CARGO_PKG_NAME")).and_then(needs);
    let own = own.expect("the crate declares a rust-version");
    let newer: Vec<_> = packages()
        .filter(|package| needs(package) > Some(own))
        .map(|package| format!("{} {} needs Rust {}", package["name"], package["version"], package["rust_version"]))
        .collect();
    assert!(tree.len() > 20, "{} packages", tree.len());
    assert!(newer.is_empty(), "{newer:#?}");
}
