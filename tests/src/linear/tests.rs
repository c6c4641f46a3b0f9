//! Histories that are linearizable, and such that are not, each for one reason.

use super::*;
use Answer::{Deleted, Found, Nothing, Refused, Unknown, Written};
use Call::{Delete, Read, Write};
use Condition::{Absent, Always, Is};

fn op(from: u64, until: u64, call: Call, answer: Answer) -> Operation {
    Operation { client: 0, call, answer, from, until }
}

const CREATED: Answer = Written(Some(true));
const REPLACED: Answer = Written(Some(false));

#[track_caller]
fn fits(history: &[Operation]) {
    assert_eq!(check(history), Ok(()));
}

/// There is no order, and the shrunk history has none either, and still has the operations that show it.
#[track_caller]
fn fits_not(history: &[Operation], shows: &[usize]) {
    assert!(check(history).is_err());
    let small = witness::shrink(history);
    assert!(check(&small).is_err());
    for at in shows {
        assert!(small.contains(&history[*at]), "{} is not in\n{}", history[*at], witness::describe(&small));
    }
}

#[test]
fn one_operation_after_another_fits() {
    fits(&[]);
    fits(&[
        op(0, 1, Read, Found(None)),
        op(2, 3, Write(1, Always), CREATED),
        op(4, 5, Write(2, Absent), Refused),
        op(6, 7, Write(3, Is(2)), Refused),
        op(8, 9, Write(3, Is(1)), REPLACED),
        op(10, 11, Read, Found(Some(3))),
        op(12, 13, Delete(Is(1)), Refused),
        op(14, 15, Delete(Always), Deleted(Some(3))),
        op(16, 17, Delete(Always), Nothing),
        op(18, 19, Delete(Is(3)), Refused),
        op(20, 21, Write(4, Absent), CREATED),
    ]);
}

#[test]
fn at_the_same_time_reads_may_see_either_but_none_the_old_after_the_new() {
    let both = [
        op(0, 1, Write(1, Always), CREATED),
        op(2, 20, Write(2, Always), REPLACED),
        op(3, 5, Read, Found(Some(1))),
        op(6, 8, Read, Found(Some(2))),
    ];
    fits(&both);
    let mut back = both.to_vec();
    back.push(op(9, 11, Read, Found(Some(1))));
    fits_not(&back, &[3, 4]);
}

/// An order was once not found because the value of the second write, which nobody saw, was taken for that of the first.
#[test]
fn a_write_under_way_may_come_late_also_when_nobody_saw_its_value_or_the_one_before() {
    fits(&[
        op(0, 1, Write(1, Always), CREATED),
        op(2, 20, Write(2, Always), REPLACED),
        op(3, 4, Write(3, Always), REPLACED),
        op(5, 6, Write(9, Is(3)), Refused),
    ]);
}

#[test]
fn a_stale_read_is_found() {
    fits_not(&[op(0, 1, Write(1, Always), CREATED), op(2, 3, Write(2, Always), REPLACED), op(4, 5, Read, Found(Some(1)))], &[1, 2]);
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    fits_not(&[op(0, 1, Write(1, Always), CREATED), op(2, 3, Read, Found(None))], &[0, 1]);
}

#[test]
fn a_lost_update_is_found() {
    let (first, second) = (op(2, 9, Write(2, Is(1)), REPLACED), op(3, 8, Write(3, Is(1)), REPLACED));
    fits_not(&[op(0, 1, Write(1, Always), CREATED), first, second], &[1, 2]);
    fits(&[op(0, 1, Write(1, Always), CREATED), first, op(3, 8, Write(3, Is(1)), Refused)]);
}

#[test]
fn a_key_that_is_created_twice_is_found() {
    fits_not(&[op(0, 9, Write(1, Absent), CREATED), op(0, 9, Write(2, Absent), CREATED)], &[0, 1]);
    fits_not(&[op(0, 9, Write(1, Always), CREATED), op(0, 9, Write(2, Always), CREATED)], &[0, 1]);
    fits(&[op(0, 9, Write(1, Absent), CREATED), op(0, 9, Delete(Always), Deleted(Some(1))), op(0, 9, Write(2, Absent), CREATED)]);
}

#[test]
fn a_deleted_value_that_comes_back_is_found() {
    fits_not(&[op(0, 1, Write(1, Always), CREATED), op(2, 3, Delete(Always), Deleted(Some(1))), op(4, 5, Read, Found(Some(1)))], &[1, 2]);
    fits_not(
        &[op(0, 1, Write(1, Always), CREATED), op(2, 9, Delete(Always), Deleted(Some(1))), op(2, 9, Delete(Always), Deleted(Some(1)))],
        &[1, 2],
    );
}

