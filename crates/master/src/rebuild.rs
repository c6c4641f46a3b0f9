//! Making the master's records again from what the volumes hold.
//!
//! The volumes' entries arrive in order of key, one stream for each volume; a k-way merge brings all
//! entries of a key together and settles them. Memory holds one entry of each stream and one key's.
//! Pure: where the entries come from, and where the records go, is others' business.

use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{Deleted, Entry, ValueEntry};
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};
use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use thiserror::Error;

/// The entries of one volume, in order of key; an error ends the rebuild.
pub type Entries = Box<dyn Iterator<Item = Result<Entry, String>> + Send>;

/// What to do with a value whose replicas are all there but whose commit nobody knows of: it was
/// acknowledged if the volumes lost their word of it, and was not if the writer was cut off.
/// A volume that takes no part in the rebuild may have held its replica, and known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncertain {
    /// Keep it: nothing that was acknowledged is lost.
    #[default]
    Keep,
    /// Drop it: nothing comes up that was not acknowledged.
    Drop,
}

/// Why entries cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MergeError {
    /// A volume's entries could not be read to their end.
    #[error("the entries of volume {volume} cannot be read: {why}; bring it up and start the rebuild again")]
    Source {
        /// The volume.
        volume: VolumeId,
        /// Why.
        why: String,
    },
    /// A volume's entries are not in order of key.
    #[error("the entries of volume {volume} are not in order at key {key}; rebuild that volume's index first")]
    Order {
        /// The volume.
        volume: VolumeId,
        /// The key that comes too late.
        key: Key,
    },
    /// The same volume twice.
    #[error("volume {0} is named twice; name every volume once")]
    Twice(VolumeId),
}

/// A record made again; its sequence is none where its commit is not known, and a new one is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The version.
    pub version: VersionId,
    /// Length, in bytes.
    pub len: u64,
    /// Hash.
    pub hash: ContentHash,
    /// Content type.
    pub content_type: Option<String>,
    /// Last-Modified.
    pub modified: UnixMillis,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// The volumes that hold it.
    pub replicas: Vec<VolumeId>,
    /// Its commit sequence.
    pub seq: Option<u64>,
}

/// A copy that is not of the key's present value, to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surplus {
    /// Where it is.
    pub volume: VolumeId,
    /// Its version.
    pub version: VersionId,
    /// Where the key was deleted.
    pub deleted: Option<Deleted>,
}

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedKey {
    /// The key.
    pub key: Key,
    /// Its record; none if it was deleted or never committed.
    pub record: Option<Rebuilt>,
    /// Copies to be removed.
    pub surplus: Vec<Surplus>,
}

/// What a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Keys that have a value.
    pub keys: u64,
    /// Bytes of these values, one copy of each.
    pub bytes: u64,
    /// Keys that were deleted and have no value now.
    pub tombstones: u64,
    /// Values kept although their commit is not known.
    pub uncertain_kept: u64,
    /// Versions that are only prepared and were not kept; their volumes drop them when they next ask.
    pub uncertain_dropped: u64,
    /// Keys with fewer copies than they were written with.
    pub under_replicated: u64,
    /// Keys of which volumes hold the same version with different length or hash. The copies that
    /// differ from the record are left where they are, and belong to no record.
    pub conflicts: u64,
    /// Copies to be removed.
    pub surplus: u64,
    /// Greatest commit sequence seen.
    pub max_seq: u64,
    /// Latest time seen: of versions, commits and deletes.
    pub max_time: UnixMillis,
}

struct Source {
    volume: VolumeId,
    entries: Peekable<Entries>,
    last: Option<Key>,
}

/// Merges the entries of all volumes. An iterator over the keys, in order; the summary is complete at its end.
pub struct Merger {
    sources: Vec<Source>,
    uncertain: Uncertain,
    summary: Summary,
}

impl Merger {
    /// A merge of these volumes' entries.
    pub fn new(sources: Vec<(VolumeId, Entries)>, uncertain: Uncertain) -> Result<Self, MergeError> {
        let mut seen = HashSet::new();
        if let Some((twice, _)) = sources.iter().find(|(v, _)| !seen.insert(*v)) {
            return Err(MergeError::Twice(*twice));
        }
        let source = |(volume, entries): (VolumeId, Entries)| Source { volume, entries: entries.peekable(), last: None };
        Ok(Self { sources: sources.into_iter().map(source).collect(), uncertain, summary: Summary::default() })
    }

