//! Copies from volume to volume: what repair, drain and rebalance consist of.
//!
//! The master orders this volume to `fetch` a value; it takes it from another volume's `blob`, and holds it as
//! prepared. Once the master has made it a replica, `keep` says so; else this volume asks, as for any version in doubt.

use crate::bad;
use crate::node::Node;
use crate::send::Reader;
use crate::store::{NewValue, Store, StoreError};
use crate::stream::ReadFault;
use crate::upload::LocalCopy;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use kvdb_protocol::limits::{MAX_PEER_BATCH, MAX_PEER_BODY_BYTES};
use kvdb_protocol::message::{Fetch, Keep, Prepared, ReclaimItem, ValueEntry, path};
use kvdb_protocol::{ErrorCode, Key, Problem, VersionId};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{Request, read_all};
use kvdb_server::peer::Destination;
use kvdb_server::query::Query;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long the other volume may take to begin, and then to send the next bytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fetches a value. Answered once the copy is durable; a copy that is here already is answered alike.
pub(crate) async fn fetch(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let order: Fetch = signed(node, request).await?;
    if node.clock.now() > order.commit_by {
        return Err(Problem::new(ErrorCode::Conflict, "the order came too late"));
    }
    let value = order.value.clone();
    // One at a time for a version; an upload of it that is still at work here counts, too.
    let _claim = node.claim_copy(value.version)?;
    let _place = node.fetches.acquire().await.map_err(|_| Problem::new(ErrorCode::Unavailable, "this volume stops"))?;
    if !is_here(node, &order).await? {
        bring(node, &order).await?;
        tracing::info!(key = %value.key, version = %value.version, bytes = value.len, from = %order.from, "fetched a copy");
    }
    Ok(body::json(StatusCode::OK, &Prepared { len: value.len, hash: value.hash }))
}

/// Whether the value is here, whole as far as its index and its file's length tell. Notes the order, so that
/// no removal from before it takes what is found here, or comes.
async fn is_here(node: &Node, order: &Fetch) -> Result<bool, Problem> {
    let mut log = node.fetch_log.write().await;
    if !log.note(order.value.version, order.sent, order.commit_by) {
        return Err(Problem::new(ErrorCode::Conflict, "a later order for this version was seen"));
    }
    let value = order.value.clone();
    node.with_store(move |store| find(store, &value)).await
}

fn find(store: &Store, value: &ValueEntry) -> Result<bool, StoreError> {
    let why = match store.get(&value.key, value.version) {
        Ok(None) => return Ok(false),
        Ok(Some(found)) if (found.entry.len, found.entry.hash) != (value.len, value.hash) => "it is not what the catalog names".into(),
        Ok(Some(found)) if found.entry.seq.is_some() => return Ok(true),
        Ok(Some(_)) if value.seq.is_some_and(|seq| store.mark_committed(&value.key, value.version, seq).is_ok_and(|here| here)) => {
            return Ok(true);
        }
        Ok(Some(_)) => {
            // It waits for an outcome that may be "drop it" by now.
            store.remove(&[ReclaimItem { key: value.key.clone(), version: value.version, deleted: None }])?;
            return Ok(false);
        }
        Err(e @ StoreError::Corrupt { .. }) => e.to_string(),
        Err(e) => return Err(e),
    };
    store.quarantine(&value.key, value.version, &why)?;
    Ok(false)
}

/// Streams the value to the disk, no faster than the order says, and checks it.
async fn bring(node: &Arc<Node>, order: &Fetch) -> Result<(), Problem> {
    let value = &order.value;
    let credentials = node.membership()?.credentials;
    let mut local = LocalCopy::begin(node, new_value(order)).await?;
    let target = format!("{}?v={}&key={}", path::BLOB, value.version, value.key.to_query());
    let from = Destination { address: &order.address, volume: order.from, target: &target };
    let mut bytes = node.peers.download(&credentials, from, PATIENCE).await.map_err(|e| e.to_problem())?;
    let began = Instant::now();
    let mut taken = 0u64;
    while let Some(part) = next(&mut bytes).await? {
        taken += part.len() as u64;
        local.write(part).await?;
        if order.rate > 0 {
            sleep_until(began + Duration::from_secs_f64(seconds(taken, order.rate))).await;
        }
    }
    let got = local.finish().await?;
    if (got.len, got.hash) == (value.len, value.hash) {
        return Ok(());
    }
    let item = ReclaimItem { key: value.key.clone(), version: value.version, deleted: None };
    node.with_store(move |s| s.remove(&[item])).await?;
    Err(Problem::new(ErrorCode::Corrupt, format!("volume {} sent another value than the catalog names", order.from)))
}

