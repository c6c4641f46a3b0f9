//! The file of tokens: read at the start, and again without a restart.

use crate::{OWNER, TokensFile, cluster, entry, owner, put, unauthorized, with};
use kvdb_tests::process::{Server, program, run_to_end};
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::json;

/// Waits until a read with this token is answered so.
#[track_caller]
fn soon(cluster: &Cluster, n: u8, status: u16) {
    eventually("the new file is heeded", || (cluster.ask(&with(n, Request::get("/k"))).status == status).then_some(()));
}

#[test]
fn tokens_come_change_and_go_without_a_restart() {
    let (cluster, file) = cluster(1, &[]);
    put(&cluster, "/k", b"v");
    unauthorized(cluster.ask(&with(2, Request::get("/k"))));
    file.set(&[owner(), entry(2, &[("k", &["read"])])]);
    soon(&cluster, 2, 302);
    file.set(&[owner(), entry(2, &[("l", &["read"])])]);
    soon(&cluster, 2, 403);
    file.set(&[owner()]);
    soon(&cluster, 2, 401);
    // With no token at all nobody may do anything, which is not the same as everybody.
    file.set(&[]);
    soon(&cluster, OWNER, 401);
    unauthorized(cluster.ask(&Request::get("/k")));
    file.set(&[owner()]);
    soon(&cluster, OWNER, 302);
}

#[test]
fn a_bad_file_is_told_of_and_what_was_read_before_stays() {
    let (mut cluster, file) = cluster(1, &[entry(2, &[("", &["read"])])]);
    put(&cluster, "/k", b"v");
    let bad = json!({"tokens": [entry(3, &[("", &["reed"])])]}).to_string();
    for text in [bad.as_str(), "{", "", r#"{"tokens":[],"token":1}"#] {
        let lines = || cluster.master_log().matches("cannot be used").count();
        let before = lines();
        file.write(text);
        eventually("the bad file was seen", || (lines() > before).then_some(()));
        cluster.ask(&with(2, Request::get("/k"))).expect(302);
        unauthorized(cluster.ask(&with(3, Request::get("/k"))));
    }
    let lines = cluster.master_log().matches("cannot be used").count();
    std::fs::remove_file(&file.path).unwrap();
    eventually("its loss was seen", || (cluster.master_log().matches("cannot be used").count() > lines).then_some(()));
    cluster.ask(&with(2, Request::get("/k"))).expect(302);
    assert!(cluster.master_log().contains("reed"), "the log says what is wrong");

    // After a restart the tokens are those of the file.
    file.set(&[owner(), entry(3, &[("", &["read"])])]);
    cluster.kill_and_start(0);
    cluster.wait_all_up();
    cluster.ask(&with(3, Request::get("/k"))).expect(302);
    unauthorized(cluster.ask(&with(2, Request::get("/k"))));
}

#[test]
fn a_master_does_not_start_on_a_bad_file_and_makes_nothing() {
    let file = TokensFile::new(&[]);
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    for (text, why) in [(Some(r#"{"tokens":[{"name":"a","hash":"00","rights":[]}]}"#), "64 hex"), (None, "No such file")] {
        text.map_or_else(|| std::fs::remove_file(&file.path).unwrap(), |text| file.write(text));
        let args = ["localhost:1", db.to_str().unwrap(), "--tokens", file.path.to_str().unwrap()].map(String::from).to_vec();
        let server = Server::new("m", program("master"), "127.0.0.1", args, Vec::new(), dir.path());
        let (status, said) = run_to_end(server.command(), dir.path());
        assert!(!status.success() && said.contains(why) && said.contains("tokens.json"), "{status}: {said}");
        assert!(!db.exists());
    }
    // Beyond loopback a file of tokens is not in the place of the cluster's secret.
    file.set(&[owner()]);
    let args = ["localhost:1", db.to_str().unwrap(), "--tokens", file.path.to_str().unwrap()].map(String::from).to_vec();
    let server = Server::new("m", program("master"), "0.0.0.0", args, Vec::new(), dir.path());
    let (status, said) = run_to_end(server.command(), dir.path());
    assert!(!status.success() && said.contains("secret"), "{status}: {said}");
}
