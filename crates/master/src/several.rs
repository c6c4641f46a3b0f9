//! Requests for several keys: `/?get`, `/prefix?list&values`, `/?newest`.

use crate::access::Leave;
use crate::catalog::Record;
use crate::node::Node;
use crate::read::Back;
use crate::values::{self, Found, Values};
use crate::{list, read, redirect};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kvdb_protocol::limits::{MAX_INLINE_VALUE_BYTES, MAX_NEWEST_QUERY_BYTES, MAX_VALUES_PAGE_KEYS};
use kvdb_protocol::{ContentHash, ErrorCode, Key, Problem, UnixMillis, VersionId, key};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;
use serde::Serialize;
use std::collections::HashSet;
use tokio::sync::OwnedSemaphorePermit;

/// The header that tells which of several keys an answer is of, percent-encoded.
const KEY_HEADER: &str = "kvdb-key";

/// `GET /?get`.
pub(crate) async fn get(node: &Node, mut keys: Vec<Key>, query: &Query) -> Result<Response, Problem> {
    if let Some(start) = query.get("start").filter(|s| !s.is_empty()).map(list::start).transpose()? {
        let at = keys.iter().position(|k| k.as_bytes() == start);
        let at = at.ok_or_else(|| Problem::new(ErrorCode::BadRequest, "`start` is none of the keys; give a page's `next`"))?;
        keys.drain(..at);
    }
    Ok(document(values::of_keys(node, &keys, MAX_INLINE_VALUE_BYTES).await?, true, false))
}

/// `GET /prefix?list&values`.
pub(crate) async fn list(node: &Node, path: &str, query: &Query) -> Result<Response, Problem> {
    let mut asked = list::asked(path, query)?;
    if query.has("limit") && asked.limit > MAX_VALUES_PAGE_KEYS {
        return Err(Problem::new(ErrorCode::BadRequest, format!("with values `limit` must be 1 to {MAX_VALUES_PAGE_KEYS}")));
    }
    asked.limit = asked.limit.min(MAX_VALUES_PAGE_KEYS);
    asked.detail = true;
    Ok(document(values::of_list(node, &asked, MAX_INLINE_VALUE_BYTES).await?, false, asked.delimiter.is_some()))
}

/// The keys that a query names, each once, in its order.
pub(crate) fn keys(query: &Query) -> Result<Vec<Key>, Problem> {
    let mut seen = HashSet::new();
    let mut keys = query.all("key").map(|k| Key::new(k).map_err(Problem::from)).collect::<Result<Vec<_>, _>>()?;
    keys.retain(|k| seen.insert(k.clone()));
    if keys.is_empty() {
        return Err(Problem::new(ErrorCode::BadRequest, "name at least one key, as in key=a&key=b"));
    }
    Ok(keys)
}

/// Of these keys the one that was written last, by the order of commits; none where none has a value.
pub(crate) async fn newest_of(node: &Node, keys: &[Key]) -> Result<Option<(Key, Record)>, Problem> {
    let records = node.catalog.lookup_all(keys).await.map_err(|e| e.problem())?;
    let found = keys.iter().zip(records).filter_map(|(k, r)| Some((k, r?)));
    Ok(found.max_by_key(|(_, r)| r.seq).map(|(k, r)| (k.clone(), r)))
}

/// `GET /?newest`.
pub(crate) async fn newest(node: &Node, headers: &HeaderMap, keys: &[Key], query: &Query, leave: &Leave) -> Result<Response, Problem> {
    question(keys)?;
    let found = newest_of(node, keys).await?.ok_or_else(nothing)?;
    to_newest(node, headers, keys, found, query, leave)
}

pub(crate) fn nothing() -> Problem {
    Problem::new(ErrorCode::NotFound, "none of the keys has a value")
}

/// The query that asks for the newest of these keys; 414 if it is too long.
pub(crate) fn question(keys: &[Key]) -> Result<String, Problem> {
    let names: String = keys.iter().map(|k| format!("&key={}", k.to_query())).collect();
    if names.len() > MAX_NEWEST_QUERY_BYTES {
        let detail = format!("the keys make more than {MAX_NEWEST_QUERY_BYTES} bytes of the URL; ask for fewer");
        return Err(Problem::new(ErrorCode::TooLong, detail));
    }
    Ok(format!("/?newest{names}"))
}

