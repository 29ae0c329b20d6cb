//! The targets of log records, which operators filter by.
//!
//! `fence::log!` takes the target from the module that logs. Invariant: a target is part of the interface of the crate, and stays
//! the same if a file moves within its part. `docs/operating.md` lists all of them.

/// The part of the crate that a module belongs to, and the target of its records.
const TARGETS: [(&str, &str); 7] = [
    ("adapter", "threaded_sessions::http"),
    ("cli", "threaded_sessions::host"),
    ("listener", "threaded_sessions::listener"),
    ("manager", "threaded_sessions::session"),
    ("reaper", "threaded_sessions::reaper"),
    ("step", "threaded_sessions::step"),
    ("store", "threaded_sessions::redis"),
];

/// Returns the target for a module, by its path.
pub(crate) fn of(module: &str) -> &'static str {
    let part = module.split("::").nth(1).unwrap_or_default();
    TARGETS.iter().find(|(name, _)| *name == part).map_or("threaded_sessions", |(_, target)| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_names_part_of_the_crate() {
        assert_eq!(of("threaded_sessions::store::redis::net::breaker"), "threaded_sessions::redis");
        assert_eq!(of("threaded_sessions::reaper::rounds"), "threaded_sessions::reaper");
        assert_eq!(of(module_path!()), "threaded_sessions");
    }
}
