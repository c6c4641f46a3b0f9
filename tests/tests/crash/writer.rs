//! A writer with keys of its own, of which it knows what each may hold, that also takes part in the shared ones.

use crate::content::{Content, Random, State, described, is};
use crate::send::{Outcome, Write};
use crate::shared::Shared;
use crate::tally::Tally;
use kvdb_tests::{Cluster, Request};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KEYS: u64 = 8;
/// Pause after a refusal: servers are down, and there is no need to spin.
const PAUSE: Duration = Duration::from_millis(5);

struct Slot {
    target: String,
    /// What it may hold: one state, or two after a write in doubt, which may still happen.
    may_be: Vec<State>,
}

impl Slot {
    fn new(writer: &str, key: u64) -> Self {
        Self { target: format!("/{writer}/key-{key}"), may_be: vec![None] }
    }
}

pub struct Writer {
    name: String,
    random: Random,
    /// Keys whose state is known exactly.
    slots: Vec<Slot>,
    /// Keys with a write in doubt: left alone, others are written instead of them.
    in_doubt: Vec<Slot>,
    last_write: u64,
    pub tally: Tally,
}

impl Writer {
    pub fn new(n: u64, seed: u64) -> Self {
        let name = format!("writer-{n}");
        let slots = (0..KEYS).map(|k| Slot::new(&name, k)).collect();
        let random = Random::new(seed ^ ((n + 1) << 32));
        Self { name, random, slots, in_doubt: Vec::new(), last_write: n << 40, tally: Tally::default() }
    }

    pub fn work(&mut self, master: &str, shared: &Shared, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if self.random.below(10) == 0 {
                self.write_shared(master, shared);
                continue;
            }
            let i = usize::try_from(self.random.below(KEYS)).unwrap();
            match self.random.below(10) {
                0..=5 => self.put(i, master),
                6..=7 => self.delete(i, master),
                _ => self.get(i, master),
            }
        }
    }

    fn content(&mut self) -> Content {
        self.last_write += 1;
        Content::any(&mut self.random, self.last_write)
    }

    fn put(&mut self, i: usize, master: &str) {
        let content = self.content();
        let slot = &self.slots[i];
        // Bodies of up to 64 KiB are not relayed but redirected.
        let relayed = content.len > 65_536 && self.random.below(6) == 0;
        let method = if self.random.below(4) == 0 { "POST" } else { "PUT" };
        let outcome = Write { method, target: &slot.target, value: Some(content.bytes(&slot.target)), relayed }.send(master);
        let exists = slot.may_be != [None];
        match &outcome {
            Outcome::Acknowledged => assert!(method == "PUT" || !exists, "{}: created where {:?} is", slot.target, slot.may_be),
            Outcome::Refused(Some(answer)) if answer.json()["code"] == "exists" => {
                assert!(method == "POST" && exists, "{} {}: refused where {:?} is", method, slot.target, slot.may_be);
            }
            _ => {}
        }
        self.note(i, Some(content), &outcome);
    }

    fn delete(&mut self, i: usize, master: &str) {
        let slot = &self.slots[i];
        let outcome = Write { method: "DELETE", target: &slot.target, value: None, relayed: false }.send(master);
        let exists = slot.may_be != [None];
        match &outcome {
            Outcome::Acknowledged => assert!(exists, "{}: a value was deleted that was not there", slot.target),
            Outcome::Refused(Some(answer)) if answer.status == 404 => assert!(!exists, "{}: an acknowledged value is gone", slot.target),
            _ => {}
        }
        self.note(i, None, &outcome);
    }

    fn note(&mut self, i: usize, new: State, outcome: &Outcome) {
        self.tally.count(outcome);
        match outcome {
            Outcome::Acknowledged => self.slots[i].may_be = vec![new],
            Outcome::Unknown | Outcome::Cut => {
                let next = Slot::new(&self.name, KEYS + self.in_doubt.len() as u64);
                let mut slot = std::mem::replace(&mut self.slots[i], next);
                slot.may_be.push(new);
                self.in_doubt.push(slot);
            }
            Outcome::Refused(_) => std::thread::sleep(PAUSE),
        }
    }

    fn get(&mut self, i: usize, master: &str) {
        let slot = &self.slots[i];
        let Ok(answer) = Request::get(&slot.target).try_follow(master) else { return std::thread::sleep(PAUSE) };
        if answer.status == 200 || answer.status == 404 {
            let body = (answer.status == 200).then_some(answer.body.as_slice());
            assert!(is(body, &slot.target, slot.may_be[0]), "{}: {} instead of {:?}", slot.target, described(body), slot.may_be);
            self.tally.reads += 1;
        } else {
            self.tally.problem(&answer);
            std::thread::sleep(PAUSE);
        }
    }

    fn write_shared(&mut self, master: &str, shared: &Shared) {
        let key = self.random.below(shared.keys());
        let target = Shared::target(key);
        if self.random.below(4) == 0 {
            let Ok(answer) = Request::get(&target).try_follow(master) else { return std::thread::sleep(PAUSE) };
            let whole = answer.status != 200 || Content::of(&answer.body, &target).is_some();
            assert!(whole, "{target}: {}", described(Some(&answer.body)));
            return;
        }
        let state = (self.random.below(3) > 0).then(|| self.content());
        let from = shared.now();
        let method = if state.is_some() { "PUT" } else { "DELETE" };
        let outcome = Write { method, target: &target, value: state.map(|c| c.bytes(&target)), relayed: false }.send(master);
        shared.note(key, from, state, &outcome);
        self.tally.count(&outcome);
    }

    /// With all servers up each key holds what it may, whole; once all is settled, on both volumes.
    pub fn check(&self, cluster: &Cluster, settled: bool) {
        for slot in self.slots.iter().chain(&self.in_doubt) {
            let answer = cluster.get(&slot.target);
            assert!([200, 404].contains(&answer.status), "{}: {answer}", slot.target);
            let body = (answer.status == 200).then_some(answer.body);
            let found = slot.may_be.iter().any(|s| is(body.as_deref(), &slot.target, *s));
            assert!(found, "{}: {} instead of {:?}", slot.target, described(body.as_deref()), slot.may_be);
            if let Some(body) = body.filter(|_| settled) {
                for copy in cluster.copies(&slot.target) {
                    assert!(copy.expect(200).body == body, "{}: a copy differs", slot.target);
                }
            }
        }
    }
}
