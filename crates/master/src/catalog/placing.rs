//! Changes of where a version is kept, and of the cluster's volumes: decided by the committer like commits.

use super::decide::Now;
use super::engine::Engine;
use super::error::CatalogError;
use super::keyspace;
use super::record::{ReclaimEntry, Record, decode, encode};
use super::view::View;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::limits::MAX_REPLICAS;
use kvdb_protocol::{Key, UnixMillis, VersionId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::Bound;

/// The volumes of a version are to change. Only if nothing has changed since it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReplicas {
    /// The key.
    pub key: Key,
    /// The version whose copies were made or given up.
    pub version: VersionId,
    /// Its volumes so far.
    pub before: Vec<VolumeId>,
    /// Its volumes from now on: 1 to [`MAX_REPLICAS`], all different. All hold the version, durably.
    pub after: Vec<VolumeId>,
    /// Last time for it: later, volumes are told to drop copies that no record names.
    pub commit_by: UnixMillis,
}

/// What became of a change of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Done and durable. The commit sequence of the version is unchanged.
    Done {
        /// That sequence.
        seq: u64,
    },
    /// Not done, for this reason; look at the record again.
    Outdated(&'static str),
}

/// What a volume is for, where it is not simply used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duty {
    /// It gets nothing new, and what it holds moves to others.
    Drain,
    /// It is no longer of the cluster.
    Removed,
}

pub(super) fn set_replicas(view: &mut View<'_>, now: &Now, r: &SetReplicas) -> Result<Placed, CatalogError> {
    let distinct: HashSet<VolumeId> = r.after.iter().copied().collect();
    if r.after.is_empty() || r.after.len() > MAX_REPLICAS || distinct.len() != r.after.len() {
        return Err(CatalogError::BadRequest(format!("a version has 1 to {MAX_REPLICAS} different volumes")));
    }
    if now.time > r.commit_by {
        return Ok(Placed::Outdated("it took too long"));
    }
    let Some(record) = view.record(&r.key)?.filter(|c| c.version == r.version) else {
        return Ok(Placed::Outdated("the key was replaced or deleted"));
    };
    if record.replicas != r.before && !lab::has(Bug::ReplicasSetBlindly) {
        return Ok(Placed::Outdated("its volumes were changed"));
    }
    for &volume in r.after.iter().filter(|v| !r.before.contains(v)) {
        // Its removal may be on the way: it would take the new copy, too.
        if view.reclaim(volume, r.version)?.is_some() && !lab::has(Bug::ReplicaBeforeRemoval) {
            return Ok(Placed::Outdated("a volume has still to remove its earlier copy"));
        }
    }
    now.require(now.room.for_put)?;
    let seq = record.seq;
    let entry = ReclaimEntry { key: r.key.clone(), deleted: None, committed: Some(record.committed().into()) };
    for &volume in r.before.iter().filter(|v| !r.after.contains(v)) {
        view.add_reclaim(volume, r.version, &entry)?;
    }
    view.set_record(&r.key, Some(&record), Some(&Record { replicas: r.after.clone(), ..record.clone() }))?;
    Ok(Placed::Done { seq })
}

/// Notes a volume's duty; none: it is simply used.
pub(super) fn set_duty(view: &mut View<'_>, volume: VolumeId, duty: Option<Duty>) -> Result<(), CatalogError> {
    let key = keyspace::duty(volume);
    match duty {
        Some(duty) => view.put(key, encode(&duty, "duty of a volume")?),
        None => view.delete(key),
    }
    Ok(())
}

/// Lists an address besides those of the command line, or no longer.
pub(super) fn set_listed(view: &mut View<'_>, address: &str, listed: bool) {
    let key = keyspace::listed(address);
    if listed { view.put(key, Vec::new()) } else { view.delete(key) }
}

/// Gives up removals at a volume that is gone for good, at most `limit`; whether there may be more.
pub(super) fn forget_reclaim(view: &mut View<'_>, engine: &dyn Engine, volume: VolumeId, limit: usize) -> Result<bool, CatalogError> {
    let (from, to) = (keyspace::reclaim_of(volume), keyspace::successor(&keyspace::reclaim_of(volume)));
    let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let pairs = engine.scan(Bound::Included(&from), to, limit)?;
    let versions = pairs.iter().filter_map(|(key, _)| keyspace::parse_reclaim(key));
    for (volume, version) in versions.collect::<Vec<_>>() {
        view.drop_reclaim(volume, version)?;
    }
    Ok(pairs.len() == limit)
}

/// All duties, as of the engine.
pub(super) fn duties(engine: &dyn Engine) -> Result<Vec<(VolumeId, Duty)>, CatalogError> {
    super::core::prefix_scan(engine, &[keyspace::DUTY], usize::MAX)?
        .into_iter()
        .map(|(key, value)| {
            let id = keyspace::parse_duty(&key).ok_or_else(|| CatalogError::corrupt("duty of a volume", "its key is malformed"))?;
            Ok((id, decode(&value, "duty of a volume")?))
        })
        .collect()
}

/// All addresses that are listed besides those of the command line.
pub(super) fn listed(engine: &dyn Engine) -> Result<Vec<String>, CatalogError> {
    let pairs = super::core::prefix_scan(engine, &[keyspace::LISTED], usize::MAX)?;
    pairs
        .into_iter()
        .map(|(key, _)| {
            let text = key.get(1..).and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.map(String::from).ok_or_else(|| CatalogError::corrupt("listed address", "it is not text"))
        })
        .collect()
}
