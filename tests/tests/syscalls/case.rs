//! Who is killed, where.

use crate::operation::Operation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Master,
    /// The volume that the client speaks to.
    First,
    /// The next of the chain.
    Second,
}

impl Victim {
    pub const ALL: [Self; 3] = [Self::Master, Self::First, Self::Second];
}

/// Which threads' calls count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Threads {
    All,
    /// Those of this name.
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub victim: Victim,
    pub operation: Operation,
    pub threads: Threads,
    pub call: String,
    /// The Nth call of any one of the threads.
    pub n: u64,
}
