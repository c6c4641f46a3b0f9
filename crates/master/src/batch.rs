//! Batches: several keys put and deleted together, all or none, under one commit.
//!
//! The values go to their volumes first, which hold them as prepared; then the committer checks all preconditions and changes
//! all keys in one durable step; then the volumes are told. A crash before the step leaves copies that the volumes drop when
//! they ask about them, one after it copies that they keep.

use crate::access;
use crate::batch_copies::{self, Held};
use crate::batch_request;
use crate::catalog::{BatchAnswer, BatchId, CatalogError, Changed, CommitBatch, CommitPut, Member};
use crate::node::Node;
use crate::{reclaim, write};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use kvdb_protocol::{Condition, ContentHash, ErrorCode, Key, Problem, UnixMillis, VersionId};
use kvdb_server::RequestContext;
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{GuardedBody, Request, read_all};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most operations of a batch.
pub const MAX_OPERATIONS: usize = 1_000;
/// Values of all batches that are on their way to volumes at a time: half of the places that a volume has by default.
pub(crate) const UPLOADS: usize = 8;
/// How long a batch waits for memory that others use.
const MEMORY_WAIT: Duration = Duration::from_secs(5);
/// What a batch's document may have besides its values, in bytes.
const DOCUMENT_BYTES: u64 = 4 << 20;
/// Longest `Idempotency-Key`, in bytes.
const MAX_ID_BYTES: usize = 256;
const ID_HEADER: &str = "idempotency-key";
/// Unit of accounted memory, in bytes.
const UNIT: u64 = 1 << 10;

/// Bounds on what all batches use at once.
pub(crate) struct Batches {
    memory: Arc<Semaphore>,
    pub(crate) uploads: Semaphore,
}

impl Batches {
    /// Room for one batch of the largest kind, or several smaller ones.
    pub fn new(max_batch_bytes: u64) -> Self {
        let units = usize::try_from(2 * document_limit(max_batch_bytes) / UNIT + 1).unwrap_or(Semaphore::MAX_PERMITS);
        Self { memory: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))), uploads: Semaphore::new(UPLOADS) }
    }

    /// Accounts for a document of this length and the values that come of it.
    pub(crate) async fn room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || Problem::new(ErrorCode::Busy, "other batches use all memory for batches; try again, or send smaller ones");
        let units = u32::try_from(2 * bytes / UNIT + 1).map_err(|_| busy())?;
        match tokio::time::timeout(MEMORY_WAIT, self.memory.clone().acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// Longest document: values in base64, and what is around them.
fn document_limit(max_batch_bytes: u64) -> u64 {
    (max_batch_bytes / 3).saturating_mul(4).saturating_add(DOCUMENT_BYTES).min(u64::from(u32::MAX))
}

/// What is to become of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It gets a value.
    Put {
        /// The value.
        value: Bytes,
        /// Its content type.
        content_type: Option<String>,
        /// When it expires.
        expires: Option<UnixMillis>,
        /// Only if the key does not exist.
        create: bool,
    },
    /// It is removed; it may be absent already.
    Delete,
}

/// One key's part in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The key.
    pub key: Key,
    /// The preconditions.
    pub condition: Condition,
    /// What is to become of it.
    pub action: Action,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Applied {
    /// The key, written as in lists.
    pub key: String,
    /// 201 created, 200 replaced or deleted, 404 there was nothing to delete.
    pub status: u16,
    /// The version that was made or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionId>,
    /// BLAKE3 of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<ContentHash>,
}

/// What became of all keys.
#[derive(Serialize)]
pub(crate) struct Answer {
    pub results: Vec<Applied>,
}

/// `POST /?batch`.
pub(crate) async fn post(node: &Arc<Node>, request: Request, cx: &RequestContext) -> Result<Response, Problem> {
    let (head, mut body) = request.into_parts();
    let name = name_of(&head.headers)?;
    let (document, memory) = receive(node, &mut body).await?;
    let operations = batch_request::parse(&document, node.catalog.expiry_now())?;
    access::batch(node, &head.headers, &operations)?;
    let id = name.map(|name| BatchId { name, digest: ContentHash::of(&document) });
    drop(document);
    let results = run(node, operations, id, memory, cx).await?;
    Ok(body::json(StatusCode::OK, &Answer { results }))
}

