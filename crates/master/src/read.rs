//! `GET` and `HEAD` of a key: the hot path of a lookup.

use crate::access::Leave;
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
pub(crate) async fn read(node: &Node, headers: &HeaderMap, key: &Key, query: &Query, leave: &Leave) -> Result<Response, Problem> {
    let record = node.catalog.lookup(key).await.map_err(|e| e.problem())?.ok_or_else(|| absent(key))?;
    let back = redirect::back(node, headers)?;
    redirected(node, key, &record, query, &Back { url: &back, leave, asked: std::slice::from_ref(key) })
}

/// The question that brought a client here, which it asks again if a volume does not have what it is sent to.
pub(crate) struct Back<'a> {
    /// Where, signed, as a query value.
    pub url: &'a str,
    /// By what it was permitted.
    pub leave: &'a Leave,
    /// All keys of the question.
    pub asked: &'a [Key],
}

/// A redirect to a live replica. What is missed there is asked for again.
pub(crate) fn redirected(node: &Node, key: &Key, record: &Record, query: &Query, back: &Back<'_>) -> Result<Response, Problem> {
    let missed = redirect::missed(query, record.version);
    if let Some(volume) = missed.last() {
        tracing::warn!(%key, version = %record.version, %volume, "a volume does not have, or cannot read, the copy that it should");
    }
    let (id, live) = replica(node, record, &missed).ok_or_else(|| no_replica(record))?;
    let leave = back.leave.for_reading(node, key, record, &[id], back.asked)?;
    let response = redirect::to_read(&live, key, record.version, &missed, back.url, &leave)?;
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
pub(crate) fn replica(node: &Node, record: &Record, except: &[VolumeId]) -> Option<(VolumeId, Arc<Live>)> {
    let live = node.members.live();
    let candidates: Vec<placement::Replica> = record
        .replicas
        .iter()
        .filter(|id| !except.contains(id))
        .filter_map(|id| live.get(id).map(|l| placement::Replica { id: *id, busy: l.status.busy }))
        .collect();
    placement::choose_reader(&candidates, &mut rand::rng()).and_then(|id| Some((id, live.get(&id)?.clone())))
}

pub(crate) fn absent(key: &Key) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("there is no key {key}"))
}

pub(crate) fn no_replica(record: &Record) -> Problem {
    let detail = format!("none of the {} volumes that hold the value is reachable with a good copy", record.replicas.len());
    Problem::new(ErrorCode::NoReplica, detail)
}
