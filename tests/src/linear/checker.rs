//! The search for an order: an operation takes effect at one moment between its call and its answer, and sees what those
//! before it left.
//!
//! Calls and answers are gone through in the order of time, with all that may be the case so far: a value, and which
//! of the operations under way have taken effect (Lowe, "Testing for linearizability", 2017: just-in-time). Before an answer is
//! passed its operation must have taken effect, if need be after others that are under way. When nothing remains that may be the
//! case, there is no order.
//!
//! What keeps the search small, and changes nothing of its result:
//! - what changes nothing (reads, refusals) takes effect as soon as it fits;
//! - values that nobody saw are one and the same, "some value";
//! - operations of unknown outcome that do the same thing stand for each other, so they are counted, not named;
//! - they take effect only just before something for which that is needed;
//! - a value that must still be seen is not left, since no other write brings it back;
//! - a case with the same value in which fewer of these were used up allows whatever the other allows, so the other is dropped.

use super::history::{Answer, Call, Condition, Operation, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Operations with a known answer that may be under way at once.
const MAX_OPEN: usize = 128;
/// A search that is wider than this has failed, without a result.
const MAX_CASES: usize = 100_000;

/// There is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The operation (its place in the history) that can have taken effect at no moment.
    pub at: usize,
}

/// What may be the case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Case {
    value: Option<Value>,
    /// Operations under way that have taken effect, one bit each.
    done: u128,
    /// How many of each kind of unknown outcome were used.
    used: BTreeMap<Call, u32>,
}

impl Case {
    /// Whether it allows whatever `other` allows.
    fn covers(&self, other: &Self) -> bool {
        self.value == other.value
            && self.done == other.done
            && self.used.iter().all(|(call, n)| other.used.get(call).is_some_and(|m| m >= n))
    }
}

/// What the register does: the value after it, or none where it cannot do this now.
fn effect(value: Option<Value>, call: Call, answer: Answer) -> Option<Option<Value>> {
    let holds = |condition| match condition {
        Condition::Always => true,
        Condition::Absent => value.is_none(),
        Condition::Is(v) => value == Some(v),
    };
    match (call, answer) {
        (Call::Read, Answer::Found(found)) => (found == value).then_some(value),
        (Call::Write(new, c), Answer::Written(created)) => (holds(c) && created.is_none_or(|c| c == value.is_none())).then_some(Some(new)),
        (Call::Write(new, c), Answer::Unknown) => holds(c).then_some(Some(new)),
        (Call::Delete(c), Answer::Deleted(removed)) => {
            (value.is_some() && holds(c) && removed.is_none_or(|r| value == Some(r))).then_some(None)
        }
        (Call::Delete(c), Answer::Unknown) => (value.is_some() && holds(c)).then_some(None),
        (Call::Delete(Condition::Always), Answer::Gone) => Some(None),
        (Call::Delete(_), Answer::Nothing) => value.is_none().then_some(value),
        (Call::Write(_, c) | Call::Delete(c), Answer::Refused) => (!holds(c)).then_some(value),
        // No server answers so; it fits nowhere.
        _ => None,
    }
}

/// The same call under the one condition that holds now. To use it up is better than to use up one that can do more.
fn conditional(value: Option<Value>, call: Call) -> Option<Call> {
    let condition = value.map_or(Condition::Absent, Condition::Is);
    match call {
        Call::Write(new, Condition::Always) => Some(Call::Write(new, condition)),
        Call::Delete(Condition::Always) => Some(Call::Delete(condition)),
        _ => None,
    }
}

/// The value that its condition names.
fn named(call: Call) -> Option<Value> {
    match call {
        Call::Write(_, Condition::Is(v)) | Call::Delete(Condition::Is(v)) => Some(v),
        _ => None,
    }
}

/// The operations under way.
struct Open<'a> {
    history: &'a [Operation],
    /// Those with a known answer, by their bit.
    known: Vec<Option<usize>>,
    unknown: BTreeMap<Call, u32>,
    /// How many operations that are not answered yet, or not even called, must find each value.
    to_see: HashMap<Value, u32>,
}

/// The value that must be there for this operation to have had its answer.
fn must_see(op: &Operation) -> Option<Value> {
    match (op.call, op.answer) {
        (_, Answer::Found(v)) | (Call::Delete(Condition::Always), Answer::Deleted(v)) => v,
        (Call::Write(_, Condition::Is(v)), Answer::Written(_)) | (Call::Delete(Condition::Is(v)), Answer::Deleted(_)) => Some(v),
        _ => None,
    }
}

