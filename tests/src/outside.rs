//! curl and Python's requests, as a user has them.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Whether a client is here. Where tests must be complete (`CI`), one that is missing fails them.
#[track_caller]
pub fn is_here(what: &str, probe: &mut Command) -> bool {
    if probe.output().is_ok_and(|o| o.status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{what} is missing; scripts/test installs it");
    // Written past the test runner, which shows the output of tests only when they fail.
    let line = format!("\n!!!! SKIPPED: {what} is missing; scripts/test installs it\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    false
}

/// Whether curl is here.
#[track_caller]
pub fn curl_is_here() -> bool {
    is_here("curl", Command::new("curl").arg("--version"))
}

/// A curl in this directory that neither a user's settings nor a proxy change.
pub fn curl(dir: &Path) -> Command {
    let mut command = Command::new("curl");
    command.arg("-q").env_clear().envs(std::env::var_os("PATH").map(|p| ("PATH", p))).current_dir(dir);
    command.args(["-sS", "--max-time", "120"]);
    command
}

/// Whether Python is here with requests.
#[track_caller]
pub fn requests_is_here() -> bool {
    is_here("Python with requests", Command::new("python3").args(["-c", "import requests"]))
}

/// Runs a Python program in this directory, which must end well.
#[track_caller]
pub fn python(dir: &Path, program: &str, args: &[&str]) {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{program}\nprint('done')\n")]).args(args);
    let output = run(command.env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1").current_dir(dir));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("done"), "{said}");
}
