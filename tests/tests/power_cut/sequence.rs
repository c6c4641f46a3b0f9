//! Short sequences of operations, each on keys of its own, and what these may hold afterwards.

use crate::send::{Outcome, Write};
use kvdb_tests::Cluster;
use kvdb_tests::values::{assert_same, value};
use std::sync::Barrier;

/// In the index.
const SMALL: usize = 1_000;
/// In a file.
const LARGE: usize = 100_001;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    PutSmall,
    PutLarge,
    /// By a value of the other kind; where there is none, by an empty one.
    Overwrite,
    Create,
    Delete,
    PutOther,
}

const STEPS: [Step; 6] = [Step::PutSmall, Step::PutLarge, Step::Overwrite, Step::Create, Step::Delete, Step::PutOther];
const LONGEST: usize = 3;

/// A value by what makes it: length and seed; none: the key does not exist.
type State = Option<(usize, u64)>;

/// A key, and what it may hold: one state, or two after a write in doubt.
struct Slot {
    target: String,
    may_be: Vec<State>,
}

pub struct Sequence {
    steps: Vec<Step>,
    keys: [Slot; 2],
    next_seed: u64,
    acknowledged: u64,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: u64,
    in_doubt: u64,
    of_these_done: u64,
}

/// All of up to three steps, each with its keys.
pub fn all_sequences(prefix: &str) -> Vec<Sequence> {
    let mut found: Vec<Vec<Step>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..LONGEST {
        let longer: Vec<_> = found[from..].iter().flat_map(|s| STEPS.map(|step| [s.as_slice(), &[step]].concat())).collect();
        from = found.len();
        found.extend(longer);
    }
    found.into_iter().skip(1).enumerate().map(|(n, steps)| Sequence::new(steps, prefix, n)).collect()
}

impl Sequence {
    fn new(steps: Vec<Step>, prefix: &str, n: usize) -> Self {
        let slot = |name: &str| Slot { target: format!("/{prefix}/{n}/{name}"), may_be: vec![None] };
        Self { steps, keys: [slot("key"), slot("other")], next_seed: (n as u64 + 1) << 8, acknowledged: 0 }
    }

    /// Takes all steps, the last when all are ready for theirs. `cut`: the power may go during it.
    pub fn run(&mut self, master: &str, before_last: &Barrier, cut: bool) {
        let steps = std::mem::take(&mut self.steps);
        let (last, first) = steps.split_last().unwrap();
        first.iter().for_each(|step| self.take(*step, master, false));
        before_last.wait();
        self.take(*last, master, cut);
        self.steps = steps;
    }

    fn take(&mut self, step: Step, master: &str, cut: bool) {
        self.next_seed += 1;
        let slot = &mut self.keys[usize::from(step == Step::PutOther)];
        let [present] = slot.may_be[..] else { panic!("a write in doubt is the last") };
        let new = match step {
            Step::PutSmall => Some(SMALL),
            Step::PutLarge | Step::PutOther | Step::Create => Some(LARGE),
            Step::Overwrite => Some(present.map_or(0, |(len, _)| if len == LARGE { SMALL } else { LARGE })),
            Step::Delete => None,
        };
        let new = new.map(|len| (len, self.next_seed));
        let method = match step {
            Step::Create => "POST",
            Step::Delete => "DELETE",
            _ => "PUT",
        };
        let outcome = Write { method, target: &slot.target, value: new.map(bytes), relayed: false }.send(master);
        match outcome {
            Outcome::Acknowledged => {
                slot.may_be = vec![new];
                self.acknowledged += 1;
            }
            Outcome::Refused(Some(a)) if method == "POST" && a.status == 409 && present.is_some() => {}
            Outcome::Refused(Some(a)) if method == "DELETE" && a.status == 404 && present.is_none() => {}
            // What a disk without power makes servers say does not count.
            _ if cut => slot.may_be.push(new),
            Outcome::Refused(Some(answer)) => panic!("{method} {}: {answer}", slot.target),
            _ => panic!("{method} {} came to nothing, with all servers up", slot.target),
        }
    }

    /// Everything is up again: each key holds what it may, and will stay so; what was acknowledged is at both volumes.
    pub fn check(&mut self, cluster: &Cluster, tally: &mut Tally) {
        tally.acknowledged += self.acknowledged;
        for slot in &mut self.keys {
            let answer = cluster.get(&slot.target);
            assert!([200, 404].contains(&answer.status), "{}: {answer}", slot.target);
            let body = (answer.status == 200).then_some(answer.body);
            let found = slot.may_be.iter().position(|s| s.map(bytes) == body);
            let found = found.unwrap_or_else(|| {
                let len = body.map(|b| b.len());
                panic!("{} after {:?}: holds {len:?} bytes, where {:?} may be", slot.target, self.steps, slot.may_be)
            });
            if slot.may_be.len() > 1 {
                tally.in_doubt += 1;
                tally.of_these_done += found as u64;
            }
            let known = slot.may_be.len() == 1;
            slot.may_be = vec![slot.may_be[found]];
            if known {
                slot.check_copies(cluster);
            }
        }
    }

    /// Long after: nothing has changed since, and both volumes have it.
    pub fn check_settled(&self, cluster: &Cluster) {
        self.keys.iter().for_each(|slot| slot.check_copies(cluster));
    }
}

impl Slot {
    fn check_copies(&self, cluster: &Cluster) {
        let Some(expected) = self.may_be[0].map(bytes) else {
            cluster.get(&self.target).expect(404);
            return;
        };
        let copies = cluster.copies(&self.target);
        assert_eq!(copies.len(), cluster.volume_count());
        copies.into_iter().for_each(|copy| assert_same(&copy.expect(200).body, &expected, &self.target));
    }
}

fn bytes((len, seed): (usize, u64)) -> Vec<u8> {
    value(len, seed)
}
