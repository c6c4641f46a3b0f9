//! FlatDB's writes are whole, and stay, whatever is killed.

use crate::Fronts;
use kvdb_tests::Request;
use kvdb_tests::settled::until_settled;
use serde_json::{Value, json};
use std::time::Duration;

const ROUNDS: u64 = 12;

#[test]
fn what_was_put_and_deleted_stays_so_over_a_stop_and_kills() {
    let mut fronts = Fronts::start();
    fronts.get("/put?a=1&b=2&c=3").expect(201);
    fronts.get("/delete?key=b").expect(200);
    let stopped = fronts.cluster.stop_master();
    assert!(stopped.success(), "{stopped}");
    fronts.cluster.start_master();
    for server in 0..3 {
        fronts.cluster.wait_all_up();
        assert_eq!(fronts.get("/getrange?from=").expect(200).json(), json!({"a": "1", "c": "3"}));
        fronts.cluster.kill_and_start(server);
    }
}

#[test]
fn kills_at_any_moment_leave_all_of_a_put_or_nothing() {
    let mut fronts = Fronts::start();
    let mut acknowledged = Value::Null;
    for round in 0..ROUNDS {
        let address = fronts.flatdb();
        let target = format!("/put?a={round}&b={round}&c={round}&d={round}");
        let sender = std::thread::spawn(move || Request::get(&target).try_send(&address).ok().map(|a| a.status));
        // Spread over the time that a put takes.
        std::thread::sleep(Duration::from_millis(round * 3));
        fronts.cluster.kill_and_start(round % 3);
        let status = sender.join().unwrap();
        fronts.cluster.wait_all_up();
        let found = fronts.get("/get?key=a&key=b&key=c&key=d").json();
        let values: Vec<&Value> = ["a", "b", "c", "d"].iter().map(|k| &found[k]).collect();
        assert!(values.iter().all(|v| *v == values[0]), "half of a put: {found}");
        match status {
            Some(201) => assert_eq!(*values[0], json!(round.to_string()), "what was acknowledged stands"),
            Some(504) | None => assert!(*values[0] == json!(round.to_string()) || *values[0] == acknowledged, "round {round}: {found}"),
            Some(_) => assert_eq!(*values[0], acknowledged, "round {round}: what was refused changed something"),
        }
        acknowledged = values[0].clone();
    }
    until_settled(&fronts.cluster);
}
