//! `kill -9` of a server at its Nth system call of each kind, on the way of puts, overwrites and deletes, their reclaim included,
//! and at its start.
//!
//! First the calls of each whole operation are counted, by kind and thread; then a process is killed at the door of each: the call
//! itself is not made any more. By default a seed chooses some; `KVDB_SYSCALL_ROUNDS` is their number, or `all`.
//! `KVDB_SYSCALL_SEED` makes the same choices again.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod case;
mod lane;
mod operation;
mod order;
mod repair;
#[path = "../crash/send.rs"]
mod send;
mod start;
mod strace;

use case::{Case, Victim};
use lane::{Lane, Tally};
use operation::OPERATIONS;
use std::sync::Mutex;
use std::time::Instant;

/// Kills where no number is given.
const ROUNDS: usize = 40;
/// Clusters at work at a time.
const LANES: usize = 2;

fn rounds(default: usize) -> Option<usize> {
    match std::env::var("KVDB_SYSCALL_ROUNDS").as_deref() {
        Ok("all") => None,
        Ok(number) => Some(number.parse().expect("a number or all")),
        Err(_) => Some(default),
    }
}

fn seed() -> u64 {
    std::env::var("KVDB_SYSCALL_SEED").map_or(u64::from(std::process::id()), |t| t.parse().expect("a number"))
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for i in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(i, usize::try_from((state >> 11) % (i as u64 + 1)).unwrap());
    }
}

/// Does the work on all lanes, each with a cluster of its own.
fn on_lanes<T: Send>(lanes: &mut [Lane], work: Vec<T>, each: impl Fn(&mut Lane, T) + Sync) {
    let work = Mutex::new(work.into_iter());
    std::thread::scope(|scope| {
        for lane in lanes {
            let (work, each) = (&work, &each);
            scope.spawn(move || {
                // The lock is not held while the work is done.
                while let Some(next) = { work.lock().unwrap().next() } {
                    each(lane, next);
                }
            });
        }
    });
}

#[test]
fn a_kill_at_any_system_call_loses_nothing_acknowledged_and_leaves_nothing_behind() {
    let (seed, rounds) = (seed(), rounds(ROUNDS));
    println!("KVDB_SYSCALL_SEED={seed} KVDB_SYSCALL_ROUNDS={rounds:?}");
    if let Err(why) = strace::usable() {
        return eprintln!("\n*** SKIPPED: nothing was killed at a system call, as this needs strace and the right to trace: {why}\n");
    }
    let since = Instant::now();
    let mut lanes: Vec<Lane> = (0..LANES).map(Lane::new).collect();
    let whole: Vec<_> = OPERATIONS.iter().flat_map(|o| Victim::ALL.map(|v| (v, *o))).collect();
    let cases = Mutex::new(Vec::<Case>::new());
    on_lanes(&mut lanes, whole, |lane, (victim, operation)| {
        let found = lane.count(victim, operation);
        cases.lock().unwrap().extend(found);
    });
    let mut cases = cases.into_inner().unwrap();
    cases.sort();
    let (all, counted) = (cases.len(), since.elapsed());
    shuffle(&mut cases, seed);
    cases.truncate(rounds.unwrap_or(usize::MAX));
    let chosen = cases.len();
    on_lanes(&mut lanes, cases, Lane::kill);
    let mut tally = Tally::default();
    for lane in &mut lanes {
        lane.end(&mut tally);
    }
    println!("{all} calls found in {counted:?}, {chosen} tried, in {:?}: {tally:?}", since.elapsed());
    assert!(tally.killed * 2 > chosen as u64, "hardly anything was killed: {tally:?}");
}