/// Reads a document that a batch comes of, in memory that is accounted for.
pub(crate) async fn receive(node: &Node, body: &mut GuardedBody) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let limit = document_limit(node.config.max_batch_bytes);
    let length = body
        .remaining()
        .ok_or_else(|| Problem::new(ErrorCode::LengthRequired, "a batch is sent with its Content-Length, not in chunks"))?;
    if length > limit {
        return Err(Problem::new(ErrorCode::ValueTooLarge, format!("the document of a batch may have {limit} bytes at most")));
    }
    write::takes_writes(node)?;
    let memory = node.batches.room(length).await?;
    Ok((read_all(body, usize::try_from(limit).unwrap_or(usize::MAX)).await?, memory))
}

/// Does a batch in a task of its own, which runs to its end whether or not the client waits for it.
pub(crate) async fn run(
    node: &Arc<Node>,
    operations: Vec<Operation>,
    id: Option<BatchId>,
    memory: OwnedSemaphorePermit,
    cx: &RequestContext,
) -> Result<Vec<Applied>, Problem> {
    let (node, request_id) = (node.clone(), cx.request_id.to_string());
    let task = tokio::spawn(async move {
        let _memory = memory;
        apply(&node, operations, id, &request_id).await
    });
    task.await.map_err(|e| {
        Problem::new(ErrorCode::OutcomeUnknown, format!("the batch's task failed: {e}; look at its keys, or repeat its Idempotency-Key"))
    })?
}

fn name_of(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Problem> {
    let Some(value) = headers.get(ID_HEADER) else { return Ok(None) };
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_ID_BYTES {
        return Err(Problem::new(ErrorCode::BadRequest, format!("an Idempotency-Key has 1 to {MAX_ID_BYTES} bytes")));
    }
    let [name, _] = halves(ContentHash::of(bytes).0);
    Ok(Some(name))
}

fn halves(hash: [u8; 32]) -> [[u8; 16]; 2] {
    let mut both = [[0; 16]; 2];
    both.as_flattened_mut().copy_from_slice(&hash);
    both
}

/// Does all of `operations` or none, durably; what became of each, in their order. With an id, what was done within the last 300 s
/// is not done again. Dropped half-way, it leaves copies that the volumes drop later.
async fn apply(node: &Arc<Node>, operations: Vec<Operation>, id: Option<BatchId>, request_id: &str) -> Result<Vec<Applied>, Problem> {
    check(node, &operations)?;
    if id.is_none() {
        check_early(node, &operations).await?;
    }
    let total: u64 = operations.iter().map(|o| length(&o.action)).sum();
    let held = batch_copies::prepare(node, &operations, request_id).await?;
    let commit_by = node.catalog.now().plus(node.config.commit_within);
    let commit_by = held.iter().flatten().map(|h| h.commit_by).min().unwrap_or(commit_by);
    let members = operations.iter().zip(&held).map(|(operation, held)| member(operation, held.as_ref())).collect();
    let answer = node.catalog.commit_batch(CommitBatch { id, commit_by, members }).await;
    let copies = || held.iter().flatten();
    let changed = match answer {
        Ok(BatchAnswer::Committed(changed)) => {
            after_commit(node, &changed);
            batch_copies::note_strays(node, copies());
            batch_copies::keep(node, copies(), &changed_seqs(&changed)).await;
            changed
        }
        Ok(BatchAnswer::Repeated(changed)) => {
            batch_copies::discard(node, copies()).await;
            changed
        }
        Ok(BatchAnswer::Refused(problem)) => {
            batch_copies::discard(node, copies()).await;
            return Err(problem);
        }
        Err(error) => {
            // What may have been committed is left to be asked for.
            if !matches!(error, CatalogError::OutcomeUnknown) {
                batch_copies::discard(node, copies()).await;
            }
            return Err(error.problem());
        }
    };
    tracing::debug!(operations = operations.len(), bytes = total, "batch committed");
    Ok(operations.iter().zip(changed).map(|(operation, changed)| applied(&operation.key, etag(operation), changed)).collect())
}

fn length(action: &Action) -> u64 {
    match action {
        Action::Put { value, .. } => value.len() as u64,
        Action::Delete => 0,
    }
}

fn check(node: &Node, operations: &[Operation]) -> Result<(), Problem> {
    write::takes_writes(node)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Problem::new(ErrorCode::ValueTooLarge, format!("a batch may have {MAX_OPERATIONS} operations at most")));
    }
    let mut seen = HashSet::new();
    let twice: Vec<&Key> = operations.iter().map(|o| &o.key).filter(|k| !seen.insert(*k)).collect();
    if !twice.is_empty() {
        return Err(Problem::new(ErrorCode::BadRequest, "a key may be in a batch once").of_keys(twice));
    }
    let max = node.config.max_value_bytes;
    let large: Vec<&Key> = operations.iter().filter(|o| length(&o.action) > max).map(|o| &o.key).collect();
    if !large.is_empty() {
        return Err(Problem::new(ErrorCode::ValueTooLarge, format!("a value may have at most {max} bytes")).of_keys(large));
    }
    let ledger = node.catalog.ledger();
    for operation in operations {
        let Action::Put { value, content_type, .. } = &operation.action else { continue };
        let limits = ledger.limits();
        limits.check(&operation.key, Some(value.len() as u64), content_type.as_deref()).map_err(|p| p.of_keys([&operation.key]))?;
        let (_, content) = limits.for_ticket(&operation.key);
        content.map_or(Ok(()), |rule| rule.check(value)).map_err(|p| p.of_keys([&operation.key]))?;
    }
    let (total, most) = (operations.iter().map(|o| length(&o.action)).sum::<u64>(), node.config.max_batch_bytes);
    if total > most {
        let detail = format!("the values of a batch may have {most} bytes in all, and these have {total}; see --max-batch-bytes");
        return Err(Problem::new(ErrorCode::ValueTooLarge, detail));
    }
    Ok(())
}

