//! The record made again from what the volumes hold: `rebuild.rs` of the master, for one key, with all volumes.

use crate::bounds::{Bounds, Flaw};
use crate::state::{Copy, State, VOLUMES, Version, Volumes, WRITES};

struct Found {
    version: Version,
    copies: Vec<(usize, Option<u8>, Volumes)>,
}

impl Found {
    fn seq(&self) -> Option<u8> {
        self.copies.iter().filter_map(|(_, seq, _)| *seq).max()
    }

    /// `is_whole`: some copy's list of volumes is held in full.
    fn is_whole(&self, by_first_list: bool) -> bool {
        let holders: Volumes = self.copies.iter().map(|(volume, ..)| 1 << volume).sum();
        let lists = if by_first_list { 1 } else { self.copies.len() };
        self.copies.iter().take(lists).any(|(_, _, chain)| chain & !holders == 0)
    }
}

/// The version that a rebuild with `Uncertain::Keep` gives the key.
pub fn rebuild(b: &Bounds, state: &State) -> Option<Version> {
    let mut versions = Vec::new();
    let mut tombstone: Option<(u8, Version)> = None;
    for v in 0..WRITES {
        let version = v as Version;
        let mut copies = Vec::new();
        for volume in 0..VOLUMES {
            match state.volumes[volume].copies[v] {
                Copy::Value { seq, chain, .. } => copies.push((volume, seq, chain)),
                Copy::Tombstone { seq } => tombstone = tombstone.max(Some((seq, version))),
                Copy::Absent | Copy::Unlinked { .. } => {}
            }
        }
        if !copies.is_empty() {
            versions.push(Found { version, copies });
        }
    }
    let committed = versions.iter().filter_map(|f| Some((f.seq()?, f.version))).max();
    let last = committed.max(tombstone);
    let deleted = last.is_some() && last == tombstone;
    let than = last.map(|(_, version)| version);
    let uncertain = versions.iter().rev().filter(|f| than.is_none_or(|t| f.version > t) && f.seq().is_none());
    let newest = uncertain.filter(|f| f.is_whole(b.has(Flaw::WholeByFirstList))).map(|f| f.version).next();
    newest.or(than.filter(|_| !deleted))
}
