//! What is on the network.

use crate::state::{Answer, Order, Outcome, Removal, Version, Volume, WRITES};

/// A message. It is there once at most, and may be overtaken by any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// Volume → master; whether the volume still waits for the answer.
    Commit { write: u8, awaited: bool },
    /// Master → first volume.
    CommitAnswer { write: u8, answer: Answer },
    /// First volume → second: the chain's last frame; none where the connection ended.
    Outcome { write: u8, answer: Option<Answer> },
    /// Volume → master; with the stamp of the last order for the version when it was asked.
    Settle { volume: Volume, version: Version, commit_by: u8, asked: u8 },
    /// Master → volume.
    SettleAnswer { volume: Volume, version: Version, outcome: Outcome, asked: u8 },
    /// Master → volume.
    Reclaim { volume: Volume, removals: [Removal; WRITES], sent: u8 },
    /// Volume → master.
    ReclaimDone { volume: Volume, removals: [Removal; WRITES], sent: u8 },
    /// Master → target.
    Fetch(Order),
    /// Target → master.
    Fetched(Order),
    /// Master → target.
    Keep { volume: Volume, version: Version, seq: u8, sent: u8 },
}

/// A set of messages, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network(Vec<Message>);

impl Network {
    /// Sends.
    pub fn insert(&mut self, message: Message) {
        if let Err(at) = self.0.binary_search(&message) {
            self.0.insert(at, message);
        }
    }

    /// Takes off.
    pub fn remove(&mut self, message: &Message) {
        self.0.retain(|m| m != message);
    }

    /// Takes those off that are to go, and returns them.
    pub fn take(&mut self, mut goes: impl FnMut(&Message) -> bool) -> Vec<Message> {
        let (gone, kept) = std::mem::take(&mut self.0).into_iter().partition(|m| goes(m));
        self.0 = kept;
        gone
    }

    /// Changes messages.
    pub fn change(&mut self, f: impl FnMut(&mut Message)) {
        self.0.iter_mut().for_each(f);
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.0.iter()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a call for this commit is on its way.
    pub fn asks(&self, write: u8) -> bool {
        self.iter().any(|m| matches!(m, Message::Commit { write: w, .. } if *w == write))
    }

    /// Whether an answer to it is.
    pub fn answers(&self, write: u8) -> bool {
        self.iter().any(|m| matches!(m, Message::CommitAnswer { write: w, .. } if *w == write))
    }
}
