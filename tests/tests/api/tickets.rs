//! Tickets: altered, foreign, expired, reused, or for something else.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Connection, Request, Url, eventually};

fn ticket(url: &Url) -> String {
    url.parameter("ticket").unwrap().to_string()
}

#[test]
fn an_altered_ticket_is_refused_whichever_byte_is_altered() {
    let cluster = Cluster::start(2);
    let url = cluster.write_url("/k", 5);
    let good = BASE64_URL_SAFE_NO_PAD.decode(ticket(&url)).unwrap();
    let mut connection = Connection::open(&url.address);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let forged = url.with_parameter("ticket", &BASE64_URL_SAFE_NO_PAD.encode(bad));
        let answer = Request::put(&forged.target, "hello").send_on(&mut connection, &url.address).unwrap();
        answer.expect_problem(403, "bad_ticket");
    }
    for text in ["", "x", "!!", &ticket(&url)[..40], &"A".repeat(9000), "%00", "%FF"] {
        let forged = url.with_parameter("ticket", text);
        Request::put(&forged.target, "hello").send(&url.address).expect_problem(403, "bad_ticket");
    }
    cluster.get("/k").expect(404);
    // The unaltered one was not used up by all that.
    Request::put(&url.target, "hello").send(&url.address).expect(201);
}

#[test]
fn a_ticket_of_another_cluster_is_refused() {
    let (ours, theirs) = (Cluster::start(1), Cluster::start(1));
    let url = theirs.write_url("/k", 5);
    Request::put(&url.target, "hello").send(&ours.volume_addr(0)).expect_problem(403, "bad_ticket");
    ours.get("/k").expect(404);
}

#[test]
fn a_ticket_that_was_not_started_in_time_is_refused() {
    let cluster = Cluster::builder(1).master_args(["--start-seconds", "1"]).start();
    let url = cluster.write_url("/k", 5);
    // A malformed digest is looked at after the ticket, so asking does not use the ticket up.
    let probe = Request::put(&url.target, "hello").header("Content-MD5", "malformed");
    let refused = eventually("it expires", || Some(probe.send(&url.address)).filter(|a| a.status != 400));
    assert!(refused.text().contains("expired"), "{refused}");
    refused.expect_problem(403, "bad_ticket");
    Request::put(&url.target, "hello").send(&url.address).expect_problem(403, "bad_ticket");
    cluster.get("/k").expect(404);
}

#[test]
fn a_ticket_that_was_used_stores_nothing_more() {
    let cluster = Cluster::start(2);
    for len in [5, 200_000] {
        let target = format!("/k{len}");
        let url = cluster.write_url(&target, len);
        Request::put(&url.target, value(len, 1)).send(&url.address).expect(201);
        Request::put(&url.target, value(len, 2)).send(&url.address).expect_problem(403, "bad_ticket");
        assert_same(&cluster.value(&target), &value(len, 1), "after the reuse");

        cluster.put(&target, &value(len, 3));
        let late = Request::put(&url.target, value(len, 4)).send(&url.address);
        assert!(late.status >= 400, "{late}");
        assert_same(&cluster.value(&target), &value(len, 3), "after a replace and the reuse");

        cluster.follow(&Request::delete(&target)).expect(200);
        let late = Request::put(&url.target, value(len, 5)).send(&url.address);
        assert!(late.status >= 400, "{late}");
        cluster.get(&target).expect(404);
    }
    for i in 0..2 {
        eventually("no file is left", || cluster.blob_files(i).is_empty().then_some(()));
    }
}

#[test]
fn a_delete_ticket_that_was_used_removes_nothing_more() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"one");
    let url = Url::of(&cluster.ask(&Request::delete("/k")).expect(307));
    Request::delete(&url.target).send(&url.address).expect(200);
    let again = Request::delete(&url.target).send(&url.address);
    assert!(matches!(again.status, 200 | 403 | 404 | 409), "the same answer, or a refusal: {again}");
    cluster.put("/k", b"two");
    let late = Request::delete(&url.target).send(&url.address);
    assert!(matches!(late.status, 200 | 403 | 404 | 409 | 412), "{late}");
    assert_eq!(cluster.value("/k"), b"two");
}