#[test]
fn a_value_that_nobody_wrote_or_that_was_refused_is_found_when_read() {
    fits_not(&[op(0, 1, Read, Found(Some(7)))], &[0]);
    // Told to have been refused for good, so it is not among the operations; and read all the same.
    fits_not(&[op(0, 1, Write(1, Always), CREATED), op(2, 3, Write(2, Absent), Refused), op(4, 5, Read, Found(Some(2)))], &[2]);
    // Read before it was sent.
    fits_not(&[op(0, 1, Read, Found(Some(1))), op(2, 3, Write(1, Always), CREATED)], &[0]);
}

#[test]
fn an_unknown_outcome_may_take_effect_late_or_never_but_once() {
    let (one, lost) = (op(0, 1, Write(1, Always), CREATED), op(2, 0, Write(2, Always), Unknown));
    fits(&[one, lost, op(50, 51, Read, Found(Some(1))), op(60, 61, Read, Found(Some(2))), op(70, 71, Read, Found(Some(2)))]);
    fits(&[one, lost, op(50, 51, Read, Found(Some(1)))]);
    fits_not(&[one, lost, op(50, 51, Read, Found(Some(2))), op(60, 61, Read, Found(Some(1)))], &[2, 3]);
    let again = op(60, 61, Write(3, Always), REPLACED);
    fits_not(&[one, lost, op(50, 51, Read, Found(Some(2))), again, op(70, 71, Read, Found(Some(2)))], &[3, 4]);
    fits_not(&[lost, op(0, 1, Read, Found(Some(2)))], &[1]);
    let lost = op(2, 0, Delete(Always), Unknown);
    fits(&[one, lost, op(3, 4, Read, Found(Some(1))), op(5, 6, Read, Found(None))]);
    let anew = op(60, 61, Write(3, Always), CREATED);
    fits_not(&[one, lost, op(5, 6, Read, Found(None)), anew, op(70, 71, Read, Found(None))], &[4]);
    // One lost delete cannot make room for two creates, but two can.
    let creates = [op(10, 11, Write(4, Absent), CREATED), op(12, 13, Write(5, Absent), CREATED)];
    fits_not(&[one, lost, creates[0], creates[1]], &[2, 3]);
    fits(&[one, lost, lost, creates[0], creates[1]]);
}

#[test]
fn a_conditional_write_of_unknown_outcome_needs_its_condition() {
    let (one, lost) = (op(0, 1, Write(1, Always), CREATED), op(2, 0, Write(2, Is(1)), Unknown));
    fits(&[one, lost, op(3, 4, Read, Found(Some(2)))]);
    fits_not(&[one, op(1, 2, Write(3, Always), REPLACED), lost, op(3, 4, Read, Found(Some(2)))], &[3]);
}

/// What callers of a register see of it, about eight at once; some never learn what became of their calls.
fn recorded(calls: u64, seed: u64) -> Vec<Operation> {
    let mut random = crate::values::value(8 * usize::try_from(calls).unwrap(), seed).into_iter();
    let mut next = || u64::from(random.next().unwrap());
    let (mut register, mut last_read, mut history) = (None, 0, Vec::new());
    for new in 1..=calls {
        let condition = match (next() % 4, register) {
            (0, _) => Absent,
            (1, Some(v)) => Is(v),
            (2, _) if last_read > 0 => Is(last_read),
            _ => Always,
        };
        let holds = match condition {
            Always => true,
            Absent => register.is_none(),
            Is(v) => register == Some(v),
        };
        let (call, mut answer) = match next() % 3 {
            0 => {
                last_read = register.unwrap_or_default();
                (Read, Found(register))
            }
            1 if register.is_none() => (Delete(condition), Nothing),
            1 if holds => (Delete(condition), Deleted(register.take())),
            1 => (Delete(condition), Refused),
            _ if holds => (Write(new, condition), Written(Some(register.replace(new).is_none()))),
            _ => (Write(new, condition), Refused),
        };
        if next() < 3 && call != Read {
            answer = Unknown;
        }
        // It took effect in between.
        let at = 1_000 + 64 * new;
        history.push(op(at - next(), at + next(), call, answer));
    }
    history
}

#[test]
fn a_long_history_of_a_register_fits_and_one_false_read_in_it_is_found() {
    let mut history = recorded(4_000, 7);
    fits(&history);
    assert!(history.iter().filter(|o| o.answer == Unknown).count() > 10);
    // A read of what was read long before, and replaced since.
    let found = |o: &Operation| if let Found(Some(v)) = o.answer { Some(v) } else { None };
    let old = history[..2_000].iter().find_map(found).unwrap();
    let at = 2_000 + history[2_000..].iter().position(|o| found(o).is_some_and(|v| v != old)).unwrap();
    history[at].answer = Found(Some(old));
    assert!(check(&history).is_err());
    let small = witness::shrink(&history);
    assert!(check(&small).is_err());
    let told = witness::describe(&small);
    assert!(told.lines().count() < 40, "{told}");
}
