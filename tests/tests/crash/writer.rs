//! A writer with keys of its own, that knows what each of them may hold.

use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, Url};
use std::ops::Add;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KEYS: u64 = 6;
const SIZES: [usize; 6] = [0, 100, 5_000, 65_536, 100_000, 300_001];
const MAX_SENT_BACK: usize = 4;

/// Numbers that a seed decides.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub acknowledged: u64,
    /// Broken off, or answered with 504.
    pub in_doubt: u64,
    pub refused: u64,
    pub reads: u64,
}

impl Add for Tally {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self {
            acknowledged: self.acknowledged + o.acknowledged,
            in_doubt: self.in_doubt + o.in_doubt,
            refused: self.refused + o.refused,
            reads: self.reads + o.reads,
        }
    }
}

/// A value by its length and seed; none: the key does not exist.
type State = Option<(usize, u64)>;

enum Outcome {
    Acknowledged,
    /// It may have happened, or may still.
    InDoubt,
    Refused,
}

struct Slot {
    target: String,
    /// What it may hold: one state, or two after a write in doubt. It is then left alone until the next check, since a write in
    /// doubt may still happen.
    may_be: Vec<State>,
}

pub struct Writer {
    random: Random,
    slots: Vec<Slot>,
    next_seed: u64,
    pub tally: Tally,
}

impl Writer {
    pub fn new(n: u64, seed: u64) -> Self {
        let slots = (0..KEYS).map(|k| Slot { target: format!("/writer-{n}/key-{k}"), may_be: vec![None] }).collect();
        Self { random: Random::new(seed ^ (n + 1) << 32), slots, next_seed: n << 40, tally: Tally::default() }
    }

    pub fn work(&mut self, master: &str, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let i = usize::try_from(self.random.below(KEYS)).unwrap();
            if self.slots[i].may_be.len() > 1 {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            match self.random.below(10) {
                0..=5 => self.put(i, master),
                6..=7 => self.delete(i, master),
                _ => self.get(i, master),
            }
        }
    }

    fn put(&mut self, i: usize, master: &str) {
        self.next_seed += 1;
        let (len, seed) = (SIZES[usize::try_from(self.random.below(SIZES.len() as u64)).unwrap()], self.next_seed);
        let relayed = self.random.below(8) == 0;
        let outcome = put(master, &self.slots[i].target, value(len, seed), relayed);
        self.note(i, Some((len, seed)), &outcome);
    }

    fn delete(&mut self, i: usize, master: &str) {
        let outcome = match Request::delete(&self.slots[i].target).try_follow(master) {
            Ok(answer) if answer.status == 200 => Outcome::Acknowledged,
            Ok(answer) if answer.status == 404 => {
                assert_eq!(self.slots[i].may_be, [None], "{}: an acknowledged value is gone", self.slots[i].target);
                Outcome::Refused
            }
            Ok(answer) if answer.status == 504 => Outcome::InDoubt,
            Ok(_) => Outcome::Refused,
            Err(_) => Outcome::InDoubt,
        };
        self.note(i, None, &outcome);
    }

    fn note(&mut self, i: usize, new: State, outcome: &Outcome) {
        match outcome {
            Outcome::Acknowledged => {
                self.slots[i].may_be = vec![new];
                self.tally.acknowledged += 1;
            }
            Outcome::InDoubt => {
                self.slots[i].may_be.push(new);
                self.tally.in_doubt += 1;
            }
            Outcome::Refused => {
                self.tally.refused += 1;
                // Servers are down: no need to spin.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn get(&mut self, i: usize, master: &str) {
        let slot = &self.slots[i];
        let Ok(answer) = Request::get(&slot.target).try_follow(master) else { return };
        if answer.status == 200 || answer.status == 404 {
            let body = (answer.status == 200).then_some(answer.body);
            assert!(is(body.as_deref(), slot.may_be[0]), "{}: read something else than {:?}", slot.target, slot.may_be);
            self.tally.reads += 1;
        }
    }

    /// With all servers up and nothing in doubt, each key holds what it may, whole, on both volumes.
    pub fn check(&mut self, cluster: &Cluster) {
        for slot in &mut self.slots {
            let answer = cluster.get(&slot.target);
            assert!([200, 404].contains(&answer.status), "{}: {}", slot.target, answer.text());
            let body = (answer.status == 200).then_some(answer.body);
            let found = slot.may_be.iter().copied().find(|s| is(body.as_deref(), *s));
            let len = body.as_ref().map(Vec::len);
            let found = found.unwrap_or_else(|| panic!("{}: {len:?} bytes, which is none of {:?}", slot.target, slot.may_be));
            slot.may_be = vec![found];
            if let Some((len, seed)) = found {
                for copy in cluster.copies(&slot.target) {
                    assert!(copy.expect(200).body == value(len, seed), "{}: a copy differs", slot.target);
                }
            }
        }
    }
}

fn is(body: Option<&[u8]>, state: State) -> bool {
    match (body, state) {
        (None, None) => true,
        (Some(b), Some((len, seed))) => b.len() == len && b == value(len, seed),
        _ => false,
    }
}

/// Stores a value, by the master's redirect or through its relay.
fn put(master: &str, target: &str, bytes: Vec<u8>, relayed: bool) -> Outcome {
    if relayed && bytes.len() > 65_536 {
        return sent(Request::put(target, bytes).try_send(master)).unwrap_or(Outcome::Refused);
    }
    let ask = |target: &str| Request::put(target, "").header("Kvdb-Content-Length", &bytes.len().to_string()).try_send(master);
    let mut target = target.to_string();
    for _ in 0..MAX_SENT_BACK {
        // Asking changes nothing.
        let Ok(answer) = ask(&target) else { return Outcome::Refused };
        if answer.status != 307 {
            return Outcome::Refused;
        }
        let url = Url::of(&answer);
        match sent(Request::put(&url.target, bytes.clone()).try_send(&url.address)) {
            Ok(outcome) => return outcome,
            Err(back) => target = back,
        }
    }
    Outcome::Refused
}

/// What an answer means; an error is the target to ask the master for again.
fn sent(answer: std::io::Result<kvdb_tests::Answer>) -> Result<Outcome, String> {
    match answer {
        Ok(a) if a.status == 200 || a.status == 201 => Ok(Outcome::Acknowledged),
        Ok(a) if a.status == 504 => Ok(Outcome::InDoubt),
        Ok(a) if a.status == 307 => Err(Url::of(&a).target),
        Ok(_) => Ok(Outcome::Refused),
        Err(_) => Ok(Outcome::InDoubt),
    }
}