impl Open<'_> {
    fn known(&self) -> impl Iterator<Item = (usize, Operation)> {
        self.known.iter().enumerate().filter_map(|(bit, at)| Some((bit, self.history[(*at)?])))
    }

    /// Lets all that changes nothing take effect where it fits.
    fn settle(&self, case: &mut Case) {
        // What needed a value that is gone for good can take effect no more, used up or not.
        let value = case.value;
        case.used.retain(|call, _| named(*call).is_none_or(|v| Some(v) == value));
        for (bit, op) in self.known() {
            // A write of what is there already is none of these: it may be needed later.
            let only_looks = matches!(op.answer, Answer::Found(_) | Answer::Nothing | Answer::Refused);
            if only_looks && effect(case.value, op.call, op.answer).is_some() {
                case.done |= 1 << bit;
            }
        }
    }

    /// What may be the case after one more operation under way has taken effect.
    fn next(&self, case: &Case) -> Vec<Case> {
        let mut next = Vec::new();
        for (bit, op) in self.known().filter(|(bit, _)| case.done & (1 << bit) == 0) {
            if let Some(value) = effect(case.value, op.call, op.answer) {
                next.push(Case { value, done: case.done | (1 << bit), used: case.used.clone() });
            }
        }
        for call in self.unknown.keys().filter(|call| self.is_left(case, call)) {
            let value = effect(case.value, *call, Answer::Unknown);
            let needed = value
                .filter(|v| self.is_of_use(case, *v))
                .filter(|_| !conditional(case.value, *call).is_some_and(|c| self.is_left(case, &c)));
            if let Some(value) = needed {
                let mut case = Case { value, done: case.done, used: case.used.clone() };
                *case.used.entry(*call).or_default() += 1;
                next.push(case);
            }
        }
        next.retain(|c| c.value == case.value || !self.leaves_too_early(case.value, c));
        next.iter_mut().for_each(|c| self.settle(c));
        next
    }

    /// Whether the value before this case must still be seen by others than those that have seen it.
    fn leaves_too_early(&self, before: Option<Value>, case: &Case) -> bool {
        let Some((value, to_see)) = before.and_then(|v| Some((v, *self.to_see.get(&v)?))) else { return false };
        let saw = self.known().filter(|(bit, op)| case.done & (1 << bit) != 0 && must_see(op) == Some(value));
        u32::try_from(saw.count()).is_ok_and(|saw| saw < to_see)
    }

    /// Whether one of this kind of unknown outcome is not used up.
    fn is_left(&self, case: &Case, call: &Call) -> bool {
        self.unknown.get(call).is_some_and(|n| case.used.get(call).is_none_or(|used| used < n))
    }

    /// Whether something under way can take effect at this value that cannot at the present one. If not, what leads to it
    /// may as well happen later, since its outcome is never told.
    fn is_of_use(&self, case: &Case, value: Option<Value>) -> bool {
        let newly = |call, answer| effect(value, call, answer).is_some() && effect(case.value, call, answer).is_none();
        self.known().any(|(bit, op)| case.done & (1 << bit) == 0 && newly(op.call, op.answer))
            || self.unknown.keys().any(|call| newly(*call, Answer::Unknown))
    }

    /// What may be the case once this operation has taken effect, and as little else as needed.
    fn after(&self, cases: Vec<Case>, bit: usize) -> Vec<Case> {
        let (mut seen, mut done) = (Cases::default(), Cases::default());
        let mut to_do: Vec<Case> = cases;
        while !to_do.is_empty() {
            let mut further = Vec::new();
            for mut case in to_do {
                self.settle(&mut case);
                if !seen.add(&case) {
                    continue;
                }
                if case.done & (1 << bit) == 0 {
                    further.extend(self.next(&case));
                } else {
                    case.done &= !(1 << bit);
                    done.add(&case);
                }
            }
            // Those that used up less come first, so that they cover the others.
            further.sort_by_key(|c| c.used.values().sum::<u32>());
            to_do = further;
        }
        done.all()
    }
}

/// Cases none of which covers another.
#[derive(Default)]
struct Cases(HashMap<(Option<Value>, u128), Vec<Case>>, usize);

impl Cases {
    /// Whether it was not covered yet.
    fn add(&mut self, case: &Case) -> bool {
        let same = self.0.entry((case.value, case.done)).or_default();
        if same.iter().any(|c| c.covers(case)) {
            return false;
        }
        same.retain(|c| !case.covers(c));
        same.push(case.clone());
        self.1 += 1;
        assert!(self.1 < MAX_CASES, "the search is too wide: too many operations at once, or of unknown outcome");
        true
    }

    fn all(self) -> Vec<Case> {
        self.0.into_values().flatten().collect()
    }
}

/// Looks for an order of these operations on one key, which does not exist at first.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let history = &nameless(history);
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (at, op) in history.iter().enumerate() {
        // Of equal times calls come first: that forbids less.
        events.push((op.from, false, at));
        if op.answer != Answer::Unknown {
            events.push((op.until, true, at));
        }
    }
    events.sort_unstable();
    let mut open = Open { history, known: Vec::new(), unknown: BTreeMap::new(), to_see: HashMap::new() };
    for value in history.iter().filter_map(must_see) {
        *open.to_see.entry(value).or_default() += 1;
    }
    let mut cases = vec![Case { value: None, done: 0, used: BTreeMap::new() }];
    for (_, ends, at) in events {
        let op = &history[at];
        if ends {
            let bit = open.known.iter().position(|k| *k == Some(at)).expect("it was called before");
            cases = open.after(cases, bit);
            open.known[bit] = None;
            must_see(op).and_then(|v| open.to_see.get_mut(&v)).into_iter().for_each(|n| *n -= 1);
            if cases.is_empty() {
                return Err(Violation { at });
            }
        } else if op.answer == Answer::Unknown {
            *open.unknown.entry(op.call).or_default() += 1;
        } else {
            let free = open.known.iter().position(Option::is_none).unwrap_or(open.known.len());
            assert!(free < MAX_OPEN, "more than {MAX_OPEN} operations at once");
            if free == open.known.len() {
                open.known.push(None);
            }
            open.known[free] = Some(at);
        }
    }
    Ok(())
}

/// The same history, but values that nobody saw are all called by the name of the first of them.
fn nameless(history: &[Operation]) -> Vec<Operation> {
    let seen: HashSet<Value> = history.iter().flat_map(Operation::saw).collect();
    let written: BTreeSet<Value> = history.iter().filter_map(|o| if let Call::Write(v, _) = o.call { Some(v) } else { None }).collect();
    let some_value = written.iter().find(|v| !seen.contains(v)).copied();
    let renamed = |op: &Operation| match op.call {
        Call::Write(v, c) if !seen.contains(&v) => Operation { call: Call::Write(some_value.unwrap_or(v), c), ..*op },
        _ => *op,
    };
    history.iter().map(renamed).collect()
}
