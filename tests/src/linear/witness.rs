//! The few operations of a long history that show that there is no order.

use super::checker::check;
use super::history::{Answer, Call, Condition, Operation, Value};
use std::collections::HashSet;

/// Makes a history smaller and keeps that there is no order: leaves out what changes nothing, then takes other outcomes for
/// unknown, without a condition. Both forbid less, so what remains is a violation in itself.
pub fn shrink(history: &[Operation]) -> Vec<Operation> {
    let mut kept = history.to_vec();
    kept.sort_by_key(|o| o.from);
    kept.truncate(shortest_beginning(&kept));
    reduce(&mut kept, |o| if changes_nothing(o) { None } else { Some(*o) });
    reduce(&mut kept, |o| if changes_nothing(o) { Some(*o) } else { Some(weaker(o)) });
    kept
}

/// How many of the first operations have no order already.
fn shortest_beginning(history: &[Operation]) -> usize {
    let (mut fits, mut fits_not) = (0, history.len());
    while fits + 1 < fits_not {
        let middle = fits.midpoint(fits_not);
        match check(&history[..middle]) {
            Ok(()) => fits = middle,
            Err(_) => fits_not = middle,
        }
    }
    fits_not
}

/// Does this to as many operations as it can be done to, many at a time at first.
fn reduce(kept: &mut Vec<Operation>, change: impl Fn(&Operation) -> Option<Operation>) {
    let mut step = kept.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < kept.len() {
            let changed = |(i, o): (usize, &Operation)| if (at..at + step).contains(&i) { change(o) } else { Some(*o) };
            let smaller: Vec<Operation> = kept.iter().enumerate().filter_map(changed).collect();
            if smaller != *kept && check(&smaller).is_err() {
                at += step - (kept.len() - smaller.len()).min(step);
                *kept = smaller;
            } else {
                at += step;
            }
        }
        step /= 2;
    }
}

fn changes_nothing(op: &Operation) -> bool {
    op.call == Call::Read || matches!(op.answer, Answer::Refused | Answer::Nothing)
}

fn weaker(op: &Operation) -> Operation {
    let call = match op.call {
        Call::Write(v, _) => Call::Write(v, Condition::Always),
        _ => Call::Delete(Condition::Always),
    };
    Operation { call, answer: Answer::Unknown, ..*op }
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
