//! The command line with tokens: it makes them, it uses them, and operators do without.

use crate::{OWNER, TokensFile, cluster, entry, owner, put, token};
use kvdb_tests::outside::{curl, curl_is_here, run};
use kvdb_tests::process::program;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn kvdb(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(program("kvdb"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KVDB_")) {
        command.env_remove(name);
    }
    command.args(["--master", &cluster.url(), "--retries", "0"]).args(args).current_dir(cluster.dir());
    command.env("NO_PROXY", "*").stdin(Stdio::null());
    command
}

#[track_caller]
fn done(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

#[track_caller]
fn text(command: &mut Command) -> String {
    String::from_utf8(done(command)).unwrap().trim().to_string()
}

#[track_caller]
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn tokens_are_made_listed_and_removed_while_the_master_runs() {
    let (cluster, file) = cluster(1, &[]);
    put(&cluster, "/photos/a", b"v");
    let file = file.path.to_str().unwrap();
    let made =
        text(&mut kvdb(&cluster, &["token", "new", "camera", "--right", "read,list:photos/", "--right", "write:in", "--file", file]));
    assert!(made.starts_with("kvdb_") && !std::fs::read_to_string(file).unwrap().contains(&made));
    let get = |key: &str| kvdb(&cluster, &["--token", &made, "get", key]).output().unwrap();
    eventually("the master knows it", || (get("photos/a").stdout == b"v").then_some(()));
    assert!(String::from_utf8(get("in").stderr).unwrap().contains("\"camera\" does not have the right read"));
    assert_eq!(text(&mut kvdb(&cluster, &["--token", &made, "ls", "photos/"])), "photos/a");

    let other = text(&mut kvdb(&cluster, &["token", "new", "other", "--right", "admin", "--file", file, "--json"]));
    let other: Value = serde_json::from_str(&other).unwrap();
    assert!(other["name"] == "other" && other["token"] != made.as_str());
    let listed = text(&mut kvdb(&cluster, &["token", "list", "--file", file]));
    assert!(listed.contains("read,list:photos/ write:in") && listed.contains("admin:"), "{listed}");
    assert!(!listed.contains("kvdb_"), "{listed}");
    let twice = refusal(&mut kvdb(&cluster, &["token", "new", "other", "--right", "admin", "--file", file]));
    assert!(twice.contains("two tokens have the name"), "{twice}");
    text(&mut kvdb(&cluster, &["token", "remove", "camera", "--file", file]));
    eventually("the master forgets it", || String::from_utf8(get("photos/a").stderr).unwrap().contains("no longer").then_some(()));
}

#[test]
fn every_command_of_a_client_works_with_a_token_and_says_so_without_one() {
    let (cluster, _file) = cluster(2, &[]);
    let (small, large) = (cluster.dir().join("small"), cluster.dir().join("large"));
    std::fs::write(&small, "small").unwrap();
    let bytes = value(40 << 20, 1);
    std::fs::write(&large, &bytes).unwrap();
    std::fs::write(cluster.dir().join("token"), format!("{}\n", token(OWNER))).unwrap();
    std::fs::write(cluster.dir().join("batch"), r#"{"operations":[{"put":"b","value":"1"}]}"#).unwrap();
    let run = |args: &[&str]| kvdb(&cluster, args);
    let with = |args: &[&str]| {
        let mut command = kvdb(&cluster, args);
        command.env("KVDB_TOKEN_FILE", "token");
        command
    };
    done(&mut with(&["put", "a", "small"]));
    done(&mut with(&["put", "large", "large"]));
    // In parts, from both replicas.
    done(&mut with(&["get", "large", "copy", "--parallel", "4"]));
    assert_same(&std::fs::read(cluster.dir().join("copy")).unwrap(), &bytes, "in parts");
    done(&mut with(&["get", "large", "whole", "--parallel", "1"]));
    assert_same(&std::fs::read(cluster.dir().join("whole")).unwrap(), &bytes, "in one piece");
    assert_eq!(text(run(&["get", "a"]).env("KVDB_TOKEN", token(OWNER))), "small");
    done(&mut with(&["batch", "batch"]));
    assert_eq!(text(&mut with(&["newest", "a", "b"])), "1");
    assert!(text(&mut with(&["mget", "a", "b"])).contains("small"));
    assert_eq!(text(&mut with(&["ls"])), "a\nb\nlarge");
    assert!(text(&mut with(&["stat", "large"])).contains("41943040"));
    done(&mut with(&["bench", "--size", "1K", "--clients", "2", "--count", "20"]));
    done(&mut with(&["publish", "a=small", "p/large=large"]));
    done(&mut with(&["rm", "a", "p/large"]));
    done(&mut with(&["rm", "--prefix", "b", "--yes"]));
    assert_eq!(text(&mut with(&["ls"])), "large");
    done(&mut run(&["health"]));

    for args in [&["get", "large"][..], &["put", "x", "small"], &["ls"], &["rm", "large"], &["stat", "large"], &["cluster"]] {
        let said = refusal(&mut run(args));
        assert!(said.contains("token") || args[0] == "stat", "{args:?}: {said}");
    }
    let missing = refusal(run(&["ls"]).env("KVDB_TOKEN_FILE", "none"));
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn kvdb_sign_prints_a_url_that_curl_can_use() {
    if !curl_is_here() {
        return;
    }
    let (cluster, _file) = cluster(1, &[entry(2, &[("in/", &["write"])])]);
    put(&cluster, "/a/../b%20c", b"v");
    let sign = |n: u8, args: &[&str]| {
        let mut command = kvdb(&cluster, &[&["sign"], args].concat());
        command.env("KVDB_TOKEN", token(n));
        command
    };
    let url = text(&mut sign(OWNER, &["a/../b c", "--for", "1h"]));
    assert_eq!(run(curl(cluster.dir()).args(["-L", &url])).stdout, b"v");
    let url = text(&mut sign(2, &["in/x", "--put", "--for", "10m"]));
    assert_eq!(run(curl(cluster.dir()).args(["-L", "-T", "-", "-w", "%{http_code}", &url]).stdin(Stdio::null())).stdout, b"201");
    let shown: Value = serde_json::from_str(&text(&mut sign(2, &["in/x", "--put", "--for", "1d", "--json"]))).unwrap();
    assert!(shown["url"].as_str().unwrap().contains("signed=") && shown["expires"].as_str().unwrap().ends_with('Z'), "{shown}");
    assert!(refusal(&mut sign(2, &["in/x", "--for", "1h"])).contains("the right read"));
    assert!(refusal(&mut sign(OWNER, &["k", "--for", "8d"])).contains("7 days"));
    assert!(refusal(&mut kvdb(&cluster, &["sign", "k", "--for", "1h"])).contains("wants a token"));
}

#[test]
fn operators_need_the_clusters_secret_and_no_token() {
    let file = TokensFile::new(&[owner()]);
    let cluster = file.cluster(2).start();
    put(&cluster, "/k", &value(100_000, 1));
    let secret = cluster.db_dir().join("secret");
    let secret = secret.to_str().unwrap();
    let operator = |args: &[&str]| kvdb(&cluster, &[args, &["--secret-file", secret]].concat());
    assert!(text(&mut operator(&["cluster", "status"])).contains("ready"));
    assert!(text(kvdb(&cluster, &["cluster"]).env("KVDB_TOKEN", token(OWNER))).contains("ready"));
    done(&mut operator(&["cluster", "drain", &cluster.volume_addr(0)]));
    done(&mut operator(&["cluster", "resume", &cluster.volume_addr(0)]));
    done(&mut operator(&["cluster", "scrub"]));
    done(&mut operator(&["fsck"]));
    done(&mut operator(&["catalog", "export", "export.jsonl"]));
    // What operators must know to sign is no secret; all else is.
    let known = cluster.ask(&Request::get("/-/operator/cluster")).expect(200).json();
    assert_eq!(known.as_object().unwrap().keys().collect::<Vec<_>>(), ["cluster", "time"]);
    cluster.ask(&Request::post("/-/operator/status", "{}")).expect_problem(401, "unauthorized");
    let said = refusal(&mut kvdb(&cluster, &["cluster"]));
    assert!(said.contains("--token") && said.contains("--secret-file"), "{said}");
}
