//! Runs a test of this binary as a process of its own, to be killed, measured or run beside others.
//!
//! - A test that is a child's does nothing unless it was started from here.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const DIR: &str = "DRYSTONE_INDEX_TEST_DIR";
const ARGUMENT: &str = "DRYSTONE_INDEX_TEST_ARGUMENT";

/// Starts the ignored test `name` on `dir`; its output can be read line by line.
pub(crate) fn start(name: &str, dir: &Path, argument: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(ARGUMENT, argument.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the test was started with, if it was.
pub(crate) fn started_with() -> Option<(PathBuf, u64)> {
    let dir = env::var_os(DIR)?;
    Some((dir.into(), env::var(ARGUMENT).unwrap().parse().unwrap()))
}
