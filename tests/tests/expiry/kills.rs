//! `kill -9` of all servers in turn while values come and expire: none is seen after its time, and none is lost before;
//! nor when the catalog is then made anew from the volumes.

use crate::mortal::{LIVES, Written, check, write};
use crate::rebuilt::rebuild;
use kvdb_tests::Cluster;
use kvdb_tests::settled::until_settled;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KILLS: u64 = 9;
const WRITERS: u64 = 4;

#[test]
fn no_value_is_seen_after_its_time_and_none_is_lost_before_it_whatever_is_killed() {
    let mut cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    let (stop, master) = (AtomicBool::new(false), cluster.master_addr());
    let written: Vec<Written> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                scope.spawn({
                    let (master, stop) = (&master, &stop);
                    move || write(master, w, stop)
                })
            })
            .collect();
        for kill in 0..KILLS {
            std::thread::sleep(Duration::from_millis(150 + 37 * kill));
            cluster.kill_and_start(kill % 3);
        }
        cluster.wait_all_up();
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    cluster.wait_all_up();
    let seen = written.iter().filter(|w| check(&cluster, w)).count();
    std::thread::sleep(Duration::from_millis(LIVES[2]));
    written.iter().for_each(|w| {
        check(&cluster, w);
    });
    until_settled(&cluster);
    let left = written.iter().filter(|w| check(&cluster, w)).count();
    println!("{} written, {seen} seen, {left} left", written.len());
    cluster.stop_master();
    rebuild(&mut cluster, || {});
    let rebuilt = written.iter().filter(|w| check(&cluster, w)).count();
    assert_eq!(rebuilt, left, "a rebuild loses none, and brings none back");
    assert!(left > 0 && seen > left && written.len() > seen, "too little was done: {} {seen} {left}", written.len());
}
