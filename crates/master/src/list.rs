//! `GET /prefix?list`: keys in order, a page at a time.

use crate::catalog::{ListEntry, ListPage, ListQuery, Record};
use crate::node::Node;
use http::StatusCode;
use kvdb_protocol::limits::{DEFAULT_LIST_PAGE_KEYS, MAX_LIST_PAGE_KEYS};
use kvdb_protocol::{ErrorCode, Key, Problem, key};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;
use serde_json::{Map, Value, json};

/// One page.
pub(crate) async fn list(node: &Node, path: &str, query: &Query) -> Result<Response, Problem> {
    let asked = asked(path, query)?;
    let page = node.catalog.list(&asked).await.map_err(|e| e.problem())?;
    Ok(body::json(StatusCode::OK, &document(page, asked.detail, asked.delimiter.is_some())))
}

/// What is asked for. `limit` is at most 10,000; `start` is a page's `next`, or a key after which to begin.
pub fn asked(path: &str, query: &Query) -> Result<ListQuery, Problem> {
    let prefix = key::decode(path.strip_prefix('/').unwrap_or(path))?;
    let limit = match query.get_parsed::<usize>("limit")? {
        None => DEFAULT_LIST_PAGE_KEYS,
        Some(n) if (1..=MAX_LIST_PAGE_KEYS).contains(&n) => n,
        Some(_) => return Err(Problem::new(ErrorCode::BadRequest, format!("`limit` must be 1 to {MAX_LIST_PAGE_KEYS}"))),
    };
    Ok(ListQuery {
        prefix,
        start: query.get("start").filter(|s| !s.is_empty()).map(start).transpose()?,
        delimiter: query.get("delimiter").filter(|d| !d.is_empty()).map(<[u8]>::to_vec),
        limit,
        detail: query.has("detail"),
        ..ListQuery::default()
    })
}

/// What a `next` begins with that is not the plain last entry of its page.
const HEX: &str = "hex:";

/// A page's `next`: unchanged by whatever URL encoding a client applies to it.
pub fn next(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~/".contains(b);
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(plain) => text.to_string(),
        _ => bytes.iter().fold(HEX.to_string(), |text, b| format!("{text}{b:02x}")),
    }
}

/// A `start`: a page's `next`, or a key.
pub fn start(given: &[u8]) -> Result<Vec<u8>, Problem> {
    let Some(digits) = given.strip_prefix(HEX.as_bytes()) else { return Ok(given.to_vec()) };
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let digits: Option<Vec<u8>> = digits.iter().map(digit).collect();
    let pairs =
        digits.filter(|d| d.len().is_multiple_of(2)).map(|d| d.chunks_exact(2).map(|p| p.iter().fold(0, |n, d| n << 4 | d)).collect());
    pairs.ok_or_else(|| Problem::new(ErrorCode::BadRequest, "`start` begins with hex: but is not hex"))
}

fn document(page: ListPage, detail: bool, delimited: bool) -> Value {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry {
            ListEntry::Key { key, record: Some(record) } if detail => keys.push(detailed(&key, &record)),
            ListEntry::Key { key, .. } => keys.push(Value::String(key.display())),
            ListEntry::Prefix(prefix) => prefixes.push(Value::String(shown(&prefix))),
        }
    }
    let mut document = Map::new();
    document.insert("next".into(), Value::String(page.next.as_deref().map(next).unwrap_or_default()));
    document.insert("keys".into(), Value::Array(keys));
    if delimited {
        document.insert("prefixes".into(), Value::Array(prefixes));
    }
    Value::Object(document)
}

pub(crate) fn shown(bytes: &[u8]) -> String {
    match Key::new(bytes.to_vec()) {
        Ok(key) => key.display(),
        Err(_) => key::query_escape(bytes),
    }
}

pub(crate) fn detailed(key: &Key, record: &Record) -> Value {
    json!({
        "key": key.display(),
        "len": record.len,
        "etag": record.hash,
        "content_type": record.content_type,
        "modified": record.modified,
        "expires": record.expires,
        "version": record.version,
        "replicas": record.replicas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_is_plain_text_where_it_can_be_and_always_comes_back_as_it_went() {
        assert_eq!(next(b"a/b-1.txt"), "a/b-1.txt");
        for bytes in [&b"a b"[..], b"%41", b"\0\xff", b"hex:61", b"a/"] {
            let text = next(bytes);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-._~/".contains(&b)), "{text}");
            assert_eq!(start(text.as_bytes()).unwrap(), bytes);
        }
        assert!(start(b"hex:6").is_err() && start(b"hex:zz").is_err());
    }
}
