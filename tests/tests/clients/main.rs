//! curl and Python's requests, as a user types them, and the client library where an answer is lost.
// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod curl;
mod lost;
mod requests;

use std::process::{Command, Output};

/// Runs a command to its end.
#[track_caller]
fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Whether a client is here. Where tests must be complete (`CI`), one that is missing fails them.
#[track_caller]
fn is_here(what: &str, probe: &mut Command) -> bool {
    if probe.output().is_ok_and(|o| o.status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{what} is missing; scripts/test installs it");
    // Written past the test runner, which shows the output of tests only when they fail.
    let line = format!("\n!!!! SKIPPED: {what} is missing; scripts/test installs it\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    false
}
