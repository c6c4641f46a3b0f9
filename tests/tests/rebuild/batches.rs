//! Batches, and copies that a batch left behind.

use crate::{listed, lose_catalog, rebuild, summary};
use kvdb_tests::{Cluster, Request};
use serde_json::{Value, json};

fn batch(round: u64) -> Request {
    let operations: Vec<Value> =
        (0..40).map(|i| json!({"put": format!("k{i}"), "value": format!("{round}.{i}").repeat(1 + i * 500)})).collect();
    Request::post("/?batch", json!({ "operations": operations }).to_string())
}

/// All that the list tells, but for the order of replicas: copies of a batch do not know their chain.
fn told(cluster: &Cluster) -> Value {
    let mut page = listed(cluster);
    for key in page["keys"].as_array_mut().unwrap() {
        key["replicas"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    }
    page
}

#[test]
fn an_acknowledged_batch_is_whole_after_a_rebuild_that_asks_at_once() {
    let mut cluster = Cluster::start(2);
    for round in 0..2 {
        cluster.ask(&batch(round)).expect(200);
    }
    rebuilt_alike(&mut cluster);
}

/// Loses the catalog and rebuilds it: the same keys, and none of which it is not certain.
#[track_caller]
fn rebuilt_alike(cluster: &mut Cluster) {
    let before = told(cluster);
    lose_catalog(cluster);
    let found = summary(rebuild(cluster, &[0, 1], &[]));
    assert_eq!((&found["keys"], &found["uncertain_kept"]), (&json!(40), &json!(0)), "{found}");
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(told(cluster), before);
}

#[test]
fn a_batch_that_was_cut_off_does_not_come_up_from_a_rebuild() {
    let mut cluster = Cluster::start(2);
    cluster.ask(&batch(0)).expect(200);
    let address = cluster.master_addr();
    // Cut off at growing moments: whatever was committed by then is wholly there or wholly not.
    for step in 0..6 {
        let (request, address) = (batch(1 + step), address.clone());
        let sender = std::thread::spawn(move || request.try_send(&address).ok().map(|a| a.status));
        std::thread::sleep(std::time::Duration::from_millis(step * 4));
        cluster.kill_master();
        let status = sender.join().unwrap();
        cluster.start_master();
        cluster.wait_all_up();
        let first = cluster.value("/k0");
        let round = String::from_utf8(first).unwrap().split('.').next().unwrap().to_string();
        for i in [1, 17, 39] {
            assert!(cluster.value(&format!("/k{i}")).starts_with(format!("{round}.").as_bytes()), "half of a batch");
        }
        if status == Some(200) {
            assert_eq!(round, (1 + step).to_string());
        }
    }
    // Nothing was answered since, so what is prepared and not known to be committed is of batches that were not done,
    // or of one that all volumes will ask about; a write makes the present state known everywhere.
    cluster.ask(&batch(50)).expect(200);
    rebuilt_alike(&mut cluster);
}
