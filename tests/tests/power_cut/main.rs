//! The power of all machines is cut at once, after and during every short sequence of operations.
//!
//! Master, volumes and the volumes' indexes each have a disk of their own, so that a sync of one makes nothing of another durable.
//! By default several sequences share a cut: each its keys, all their last steps at once. `KVDB_POWER_ROUNDS=all` cuts the
//! power twice for every sequence alone, after the last step's answer and at a random moment of it; a number is that many
//! shared cuts of each kind. `KVDB_POWER_SEED` makes the same choices again.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod batches;
mod lives;
#[path = "../expiry/mortal.rs"]
mod mortal;
#[path = "../crash/send.rs"]
mod send;
mod sequence;
mod world;

use kvdb_tests::settled;
use sequence::{Sequence, Tally, all_sequences};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use world::{Random, World};

/// Sequences that share a cut.
const SHARED: usize = 8;
/// The shortest and the longest wait for a cut within a step, in powers of two of microseconds: a step takes some milliseconds.
const WAIT_BITS: std::ops::Range<u64> = 7..16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// When every last step is answered.
    Answered,
    /// While the last steps are under way.
    Within,
}

#[test]
fn what_was_acknowledged_stands_after_a_power_cut_of_all_machines() {
    let rounds = std::env::var("KVDB_POWER_ROUNDS").unwrap_or_default();
    let seed = std::env::var("KVDB_POWER_SEED").map_or(u64::from(std::process::id()), |t| t.parse().expect("a number"));
    println!("KVDB_POWER_SEED={seed} KVDB_POWER_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let Some(mut world) = World::new() else { return };
    let together = if rounds == "all" { 1 } else { SHARED };
    let most = if ["", "all"].contains(&rounds.as_str()) { usize::MAX } else { rounds.parse().expect("a number or all") };
    let (mut done, mut tally, mut cuts, since) = (Vec::new(), Tally::default(), 0, Instant::now());
    for moment in [Moment::Answered, Moment::Within] {
        let mut sequences = all_sequences(&format!("{moment:?}"));
        random.shuffle(&mut sequences);
        let mut waiting = sequences.into_iter();
        for _ in 0..most {
            let mut group: Vec<Sequence> = waiting.by_ref().take(together).collect();
            if group.is_empty() {
                break;
            }
            one_cut(&mut world, &mut group, moment, &mut random);
            cuts += 1;
            group.iter_mut().for_each(|s| s.check(&world.cluster, &mut tally));
            done.extend(group);
        }
    }
    let settled = settled::until_settled(&world.cluster);
    done.iter().for_each(|s| s.check_settled(&world.cluster));
    let (sequences, took) = (done.len(), since.elapsed());
    println!("{cuts} power cuts over {sequences} sequences in {took:?}, settled {settled:?} after the last: {tally:?}");
    assert!(tally.acknowledged >= cuts, "hardly anything was done");
}

/// Runs the sequences, all last steps at once, cuts the power and starts everything again.
fn one_cut(world: &mut World, group: &mut [Sequence], moment: Moment, random: &mut Random) {
    let (master, before_last) = (world.cluster.master_addr(), Barrier::new(group.len() + 1));
    let longest = 1 << (WAIT_BITS.start + random.below(WAIT_BITS.end - WAIT_BITS.start));
    let wait = Duration::from_micros(random.below(longest));
    std::thread::scope(|scope| {
        let running: Vec<_> = group.iter_mut().map(|s| scope.spawn(|| s.run(&master, &before_last, moment == Moment::Within))).collect();
        before_last.wait();
        if moment == Moment::Answered {
            running.into_iter().for_each(|r| r.join().unwrap());
        } else {
            std::thread::sleep(wait);
        }
        world.cut(random);
    });
    world.restart();
}
