//! How much may happen in one exploration, and which deliberate flaw the model has.

use crate::state::{VOLUMES, WRITES};

/// What a write does. One key is enough: commits of different keys share nothing but the committer's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `POST`: only if there is no value.
    Create,
    /// `PUT`.
    Replace,
    /// `DELETE`.
    Delete,
}

/// One write of a client.
#[derive(Clone, Copy, Debug)]
pub struct WriteSpec {
    /// What it does.
    pub op: Op,
    /// Its chain of volumes; a delete may go to any replica.
    pub chain: [u8; 2],
}

/// A step that breaks the protocol on purpose: the checker must find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A commit is answered before its batch is durable.
    AnswerBeforeDurable,
    /// `settle` says drop although the version may still be committed.
    DropWhileOpen,
    /// A volume drops a prepared copy when its time is over, without asking.
    DropUnasked,
    /// `set_replicas` does not look at the version.
    NoCompareOfVersion,
    /// `set_replicas` does not look at the replicas, and two repairs may be at work at once.
    NoCompareOfReplicas,
    /// Reclaim entries become durable after the record, not with it.
    ReclaimInLaterBatch,
    /// A volume serves its newest copy, committed or not.
    ServePrepared,
    /// A commit after `commit_by` is taken.
    LateTicket,
    /// A refusal is not remembered.
    ForgetRefusal,
    /// A volume that has still to remove its copy may become a target.
    TargetWhileReclaimed,
    /// A late removal is applied to a copy that was fetched since it was sent.
    LateRemovalApplied,
    /// A late answer to `settle` is judged by the clock, not by what was fetched since it was asked.
    LateSettleByClock,
    /// A late `keep` is applied to a copy that was fetched since it was sent.
    LateKeepApplied,
    /// A volume marks a copy as committed although its commit is no longer what the record says.
    MarkSuperseded,
    /// A delete leaves no tombstone.
    NoTombstone,
    /// Decisions are forgotten after a while, and calls for a commit may arrive still later.
    CommitsLongAfter,
    /// A rebuild takes a version for whole by the list of the first copy it meets, though the version was moved since.
    WholeByFirstList,
    /// Two repairs of a version are at work at the same time: not a flaw of a step, but of who orders them.
    TwoRepairsAtOnce,
}

impl Flaw {
    /// All.
    pub const ALL: [Self; 18] = [
        Self::AnswerBeforeDurable,
        Self::DropWhileOpen,
        Self::DropUnasked,
        Self::NoCompareOfVersion,
        Self::NoCompareOfReplicas,
        Self::ReclaimInLaterBatch,
        Self::ServePrepared,
        Self::LateTicket,
        Self::ForgetRefusal,
        Self::TargetWhileReclaimed,
        Self::LateRemovalApplied,
        Self::LateSettleByClock,
        Self::LateKeepApplied,
        Self::MarkSuperseded,
        Self::NoTombstone,
        Self::CommitsLongAfter,
        Self::WholeByFirstList,
        Self::TwoRepairsAtOnce,
    ];
}

/// Budgets of an exploration: all that is within them is tried.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// A name for reports.
    pub name: &'static str,
    /// Volumes, at most [`VOLUMES`].
    pub volumes: u8,
    /// Whether version 0 is committed at volumes 0 and 1 in the beginning.
    pub begin_with_value: bool,
    /// The clients' writes, at most [`WRITES`], less one where there is a value in the beginning.
    pub writes: Vec<WriteSpec>,
    /// Readers, each reads once.
    pub readers: u8,
    /// Times that the clock moves on.
    pub ticks: u8,
    /// Ticks from the issue of a ticket to its `commit_by`.
    pub commit_within: u8,
    /// Kills of the master.
    pub master_crashes: u8,
    /// Kills of volumes.
    pub volume_kills: u8,
    /// Power cuts of volumes: what was not synced goes, what was unlinked comes back.
    pub power_cuts: u8,
    /// Calls that their caller gives up, while they may still arrive.
    pub timeouts: u8,
    /// Commits that are asked for once more.
    pub retries: u8,
    /// Tickets that are used once more.
    pub reuses: u8,
    /// Orders of a copy: repair, drain and rebalance are this to the protocol.
    pub repairs: u8,
    /// Copies that are found bad and put aside.
    pub bad_copies: u8,
    /// Questions that a volume asks too early, because its clock is ahead.
    pub early_questions: u8,
    /// Whether calls for a commit may arrive however late.
    pub late_commits: bool,
    /// The flaw, if any.
    pub flaw: Option<Flaw>,
}

impl Bounds {
    /// Nothing but an empty cluster of two volumes.
    pub fn none(name: &'static str) -> Self {
        Self {
            name,
            volumes: 2,
            begin_with_value: false,
            writes: Vec::new(),
            readers: 0,
            ticks: 2,
            commit_within: 1,
            master_crashes: 0,
            volume_kills: 0,
            power_cuts: 0,
            timeouts: 0,
            retries: 0,
            reuses: 0,
            repairs: 0,
            bad_copies: 0,
            early_questions: 0,
            late_commits: false,
            flaw: None,
        }
    }

    /// Adds a write through the chain of volumes 0 and 1, or where a value is replaced, as given.
    #[must_use]
    pub fn write(mut self, op: Op, chain: [u8; 2]) -> Self {
        self.writes.push(WriteSpec { op, chain });
        assert!(self.first_write() + self.writes.len() <= WRITES && usize::from(self.volumes) <= VOLUMES);
        self
    }

    /// The same with a flaw.
    #[must_use]
    pub fn with(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }

    /// The same with calls for a commit that arrive late.
    #[must_use]
    pub fn with_late_commits(self) -> Self {
        Self { late_commits: true, ..self }
    }

    /// The number of the clients' first write, which is its version too.
    pub fn first_write(&self) -> usize {
        usize::from(self.begin_with_value)
    }

    /// Whether the model has this flaw.
    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}