/// Preconditions that do not hold already spare the way to the volumes; all are checked again at the commit.
async fn check_early(node: &Node, operations: &[Operation]) -> Result<(), Problem> {
    let mut failed = Vec::new();
    for operation in operations {
        let current = node.catalog.lookup(&operation.key).await.map_err(|e| e.problem())?;
        let create = matches!(operation.action, Action::Put { create: true, .. });
        if (create && current.is_some()) || !operation.condition.holds(current.map(|r| r.hash)) {
            failed.push(&operation.key);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let detail = format!("{} of the batch's preconditions do not hold; nothing was changed", failed.len());
    Err(Problem::new(ErrorCode::PreconditionFailed, detail).of_keys(failed))
}

fn member(operation: &Operation, held: Option<&Held>) -> Member {
    let (key, condition) = (operation.key.clone(), operation.condition.clone());
    match (&operation.action, held) {
        (Action::Put { content_type, expires, create, .. }, Some(held)) => Member::Put(CommitPut {
            key,
            version: held.version,
            create: *create,
            condition,
            commit_by: held.commit_by,
            len: held.prepared.len,
            hash: held.prepared.hash,
            content_type: content_type.clone(),
            expires: *expires,
            replicas: held.volumes.iter().map(|v| v.id).collect(),
        }),
        _ => Member::Delete { key, condition },
    }
}

pub(crate) fn after_commit(node: &Arc<Node>, changed: &[Changed]) {
    if changed.iter().any(|c| matches!(c, Changed::Replaced { .. } | Changed::Deleted { .. })) {
        for volume in node.members.live().keys() {
            reclaim::kick(node, *volume);
        }
    }
}

/// The commit sequence of each value that was stored, in order.
pub(crate) fn changed_seqs(changed: &[Changed]) -> Vec<u64> {
    let seq = |c: &Changed| match c {
        Changed::Created { seq, .. } | Changed::Replaced { seq, .. } => Some(*seq),
        Changed::Deleted { .. } | Changed::Absent => None,
    };
    changed.iter().filter_map(seq).collect()
}

fn etag(operation: &Operation) -> Option<ContentHash> {
    match &operation.action {
        Action::Put { value, .. } => Some(ContentHash::of(value)),
        Action::Delete => None,
    }
}

/// What became of a key, as clients are told.
pub(crate) fn applied(key: &Key, etag: Option<ContentHash>, changed: Changed) -> Applied {
    let (status, version) = match changed {
        Changed::Created { version, .. } => (StatusCode::CREATED, Some(version)),
        Changed::Replaced { version, .. } | Changed::Deleted { version } => (StatusCode::OK, Some(version)),
        Changed::Absent => (StatusCode::NOT_FOUND, None),
    };
    Applied { key: key.display(), status: status.as_u16(), version, etag }
}
