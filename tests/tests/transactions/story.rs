//! What a transaction does.

use crate::{KEYS, abort, begin, commit, content, keys, prepared, round_of, show, stage};
use kvdb_tests::outside::{curl, curl_is_here, run};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::{assert_same, etag, value};
use kvdb_tests::{Cluster, Request, Url};
use serde_json::{Value, json};

/// Runs curl in the cluster's directory; the answer's body, and its status.
fn by_curl(cluster: &Cluster, args: &str) -> (String, String) {
    let mut command = curl(cluster.dir());
    command.args(["-s", "-o", "body", "-w", "%{http_code}"]);
    command.args(args.split(' ').map(|a| a.strip_prefix('@').map_or_else(|| a.into(), |rest| format!("{}{rest}", cluster.url()))));
    let output = run(&mut command);
    assert!(output.status.success(), "curl {args}: {}", String::from_utf8_lossy(&output.stderr));
    let body = std::fs::read(cluster.dir().join("body")).unwrap_or_default();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn the_whole_story_by_curl_with_a_restart_of_everything_between_its_steps() {
    if !curl_is_here() {
        return;
    }
    let mut cluster = Cluster::start(2);
    let big = value(30 << 20, 1);
    std::fs::write(cluster.dir().join("bigfile"), &big).unwrap();
    assert_eq!(by_curl(&cluster, "-L -T bigfile @/gone").0, "201");
    let (status, body) = by_curl(&cluster, "-X POST @/?txn");
    let begun: Value = serde_json::from_str(&body).unwrap();
    let txn = begun["txn"].as_str().unwrap();
    assert_eq!(status, "201");
    assert!(begun["expires"].as_u64().unwrap() > cluster.status()["time"].as_u64().unwrap() + 3_590_000, "{begun}");
    // By the redirect with 100-continue, by the relay without, and small.
    assert_eq!(by_curl(&cluster, &format!("-L -T bigfile @/a?txn={txn}")).0, "202");
    assert_eq!(by_curl(&cluster, &format!("-L -T bigfile -H Expect: @/b?txn={txn}")).0, "202");
    assert_eq!(by_curl(&cluster, &format!("-L -X POST -d small @/c?txn={txn}&ttl=1h")).0, "202");
    assert_eq!(by_curl(&cluster, &format!("-L -X DELETE @/gone?txn={txn}")).0, "202");
    for key in ["a", "b", "c"] {
        assert_eq!(by_curl(&cluster, &format!("-L @/{key}")).0, "404");
    }
    cluster.kill_master();
    (0..2).for_each(|i| cluster.kill_volume(i));
    (0..2).for_each(|i| cluster.start_volume(i));
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(keys(&cluster), json!(["gone"]));
    let (status, body) = by_curl(&cluster, &format!("@/?txn={txn}"));
    let shown: Value = serde_json::from_str(&body).unwrap();
    let members = shown["members"].as_array().unwrap();
    let told: Vec<(&str, &str)> = members.iter().map(|m| (m["key"].as_str().unwrap(), m["operation"].as_str().unwrap())).collect();
    assert_eq!(told, [("a", "put"), ("b", "put"), ("c", "create"), ("gone", "delete")]);
    assert_eq!((status.as_str(), &shown["state"], &members[0]["length"]), ("200", &json!("open"), &json!(30 << 20)));

    let (status, first) = by_curl(&cluster, &format!("-X POST @/?txn={txn}&commit"));
    let results: Value = serde_json::from_str(&first).unwrap();
    let statuses: Vec<&Value> = results["results"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!((status.as_str(), statuses), ("200", vec![&json!(201), &json!(201), &json!(201), &json!(200)]));
    for (key, bytes) in [("/a", big.as_slice()), ("/b", &big), ("/c", b"small")] {
        assert_same(&cluster.value(key), bytes, key);
    }
    assert!(cluster.get("/c").header("kvdb-ttl").is_some());
    cluster.kill_master();
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(by_curl(&cluster, &format!("-X POST @/?txn={txn}&commit")), ("200".into(), first), "asked again, it says the same");
    assert_eq!(by_curl(&cluster, &format!("-L -T bigfile @/d?txn={txn}")).0, "404");
    until_settled(&cluster);
    assert_eq!(keys(&cluster), json!(["a", "b", "c"]));
}

#[test]
fn readers_see_all_of_a_transaction_or_nothing() {
    const ROUNDS: u64 = 6;
    let cluster = Cluster::start(2);
    let write = || {
        for round in 0..ROUNDS {
            let txn = begin(&cluster);
            (0..KEYS).for_each(|i| drop(stage(&cluster, &txn, &format!("/k{i}"), &content(round, i)).expect(202)));
            cluster.ask(&commit(&txn)).expect(200);
            assert_eq!(round_of(&cluster, ROUNDS), Some(round));
        }
    };
    let names: String = (0..KEYS).map(|i| format!("&key=k{i}")).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        while !writer.is_finished() {
            let page = cluster.ask(&Request::get(&format!("/?get{names}"))).expect(200).json();
            let tags: Vec<String> =
                page["values"].as_array().unwrap().iter().map(|v| format!("\"{}\"", v["etag"].as_str().unwrap())).collect();
            let of = |round: u64| (0..KEYS).map(|i| etag(&content(round, i))).collect::<Vec<_>>();
            assert!(tags.is_empty() || (0..ROUNDS).any(|round| of(round) == tags), "a part of a transaction: {page}");
        }
    });
    until_settled(&cluster);
}

