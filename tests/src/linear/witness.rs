//! The few operations of a long history that show that there is no order.

use super::checker::check;
use super::history::{Answer, Call, Condition, Operation, Value};
use std::collections::HashSet;

/// Makes a history smaller and keeps that there is no order: leaves out what changes nothing, and takes other outcomes for
/// unknown, without a condition. Both forbid less, so what remains is a violation in itself.
pub fn shrink(history: &[Operation]) -> Vec<Operation> {
    let mut kept = history.to_vec();
    kept.sort_by_key(|o| o.from);
    let mut step = kept.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < kept.len() {
            let smaller: Vec<Operation> =
                kept.iter().enumerate().filter_map(|(i, o)| if (at..at + step).contains(&i) { weaker(o) } else { Some(*o) }).collect();
            if smaller != kept && check(&smaller).is_err() {
                at += step - (kept.len() - smaller.len()).min(step);
                kept = smaller;
            } else {
                at += step;
            }
        }
        step /= 2;
    }
    kept
}

fn weaker(op: &Operation) -> Option<Operation> {
    let call = match (op.call, op.answer) {
        (Call::Read, _) | (_, Answer::Refused | Answer::Nothing) => return None,
        (Call::Write(v, _), _) => Call::Write(v, Condition::Always),
        (Call::Delete(_), _) => Call::Delete(Condition::Always),
    };
    Some(Operation { call, answer: Answer::Unknown, ..*op })
}

/// A small history for people: in the order of calls, without the writes of unknown outcome whose values nobody saw.
pub fn describe(history: &[Operation]) -> String {
    let seen: HashSet<Value> = history.iter().flat_map(Operation::saw).collect();
    let matters = |o: &&Operation| o.answer != Answer::Unknown || matches!(o.call, Call::Write(v, _) if seen.contains(&v));
    let mut shown: Vec<&Operation> = history.iter().filter(matters).collect();
    shown.sort_by_key(|o| o.from);
    let lines: Vec<String> = shown.iter().map(ToString::to_string).collect();
    format!("{}\n(and {} writes of which nothing must be assumed)", lines.join("\n"), history.len() - shown.len())
}
