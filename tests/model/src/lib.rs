//! A model of kvDB's protocol: commits, settling, removals, repair and rebuild. A checker (stateright) tries
//! every order of events within given bounds, and reports the shortest way to anything wrong.
//!
//! # What is modelled
//! One key, up to three volumes with two replicas, up to four versions. The steps are those of the code and have
//! its names: [`master`] is `catalog/decide.rs` and `catalog/placing.rs`; `volume` is the store, its index and the fetch
//! log; `deliver` and `step` are the volumes' `put`, `chain`, `commit`, `delete`, `fetch` and `peer_calls`, and the master's
//! `reclaim` and `repair`; `rebuild` is the merge of `rebuild.rs`.
//! - Messages may be overtaken by any others, and arrive after their caller has given up. Only a dead process's
//!   connections protect from them.
//! - The master, and each volume, may be killed between any two steps: memory goes, disks stay. A power cut of a volume
//!   also takes what was not synced (the mark of a commit), and brings back what was unlinked.
//! - Time is a small number; a step of it is longer than any patience, shorter than a ticket's life.
//! - A repair moves a copy to another volume or makes one anew, at any moment, whether or not there is need.
//!
//! # What is left out, and why
//! - Bytes, lengths and hashes: a version's copies are alike or put aside as bad; tests of damage do the rest.
//! - The batch: the committer decides one operation after the other and answers when all are durable, so one at a time
//!   shows all orders. The flaw [`bounds::Flaw::AnswerBeforeDurable`] shows what that is worth.
//! - Preconditions other than create-only, and expiry: both are looked at in the same step as create-only.
//! - A delete by the master alone, with no replica up: it leaves no tombstone until the volumes are back, so a rebuild
//!   in between cannot know of it.
//! - Two messages with the same time to the millisecond: stamps are distinct.
//! - Forgetting a volume's removals when it is taken out of the cluster.
//!
//! # How to read a finding
//! A test prints the actions that lead to it, one a line. [`bounds::Flaw`] lists deliberate flaws; for each there is a test
//! that the checker finds it, so that a model that sees nothing is noticed.

// The fields of actions, messages and states say by their names what they are.
#[allow(missing_docs)]
pub mod action;
pub mod bounds;
mod canon;
mod deliver;
mod fault;
pub mod master;
#[allow(missing_docs)]
pub mod network;
pub mod property;
mod rebuild;
pub mod scenario;
#[allow(missing_docs)]
pub mod state;
mod step;
mod volume;

pub use step::Cluster;

use bounds::Bounds;
use stateright::{Checker as _, HasDiscoveries, Model as _};

/// What an exploration found.
#[derive(Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps of the longest of the shortest ways to them.
    pub depth: usize,
    /// Whether all was explored.
    pub complete: bool,
    /// Properties that do not hold, each with the actions that lead there.
    pub wrong: Vec<(&'static str, Vec<action::Action>)>,
    /// Whether a state was seen in which all is quiet.
    pub came_to_rest: bool,
}

/// Explores; to the end, or with a flaw until it shows.
pub fn explore(bounds: Bounds) -> Report {
    let until = if bounds.flaw.is_some() { HasDiscoveries::AnyFailures } else { HasDiscoveries::All };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = Cluster { bounds }.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let (wrong, rest): (Vec<_>, Vec<_>) = checker.discoveries().into_iter().partition(|(name, _)| *name != property::AT_REST);
    Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        complete: checker.is_done(),
        wrong: wrong.into_iter().map(|(name, path)| (name, path.into_actions())).collect(),
        came_to_rest: !rest.is_empty(),
    }
}