    /// What was found so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Merges to the end without keeping anything: a dry run.
    pub fn finish(mut self) -> Result<Summary, MergeError> {
        self.try_for_each(|merged| merged.map(drop))?;
        Ok(self.summary)
    }

    /// The least key that is next in any stream.
    fn least_key(&mut self) -> Result<Option<Key>, MergeError> {
        let mut least: Option<&Key> = None;
        for source in &mut self.sources {
            match source.entries.peek() {
                None => {}
                Some(Err(why)) => return Err(MergeError::Source { volume: source.volume, why: why.clone() }),
                Some(Ok(entry)) => least = Some(least.map_or(key_of(entry), |k| k.min(key_of(entry)))),
            }
        }
        Ok(least.cloned())
    }

    /// Takes all entries of a key from all streams.
    fn gather(&mut self, key: &Key) -> Result<Gathered, MergeError> {
        let mut gathered = Gathered::default();
        for source in &mut self.sources {
            if source.last.as_ref().is_some_and(|last| last >= key) && source.entries.peek().is_some_and(|e| is_of(e, key)) {
                return Err(MergeError::Order { volume: source.volume, key: key.clone() });
            }
            while let Some(Ok(entry)) = source.entries.next_if(|e| is_of(e, key)) {
                gathered.add(source.volume, entry);
                source.last = Some(key.clone());
            }
        }
        Ok(gathered)
    }
}

impl Iterator for Merger {
    type Item = Result<MergedKey, MergeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let merged = self.least_key().and_then(|key| match key {
            None => Ok(None),
            Some(key) => self.gather(&key).map(|g| {
                let listed = |volume: &VolumeId| self.sources.iter().any(|s| s.volume == *volume);
                Some(g.settle(key, self.uncertain, &listed, &mut self.summary))
            }),
        });
        if merged.is_err() {
            self.sources.clear();
        }
        merged.transpose()
    }
}

fn key_of(entry: &Entry) -> &Key {
    match entry {
        Entry::Value(v) => &v.key,
        Entry::Tombstone { key, .. } => key,
    }
}

fn is_of(entry: &Result<Entry, String>, key: &Key) -> bool {
    entry.as_ref().is_ok_and(|e| key_of(e) == key)
}

/// All that the volumes hold of one key.
#[derive(Default)]
struct Gathered {
    versions: BTreeMap<VersionId, Vec<(VolumeId, ValueEntry)>>,
    tombstone: Option<(Deleted, VersionId)>,
}

impl Gathered {
    fn add(&mut self, volume: VolumeId, entry: Entry) {
        match entry {
            Entry::Value(value) => self.versions.entry(value.version).or_default().push((volume, value)),
            Entry::Tombstone { deleted, version, .. } => {
                if self.tombstone.is_none_or(|(t, _)| t.seq < deleted.seq) && !lab::has(Bug::RebuildIgnoresDeletes) {
                    self.tombstone = Some((deleted, version));
                }
            }
        }
    }

    fn settle(self, key: Key, uncertain: Uncertain, listed: &dyn Fn(&VolumeId) -> bool, summary: &mut Summary) -> MergedKey {
        self.note_maxima(summary);
        let committed = self.last_committed();
        // The last word of which the sequence is known: a value, or that there is none.
        let (seq, version) = match (committed, self.tombstone) {
            (Some((seq, version)), Some((t, _))) if seq > t.seq => (Some(seq), Some(version)),
            (_, Some((t, removed))) => (Some(t.seq), Some(removed)),
            (Some((seq, version)), None) => (Some(seq), Some(version)),
            (None, None) => (None, None),
        };
        let deleted = self.tombstone.map(|(t, _)| t).filter(|t| seq == Some(t.seq));
        let newest = self.whole_uncertain(version, listed).filter(|_| uncertain == Uncertain::Keep);
        let chosen = newest.or(version.filter(|_| deleted.is_none()));
        summary.uncertain_kept += u64::from(newest.is_some());
        let record = chosen.and_then(|v| self.versions.get(&v)).and_then(|copies| rebuilt(copies, summary));
        let surplus = self.surplus(chosen, deleted.filter(|_| newest.is_none()), summary);
        match &record {
            Some(r) => {
                summary.keys += 1;
                summary.bytes = summary.bytes.saturating_add(r.len);
            }
            None => summary.tombstones += u64::from(deleted.is_some()),
        }
        MergedKey { key, record, surplus }
    }

