//! `kill -9` of all servers in turn while values come and expire: none is seen after its time, and none is lost before.

use crate::now;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KILLS: u64 = 9;
const WRITERS: u64 = 4;
/// Lives that end before, among and after the kills.
const LIVES: [u64; 4] = [300, 1_500, 4_000, 3_600_000];

/// An acknowledged write: its key and value, and between which times of the clock it expires.
struct Written {
    target: String,
    value: Vec<u8>,
    not_before: u64,
    not_after: u64,
}

fn write(master: &str, writer: u64, stop: &AtomicBool) -> Vec<Written> {
    let (mut written, mut n) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let life = LIVES[usize::try_from(n % 4).unwrap()];
        let value = value(if n % 3 == 0 { 70_000 } else { 200 }, writer << 32 | n);
        let (target, began) = (format!("/w{writer}/{n}"), now());
        let request = Request::put(&format!("{target}?ttl={life}ms"), value.clone()).expect_continue();
        if request.try_follow(master).is_ok_and(|a| a.status == 201) {
            written.push(Written { target, value, not_before: began + life, not_after: now() + life });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    written
}

/// Reads one, and judges the answer by the clock before and after it.
fn check(cluster: &Cluster, w: &Written) -> bool {
    let began = now();
    let answer = cluster.get(&w.target);
    match answer.status {
        200 => assert!(began <= w.not_after && answer.body == w.value, "{} is seen {} ms after its time", w.target, began - w.not_after),
        404 => assert!(now() >= w.not_before, "{} is lost {} ms before its time", w.target, w.not_before - now()),
        _ => panic!("{answer}"),
    }
    answer.status == 200
}

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
            match kill % 3 {
                0 => {
                    cluster.kill_master();
                    cluster.start_master();
                }
                n => {
                    let i = usize::try_from(n).unwrap() - 1;
                    cluster.kill_volume(i);
                    cluster.start_volume(i);
                }
            }
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
    assert!(left > 0 && seen > left && written.len() > seen, "too little was done: {} {seen} {left}", written.len());
}
