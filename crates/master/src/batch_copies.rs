//! The copies of the values of a batch: made and held as prepared, then kept or discarded together. Those of a transaction are kept here, too.

use crate::batch::{Action, Operation, UPLOADS};
use crate::node::Node;
use crate::relay;
use crate::write::Write;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::message::{Keep, Prepared, Reclaim, ReclaimItem, path};
use kvdb_protocol::{Condition, ContentHash, ErrorCode, Key, Problem, Ticket, TicketOp, TicketVolume, UnixMillis, VersionId, VolumeId};
use kvdb_server::peer::Destination;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a volume may take to note what became of its copies.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A value of which all copies are durable, as prepared.
pub(crate) struct Held {
    pub key: Key,
    pub version: VersionId,
    pub volumes: Vec<TicketVolume>,
    /// From then on the volumes may be told to drop it, so it is never committed later.
    pub commit_by: UnixMillis,
    pub prepared: Prepared,
}

/// Makes copies of all values; if one fails, none are left. None where there is no value to store.
pub(crate) async fn prepare(node: &Node, operations: &[Operation], request_id: &str) -> Result<Vec<Option<Held>>, Problem> {
    let mut held: Vec<Option<Held>> = operations.iter().map(|_| None).collect();
    let mut values = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        if let Action::Put { value, content_type, expires, .. } = &operation.action {
            let write = Write {
                key: operation.key.clone(),
                op: TicketOp::Replace,
                len: Some(value.len() as u64),
                condition: Condition::default(),
                expires: *expires,
                content_type: content_type.clone(),
                return_to: String::new(),
                request_id: request_id.to_string(),
                txn: None,
            };
            values.push((at, write, value.clone()));
        }
    }
    let uploads = values.into_iter().map(|(at, write, value)| async move { (at, upload(node, &write, value).await) });
    let mut uploads = stream::iter(uploads).buffer_unordered(UPLOADS);
    let mut failed = None;
    while let Some((at, result)) = uploads.next().await {
        match result {
            Ok(one) => {
                if let Some(place) = held.get_mut(at) {
                    *place = Some(one);
                }
            }
            Err(problem) => {
                failed = Some(problem);
                break;
            }
        }
    }
    // Uploads that are under way are cut short, which removes their copies.
    drop(uploads);
    match failed {
        None => Ok(held),
        Some(problem) => {
            discard(node, held.iter().flatten()).await;
            Err(problem)
        }
    }
}

async fn upload(node: &Node, write: &Write, value: Bytes) -> Result<Held, Problem> {
    let stopping = |_| Problem::new(ErrorCode::Unavailable, "the master is stopping");
    let _place = node.batches.uploads.acquire().await.map_err(stopping)?;
    let (granted, mut chain) = relay::open(node, write, HeaderMap::new(), Vec::new(), true).await?;
    let len = value.len() as u64;
    let hash = ContentHash::of(&value);
    chain.data(value).await.map_err(|e| e.to_problem())?;
    chain.end(len).await.map_err(|e| e.to_problem())?;
    let prepared = chain.prepared().await.map_err(|e| e.to_problem())?;
    let Ticket { version, volumes, commit_by, .. } = granted.ticket;
    let held = Held { key: write.key.clone(), version, volumes, commit_by, prepared };
    if prepared != (Prepared { len, hash }) {
        discard(node, std::iter::once(&held)).await;
        return Err(Problem::new(ErrorCode::Corrupt, "a copy differs from what was sent; nothing was stored, send the batch again"));
    }
    // The copies are durable; that the stream ends well is only good for its connection.
    drop(chain.held().await);
    Ok(held)
}

/// What one volume is told, with its address.
type ByVolume<T> = BTreeMap<VolumeId, (String, Vec<T>)>;

fn by_volume<'a, T>(copies: impl Iterator<Item = &'a Held>, item: impl Fn(usize, &Held) -> Option<T>) -> ByVolume<T> {
    let mut told = ByVolume::new();
    for (at, held) in copies.enumerate() {
        for volume in &held.volumes {
            if let Some(item) = item(at, held) {
                told.entry(volume.id).or_insert_with(|| (volume.address.clone(), Vec::new())).1.push(item);
            }
        }
    }
    told
}

/// Has the volumes note that their copies are committed, with these sequences. Who misses it asks later; until then a rebuild
/// without this catalog would not find the value.
pub(crate) async fn keep<'a>(node: &Node, copies: impl Iterator<Item = &'a Held>, seqs: &[u64]) {
    if lab::has(Bug::BatchNotKept) {
        return;
    }
    let sent = node.catalog.now();
    let told = by_volume(copies, |at, held| seqs.get(at).map(|seq| (held.key.clone(), held.version, *seq)));
    tell(node, told, path::KEEP, |versions| Keep { sent, versions }).await;
}

/// Has the volumes remove copies that will not be committed. Who misses it asks later.
pub(crate) async fn discard<'a>(node: &Node, copies: impl Iterator<Item = &'a Held>) {
    let sent = node.catalog.now();
    let told = by_volume(copies, |_, held| Some(ReclaimItem { key: held.key.clone(), version: held.version, deleted: None }));
    tell(node, told, path::RECLAIM, |versions| Reclaim { sent, versions }).await;
}

async fn tell<T: Clone, M: Serialize>(node: &Node, told: ByVolume<T>, target: &str, message: impl Fn(Vec<T>) -> M) {
    let message = &message;
    join_all(told.into_iter().map(|(volume, (address, items))| async move {
        for some in items.chunks(MAX_PEER_BATCH) {
            let to = Destination { address: &address, volume, target };
            if let Err(error) = node.peers.post::<()>(&node.credentials, to, &message(some.to_vec()), CALL_TIMEOUT).await {
                tracing::warn!(%volume, %error, copies = items.len(), "a volume has not heard what became of a batch; it asks later");
                return;
            }
        }
    }))
    .await;
}

/// Copies at volumes that went away, or are to go, since they were chosen.
pub(crate) fn note_strays<'a>(node: &Node, copies: impl Iterator<Item = &'a Held>) {
    let (live, duties) = (node.members.live(), node.members.duties());
    for held in copies {
        if held.volumes.iter().any(|v| !live.contains_key(&v.id) || duties.contains_key(&v.id)) {
            node.repair.note_stray(held.key.clone());
        }
    }
}
