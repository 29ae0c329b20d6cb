//! Clocks that a test steps: the clock of a Redis, or of the test's process. The clock of the system stays as it is.
//!
//! Tests of clocks that jump use it. Programs start with a preloaded library, `clock_shim.c`, which takes its offset from a file.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const OFFSET_FILE: &str = "CLOCK_OFFSET_FILE";
const PRELOAD: &str = "LD_PRELOAD";

/// The time of day of the processes that start under it. Monotonic clocks stay.
pub struct SteppedClock {
    library: PathBuf,
    offset_path: PathBuf,
    offset: File,
    /// Removed with the clock. The clock of the test's own process belongs to the process that started it.
    _dir: Option<TempDir>,
}

impl SteppedClock {
    /// A clock that shows the time of the system until it is stepped.
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let library = dir.path().join("clock_shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock_shim.c");
        let compiled = Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .output();
        let compiled = compiled.expect("there is a C compiler; scripts/test installs one");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let offset_path = dir.path().join("offset");
        fs::write(&offset_path, 0_i64.to_ne_bytes()).unwrap();
        Self::of(library, offset_path, Some(dir))
    }

    /// The clock that this process was started under, if it was.
    fn of_this_process() -> Option<Self> {
        let [library, offset] = [PRELOAD, OFFSET_FILE].map(env::var_os);
        Some(Self::of(library?.into(), offset?.into(), None))
    }

    fn of(library: PathBuf, offset_path: PathBuf, dir: Option<TempDir>) -> Self {
        let offset = OpenOptions::new().write(true).open(&offset_path).unwrap();
        Self { library, offset_path, offset, _dir: dir }
    }

    /// Sets how far the clock is ahead of the system's, in milliseconds. A negative number sets it back.
    pub fn set(&self, milliseconds: i64) {
        self.offset.write_all_at(&milliseconds.to_ne_bytes(), 0).unwrap();
    }

    /// The variables with which a process starts under this clock.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [(PRELOAD, self.library.clone().into()), (OFFSET_FILE, self.offset_path.clone().into())]
    }
}

/// Runs a test in a process whose clock it can step. The first call starts the test program again with only this test.
///
/// # Panics
///
/// Panics if the test fails, or if the program has no test of this name.
pub fn under_stepped_clock(test: &str, run: impl FnOnce(&SteppedClock)) {
    if let Some(clock) = SteppedClock::of_this_process() {
        return run(&clock);
    }
    let clock = SteppedClock::new();
    let mut program = Command::new(env::current_exe().unwrap());
    let output = program.args([test, "--exact", "--nocapture"]).envs(clock.environment()).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
}