/// A redirect to the newest of some keys. A volume that has the version no longer sends the client back to the very question:
/// another key may be the newest by then.
pub(crate) fn to_newest(
    node: &Node,
    headers: &HeaderMap,
    keys: &[Key],
    (key, record): (Key, Record),
    query: &Query,
    leave: &Leave,
) -> Result<Response, Problem> {
    let back = node.tickets.sign_back(&format!("{}{}", redirect::own_host(node, headers)?, question(keys)?));
    let back = Back { url: &key::query_escape(back.as_bytes()), leave, asked: keys };
    let mut response = read::redirected(node, &key, &record, query, &back)?;
    name_key(response.headers_mut(), &key)?;
    Ok(response)
}

/// Tells which of several keys an answer is of.
pub(crate) fn name_key(headers: &mut HeaderMap, key: &Key) -> Result<(), Problem> {
    let name = HeaderValue::from_str(&key.to_query());
    headers.insert(KEY_HEADER, name.map_err(|_| Problem::new(ErrorCode::Internal, "the key cannot be sent in a header"))?);
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    next: String,
    values: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefixes: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    key: String,
    version: VersionId,
    etag: ContentHash,
    length: u64,
    content_type: Option<&'a str>,
    modified: UnixMillis,
    expires: Option<UnixMillis>,
    #[serde(flatten)]
    value: ShownValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ShownValue<'a> {
    /// Text.
    Value(&'a str),
    /// Bytes that are not text.
    Base64(String),
    /// Where a long value is, relative to this master.
    Location(String),
}

/// Control characters would make JSON six times as long.
fn text(bytes: &[u8]) -> Option<&str> {
    let plain = bytes.iter().all(|b| *b >= b' ' || b"\n\r\t".contains(b));
    std::str::from_utf8(bytes).ok().filter(|_| plain)
}

fn shown(found: &Found) -> Shown<'_> {
    let Found { key, record: r, value } = found;
    let value = match value {
        Some(bytes) => text(bytes).map_or_else(|| ShownValue::Base64(BASE64_STANDARD.encode(bytes)), ShownValue::Value),
        None => ShownValue::Location(key.to_path()),
    };
    Shown {
        key: key.display(),
        version: r.version,
        etag: r.hash,
        length: r.len,
        content_type: r.content_type.as_deref(),
        modified: r.modified,
        expires: r.expires,
        value,
    }
}

fn document(mut page: Values, named: bool, delimited: bool) -> Response {
    let memory = page.memory.take();
    let document = Document {
        next: page.next.as_deref().map(list::next).unwrap_or_default(),
        values: page.found.iter().map(shown).collect(),
        missing: named.then(|| page.missing.iter().map(Key::display).collect()),
        prefixes: delimited.then(|| page.prefixes.iter().map(|p| list::shown(p)).collect()),
    };
    held_json(&document, memory)
}

/// An answer in JSON that keeps its share of the memory until it is sent.
pub(crate) fn held_json<T: Serialize>(document: &T, memory: Option<OwnedSemaphorePermit>) -> Response {
    let mut response = body::status(StatusCode::OK);
    match serde_json::to_vec(document) {
        Ok(bytes) => {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *response.body_mut() = body::full(held(bytes, memory));
        }
        Err(error) => {
            tracing::error!(%error, "a page cannot be written as JSON");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    response
}

/// The bytes of an answer, which keep their share of the memory until they are sent.
pub(crate) fn held(bytes: impl AsRef<[u8]> + Send + 'static, memory: Option<OwnedSemaphorePermit>) -> Bytes {
    Bytes::from_owner(Held { bytes, _memory: memory })
}

struct Held<B> {
    bytes: B,
    _memory: Option<OwnedSemaphorePermit>,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_json_shows_nearly_as_it_is_passes_for_text() {
        assert_eq!(text("a\n\"ü\t".as_bytes()), Some("a\n\"ü\t"));
        for bytes in [&b"\0"[..], b"a\x1b", b"\xff", b"\xc3"] {
            assert_eq!(text(bytes), None);
        }
    }

    #[test]
    fn a_query_names_each_key_once_and_at_least_one() {
        let named = |q| keys(&Query::parse(Some(q)).unwrap()).map(|k| k.iter().map(Key::display).collect::<Vec<_>>());
        assert_eq!(named("get&key=b&key=a%2Fb&key=b").unwrap(), ["b", "a/b"]);
        for bad in ["get", "get&key", "get&key=", "get&key=-/x"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
