//! Where front ends listen, and where they refuse to.

use crate::Fronts;
use kvdb_tests::process::{program, run_to_end};
use std::process::Command;

/// How a master ends that is started with these flags.
#[track_caller]
pub(crate) fn refusal(args: &[&str]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("master"));
    command.arg("127.0.0.1:1").arg(scratch.path().join("db")).args(["--port", "0"]).args(args).env_remove("RUST_LOG");
    let (status, said) = run_to_end(command, scratch.path());
    assert!(!status.success(), "{said}");
    said
}

#[test]
fn beyond_loopback_a_front_end_needs_a_secret_too() {
    let said = refusal(&["--flatdb", "0.0.0.0:0"]);
    assert!(said.contains("0.0.0.0") && said.contains("--secret-file") && said.contains("--insecure"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let fronts = Fronts::start();
    let said = refusal(&["--flatdb", &fronts.flatdb()]);
    assert!(said.contains("--flatdb") && said.contains(&fronts.flatdb()), "{said}");
}
