//! What clients asked of one key, what they were told, and between which moments.

use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

/// Names a value: no two writes of a run have the same.
pub type Value = u64;

/// What must hold of the key's value for a write to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is none.
    Absent,
    /// It is this one.
    Is(Value),
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Read the key.
    Read,
    /// Give it a value, under a condition.
    Write(Value, Condition),
    /// Remove it, under a condition.
    Delete(Condition),
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read: the value, or that there is none.
    Found(Option<Value>),
    /// A write took effect; whether there was none before, where that was told.
    Written(Option<bool>),
    /// A delete took effect; which value it removed, where that was told.
    Deleted(Option<Value>),
    /// The key is absent since, whether it was there or not.
    Gone,
    /// A delete found nothing.
    Nothing,
    /// The condition did not hold.
    Refused,
    /// Nobody could say: it takes effect once, at any time from the call on, or never.
    Unknown,
}

/// One call with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// What was asked.
    pub call: Call,
    /// What was told.
    pub answer: Answer,
    /// When it was asked.
    pub from: u64,
    /// When it was told; of no meaning where the answer is not known.
    pub until: u64,
}

impl Operation {
    /// The values that it saw: found, removed, or named in a condition.
    pub fn saw(&self) -> impl Iterator<Item = Value> + use<> {
        let told = match self.answer {
            Answer::Found(v) | Answer::Deleted(v) => v,
            _ => None,
        };
        let named = match self.call {
            Call::Write(_, Condition::Is(v)) | Call::Delete(Condition::Is(v)) => Some(v),
            _ => None,
        };
        told.into_iter().chain(named)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, call, answer, from, until } = self;
        let until = if *answer == Answer::Unknown { "          …".into() } else { format!("{until:>11}") };
        write!(f, "{from:>11} {until} client {client:<2} {call:?} -> {answer:?}")
    }
}

/// What all clients of a run saw of one key. Times are microseconds of one clock that only goes forward.
#[derive(Debug)]
pub struct History {
    start: Instant,
    operations: Mutex<Vec<Operation>>,
}

impl History {
    /// An empty one. Histories of one run have the same `start`.
    pub fn new(start: Instant) -> Self {
        Self { start, operations: Mutex::default() }
    }

    /// The present moment.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap()
    }

    /// Notes an operation that was asked at `from` and answered just now.
    pub fn note(&self, client: u32, from: u64, call: Call, answer: Answer) {
        let operation = Operation { client, call, answer, from, until: self.now() };
        self.operations.lock().unwrap().push(operation);
    }

    /// All operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations.lock().unwrap().clone()
    }
}