#[test]
fn a_second_value_of_a_key_replaces_the_first_whose_space_comes_back_at_once() {
    let cluster = Cluster::start(2);
    let txn = begin(&cluster);
    let (first, second) = (value(300_000, 1), value(400_000, 2));
    stage(&cluster, &txn, "/a", &first).expect(202);
    let answer = stage(&cluster, &txn, "/a", &second).expect(202);
    assert_eq!(answer.header("etag"), Some(etag(&second).as_str()));
    stage(&cluster, &txn, "/b", &first).expect(202);
    cluster.ask(&Request::delete(&format!("/b?txn={txn}"))).expect(202);
    for i in 0..2 {
        kvdb_tests::eventually("only the last value is left", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
    let results = cluster.ask(&commit(&txn)).expect(200).json();
    assert_eq!(results["results"][0]["version"].as_str(), answer.header("kvdb-version"));
    assert_eq!((&results["results"][1]["status"], &results["results"][1]["key"]), (&json!(404), &json!("b")));
    assert_same(&cluster.value("/a"), &second, "/a");
    until_settled(&cluster);
}

#[test]
fn a_commit_needs_no_volume_and_one_that_was_down_learns_of_it_when_it_is_back() {
    let mut cluster = Cluster::start(2);
    let txn = begin(&cluster);
    let bytes = value(500_000, 3);
    for key in ["/a", "/b"] {
        stage(&cluster, &txn, key, &bytes).expect(202);
    }
    cluster.kill_volume(1);
    cluster.wait_up(1);
    cluster.ask(&commit(&txn)).expect(200);
    assert_same(&cluster.value("/a"), &bytes, "by the volume that is up");
    cluster.start_volume(1);
    cluster.wait_all_up();
    // Long before the transaction's time is over, which is what it would otherwise wait for.
    until_settled(&cluster);
    cluster.kill_volume(0);
    cluster.wait_up(1);
    assert_same(&cluster.value("/b"), &bytes, "by the volume that was down");
}

#[test]
fn a_lost_answer_is_told_of_before_and_after_the_commit() {
    let cluster = Cluster::start(2);
    let txn = begin(&cluster);
    let at = Url::of(&cluster.ask(&Request::put(&format!("/a?txn={txn}"), "").header("kvdb-content-length", "5")).expect(307));
    let ticket = at.parameter("ticket").unwrap().to_string();
    let stored = Request::put(&at.target, "value").send(&at.address).expect(202);
    let outcome = || cluster.ask(&Request::post("/-/outcome", ticket.clone())).expect(200).json();
    let version = stored.header("kvdb-version").unwrap();
    assert_eq!(outcome(), json!({"outcome": "staged", "version": version}));
    cluster.ask(&commit(&txn)).expect(200);
    assert_eq!(outcome(), json!({"outcome": "committed", "version": version, "created": true}));

    let given_up = begin(&cluster);
    let at = Url::of(&cluster.ask(&Request::put(&format!("/b?txn={given_up}"), "").header("kvdb-content-length", "5")).expect(307));
    cluster.ask(&Request::post("/-/outcome", at.parameter("ticket").unwrap())).expect(200);
    let late = Request::put(&at.target, "value").send(&at.address);
    late.expect_problem(409, "conflict");
    assert_eq!(cluster.ask(&show(&given_up)).expect(200).json()["members"], json!([]), "what was said not to be there is not there later");
    cluster.ask(&abort(&given_up)).expect(200);
    assert_eq!(prepared(&cluster), 0);
}

#[test]
fn no_log_tells_the_id_of_a_transaction() {
    let mut cluster = Cluster::builder(2).env("RUST_LOG", "debug").start();
    let txn = begin(&cluster);
    stage(&cluster, &txn, "/a", b"value").expect(202);
    stage(&cluster, &txn, "/b", &value(300_000, 1)).expect(202);
    cluster.ask(&show(&txn)).expect(200);
    cluster.ask(&commit(&txn)).expect(200);
    cluster.stop_master();
    for i in 0..2 {
        cluster.stop_volume(i);
    }
    let logs = [cluster.master_log(), cluster.volume_log(0), cluster.volume_log(1)].concat();
    assert!(logs.contains("transaction committed"), "the logs are not what was looked for");
    assert!(!logs.contains(&txn), "the id is in a log");
}
