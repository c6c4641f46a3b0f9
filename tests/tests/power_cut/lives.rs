//! Values that expire, among power cuts of all machines.

use crate::mortal::{LIVES, Written, check, write};
use crate::world::{Random, World};
use kvdb_tests::settled;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CUTS: u64 = 4;
const WRITERS: u64 = 4;

#[test]
fn no_value_is_seen_after_its_time_and_none_is_lost_before_it_whenever_the_power_is_cut() {
    let Some(mut world) = World::new() else { return };
    let mut random = Random::new(u64::from(std::process::id()));
    let mut written: Vec<Written> = Vec::new();
    for cut in 0..CUTS {
        let (stop, master) = (AtomicBool::new(false), world.cluster.master_addr());
        std::thread::scope(|scope| {
            let start = |w| {
                let (master, stop) = (&master, &stop);
                scope.spawn(move || write(master, cut * WRITERS + w, stop))
            };
            let writers: Vec<_> = (0..WRITERS).map(start).collect();
            // Long enough for the first of them to expire, and to be removed.
            std::thread::sleep(Duration::from_millis(1_200 + random.below(600)));
            world.cut(&mut random);
            stop.store(true, Ordering::Relaxed);
            written.extend(writers.into_iter().flat_map(|w| w.join().unwrap()));
        });
        world.restart();
        let seen = written.iter().filter(|w| check(&world.cluster, w)).count();
        println!("cut {cut}: {} written so far, {seen} seen", written.len());
    }
    std::thread::sleep(Duration::from_millis(LIVES[2]));
    settled::until_settled(&world.cluster);
    let left = written.iter().filter(|w| check(&world.cluster, w)).count();
    assert!(left > 0 && written.len() > 2 * left, "too little was done: {} {left}", written.len());
}
