//! `kill -9` of any server between the steps of a transaction and during its commit: all of it or nothing.

use crate::{KEYS, abort, begin, commit, content, round_of, stage};
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Answer, Cluster, Request, eventually};
use std::time::Duration;

/// Kills a server and starts it again: 0 the master, `n` the volume `n - 1`, 3 all of them.
fn kill(cluster: &mut Cluster, server: u64) {
    if server < 3 {
        cluster.kill_and_start(server);
    } else {
        cluster.kill_master();
        (0..2).for_each(|i| cluster.kill_volume(i));
        (0..2).for_each(|i| cluster.start_volume(i));
        cluster.start_master();
    }
    cluster.wait_all_up();
}

#[test]
fn a_kill_of_any_server_after_any_step_loses_nothing_of_a_transaction() {
    let mut cluster = Cluster::start(2);
    for server in 0..4 {
        let txn = begin(&cluster);
        kill(&mut cluster, server);
        for i in 0..KEYS {
            stage(&cluster, &txn, &format!("/k{i}"), &content(server, i)).expect(202);
            kill(&mut cluster, server);
            assert_eq!(round_of(&cluster, 4), server.checked_sub(1), "nothing is seen before the commit");
        }
        let first = cluster.ask(&commit(&txn)).expect(200).text();
        kill(&mut cluster, server);
        assert_eq!(round_of(&cluster, 4), Some(server));
        assert_eq!(cluster.ask(&commit(&txn)).expect(200).text(), first);
    }
    until_settled(&cluster);
    assert_eq!(round_of(&cluster, 4), Some(3));
}

/// Asks until there is an answer that tells what became of it.
fn answered(cluster: &Cluster, request: &Request) -> Answer {
    eventually("there is an answer", || request.try_follow(&cluster.master_addr()).ok().filter(|a| a.status < 500))
}

#[test]
fn kills_during_commits_leave_all_of_a_transaction_or_nothing() {
    const ROUNDS: u64 = 24;
    let mut cluster = Cluster::start(2);
    let mut before = None;
    for round in 0..ROUNDS {
        let txn = begin(&cluster);
        (0..KEYS).for_each(|i| drop(stage(&cluster, &txn, &format!("/k{i}"), &content(round, i)).expect(202)));
        let (request, address) = (commit(&txn), cluster.master_addr());
        let sender = std::thread::spawn(move || request.try_send(&address).ok().map(|a| a.status));
        // Spread over the time that a commit takes.
        std::thread::sleep(Duration::from_micros(round * 300));
        kill(&mut cluster, round % 4);
        let status = sender.join().unwrap();
        let now = round_of(&cluster, ROUNDS);
        assert!(now == Some(round) || (now == before && status != Some(200)), "round {round}: {now:?} after {status:?}");
        if round.is_multiple_of(5) && now == before {
            cluster.ask(&abort(&txn)).expect(200);
        } else {
            // A commit that is asked for again is done once, and says so.
            answered(&cluster, &commit(&txn)).expect(200);
            assert_eq!(round_of(&cluster, ROUNDS), Some(round));
        }
        before = round_of(&cluster, ROUNDS);
    }
    until_settled(&cluster);
    assert_eq!(round_of(&cluster, ROUNDS), before);
}

#[test]
fn kills_during_uploads_leave_nothing_behind_and_an_upload_that_is_repeated_counts_once() {
    const ROUNDS: u64 = 12;
    let mut cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    for round in 0..ROUNDS {
        let txn = begin(&cluster);
        let put = |i: usize| Request::put(&format!("/k{i}?txn={txn}"), content(round, i));
        let (first, address) = (put(1), cluster.master_addr());
        let sender = std::thread::spawn(move || first.try_follow(&address).ok().map(|a| a.status));
        std::thread::sleep(Duration::from_millis(round));
        kill(&mut cluster, round % 4);
        let _may_have_failed = sender.join().unwrap();
        (0..KEYS).for_each(|i| drop(answered(&cluster, &put(i)).expect(202)));
        let results = cluster.ask(&commit(&txn)).expect(200).json();
        assert_eq!(results["results"].as_array().unwrap().len(), KEYS);
        assert_eq!(round_of(&cluster, ROUNDS), Some(round));
    }
    until_settled(&cluster);
    assert_eq!(round_of(&cluster, ROUNDS), Some(ROUNDS - 1));
}
