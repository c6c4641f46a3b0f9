//! `GET` and `HEAD` of a key: the hot path of a lookup.

use crate::catalog::Record;
use crate::members::Live;
use crate::node::Node;
use crate::{placement, redirect};
use http::HeaderMap;
use kvdb_protocol::{ErrorCode, Key, Problem, UnixMillis, VolumeId};
use kvdb_server::body::Response;
use kvdb_server::query::Query;
use std::sync::Arc;

/// Sends the client to a live replica.
pub(crate) async fn read(node: &Node, headers: &HeaderMap, key: &Key, query: &Query) -> Result<Response, Problem> {
    let record = node.catalog.lookup(key).await.map_err(|e| e.problem())?.ok_or_else(|| absent(key))?;
    let back = redirect::back(node, headers)?;
    redirected(node, key, &record, query, &back)
}

/// A redirect to a live replica. What is missed there is asked for again at `back`.
pub(crate) fn redirected(node: &Node, key: &Key, record: &Record, query: &Query, back: &str) -> Result<Response, Problem> {
    let missed = redirect::missed(query, record.version);
    if let Some(volume) = missed.last() {
        tracing::warn!(%key, version = %record.version, %volume, "a volume does not have, or cannot read, the copy that it should");
    }
    let live = replica(node, record, &missed).ok_or_else(|| no_replica(record))?;
    let response = redirect::to_read(&live, key, record.version, &missed, back)?;
    Ok(tell_expiry(node, record.expires, response))
}

/// Says when the value expires, if it does.
pub(crate) fn tell_expiry(node: &Node, expires: Option<UnixMillis>, mut response: Response) -> Response {
    if let Some(at) = expires {
        kvdb_server::expiry::tell(response.headers_mut(), at, node.catalog.expiry_now());
    }
    response
}

/// A live replica of the record: the less busy of two random ones.
pub(crate) fn replica(node: &Node, record: &Record, except: &[VolumeId]) -> Option<Arc<Live>> {
    let live = node.members.live();
    let candidates: Vec<placement::Replica> = record
        .replicas
        .iter()
        .filter(|id| !except.contains(id))
        .filter_map(|id| live.get(id).map(|l| placement::Replica { id: *id, busy: l.status.busy }))
        .collect();
    placement::choose_reader(&candidates, &mut rand::rng()).and_then(|id| live.get(&id).cloned())
}

pub(crate) fn absent(key: &Key) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("there is no key {key}"))
}

pub(crate) fn no_replica(record: &Record) -> Problem {
    let detail = format!("none of the {} volumes that hold the value is reachable with a good copy", record.replicas.len());
    Problem::new(ErrorCode::NoReplica, detail)
}
