//! FlatDB: `/get`, `/getrange`, `/put` and `/delete`, all of them GETs, on keys and values that are UTF-8 text.

use crate::access::challenged;
use crate::batch::{Action, MAX_OPERATIONS, Operation};
use crate::catalog::ListQuery;
use crate::front::form::{self, Pair};
use crate::front::{self, FrontKind, authorise, browser, not_allowed, operation, write};
use crate::node::Node;
use crate::several::held_json;
use crate::tokens::Right;
use crate::values::{self, Found, Values};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kvdb_protocol::limits::{MAX_VALUES_PAGE_BYTES, MAX_VALUES_PAGE_KEYS};
use kvdb_protocol::{ErrorCode, Key, Problem, key};
use kvdb_server::RequestContext;
use kvdb_server::body::{self, Response};
use kvdb_server::guard::Request;
use serde::Serializer;
use serde::ser::SerializeMap;
use std::collections::HashSet;
use std::sync::Arc;

/// Longest document that is answered, in bytes: what pages may take beside their values.
const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

pub(crate) struct FlatDb {
    pub node: Arc<Node>,
}

impl kvdb_server::Service for FlatDb {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        challenged(self.answer(request, cx).await)
    }
}

impl FlatDb {
    async fn answer(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        let path = request.uri().path();
        let (reads, allowed) = match path {
            "/get" | "/getrange" => (true, "GET, HEAD"),
            // HEAD must change nothing.
            "/put" | "/delete" => (false, "GET"),
            _ => return Err(Problem::new(ErrorCode::NotFound, "FlatDB has /get, /getrange, /put and /delete")),
        };
        if !(*request.method() == Method::GET || reads && *request.method() == Method::HEAD) {
            return Ok(not_allowed(allowed, &cx));
        }
        browser::refuse(request.headers(), cx.local)?;
        let query = request.uri().query().unwrap_or_default();
        let pairs = form::parse(query.as_bytes(), MAX_OPERATIONS)?;
        let (node, headers) = (&self.node, request.headers());
        let mut response = match path {
            "/get" => Box::pin(get(node, headers, &pairs)).await?,
            "/getrange" => Box::pin(range(node, headers, &pairs)).await?,
            "/put" => {
                let puts = puts(pairs)?;
                authorise(node, headers, Right::Write, puts.iter().map(|put| put.key.as_bytes()))?;
                Box::pin(write(FrontKind::FlatDb, node, puts, query.len(), &cx)).await?;
                body::status(StatusCode::CREATED)
            }
            _ => {
                let keys = named(&pairs)?;
                authorise(node, headers, Right::Delete, keys.iter().map(Key::as_bytes))?;
                let deletes = keys.into_iter().map(|key| operation(key, Action::Delete)).collect();
                Box::pin(write(FrontKind::FlatDb, node, deletes, query.len(), &cx)).await?;
                body::status(StatusCode::OK)
            }
        };
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// Text that a client sent. What is no text could be stored, but never shown to a client of FlatDB.
fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    let bad = |_| Problem::new(ErrorCode::BadRequest, format!("'{}' is not UTF-8, and FlatDB has only text", key::query_escape(bytes)));
    std::str::from_utf8(bytes).map_err(bad)
}

fn key_of(name: &[u8]) -> Result<Key, Problem> {
    Ok(Key::new(utf8(name)?)?)
}

/// The keys that `key` names, each once, in order.
fn named(pairs: &[Pair]) -> Result<Vec<Key>, Problem> {
    let mut seen = HashSet::new();
    let mut keys: Vec<Key> = pairs.iter().filter(|(name, _)| name == b"key").map(|(_, key)| key_of(key)).collect::<Result<_, _>>()?;
    keys.retain(|key| seen.insert(key.clone()));
    Ok(keys)
}

/// The first value of a name, if it is not empty.
fn given<'a>(pairs: &'a [Pair], name: &str) -> Result<Option<&'a str>, Problem> {
    let found = pairs.iter().find(|(n, _)| n == name.as_bytes());
    Ok(found.map(|(_, value)| utf8(value)).transpose()?.filter(|value| !value.is_empty()))
}

/// The pairs, which must be text.
fn puts(pairs: Vec<Pair>) -> Result<Vec<Operation>, Problem> {
    pairs.iter().try_for_each(|(name, value)| utf8(name).and(utf8(value)).map(drop))?;
    front::puts(pairs)
}

async fn get(node: &Node, headers: &HeaderMap, pairs: &[Pair]) -> Result<Response, Problem> {
    let keys = named(pairs)?;
    if keys.is_empty() {
        return Ok(body::status(StatusCode::NO_CONTENT));
    }
    authorise(node, headers, Right::Read, keys.iter().map(Key::as_bytes))?;
    let page = values::of_keys(node, &keys, MAX_VALUES_PAGE_BYTES).await?;
    if page.next.is_some() {
        return Err(too_large("the values have more than 8 MiB together; ask for fewer keys"));
    }
    object(node, page).await
}

