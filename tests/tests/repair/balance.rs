//! Volumes that differ in how full they are.

use super::{check_copies, fill, id, records};
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Cluster, eventually};

#[test]
fn a_new_volume_fills_up_until_all_are_about_equally_full() {
    let mut cluster = Cluster::builder(3).master_args(["--replicas", "2"]).volume_args(["--capacity", "100M"]).start();
    let third = id(&cluster, 2);
    cluster.stop_master();
    let addresses: Vec<String> = (0..3).map(|i| cluster.volume_addr(i)).collect();
    cluster.list_addresses(&addresses[..2]);
    cluster.start_master();
    cluster.wait_up(2);
    cluster.wait_ready();
    // Two of 100 MB are filled to about two fifths.
    let values = fill(&cluster, 90);
    super::order(&cluster, &["add", &addresses[2]]);
    let used = |cluster: &Cluster| -> Vec<u64> {
        let status = cluster.status();
        status["volumes"].as_array().unwrap().iter().map(|v| v["status"]["used_bytes"].as_u64().unwrap()).collect()
    };
    let total: u64 = values.values().map(|v| 2 * v.len() as u64).sum();
    eventually("the volumes tell what they hold", || (used(&cluster).iter().sum::<u64>() == total).then_some(()));
    eventually("the volumes differ by at most ten percent of their space", || {
        let used = used(&cluster);
        let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
        (most - least <= 10_500_000 && cluster.status()["repair"]["phase"] == "idle").then_some(())
    });
    until_settled(&cluster);
    check_copies(&cluster, &values, 2);
    assert!(records(&cluster).iter().any(|r| r["replicas"].as_array().unwrap().iter().any(|v| *v == *third)));
    eventually("no copy is more or less", || (used(&cluster).iter().sum::<u64>() == total).then_some(()));
}
