//! The explorations: small ones for every run of the tests, larger ones for a long run.

use crate::bounds::{Bounds, Flaw, Op};

const FORTH: [u8; 2] = [0, 1];
const BACK: [u8; 2] = [1, 0];

/// A value at volumes 0 and 1, and a third volume.
fn placed(name: &'static str) -> Bounds {
    Bounds { volumes: 3, begin_with_value: true, ..Bounds::none(name) }
}

/// Explorations of some seconds in all.
pub fn small() -> Vec<Bounds> {
    vec![
        Bounds { volume_kills: 1, ..Bounds::none("create and replace, a volume is killed") }
            .write(Op::Create, FORTH)
            .write(Op::Replace, BACK),
        Bounds { master_crashes: 1, timeouts: 1, ..Bounds::none("create, the master is killed") }.write(Op::Create, FORTH),
        Bounds { retries: 1, begin_with_value: true, ..Bounds::none("delete and create, asked twice") }
            .write(Op::Delete, FORTH)
            .write(Op::Create, FORTH),
        Bounds { readers: 1, begin_with_value: true, ..Bounds::none("read and replace") }.write(Op::Replace, FORTH),
        Bounds { power_cuts: 1, begin_with_value: true, ..Bounds::none("replace, the power is cut") }.write(Op::Replace, FORTH),
        Bounds { early_questions: 2, begin_with_value: true, ..Bounds::none("replace, a volume's clock is ahead") }
            .write(Op::Replace, FORTH),
        Bounds { reuses: 1, volume_kills: 1, ticks: 2, ..Bounds::none("a ticket is used twice") }
            .write(Op::Create, FORTH)
            .write(Op::Delete, FORTH),
        Bounds { repairs: 2, volume_kills: 1, timeouts: 1, ..placed("two repairs, a target is killed, a call is late") },
        Bounds { repairs: 2, bad_copies: 1, master_crashes: 1, ..placed("two repairs of a bad copy, the master is killed") },
        Bounds { repairs: 1, ..placed("repair and delete") }.write(Op::Delete, FORTH),
        Bounds { repairs: 1, ticks: 1, commit_within: 0, ..placed("repair and replace") }.write(Op::Replace, FORTH),
    ]
}

/// Explorations of minutes to hours.
pub fn large() -> Vec<Bounds> {
    vec![
        Bounds { volume_kills: 1, master_crashes: 1, readers: 1, ..Bounds::none("create and replace, both are killed, a reader") }
            .write(Op::Create, FORTH)
            .write(Op::Replace, BACK),
        Bounds { repairs: 2, volume_kills: 1, timeouts: 1, master_crashes: 1, ..placed("two repairs and a delete") }
            .write(Op::Delete, FORTH),
        Bounds { repairs: 3, volume_kills: 1, timeouts: 2, bad_copies: 1, ticks: 3, ..placed("three repairs") },
        Bounds { repairs: 2, power_cuts: 1, timeouts: 1, ..placed("two repairs and a replace, the power is cut") }
            .write(Op::Replace, FORTH),
        Bounds { reuses: 1, volume_kills: 1, begin_with_value: true, ..Bounds::none("a ticket is used twice, two replaces") }
            .write(Op::Replace, FORTH)
            .write(Op::Replace, FORTH),
    ]
}

/// Each flaw, where it shows.
pub fn flawed() -> Vec<Bounds> {
    let replaced = |name| Bounds { begin_with_value: true, ..Bounds::none(name) }.write(Op::Replace, FORTH);
    vec![
        Bounds { master_crashes: 1, ..Bounds::none("") }.write(Op::Create, FORTH).with(Flaw::AnswerBeforeDurable),
        Bounds { early_questions: 1, timeouts: 1, ..Bounds::none("") }.write(Op::Create, FORTH).with(Flaw::DropWhileOpen),
        Bounds { volume_kills: 1, ..Bounds::none("") }.write(Op::Create, FORTH).with(Flaw::DropUnasked),
        Bounds { repairs: 1, ticks: 1, commit_within: 0, ..placed("") }.write(Op::Replace, FORTH).with(Flaw::NoCompareOfVersion),
        Bounds { repairs: 2, ..placed("") }.with(Flaw::NoCompareOfReplicas),
        Bounds { master_crashes: 1, ..replaced("") }.with(Flaw::ReclaimInLaterBatch),
        Bounds { readers: 1, ..replaced("") }.with(Flaw::ServePrepared),
        Bounds { timeouts: 1, ..Bounds::none("") }.write(Op::Create, FORTH).with(Flaw::LateTicket).with_late_commits(),
        Bounds { retries: 1, begin_with_value: true, ..Bounds::none("") }
            .write(Op::Delete, FORTH)
            .write(Op::Create, FORTH)
            .with(Flaw::ForgetRefusal),
        Bounds { repairs: 2, ..placed("") }.with(Flaw::TargetWhileReclaimed),
        Bounds { repairs: 2, timeouts: 1, ..placed("") }.with(Flaw::LateRemovalApplied),
        Bounds { repairs: 2, timeouts: 1, ..placed("") }.with(Flaw::LateSettleByClock),
        Bounds { repairs: 3, timeouts: 1, ticks: 1, ..placed("") }.with(Flaw::LateKeepApplied),
        Bounds { reuses: 1, volume_kills: 1, ..Bounds::none("") }
            .write(Op::Create, FORTH)
            .write(Op::Replace, FORTH)
            .with(Flaw::MarkSuperseded),
        Bounds { begin_with_value: true, ..Bounds::none("") }.write(Op::Delete, FORTH).with(Flaw::NoTombstone),
        Bounds { retries: 1, commit_within: 3, ticks: 4, ..Bounds::none("") }
            .write(Op::Create, FORTH)
            .write(Op::Replace, FORTH)
            .with(Flaw::CommitsLongAfter),
        Bounds { repairs: 1, volume_kills: 1, volumes: 3, ticks: 1, commit_within: 0, ..Bounds::none("") }
            .write(Op::Create, FORTH)
            .with(Flaw::WholeByFirstList),
        Bounds { repairs: 3, ..placed("") }.with(Flaw::TwoRepairsAtOnce),
    ]
}