#[test]
fn a_ticket_permits_only_its_own_operation() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"one");
    let write = cluster.write_url("/k", 3);
    let delete = Url::of(&cluster.ask(&Request::delete("/k")).expect(307));
    Request::delete(&write.target).send(&write.address).expect_problem(403, "bad_ticket");
    Request::put(&delete.target, "two").send(&delete.address).expect_problem(403, "bad_ticket");
    Request::post(&delete.target, "two").send(&delete.address).expect_problem(403, "bad_ticket");
    assert_eq!(cluster.value("/k"), b"one");
}

#[test]
fn a_ticket_stores_nothing_under_another_key() {
    let cluster = Cluster::start(1);
    let url = cluster.write_url("/mine", 3);
    let other = url.target.replacen("/mine", "/other", 1);
    let answer = Request::put(&other, "abc").send(&url.address);
    cluster.get("/other").expect(404);
    assert!(matches!(answer.status, 400 | 403 | 421), "a URL whose path and ticket disagree is refused: {answer}");
}

#[test]
fn a_ticket_is_for_its_own_volumes() {
    let cluster = Cluster::builder(2).master_args(["--replicas", "1"]).start();
    let url = cluster.write_url("/k", 5);
    let other = (0..2).map(|i| cluster.volume_addr(i)).find(|a| *a != url.address).unwrap();
    let answer = Request::put(&url.target, "hello").send(&other);
    assert!(matches!(answer.status, 403 | 421), "{answer}");
    cluster.get("/k").expect(404);
}

#[test]
fn no_log_holds_a_ticket() {
    let cluster = Cluster::start(2);
    cluster.put("/k", &value(200_000, 1));
    let url = cluster.write_url("/k", 5);
    Request::put(&url.target, "hello").send(&url.address).expect(200);
    Request::put(&url.target, "hello").send(&url.address).expect(403);
    let logs = || format!("{}{}{}", cluster.master_log(), cluster.volume_log(0), cluster.volume_log(1));
    eventually("the requests are logged", || logs().contains("\"path\":\"/k").then_some(()));
    assert!(!logs().contains(&ticket(&url)[..60]), "a ticket is in a log");
}

/// What the master says became of the write that this URL is for.
fn outcome(cluster: &Cluster, url: &Url) -> serde_json::Value {
    cluster.ask(&Request::post("/-/outcome", url.parameter("ticket").unwrap())).expect(200).json()
}

#[test]
fn a_write_that_was_not_done_when_its_client_asked_never_will_be() {
    let mut cluster = Cluster::start(2);
    let url = cluster.write_url("/k", 3);
    for _ in 0..2 {
        assert_eq!(outcome(&cluster, &url)["outcome"], "refused");
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_all_up();
    }
    Request::put(&url.target, "abc").send(&url.address).expect_problem(409, "conflict");
    cluster.get("/k").expect_problem(404, "not_found");
    cluster.put("/k", b"new");
    let delete = Url::of(&cluster.ask(&Request::delete("/k")).expect(307));
    assert_eq!(outcome(&cluster, &delete)["outcome"], "refused");
    Request::delete(&delete.target).send(&delete.address).expect_problem(409, "conflict");
    assert_eq!(cluster.value("/k"), b"new");
}

#[test]
fn a_client_that_lost_the_answer_learns_that_its_write_was_done_also_when_it_is_replaced_since() {
    let cluster = Cluster::start(2);
    let url = cluster.write_url("/k", 3);
    let version = Request::put(&url.target, "abc").send(&url.address).expect(201).header("kvdb-version").unwrap().to_string();
    let done = serde_json::json!({ "outcome": "committed", "version": version, "created": true });
    assert_eq!(outcome(&cluster, &url), done);
    cluster.put("/k", b"new");
    assert_eq!(outcome(&cluster, &url), done);
    let deletes = [(); 2].map(|()| Url::of(&cluster.ask(&Request::delete("/k")).expect(307)));
    Request::delete(&deletes[0].target).send(&deletes[0].address).expect(200);
    assert_eq!(outcome(&cluster, &deletes[0])["outcome"], "committed");
    let second = outcome(&cluster, &deletes[1]);
    assert_eq!(second["outcome"], "refused", "another delete of the same version has an outcome of its own");
    assert_eq!(outcome(&cluster, &url), done);
    cluster.ask(&Request::post("/-/outcome", "x")).expect_problem(403, "bad_ticket");
}
