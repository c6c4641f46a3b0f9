//! One value: fetched by a volume from another, then named by its record.

use super::plan::Step;
use crate::catalog::{Placed, Record, SetReplicas};
use crate::node::Node;
use crate::reclaim;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{Fetch, Keep, Prepared, ValueEntry, path};
use kvdb_protocol::{Key, VolumeId};
use kvdb_server::peer::Destination;
use rand::seq::IndexedRandom as _;
use std::sync::Arc;
use std::time::Duration;

/// Time for a copy, beyond what it takes at [`SLOWEST_BYTES_PER_SECOND`].
const WITHIN: Duration = Duration::from_secs(30);
/// A copy slower than this is given up, in bytes a second.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Does what the plan says about a record. False: the record has changed meanwhile, or a volume has still to
/// remove an earlier copy; look again.
pub(super) async fn carry_out(node: &Arc<Node>, key: &Key, record: &Record, step: Step) -> Result<bool, String> {
    match step {
        Step::Copy { target, sources, after } => copy(node, key, record, target, &sources, after).await,
        Step::Drop { after } => {
            let commit_by = node.catalog.now().plus(WITHIN);
            place(node, key, record, after, commit_by).await.map(|seq| seq.is_some())
        }
        Step::Fine | Step::Unreachable | Step::NoPlace => Ok(true),
    }
}

async fn copy(
    node: &Arc<Node>,
    key: &Key,
    record: &Record,
    target: VolumeId,
    sources: &[VolumeId],
    after: Vec<VolumeId>,
) -> Result<bool, String> {
    let anew = record.replicas.contains(&target);
    if !anew && node.catalog.is_reclaimed(target, record.version).await.map_err(|e| e.to_string())? {
        return Ok(false);
    }
    let live = node.members.live();
    let source = *sources.choose(&mut rand::rng()).ok_or("no volume has a good copy")?;
    let (to, from) = (live.get(&target).ok_or("the volume went down")?, live.get(&source).ok_or("the volume went down")?);
    let within = WITHIN + Duration::from_secs(record.len / SLOWEST_BYTES_PER_SECOND.min(node.config.repair_bytes_per_second));
    let sent = node.catalog.now();
    let order = Fetch {
        value: entry(key, record, &after, anew),
        from: source,
        address: from.address.clone(),
        commit_by: sent.plus(within),
        sent,
        rate: node.config.repair_bytes_per_second,
    };
    if lab::has(Bug::NamedBeforeCopied) && !anew {
        return place(node, key, record, after, order.commit_by).await.map(|seq| seq.is_some());
    }
    let fetch = Destination { address: &to.address, volume: target, target: path::FETCH };
    let got: Prepared = node.peers.post(&node.credentials, fetch, &order, within).await.map_err(|e| e.to_string())?;
    if (got.len, got.hash) != (record.len, record.hash) {
        return Err(format!("volume {target} fetched another value than the catalog names"));
    }
    let seq = if anew {
        let current = node.catalog.lookup(key).await.map_err(|e| e.to_string())?;
        current.filter(|c| c.version == record.version && c.replicas.contains(&target)).map(|c| c.seq)
    } else {
        place(node, key, record, after, order.commit_by).await?
    };
    let Some(seq) = seq else { return Ok(false) };
    tracing::info!(%key, version = %record.version, from = %source, to = %target, bytes = record.len, "a replica was made");
    // Only to spare the volume its question: if this is lost, it asks.
    let keep = Destination { address: &to.address, volume: target, target: path::KEEP };
    let message = Keep { sent: node.catalog.now(), versions: vec![(key.clone(), record.version, seq)] };
    if let Err(error) = node.peers.post::<()>(&node.credentials, keep, &message, CALL_TIMEOUT).await {
        tracing::debug!(%key, version = %record.version, %error, "the volume will ask whether its copy is to stay");
    }
    Ok(true)
}

/// Has the record name these volumes; its commit sequence, or none where it has changed.
async fn place(
    node: &Arc<Node>,
    key: &Key,
    record: &Record,
    after: Vec<VolumeId>,
    commit_by: kvdb_protocol::UnixMillis,
) -> Result<Option<u64>, String> {
    let change = SetReplicas { key: key.clone(), version: record.version, before: record.replicas.clone(), after, commit_by };
    let gone: Vec<VolumeId> = change.before.iter().copied().filter(|v| !change.after.contains(v)).collect();
    match node.catalog.set_replicas(change).await.map_err(|e| e.to_string())? {
        Placed::Done { seq } => {
            gone.iter().for_each(|v| reclaim::kick(node, *v));
            Ok(Some(seq))
        }
        Placed::Outdated(why) => {
            tracing::debug!(%key, version = %record.version, why, "a record was not changed");
            Ok(None)
        }
    }
}

fn entry(key: &Key, record: &Record, after: &[VolumeId], named: bool) -> ValueEntry {
    ValueEntry {
        key: key.clone(),
        version: record.version,
        len: record.len,
        hash: record.hash,
        content_type: record.content_type.clone(),
        modified: record.modified,
        expires: record.expires,
        replicas: after.to_vec(),
        seq: named.then_some(record.seq),
    }
}
