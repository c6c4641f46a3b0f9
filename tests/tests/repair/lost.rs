//! Volumes that are lost, and that come back.

use super::{builder, check, check_copies, fill, id, records, until_on};
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Request, eventually};

#[test]
fn values_of_a_volume_that_is_lost_get_new_replicas_so_that_another_may_be_lost() {
    let mut cluster = builder(3).start();
    let values = fill(&cluster, 40);
    let rest = [id(&cluster, 1), id(&cluster, 2)];
    cluster.kill_volume(0);
    until_on(&cluster, &rest, 2);
    check_copies(&cluster, &values, 2);
    cluster.kill_volume(1);
    cluster.wait_up(1);
    check(&cluster, &values);
}

#[test]
fn a_volume_that_comes_back_is_used_again_and_its_surplus_copies_are_removed() {
    let mut cluster = builder(3).start();
    let mut values = fill(&cluster, 40);
    let rest = [id(&cluster, 1), id(&cluster, 2)];
    cluster.kill_volume(0);
    until_on(&cluster, &rest, 2);
    // Some are replaced and some deleted while it is away.
    for (i, target) in values.keys().cloned().collect::<Vec<_>>().into_iter().enumerate().filter(|(i, _)| i % 5 == 0) {
        if i % 2 == 0 {
            let bytes = kvdb_tests::values::value(90_000, 1_000 + i as u64);
            cluster.put(&target, &bytes).expect(200);
            values.insert(target, bytes);
        } else {
            cluster.follow(&Request::delete(&target)).expect(200);
            values.remove(&target);
        }
    }
    cluster.start_volume(0);
    cluster.wait_all_up();
    until_settled(&cluster);
    check_copies(&cluster, &values, 2);
    let back = id(&cluster, 0);
    eventually("new values go to the volume that is back", || {
        cluster.put("/new", b"value");
        records(&cluster).iter().any(|r| r["key"] == "new" && r["replicas"].as_array().unwrap().iter().any(|v| *v == *back)).then_some(())
    });
}

#[test]
fn a_volume_that_is_away_for_less_than_the_time_allowed_costs_no_copies() {
    let mut cluster = kvdb_tests::Cluster::start(3);
    let values = fill(&cluster, 12);
    let before = records(&cluster);
    cluster.kill_volume(0);
    cluster.wait_up(2);
    check(&cluster, &values);
    cluster.start_volume(0);
    cluster.wait_all_up();
    until_settled(&cluster);
    assert_eq!(records(&cluster), before);
    assert_eq!(cluster.status()["repair"]["copied"]["values"], 0);
}

#[test]
fn repair_goes_on_after_the_master_and_the_volumes_were_killed_in_the_middle_of_it() {
    let mut cluster = builder(3).master_args(["--repair-rate", "4"]).start();
    let values = fill(&cluster, 40);
    let rest = [id(&cluster, 1), id(&cluster, 2)];
    cluster.kill_volume(0);
    for round in 0..4 {
        let before = cluster.status()["repair"]["copied"]["values"].as_u64().unwrap();
        eventually("a copy was made", || {
            let repair = cluster.status()["repair"].clone();
            (repair["copied"]["values"].as_u64().unwrap() > before || repair["phase"] == "idle" && round > 0).then_some(())
        });
        match round {
            0 | 3 => {
                cluster.kill_master();
                cluster.start_master();
            }
            n => {
                cluster.kill_volume(n);
                cluster.start_volume(n);
            }
        }
        cluster.wait_up(2);
    }
    until_on(&cluster, &rest, 2);
    until_settled(&cluster);
    check_copies(&cluster, &values, 2);
}

#[test]
fn with_a_second_volume_a_cluster_of_one_gets_second_replicas() {
    let mut cluster = builder(2).start();
    let both = [id(&cluster, 0), id(&cluster, 1)];
    cluster.stop_master();
    cluster.list_addresses(&[cluster.volume_addr(0)]);
    cluster.start_master();
    cluster.wait_up(1);
    cluster.wait_ready();
    let values = fill(&cluster, 12);
    until_on(&cluster, &both[..1], 1);
    super::order(&cluster, &["add", &cluster.volume_addr(1)]);
    until_on(&cluster, &both, 2);
    until_settled(&cluster);
    check_copies(&cluster, &values, 2);
}

#[test]
fn with_no_place_for_another_copy_nothing_is_given_up_and_the_status_says_so() {
    let mut cluster = builder(2).start();
    let values = fill(&cluster, 8);
    let before = records(&cluster);
    cluster.kill_volume(0);
    eventually("the status tells of values without a place", || {
        (cluster.status()["repair"]["no_place"]["values"] == values.len()).then_some(())
    });
    check(&cluster, &values);
    assert_eq!(records(&cluster), before);
    cluster.start_volume(0);
    cluster.wait_all_up();
    eventually("the status is well again", || (cluster.status()["repair"]["no_place"]["values"] == 0).then_some(()));
    until_settled(&cluster);
    check_copies(&cluster, &values, 2);
}
