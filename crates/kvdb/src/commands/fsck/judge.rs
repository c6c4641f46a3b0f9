//! What is wrong about one key, given its record and what the volumes hold of it. Pure.

use kvdb_master::catalog::{Record, Unwanted};
use kvdb_protocol::message::{Deleted, ValueEntry};
use kvdb_protocol::{Key, VersionId, VolumeId};
use std::collections::HashSet;

/// Both sides of a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sides {
    pub(super) record: Option<Record>,
    pub(super) held: Vec<(VolumeId, ValueEntry)>,
    pub(super) tombstones: Vec<(VolumeId, Deleted)>,
}

/// What is expected of all keys.
pub(super) struct Expected {
    pub(super) replicas: usize,
    /// Volumes that are asked.
    pub(super) asked: HashSet<VolumeId>,
    /// Whether these are all volumes of the cluster.
    pub(super) all: bool,
}

/// Why no record names a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The key has a later value.
    Superseded,
    /// A volume knows that the key was deleted later.
    Deleted,
    /// The record of this very version names other volumes.
    Surplus,
    /// The catalog knows of no such commit: it is older than the volumes, or lost something.
    Unknown,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dangling,
    Wrong,
    Orphan(Why),
    UnderReplicated,
    SurplusReplicas,
    DeletedLater,
}

impl Kind {
    pub(super) const NAMES: [&'static str; 6] = ["dangling", "wrong", "orphan", "under_replicated", "surplus_replicas", "deleted_later"];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dangling => "dangling",
            Self::Wrong => "wrong",
            Self::Orphan(_) => "orphan",
            Self::UnderReplicated => "under_replicated",
            Self::SurplusReplicas => "surplus_replicas",
            Self::DeletedLater => "deleted_later",
        }
    }

    pub(super) fn why(self) -> Option<&'static str> {
        match self {
            Self::Orphan(Why::Superseded) => Some("superseded"),
            Self::Orphan(Why::Deleted) => Some("deleted"),
            Self::Orphan(Why::Surplus) => Some("surplus"),
            Self::Orphan(Why::Unknown) => Some("unknown"),
            _ => None,
        }
    }
}

/// What could be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// Nothing here.
    None,
    /// The copy is made anew from another.
    Remake,
    /// The copy is removed.
    Remove(Unwanted),
    /// The copy is removed if that is what the operator wants.
    RemoveUnknown(Unwanted),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) version: VersionId,
    pub(super) volume: Option<VolumeId>,
    pub(super) detail: String,
    pub(super) mend: Mend,
}

/// All about one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) findings: Vec<Finding>,
    /// Copies that volumes have still to remove.
    pub(super) to_be_reclaimed: u64,
    /// Versions that are prepared: they are committed or dropped without anybody's help.
    pub(super) in_doubt: u64,
}

pub(super) fn judge(key: &Key, sides: &Sides, expected: &Expected, reclaimed: &dyn Fn(VolumeId, VersionId) -> bool) -> Judged {
    let mut judged = Judged::default();
    if let Some(record) = &sides.record {
        judged.findings.extend(of_record(key, record, sides, expected));
    }
    let sound = judged.findings.iter().all(|f| !matches!(f.kind, Kind::Dangling | Kind::Wrong));
    for (volume, entry) in &sides.held {
        if sides.record.as_ref().is_some_and(|r| r.version == entry.version && r.replicas.contains(volume)) {
            continue;
        }
        match entry.seq {
            None => judged.in_doubt += 1,
            Some(_) if reclaimed(*volume, entry.version) => judged.to_be_reclaimed += 1,
            Some(seq) => judged.findings.push(orphan(key, *volume, entry.version, seq, sides, sound)),
        }
    }
    judged
}

fn of_record(key: &Key, record: &Record, sides: &Sides, expected: &Expected) -> Vec<Finding> {
    let finding = |kind, volume, detail: String, mend| Finding { kind, key: key.clone(), version: record.version, volume, detail, mend };
    let mut found = Vec::new();
    for &volume in &record.replicas {
        if !expected.asked.contains(&volume) {
            if expected.all {
                found.push(finding(Kind::Dangling, Some(volume), "the volume is not of the cluster".into(), Mend::None));
            }
            continue;
        }
        match sides.held.iter().find(|(v, e)| *v == volume && e.version == record.version) {
            None => found.push(finding(Kind::Dangling, Some(volume), "the volume has no such version".into(), Mend::Remake)),
            Some((_, entry)) => {
                let differs = differences(record, entry);
                if !differs.is_empty() {
                    found.push(finding(Kind::Wrong, Some(volume), format!("{} differ", differs.join(", ")), Mend::None));
                }
            }
        }
    }
    let (there, wanted) = (record.replicas.len(), expected.replicas);
    if there != wanted {
        let kind = if there < wanted { Kind::UnderReplicated } else { Kind::SurplusReplicas };
        found.push(finding(kind, None, format!("{there} replicas instead of {wanted}"), Mend::None));
    }
    if let Some((volume, deleted)) = sides.tombstones.iter().find(|(_, d)| d.seq > record.seq) {
        let detail = format!("the volume knows of a delete, sequence {}, after this version's commit, {}", deleted.seq, record.seq);
        found.push(finding(Kind::DeletedLater, Some(*volume), detail, Mend::None));
    }
    found
}

fn differences(record: &Record, entry: &ValueEntry) -> Vec<&'static str> {
    let mut differs = Vec::new();
    for (name, same) in [
        ("length", record.len == entry.len),
        ("hash", record.hash == entry.hash),
        ("content type", record.content_type == entry.content_type),
        ("time", record.modified == entry.modified),
        ("expiry", record.expires == entry.expires),
    ] {
        if !same {
            differs.push(name);
        }
    }
    differs
}

/// `sound`: all copies that the key's record names are as they should be.
fn orphan(key: &Key, volume: VolumeId, version: VersionId, seq: u64, sides: &Sides, sound: bool) -> Finding {
    let deleted = sides.tombstones.iter().map(|(_, d)| *d).filter(|d| d.seq > seq).max_by_key(|d| d.seq);
    let why = match &sides.record {
        Some(r) if r.version == version => Why::Surplus,
        Some(r) if r.seq > seq => Why::Superseded,
        None if deleted.is_some() => Why::Deleted,
        _ => Why::Unknown,
    };
    let deleted = deleted.filter(|_| why == Why::Deleted);
    let force = matches!(why, Why::Deleted | Why::Unknown);
    let unwanted = Unwanted { volume, key: key.clone(), version, seq, deleted, force };
    let (mend, detail) = match why {
        Why::Superseded => (Mend::Remove(unwanted), "the key has a later value"),
        Why::Deleted => (Mend::Remove(unwanted), "the key was deleted later"),
        Why::Surplus if sound => (Mend::Remove(unwanted), "the record names other volumes, which have it"),
        // It may be the only good copy.
        Why::Surplus => (Mend::None, "the record names other volumes, and not all of those have it"),
        Why::Unknown => (Mend::RemoveUnknown(unwanted), "the catalog does not know of its commit"),
    };
    Finding { kind: Kind::Orphan(why), key: key.clone(), version, volume: Some(volume), detail: detail.into(), mend }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
