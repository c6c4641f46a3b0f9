//! Redirects: which URL at which volume a client is sent to.

use crate::members::Live;
use crate::node::Node;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use kvdb_protocol::limits::MAX_REPLICAS;
use kvdb_protocol::{ErrorCode, Key, Problem, VersionId, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;

/// Path of values at a volume whose key would not survive clients as a path.
const BLOB_PATH: &str = "/-/blob";
/// A client that was sent back this often is told to come again later.
const MAX_SENT_BACK: usize = 8;

/// The URL of a key at a volume, up to the `?` or `&` that its parameters begin with.
fn at_volume(live: &Live, key: &Key) -> String {
    if key.survives_clients() {
        format!("{}{}?", live.public_url, key.to_path())
    } else {
        format!("{}{BLOB_PATH}?key={}&", live.public_url, key.to_query())
    }
}

/// A 302 to read a version. What was missed elsewhere goes along, so that each replica is tried once.
pub(crate) fn to_read(live: &Live, key: &Key, version: VersionId, missed: &[VolumeId], back: &str) -> Result<Response, Problem> {
    let back = kvdb_protocol::key::query_escape(back.as_bytes());
    let missed: String = missed.iter().map(|volume| format!("&missed={version}.{volume}")).collect();
    to(StatusCode::FOUND, &format!("{}v={version}&back={back}{missed}", at_volume(live, key)))
}

/// A 307 to delete here, under a ticket.
pub(crate) fn to_self(node: &Node, headers: &HeaderMap, key: &Key, version: VersionId, ticket: &str) -> Result<Response, Problem> {
    let url = format!("http://{}{}?ticket={ticket}", own_host(node, headers)?, key.to_path());
    Ok(naming(version, to(StatusCode::TEMPORARY_REDIRECT, &url)?))
}

/// A 307 to write or delete under a ticket.
///
/// It tells the version that a write would make, so that a client which loses the answer can ask whether it was made.
pub(crate) fn to_write(live: &Live, key: &Key, version: VersionId, ticket: &str) -> Result<Response, Problem> {
    Ok(naming(version, to(StatusCode::TEMPORARY_REDIRECT, &format!("{}ticket={ticket}", at_volume(live, key)))?))
}

fn naming(version: VersionId, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&version.to_string()) {
        response.headers_mut().insert("kvdb-version", value);
    }
    response
}

fn to(status: StatusCode, location: &str) -> Result<Response, Problem> {
    let value = HeaderValue::from_str(location)
        .map_err(|_| Problem::new(ErrorCode::Internal, "a volume's public URL cannot be sent; check its --public-url"))?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The host by which the client knows this master: configured, or as its request names it.
pub(crate) fn own_host<'a>(node: &'a Node, headers: &'a HeaderMap) -> Result<&'a str, Problem> {
    if let Some(url) = &node.config.public_url {
        return Ok(url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/'));
    }
    headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .filter(|h| h.parse::<http::uri::Authority>().is_ok())
        .ok_or_else(|| Problem::new(ErrorCode::BadRequest, "the Host header is missing or malformed"))
}

/// The URL at the master to which a volume sends the client back when it cannot take its write.
pub(crate) fn return_to(node: &Node, headers: &HeaderMap, uri: &Uri, key: &Key) -> Result<String, Problem> {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    Ok(format!("http://{}{}{query}", own_host(node, headers)?, key.to_path()))
}

/// The volumes that sent the client back.
pub(crate) fn avoided(query: &Query) -> Result<Vec<VolumeId>, Problem> {
    let volumes: Vec<VolumeId> =
        query.all("avoid").chain(query.all("full")).filter_map(|v| std::str::from_utf8(v).ok()).filter_map(|v| v.parse().ok()).collect();
    if volumes.len() > MAX_SENT_BACK {
        return Err(Problem::new(ErrorCode::NoVolumes, "no volume could take the value; try again later"));
    }
    Ok(volumes)
}

/// The volumes that said that they do not have, or cannot read, their copy of this version.
pub(crate) fn missed(query: &Query, version: VersionId) -> Vec<VolumeId> {
    let prefix = format!("{version}.");
    let named = query.all("missed").filter_map(|m| std::str::from_utf8(m).ok()?.strip_prefix(&prefix)?.parse().ok());
    named.take(MAX_REPLICAS).collect()
}
