//! Redirects: which URL at which volume a client is sent to.

use crate::members::Live;
use crate::node::Node;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use kvdb_protocol::key::decode;
use kvdb_protocol::limits::MAX_REPLICAS;
use kvdb_protocol::signed_url::SIGNED;
use kvdb_protocol::{ErrorCode, Key, Problem, VersionId, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock};

/// Path of values at a volume whose key would not survive clients as a path.
const BLOB_PATH: &str = "/-/blob";
/// A client that was sent back this often is told to come again later.
const MAX_SENT_BACK: usize = 8;

/// Room for a URL with its parameters, so that it is seldom moved as it grows; in bytes.
const URL_BYTES: usize = 256;

/// The URL of a key at a volume, up to the `?` or `&` that its parameters begin with.
fn at_volume(live: &Live, key: &Key) -> String {
    let mut url = String::with_capacity(URL_BYTES);
    url.push_str(&live.public_url);
    if key.survives_clients() {
        key.push_path(&mut url);
        url.push('?');
    } else {
        url.extend([BLOB_PATH, "?key=", &key.to_query(), "&"]);
    }
    url
}

/// The URL of a version at a volume; `leave` is what [`crate::access::Leave::for_reading`] adds.
pub(crate) fn read_url(live: &Live, key: &Key, version: VersionId, back: &str, leave: &str) -> String {
    let mut url = at_volume(live, key);
    // Writing to a string does not fail.
    let _written = write!(url, "v={version}&back={back}{leave}");
    url
}

/// A 302 to read a version. What was missed elsewhere goes along, so that each replica is tried once.
pub(crate) fn to_read(
    live: &Live,
    key: &Key,
    version: VersionId,
    missed: &[VolumeId],
    back: &str,
    leave: &str,
) -> Result<Response, Problem> {
    let mut url = read_url(live, key, version, back, leave);
    for volume in missed {
        let _written = write!(url, "&missed={version}.{volume}");
    }
    to(StatusCode::FOUND, url)
}

/// A 307 to delete here, under a ticket.
pub(crate) fn to_self(node: &Node, headers: &HeaderMap, key: &Key, version: VersionId, ticket: &str) -> Result<Response, Problem> {
    let url = format!("http://{}{}?ticket={ticket}", own_host(node, headers)?, key.to_path());
    Ok(naming(version, to(StatusCode::TEMPORARY_REDIRECT, url)?))
}

/// A 307 to write or delete under a ticket.
///
/// It tells the version that a write would make, so that a client which loses the answer can ask whether it was made.
pub(crate) fn to_write(live: &Live, key: &Key, version: VersionId, ticket: &str) -> Result<Response, Problem> {
    Ok(naming(version, to(StatusCode::TEMPORARY_REDIRECT, at_volume(live, key) + "ticket=" + ticket)?))
}

fn naming(version: VersionId, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&version.to_string()) {
        response.headers_mut().insert("kvdb-version", value);
    }
    response
}

fn to(status: StatusCode, location: String) -> Result<Response, Problem> {
    let value = HeaderValue::try_from(location)
        .map_err(|_| Problem::new(ErrorCode::Internal, "a volume's public URL cannot be sent; check its --public-url"))?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Signed hosts that are remembered. Clients may name any host, so there is a bound.
const MOST_BACKS: usize = 64;

/// Signed hosts to which volumes may send readers back, as query values.
#[derive(Default)]
pub(crate) struct Backs(RwLock<HashMap<Box<str>, Arc<str>>>);

/// The value of `back`: this master as the client knows it, signed. Signing and checking the host takes longer than a lookup.
pub(crate) fn back(node: &Node, headers: &HeaderMap) -> Result<Arc<str>, Problem> {
    let named = headers.get(header::HOST).and_then(|v| v.to_str().ok()).filter(|_| node.config.public_url.is_none());
    let named = named.unwrap_or_default();
    if let Some(known) = node.backs.0.read().unwrap_or_else(PoisonError::into_inner).get(named) {
        return Ok(Arc::clone(known));
    }
    let signed = node.tickets.sign_back(own_host(node, headers)?);
    let back: Arc<str> = kvdb_protocol::key::query_escape(signed.as_bytes()).into();
    let mut backs = node.backs.0.write().unwrap_or_else(PoisonError::into_inner);
    if backs.len() >= MOST_BACKS {
        backs.clear();
    }
    backs.insert(named.into(), Arc::clone(&back));
    Ok(back)
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

/// The URL at the master to which a volume sends the client back when it cannot take its write. `leave` takes the place of the
/// signature that the request came with.
pub(crate) fn return_to(node: &Node, headers: &HeaderMap, uri: &Uri, key: &Key, leave: Option<String>) -> Result<String, Problem> {
    let is_signature = |part: &&str| decode(part.split('=').next().unwrap_or_default()).is_ok_and(|name| name == SIGNED.as_bytes());
    let asked = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty() && !is_signature(part));
    let query: Vec<&str> = asked.chain(leave.as_deref()).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
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
    if !query.has("missed") {
        return Vec::new();
    }
    let prefix = format!("{version}.");
    let named = query.all("missed").filter_map(|m| std::str::from_utf8(m).ok()?.strip_prefix(&prefix)?.parse().ok());
    named.take(MAX_REPLICAS).collect()
}
