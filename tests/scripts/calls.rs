//! Random calls of scripts, with the arguments that old and new scripts take. `scripts.rs` sends them.

use super::Kind;
use super::keyspace::{HOUR, Names, Random, TWO_OWNERS, payload};

/// Which scripts: those in `reference`, or those in `rendered`. The number is that of the database they run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Old,
    New,
}

/// A call of a script.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) keys: Vec<String>,
    /// The arguments of a new script, without the key base.
    args: Vec<String>,
    /// The position of the compare mode.
    mode: Option<usize>,
}

/// The scripts of any kind of store.
const SESSION: [&str; 6] = ["create", "delete", "rotate", "save", "touch", "touch_if_due"];

/// The scripts of an expiring store.
const INDEX: [&str; 10] =
    ["clobbered", "count", "end", "end_all", "list_owned", "page", "reap", "save_and_bind", "verify", "verify_owned"];

/// The scripts of an expiring store that take no key base.
const WITHOUT_BASE: [&str; 5] = ["count", "page", "save", "touch", "touch_if_due"];

/// The scripts whose behaviour changed on purpose, or that are new. Their references are copies of the new rendering.
const CHANGED: [&str; 8] =
    ["create", "end", "list_owned", "rotate", "save_and_bind", "touch_if_due", "verify", "verify_owned"];

/// The scripts that a kind of store runs.
pub(crate) fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    SESSION.into_iter().chain(INDEX.into_iter().filter(move |_| kind.expiring))
}

impl Call {
    pub(crate) fn random(kind: Kind, names: &Names, now: u64, random: &mut Random) -> Self {
        let all: Vec<&str> = self::names(kind).collect();
        let name = *random.one(&all);
        if INDEX.contains(&name) && name != "save_and_bind" {
            let args = index_args(name, names, now, random);
            return Self { name, keys: vec![names.index()], args, mode: None };
        }
        let mut sessions = names.sessions();
        random.shuffle(&mut sessions);
        let mut keys = vec![sessions[0].clone()];
        if name == "rotate" {
            keys.extend([sessions[1].clone(), names.tombstone(&sessions[0])]);
        }
        keys.extend(kind.expiring.then(|| names.index()));
        let (args, mode) = session_args(name, kind, random);
        Self { name, keys, args, mode }
    }

    /// The arguments as the scripts of this version take them.
    pub(crate) fn args(&self, version: Version, kind: Kind, base: &str) -> Vec<String> {
        let mut args = self.args.clone();
        let is_old = version == Version::Old && !CHANGED.contains(&self.name);
        if is_old {
            // The old name of the mode. The old scripts cut the key base from the name of the index.
            if let Some(mode) = self.mode.map(|at| &mut args[at]).filter(|mode| *mode == "revision") {
                *mode = "mark".to_owned();
            }
        } else {
            let notes_ends = version == Version::New && kind.announces();
            if let Some(mode) = self.mode.filter(|_| notes_ends && self.name == "rotate") {
                args.insert(mode + 2, "the handle of the new session".to_owned());
            }
            if (kind.expiring || notes_ends) && !WITHOUT_BASE.contains(&self.name) {
                args.push(base.to_owned());
            }
        }
        args
    }
}

fn index_args(name: &str, names: &Names, now: u64, random: &mut Random) -> Vec<String> {
    let text = |number: u64| number.to_string();
    let owner = random.one(&TWO_OWNERS).to_string();
    let limit = text(*random.one(&[1, 2, 3, 1000]));
    let mut sessions = names.sessions();
    random.shuffle(&mut sessions);
    match name {
        "clobbered" => random.maybe(2).then(|| ":aside".to_owned()).into_iter().collect(),
        "count" => Vec::new(),
        "end" => {
            let (which, key) = match random.below(3) {
                0 => ("all", String::new()),
                1 => ("but", sessions.swap_remove(0)),
                _ => ("only", sessions.swap_remove(0)),
            };
            vec![owner, limit, which.to_owned(), key, String::new()]
        }
        "end_all" => {
            let mut args = vec![text(now - HOUR * random.below(2)), limit];
            sessions.truncate(random.below(4) as usize);
            args.extend(sessions);
            args
        }
        "list_owned" => vec![owner, limit],
        "page" => vec![text(random.below(2)), limit],
        "reap" => vec![limit, text(random.below(2))],
        "verify" => {
            sessions.truncate(1 + random.below(3) as usize);
            let aside = if random.maybe(3) { "" } else { ":aside" };
            [aside.to_owned(), "30000".to_owned()].into_iter().chain(sessions).collect()
        }
        "verify_owned" => {
            let mut args = vec![owner, text(random.below(2))];
            args.extend(sessions.into_iter().flat_map(|key| [text(random.below(2)), key]));
            args
        }
        _ => panic!("{name} has no arguments yet"),
    }
}

/// The arguments of a script of a session, and the position of the compare mode.
fn session_args(name: &str, kind: Kind, random: &mut Random) -> (Vec<String>, Option<usize>) {
    let ttl = (HOUR * (1 + random.below(9)) + if kind.expiring { super::keyspace::GRACE } else { 0 }).to_string();
    match name {
        "delete" => return (Vec::new(), None),
        "touch" => return ([ttl, "1".to_owned()][..1 + random.below(2) as usize].to_vec(), None),
        "touch_if_due" => {
            let grace = if kind.expiring { super::keyspace::GRACE } else { 0 };
            let enough = (HOUR * (1 + random.below(9)) + grace).to_string();
            return ([ttl, enough, "1".to_owned()][..2 + random.below(2) as usize].to_vec(), None);
        }
        _ => {}
    }
    let mut args = vec![payload(random), if random.maybe(5) { String::new() } else { ttl }];
    if kind.companions {
        args.extend((0..2).map(|_| if random.maybe(2) { "=".to_owned() } else { format!("+new{}", random.below(9)) }));
    }
    if name == "rotate" {
        args.push("30000".to_owned());
    }
    let mut mode = None;
    if name == "rotate" || name == "save_and_bind" || name == "save" && random.maybe(2) {
        let expected = payload(random);
        mode = Some(args.len());
        args.extend(match random.below(3) {
            0 => ["any".to_owned(), String::new()],
            1 => ["revision".to_owned(), expected.split('|').next().unwrap().to_owned() + "|"],
            _ => ["all".to_owned(), expected],
        });
    }
    if name == "save_and_bind" || kind.expiring && name != "save" && random.maybe(2) {
        args.push(random.one(&["", TWO_OWNERS[0], TWO_OWNERS[1]]).to_string());
        args.push(random.one(&["", "1", "2"]).to_string());
    }
    (args, mode)
}
