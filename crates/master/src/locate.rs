//! `GET /key?locate`: where all live replicas of a value are, for a client that reads from several at once.

use crate::access::Leave;
use crate::node::Node;
use crate::{list, read, redirect};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kvdb_protocol::limits::MAX_REPLICAS;
use kvdb_protocol::{Key, Problem, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

/// What a list tells of the key, and the URL of its version at each live replica, in random order, so that clients spread.
///
/// Volumes that the query says have missed the version are left out, as in a redirect.
pub(crate) async fn locate(node: &Node, headers: &HeaderMap, key: &Key, query: &Query, leave: &Leave) -> Result<Response, Problem> {
    let record = node.catalog.lookup(key).await.map_err(|e| e.problem())?.ok_or_else(|| read::absent(key))?;
    let back = redirect::back(node, headers)?;
    let missed = redirect::missed(query, record.version);
    let live = node.members.live();
    let ids: Vec<VolumeId> =
        record.replicas.iter().filter(|id| !missed.contains(id) && live.contains_key(id)).copied().take(MAX_REPLICAS).collect();
    if ids.is_empty() {
        return Err(read::no_replica(&record));
    }
    let leave = leave.for_reading(node, key, &record, &ids, std::slice::from_ref(key))?;
    let replicas = ids.iter().filter_map(|id| live.get(id));
    let mut locations: Vec<String> = replicas.map(|l| redirect::read_url(l, key, record.version, &back, &leave)).collect();
    locations.shuffle(&mut rand::rng());
    let mut document: Value = list::detailed(key, &record);
    document["locations"] = json!(locations);
    let mut response = body::json(StatusCode::OK, &document);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(read::tell_expiry(node, record.expires, response))
}
