//! A pass over everything: its pace, and where it goes on after a restart.

use super::{ask, pass, status};
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};

#[test]
fn a_pass_that_is_interrupted_goes_on_where_it_was() {
    // A second for each value.
    let mut cluster = Cluster::builder(2).volume_args(["--scrub-every", "0", "--scrub-rate", "1"]).start();
    for i in 0..6 {
        cluster.put(&format!("/key-{i}"), &value(1 << 20, i));
    }
    ask(&cluster);
    let before = eventually("some values were checked", || {
        let scrub = status(&cluster, 0)["scrub"].clone();
        (scrub["values"].as_u64() >= Some(2)).then_some(scrub)
    });
    assert!(before["values"].as_u64() < Some(6), "it goes faster than its rate: {before}");
    cluster.stop_volume(0);
    cluster.start_volume(0);
    cluster.wait_all_up();
    let after = eventually("it is in touch again", || Some(status(&cluster, 0)["scrub"].clone()).filter(|s| !s["of_bytes"].is_null()));
    assert_eq!(after["began"], before["began"], "{after}");
    assert!(after["values"].as_u64() >= before["values"].as_u64(), "{after}");
    let ended = eventually("the pass has ended", || Some(status(&cluster, 0)["scrub"].clone()).filter(|s| s["ended"].is_u64()));
    assert_eq!((ended["values"].as_u64(), ended["bytes"].as_u64()), (Some(6), Some(6 << 20)), "each once: {ended}");
}

#[test]
fn passes_follow_each_other_by_themselves_and_are_shown() {
    let cluster = Cluster::builder(2).volume_args(["--scrub-every", "1"]).start();
    cluster.put("/key", &value(100_000, 1));
    let mut ends = std::collections::BTreeSet::new();
    eventually("three passes have ended", || {
        ends.extend(status(&cluster, 0)["scrub"]["ended"].as_u64());
        (ends.len() >= 3).then_some(())
    });
    let ends: Vec<u64> = ends.into_iter().collect();
    assert!(ends.windows(2).all(|w| w[1] - w[0] < 10_000), "{ends:?}");
}

#[test]
fn nobody_begins_a_scrub_without_the_clusters_signature() {
    let cluster = Cluster::builder(1).volume_args(["--scrub-every", "0"]).master_args(["--replicas", "1"]).start();
    Request::post("/-/peer/scrub", "null").send(&cluster.volume_addr(0)).expect_problem(401, "unauthorized");
    assert!(status(&cluster, 0)["scrub"]["ended"].is_null());
    pass(&cluster);
}
