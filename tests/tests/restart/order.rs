//! Each process restarted at will, in any order.

use crate::Acknowledged;
use kvdb_tests::{Cluster, Request};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Master,
    Volume(usize),
}

const ALL: [Who; 3] = [Who::Master, Who::Volume(0), Who::Volume(1)];

fn kill(cluster: &mut Cluster, who: Who) {
    match who {
        Who::Master => cluster.kill_master(),
        Who::Volume(i) => cluster.kill_volume(i),
    }
}

#[track_caller]
fn stop(cluster: &mut Cluster, who: Who) {
    let status = match who {
        Who::Master => cluster.stop_master(),
        Who::Volume(i) => cluster.stop_volume(i),
    };
    assert!(status.success(), "{who:?} ended with {status}");
}

fn start(cluster: &mut Cluster, who: Who) {
    match who {
        Who::Master => cluster.start_master(),
        Who::Volume(i) => cluster.start_volume(i),
    }
}

/// The six orders of three.
fn orders() -> Vec<[Who; 3]> {
    let mut orders = Vec::new();
    for a in ALL {
        for b in ALL {
            for c in ALL {
                if a != b && b != c && a != c {
                    orders.push([a, b, c]);
                }
            }
        }
    }
    orders
}

#[test]
fn each_process_alone_can_be_stopped_or_killed_and_started_again() {
    let (mut cluster, mut acknowledged) = (Cluster::start(2), Acknowledged::default());
    for who in ALL {
        acknowledged.write(&cluster);
        stop(&mut cluster, who);
        start(&mut cluster, who);
        cluster.wait_all_up();
        acknowledged.check(&cluster);
        acknowledged.write(&cluster);
        kill(&mut cluster, who);
        start(&mut cluster, who);
        cluster.wait_all_up();
        acknowledged.check(&cluster);
    }
}

#[test]
fn a_whole_cluster_that_was_killed_at_once_starts_in_any_order_with_nothing_lost() {
    let (mut cluster, mut acknowledged) = (Cluster::start(2), Acknowledged::default());
    for order in orders() {
        acknowledged.write(&cluster);
        for who in ALL {
            kill(&mut cluster, who);
        }
        for who in order {
            start(&mut cluster, who);
        }
        cluster.wait_all_up();
        acknowledged.check(&cluster);
    }
}

#[test]
fn a_whole_cluster_can_be_stopped_in_any_order() {
    let (mut cluster, mut acknowledged) = (Cluster::start(2), Acknowledged::default());
    for order in orders() {
        acknowledged.write(&cluster);
        for who in order {
            stop(&mut cluster, who);
        }
        for who in order {
            start(&mut cluster, who);
        }
        cluster.wait_all_up();
        acknowledged.check(&cluster);
    }
}

#[test]
fn deletions_replacements_and_types_survive_too() {
    let mut cluster = Cluster::start(2);
    cluster.put("/deleted", b"x");
    cluster.put("/replaced", b"old");
    cluster.follow(&Request::put("/typed", "<p>").header("Content-Type", "text/html")).expect(201);
    cluster.put("/replaced", b"new");
    cluster.follow(&Request::delete("/deleted")).expect(200);
    let before: Vec<_> = ["/replaced", "/typed"].iter().map(|t| cluster.get(t)).collect();
    for who in ALL {
        kill(&mut cluster, who);
    }
    for who in ALL {
        start(&mut cluster, who);
    }
    cluster.wait_all_up();
    cluster.get("/deleted").expect(404);
    for (target, before) in ["/replaced", "/typed"].iter().zip(before) {
        let after = cluster.get(target).expect(200);
        assert_eq!(after.body, before.body);
        for name in ["etag", "kvdb-version", "content-type", "last-modified"] {
            assert_eq!(after.header(name), before.header(name), "{name} of {target}");
        }
    }
    let version = |answer: &kvdb_tests::Answer| answer.header("kvdb-version").unwrap().to_string();
    let old = version(&cluster.get("/replaced"));
    assert!(version(&cluster.put("/replaced", b"newer")) > old, "versions grow over restarts");
}

#[test]
fn a_volume_that_is_halted_counts_as_down_and_comes_back() {
    let (mut cluster, mut acknowledged) = (Cluster::start(2), Acknowledged::default());
    acknowledged.write(&cluster);
    cluster.volume(0).signal(rustix::process::Signal::STOP);
    cluster.wait_up(1);
    for (target, bytes) in &acknowledged.0 {
        kvdb_tests::values::assert_same(&cluster.value(target), bytes, target);
    }
    cluster.volume(0).signal(rustix::process::Signal::CONT);
    cluster.wait_all_up();
    acknowledged.write(&cluster);
    acknowledged.check(&cluster);
}
