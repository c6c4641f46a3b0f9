//! What a server writes to its log, by a process of its own: this binary runs itself.

mod common;

use common::{Server, get};
use serde_json::Value;
use std::process::Command;

/// Set for the child alone.
const ROLE: &str = "KVDB_TEST_ROLE";

/// Not a test: what the tests start.
#[tokio::test]
#[ignore = "started by the other tests"]
async fn child() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    kvdb_server::logs::init();
    let server = Server::plain().await;
    for path in ["/target?a=1&ticket=s3cret", "/-/health/live", "/nowhere%0d%0aforged", "/panic"] {
        server.ask(get(path)).await;
    }
    let mut client = server.connect().await;
    client.send(get("/cut")).await;
    client.rest().await;
    server.shutdown.cancel();
    server.stopped().await;
}

/// What the child writes to standard error.
fn log(variables: &[(&str, &str)]) -> std::io::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "child", "--ignored", "--nocapture"]).env(ROLE, "log").env_remove("RUST_LOG").env_remove("KVDB_LOG_FORMAT");
    let output = command.envs(variables.iter().copied()).output()?;
    assert!(output.status.success());
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn lines(variables: &[(&str, &str)]) -> Vec<Value> {
    let log = log(variables).unwrap_or_else(|e| panic!("the child cannot be run: {e}"));
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

fn of_target<'a>(lines: &'a [Value], target: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["target"] == target).collect()
}

#[test]
fn every_request_is_one_line_without_its_ticket() {
    let lines = lines(&[("RUST_LOG", "info,kvdb::access=debug")]);
    let access = of_target(&lines, "kvdb::access");
    let of = |path: &str| access.iter().filter(|l| l["path"].as_str().is_some_and(|p| p.starts_with(path))).collect::<Vec<_>>();
    assert_eq!(access.len(), 5, "{access:#?}");
    assert_eq!(of("/target")[0]["path"], "/target?a=1&ticket=REDACTED");
    assert_eq!(of("/target")[0]["status"], 200);
    assert_eq!(of("/nowhere")[0]["path"], "/nowhere%0d%0aforged");
    assert_eq!(of("/cut")[0]["whole"], false);
    assert_eq!((&of("/cut")[0]["bytes"], &of("/panic")[0]["status"]), (&Value::from(4), &Value::from(500)));
    assert!(!format!("{lines:?}").contains("s3cret"));
}

#[test]
fn reads_that_go_well_and_health_checks_are_logged_for_those_who_ask() {
    let lines = lines(&[]);
    let paths: Vec<&str> = of_target(&lines, "kvdb::access").iter().filter_map(|l| l["path"].as_str()).collect();
    assert_eq!(paths, ["/nowhere%0d%0aforged", "/panic", "/cut"]);
}

#[test]
fn a_panic_is_one_line_with_the_id_of_its_request() {
    let lines = lines(&[]);
    let panics = of_target(&lines, "kvdb::panic");
    assert_eq!(panics.len(), 1, "{panics:?}");
    assert_eq!(panics[0]["message"], "panic: as the test asked for");
    let answered = lines.iter().find(|l| l["path"] == "/panic").unwrap();
    assert_eq!(panics[0]["request_id"], answered["request_id"]);
}

#[test]
fn text_can_be_asked_for_and_has_no_colours_off_a_terminal() {
    let log = log(&[("KVDB_LOG_FORMAT", "text")]).unwrap();
    assert!(log.contains("INFO kvdb::access: "), "{log}");
    assert!(!log.contains('\u{1b}'));
}

#[test]
fn settings_that_are_not_understood_are_said_and_do_not_silence_the_log() {
    let log = log(&[("KVDB_LOG_FORMAT", "xml"), ("RUST_LOG", "kvdb=loud")]).unwrap();
    assert!(log.contains("KVDB_LOG_FORMAT is neither text nor json") && log.contains("RUST_LOG is not understood"), "{log}");
    assert!(log.contains("status=200"));
}
