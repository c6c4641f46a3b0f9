//! The catalog for operators: the whole as of one moment, pages of records, a second look, and what is to be removed.

use crate::catalog::exported::KeyRecord;
use crate::catalog::{Record, Unwanted};
use crate::node::Node;
use crate::operator::asked;
use crate::reclaim;
use http::{HeaderValue, StatusCode, header};
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::{ErrorCode, Key, Problem, VersionId, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::duplex;
use kvdb_server::guard::Request;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

/// Most records of one page.
const MAX_PAGE: usize = 1000;

/// Asks for a page of records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// After this key; none: from the beginning.
    pub after: Option<Key>,
}

/// Asks for a second look at a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look {
    /// The key.
    pub key: Key,
    /// Copies of it.
    pub copies: Vec<(VolumeId, VersionId)>,
}

/// What a second look finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The key's record, expired or not.
    pub record: Option<Record>,
    /// Which of the copies volumes have still to remove.
    pub reclaimed: Vec<bool>,
}

/// A page of records in order of key, expired ones included; an empty one at the end.
pub(crate) async fn records(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let page: Page = asked(node, request).await?;
    let records = node.catalog.records(page.after, MAX_PAGE).await.map_err(|e| e.problem())?;
    let records: Vec<KeyRecord> = records.into_iter().map(|(key, record)| KeyRecord { key, record }).collect();
    Ok(body::json(StatusCode::OK, &records))
}

/// A second look at one key.
pub(crate) async fn look(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let look: Look = asked(node, request).await?;
    let (record, reclaimed) = node.catalog.look(look.key, look.copies).await.map_err(|e| e.problem())?;
    Ok(body::json(StatusCode::OK, &Seen { record, reclaimed }))
}

/// Has copies removed that no record names.
pub(crate) async fn unwanted(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let copies: Vec<Unwanted> = asked(node, request).await?;
    if copies.len() > MAX_PEER_BATCH {
        return Err(Problem::new(ErrorCode::BadRequest, "too many copies at once"));
    }
    let volumes: BTreeSet<VolumeId> = copies.iter().map(|c| c.volume).collect();
    let told = node.catalog.remove_unwanted(copies).await.map_err(|e| e.problem())?;
    volumes.into_iter().for_each(|volume| reclaim::kick(node, volume));
    Ok(body::json(StatusCode::OK, &told))
}

/// Streams the catalog.
pub(crate) async fn export(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let () = asked(node, request).await?;
    let export = node.catalog.export().await.map_err(|e| e.problem())?;
    let lines = futures_util::stream::unfold(export, |mut export| async {
        let lines = export.next().await?;
        Some((Ok::<_, Infallible>(lines), export))
    });
    let mut response = Response::new(duplex::body(lines));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}