async fn range(node: &Node, headers: &HeaderMap, pairs: &[Pair]) -> Result<Response, Problem> {
    if !pairs.iter().any(|(name, _)| name == b"from") {
        return Err(Problem::new(ErrorCode::BadRequest, "say where to begin: from=, or from=KEY"));
    }
    let (from, to) = (given(pairs, "from")?.unwrap_or_default(), given(pairs, "to")?);
    let within = in_common(from, to.unwrap_or_default());
    authorise(node, headers, Right::List, [within])?;
    authorise(node, headers, Right::Read, [within])?;
    let limit = given(pairs, "limit")?.map_or(Some(MAX_VALUES_PAGE_KEYS), |limit| limit.parse().ok());
    let limit = limit.filter(|n| (1..=MAX_VALUES_PAGE_KEYS).contains(n));
    let limit = limit.ok_or_else(|| Problem::new(ErrorCode::BadRequest, format!("`limit` must be 1 to {MAX_VALUES_PAGE_KEYS}")))?;
    let query = ListQuery {
        start: Some(from.into()),
        with_start: true,
        last: to.map(|to| to.as_bytes().to_vec()),
        limit,
        detail: true,
        ..ListQuery::default()
    };
    let page = values::of_list(node, &query, MAX_VALUES_PAGE_BYTES).await?;
    let next = page.next.as_deref().map(|last| {
        // The first text after the last key that this page has looked at.
        let from = key::query_escape(&[last, b"\0"].concat());
        let to = to.map(|to| format!("&to={}", key::query_escape(to.as_bytes()))).unwrap_or_default();
        format!("</getrange?from={from}{to}&limit={limit}>; rel=\"next\"")
    });
    let mut response = object(node, page).await?;
    if let Some(next) = next {
        // An empty page that is not the last: all that was looked at had expired.
        *response.status_mut() = StatusCode::OK;
        let next = HeaderValue::from_str(&next);
        response.headers_mut().insert(header::LINK, next.map_err(|_| Problem::new(ErrorCode::Internal, "the link cannot be sent"))?);
    }
    Ok(response)
}

/// What all keys of a range begin with.
fn in_common<'a>(from: &'a str, to: &str) -> &'a [u8] {
    let same = from.bytes().zip(to.bytes()).take_while(|(a, b)| a == b).count();
    from.as_bytes().get(..same).unwrap_or_default()
}

/// The document of a page: an object of its keys, in order. 404 where it is empty, as FlatDB has it.
async fn object(node: &Node, mut page: Values) -> Result<Response, Problem> {
    let long: Vec<&Key> = page.found.iter().filter(|f| f.value.is_none()).map(|f| &f.key).collect();
    if !long.is_empty() {
        return Err(too_large("a value has more than 8 MiB; read it at the master's own port").of_keys(long));
    }
    let other: Vec<&Key> = page.found.iter().filter(|f| shown(f).is_none()).map(|f| &f.key).collect();
    if !other.is_empty() {
        let detail = "a key or its value is not UTF-8, so JSON cannot carry it; read it at the master's own port";
        return Err(Problem::new(ErrorCode::NotText, detail).of_keys(other));
    }
    let bytes: u64 = page.found.iter().filter_map(shown).map(|(key, value)| escaped_len(key) + escaped_len(value) + 6).sum();
    if bytes > MAX_DOCUMENT_BYTES {
        return Err(too_large("written as JSON, the values have more than 32 MiB; ask for fewer keys"));
    }
    // Pages share the memory by the bytes of their values, and may take twice as much as JSON.
    values::grow(node, &mut page.memory, u32::try_from(bytes / 2048).unwrap_or(u32::MAX)).await?;
    let memory = page.memory.take();
    let mut response = held_json(&Object(&page.found), memory);
    if page.found.is_empty() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

fn too_large(detail: &str) -> Problem {
    Problem::new(ErrorCode::ValueTooLarge, detail)
}

/// A key and its value, if both are text.
fn shown(found: &Found) -> Option<(&str, &str)> {
    let value = found.value.as_deref().unwrap_or_default();
    Some((std::str::from_utf8(found.key.as_bytes()).ok()?, std::str::from_utf8(value).ok()?))
}

/// Bytes of a text in JSON, without the quotes.
fn escaped_len(text: &str) -> u64 {
    let of = |b: u8| match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

/// An object with its members in order.
struct Object<'a>(&'a [Found]);

impl serde::Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0.iter().filter_map(shown) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<Pair> {
        form::parse(query.as_bytes(), 99).unwrap()
    }

    #[test]
    fn of_a_key_that_is_put_twice_the_last_value_counts() {
        let put = puts(pairs("a=1&b=2&a=3&c")).unwrap();
        let of = |at: usize| (put[at].key.display(), put[at].action.clone());
        assert_eq!(put.len(), 3);
        assert_eq!(of(0), ("a".into(), front::put(b"3".to_vec())));
        assert_eq!(of(1), ("b".into(), front::put(b"2".to_vec())));
        assert_eq!(of(2), ("c".into(), front::put(Vec::new())));
    }

    #[test]
    fn what_is_no_text_or_no_key_is_refused() {
        for query in ["%ff=a", "a=%ff", "=a", "-/x=a"] {
            assert_eq!(puts(pairs(query)).unwrap_err().status, 400, "{query}");
        }
        for query in ["key=", "key=%ff", "key=a&key=-/x"] {
            assert_eq!(named(&pairs(query)).unwrap_err().status, 400, "{query}");
        }
        assert_eq!(named(&pairs("key=b&kez=x&key=a&key=b")).unwrap().len(), 2);
    }

    #[test]
    fn a_range_needs_rights_for_what_its_ends_have_in_common() {
        for (from, to, within) in [("a/1", "a/9", "a/"), ("a", "b", ""), ("", "b", ""), ("a", "", ""), ("ab", "ab", "ab"), ("a", "ab", "a")]
        {
            assert_eq!(in_common(from, to), within.as_bytes(), "{from} to {to}");
        }
    }

    #[test]
    fn the_length_of_a_document_is_known_before_it_is_made() {
        for text in ["", "a\"b\\c/ü\u{1f600}\n\r\t\u{8}\u{c}", "\0\u{1b}\u{1f} \u{7f}"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(escaped_len(text), json.len() as u64 - 2, "{json}");
        }
    }
}
