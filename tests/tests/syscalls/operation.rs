//! What is done to a key while a server dies.

use crate::send::{Outcome, Write};
use kvdb_tests::values::value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Put,
    /// The old value is reclaimed.
    Overwrite,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    pub kind: Kind,
    pub len: usize,
}

/// In the index.
const SMALL: usize = 3_000;
/// In a file, of two writes.
const LARGE: usize = (1 << 20) + 70_001;

pub const OPERATIONS: [Operation; 6] = [
    Operation { kind: Kind::Put, len: SMALL },
    Operation { kind: Kind::Put, len: LARGE },
    Operation { kind: Kind::Overwrite, len: SMALL },
    Operation { kind: Kind::Overwrite, len: LARGE },
    Operation { kind: Kind::Delete, len: SMALL },
    Operation { kind: Kind::Delete, len: LARGE },
];

/// A value by its seed and length; none: the key does not exist.
pub type State = Option<(usize, u64)>;

pub fn bytes(state: State) -> Option<Vec<u8>> {
    state.map(|(len, seed)| value(len, seed))
}

impl Operation {
    /// What must be there before it.
    pub fn before(self, seed: u64) -> State {
        (self.kind != Kind::Put).then_some((self.len, 2 * seed))
    }

    /// What is there after it.
    pub fn after(self, seed: u64) -> State {
        (self.kind != Kind::Delete).then_some((self.len, 2 * seed + 1))
    }

    pub fn method(self) -> &'static str {
        if self.kind == Kind::Delete { "DELETE" } else { "PUT" }
    }

    pub fn send(self, target: &str, seed: u64, master: &str) -> Outcome {
        Write { method: self.method(), target, value: bytes(self.after(seed)), relayed: false }.send(master)
    }
}