    fn note_maxima(&self, summary: &mut Summary) {
        let copies = self.versions.values().flatten().map(|(_, v)| (v.seq, v.version, v.modified));
        let tombstone = self.tombstone.iter().map(|(d, version)| (Some(d.seq), *version, d.time));
        for (seq, version, time) in copies.chain(tombstone) {
            summary.max_seq = summary.max_seq.max(seq.unwrap_or(0));
            summary.max_time = summary.max_time.max(time).max(UnixMillis(version.unix_millis()));
        }
    }

    /// The version with the greatest commit sequence that any volume knows.
    fn last_committed(&self) -> Option<(u64, VersionId)> {
        self.versions.iter().filter_map(|(version, copies)| Some((known_seq(copies)?, *version))).max()
    }

    /// The newest version of unknown outcome that may have been acknowledged: all volumes of its chain
    /// that are asked hold it, alike, and it is newer than `than`. One that is older was overtaken, or had its chance.
    fn whole_uncertain(&self, than: Option<VersionId>, listed: &dyn Fn(&VolumeId) -> bool) -> Option<VersionId> {
        let newer = self.versions.iter().rev().filter(|(version, _)| than.is_none_or(|t| **version > t));
        newer.filter(|(_, copies)| known_seq(copies).is_none()).find(|(_, copies)| is_whole(copies, listed)).map(|(version, _)| *version)
    }

    /// All copies of other versions, except of those whose volumes will ask about them anyway.
    fn surplus(&self, chosen: Option<VersionId>, deleted: Option<Deleted>, summary: &mut Summary) -> Vec<Surplus> {
        let mut surplus = Vec::new();
        for (&version, copies) in self.versions.iter().filter(|(v, _)| Some(**v) != chosen) {
            if known_seq(copies).is_none() {
                summary.uncertain_dropped += 1;
                continue;
            }
            surplus.extend(copies.iter().map(|&(volume, _)| Surplus { volume, version, deleted }));
        }
        summary.surplus += u64::try_from(surplus.len()).unwrap_or(u64::MAX);
        surplus
    }
}

fn known_seq(copies: &[(VolumeId, ValueEntry)]) -> Option<u64> {
    copies.iter().filter_map(|(_, v)| v.seq).max()
}

fn is_whole(copies: &[(VolumeId, ValueEntry)], listed: &dyn Fn(&VolumeId) -> bool) -> bool {
    let Some((_, first)) = copies.first() else { return false };
    let held = |volume: &VolumeId| copies.iter().any(|(at, _)| at == volume);
    let alike = copies.iter().all(|(_, v)| (v.len, v.hash) == (first.len, first.hash));
    // A copy that was moved names other volumes than those from before; only of committed versions are there such.
    alike && copies.iter().any(|(_, v)| !v.replicas.is_empty() && v.replicas.iter().filter(|r| listed(r)).all(held))
}

/// A record of the copies that are alike: the largest such group, one that is known committed first.
fn rebuilt(copies: &[(VolumeId, ValueEntry)], summary: &mut Summary) -> Option<Rebuilt> {
    let mut groups: BTreeMap<(u64, ContentHash), Vec<&(VolumeId, ValueEntry)>> = BTreeMap::new();
    for copy in copies {
        groups.entry((copy.1.len, copy.1.hash)).or_default().push(copy);
    }
    summary.conflicts += u64::from(groups.len() > 1);
    let seq = known_seq(copies);
    let rank = |group: &&Vec<&(VolumeId, ValueEntry)>| (group.iter().any(|(_, v)| v.seq.is_some()), group.len());
    let group = groups.values().max_by_key(rank)?;
    // What the commit said is what counts: the volume that heard of it knows the times.
    let (_, best) = group.iter().copied().max_by_key(|(_, v)| v.seq)?;
    let replicas: Vec<VolumeId> = chain_order(&best.replicas, group.iter().map(|(volume, _)| *volume).collect());
    summary.under_replicated += u64::from(replicas.len() < best.replicas.len());
    Some(Rebuilt {
        version: best.version,
        len: best.len,
        hash: best.hash,
        content_type: best.content_type.clone(),
        modified: best.modified,
        expires: best.expires.filter(|_| !lab::has(Bug::ExpiryNotRebuilt)),
        replicas,
        seq,
    })
}

/// The holders, those of the chain first and in its order.
fn chain_order(chain: &[VolumeId], mut holders: Vec<VolumeId>) -> Vec<VolumeId> {
    holders.sort_by_key(|v| chain.iter().position(|c| c == v).unwrap_or(usize::MAX));
    holders
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
