//! The measured work: threads that do one operation after the other, and what that took.

use super::client::{Answer, Base, Client, Request};
use super::content::Pattern;
use crate::args::{Bench, Operation};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures that are told one by one.
const TOLD_FAILURES: u64 = 3;
const STORED: &[u16] = &[200, 201, 204];
const DELETED: &[u16] = &[200, 202, 204];

/// What the threads of one operation share.
pub struct Shared {
    operation: Operation,
    args: Bench,
    base: Base,
    pattern: Arc<Pattern>,
    /// The next piece of work.
    next: AtomicU64,
    failures: AtomicU64,
    /// Set when nobody waits for the figures any more.
    stop: Arc<AtomicBool>,
}

/// What one operation brought.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The time of each operation that succeeded, in order of length.
    pub times: Vec<Duration>,
    /// Bytes of content that went either way.
    pub bytes: u64,
    pub failures: u64,
    pub took: Duration,
}

impl Shared {
    pub fn new(operation: Operation, args: &Bench, base: Base, pattern: Arc<Pattern>, stop: Arc<AtomicBool>) -> Self {
        Self { operation, args: args.clone(), base, pattern, next: AtomicU64::new(0), failures: AtomicU64::new(0), stop }
    }

    /// Number of operations, if it is not a time that ends them.
    fn operations(&self) -> u64 {
        match self.operation {
            Operation::Get | Operation::Range | Operation::Lookup => self.args.requests.unwrap_or(self.args.count),
            _ => self.args.count,
        }
    }
}

/// Does all of it, and returns when the last thread is done.
pub fn run(shared: &Arc<Shared>) -> io::Result<Outcome> {
    let started = Instant::now();
    let mut threads = Vec::new();
    for i in 0..shared.args.clients {
        let shared = shared.clone();
        threads.push(std::thread::Builder::new().name(format!("client-{i}")).spawn(move || thread(&shared, i, started))?);
    }
    let mut all = Outcome::default();
    for thread in threads {
        let one = thread.join().map_err(|_| io::Error::other("a client ended by a fault of its own"))?;
        all.times.extend(one.times);
        all.bytes += one.bytes;
        all.failures += one.failures;
    }
    all.took = started.elapsed();
    all.times.sort_unstable();
    Ok(all)
}

fn thread(shared: &Shared, number: u64, started: Instant) -> Outcome {
    let mut client = Client::new(shared.base.clone(), shared.args.expect, shared.pattern.clone());
    let mut random = Random::new(number);
    let mut outcome = Outcome::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let piece = shared.next.fetch_add(1, Ordering::Relaxed);
        let over = shared.args.seconds.map_or(piece >= shared.operations(), |most| started.elapsed() >= most);
        if over {
            break;
        }
        let key = format!("{}-{}", shared.args.prefix, value_of(shared, piece, &mut random));
        let begun = Instant::now();
        match operate(shared, &mut client, &key, &mut random) {
            Ok(bytes) => {
                outcome.times.push(begun.elapsed());
                outcome.bytes += bytes;
            }
            Err(e) => {
                outcome.failures += 1;
                if shared.failures.fetch_add(1, Ordering::Relaxed) < TOLD_FAILURES {
                    eprintln!("kvdb: {key}: {e}");
                }
            }
        }
    }
    outcome
}

/// The number of the value that a piece of work is about.
fn value_of(shared: &Shared, piece: u64, random: &mut Random) -> u64 {
    match shared.operation {
        Operation::Get | Operation::Range | Operation::Lookup if shared.args.seconds.is_some() => random.below(shared.args.count),
        Operation::Get | Operation::Range | Operation::Lookup => piece % shared.args.count,
        _ => piece,
    }
}

/// Does one operation; gives the bytes of content that it moved.
fn operate(shared: &Shared, client: &mut Client, key: &str, random: &mut Random) -> io::Result<u64> {
    let size = shared.args.size;
    let plain = Request { method: "GET", key, body: None, range: None, verify: shared.args.verify, follow: true };
    // Their answers are no values, hence nothing to compare.
    let put = Request { method: "PUT", body: Some(size), verify: false, ..plain };
    let delete = Request { method: "DELETE", verify: false, ..plain };
    match shared.operation {
        Operation::Put => accept(client.request(put)?, STORED).map(|()| size),
        Operation::Get => whole(client.request(plain)?, 200, size),
        Operation::Range => {
            let length = shared.args.range;
            let from = random.below(size - length + 1);
            whole(client.request(Request { range: Some((from, length)), ..plain })?, 206, length)
        }
        Operation::Lookup => found(client.request(Request { follow: false, ..plain })?),
        Operation::Delete => accept(client.request(delete)?, DELETED).map(|()| 0),
        Operation::Thrash => {
            accept(client.request(put)?, STORED)?;
            whole(client.request(plain)?, 200, size)?;
            accept(client.request(delete)?, DELETED).map(|()| 2 * size)
        }
        Operation::LoopbackGet | Operation::LoopbackPut => Err(io::Error::other("loopback asks no server")),
    }
}

fn accept(answer: Answer, good: &[u16]) -> io::Result<()> {
    if good.contains(&answer.status) { Ok(()) } else { Err(io::Error::other(format!("answered with status {}", answer.status))) }
}

fn whole(answer: Answer, status: u16, length: u64) -> io::Result<u64> {
    let got = answer.length;
    accept(answer, &[status])?;
    if got == length { Ok(length) } else { Err(io::Error::other(format!("{got} bytes arrived, not {length}"))) }
}

/// A lookup that finds the key is a redirect that says where, or, of a server that has no master, the value.
fn found(answer: Answer) -> io::Result<u64> {
    let redirect = answer.location && matches!(answer.status, 302 | 307);
    if redirect { Ok(0) } else { accept(answer, &[200]).map(|()| 0) }
}

/// Numbers without a pattern that a server could profit from, the same ones at each run (SplitMix64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed << 32)
    }

    /// A number below `n`, or 0 if that is 0.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).checked_rem(n).unwrap_or(0)
    }
}