// Rates are for pacing; a rounded one does.
#[allow(clippy::cast_precision_loss)]
fn seconds(bytes: u64, rate: u64) -> f64 {
    bytes as f64 / rate as f64
}

async fn next(from: &mut reqwest::Body) -> Result<Option<Bytes>, Problem> {
    let broken = |what: &str| Problem::new(ErrorCode::Unavailable, format!("the copy did not arrive whole: {what}"));
    loop {
        let frame = timeout(PATIENCE, from.frame()).await.map_err(|_| broken("the other volume stalls"))?;
        match frame {
            None => return Ok(None),
            Some(Err(e)) => return Err(broken(&e.to_string())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn new_value(order: &Fetch) -> NewValue {
    let value = &order.value;
    NewValue {
        key: value.key.clone(),
        version: value.version,
        len: Some(value.len),
        max_len: value.len,
        content_type: value.content_type.clone(),
        expires: value.expires,
        commit_by: order.commit_by,
        replicas: value.replicas.clone(),
    }
}

/// The bytes of a value, for another volume.
pub(crate) async fn blob(node: &Arc<Node>, request: Request, query: &Query) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), Some(b""))?;
    let absent = || Problem::new(ErrorCode::NotFound, "this version is not here, or its copy is bad");
    let key = query.get("key").and_then(|k| Key::new(k.to_vec()).ok());
    let version: Option<VersionId> = query.get_str("v").and_then(|v| v.parse().ok());
    let (Some(key), Some(version)) = (key, version) else {
        return Err(Problem::new(ErrorCode::BadRequest, "the call lacks a key or a version"));
    };
    let wanted = key.clone();
    let stored = match node.with_store(move |s| s.get(&wanted, version)).await {
        Ok(found) => found.ok_or_else(absent)?,
        Err(problem) => {
            bad::found(node, &key, version, &problem).await;
            return Err(problem);
        }
    };
    let len = stored.entry.len;
    let mut reader = Reader::new(node, Arc::new(stored), 0, len, None);
    reader.start().await.map_err(|fault| match fault {
        ReadFault::Busy => Problem::new(ErrorCode::Busy, "memory for reads is in use by slow readers; try again"),
        ReadFault::BadCopy => absent(),
    })?;
    let mut response = Response::new(reader.into_body());
    response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    Ok(response)
}

/// These copies are replicas now.
pub(crate) async fn keep(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let message: Keep = signed(node, request).await?;
    if message.versions.len() > MAX_PEER_BATCH {
        return Err(Problem::new(ErrorCode::BadRequest, "too many versions at once"));
    }
    // A copy that was ordered since is not the one that this is about.
    let log = node.fetch_log.read().await;
    let mut message = message;
    message.versions.retain(|(_, version, _)| !log.outdates(*version, message.sent));
    node.with_store(move |store| {
        message.versions.iter().try_for_each(|(key, version, seq)| store.mark_committed(key, *version, *seq).map(drop))
    })
    .await?;
    Ok(body::json(StatusCode::OK, &()))
}

async fn signed<T: serde::de::DeserializeOwned>(node: &Node, mut request: Request) -> Result<T, Problem> {
    let bytes = read_all(request.body_mut(), MAX_PEER_BODY_BYTES).await?;
    let (head, _) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), Some(&bytes))?;
    serde_json::from_slice(&bytes).map_err(|e| Problem::new(ErrorCode::BadRequest, format!("the call is malformed: {e}")))
}
