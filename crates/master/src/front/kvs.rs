//! kvs: `GET /?k=KEY` reads, `GET /?k=A,B,C` reads the one written last, `POST /` stores the pairs of a form.

use crate::access::{Leave, challenged};
use crate::batch::{self, MAX_OPERATIONS, Operation};
use crate::front::form::{self, Pair};
use crate::front::{authorise, multipart, not_allowed, page, puts};
use crate::node::Node;
use crate::several;
use crate::tokens::Right;
use crate::values::{self, Found};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kvdb_protocol::limits::MAX_VALUES_PAGE_BYTES;
use kvdb_protocol::{ErrorCode, Key, Problem};
use kvdb_server::RequestContext;
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{Request, read_all};
use kvdb_server::query::Query;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longest form, in bytes.
const MAX_FORM_BYTES: usize = 4 << 20;
/// Forms in memory at a time. Their senders are not known before the last byte, so they get no share of others' memory.
const FORMS: usize = 4;
/// How long a form waits for a place.
const FORM_WAIT: Duration = Duration::from_secs(5);
/// How often the newest of some keys is looked for, while they change.
const MAX_LOOKS: usize = 8;
/// The content types of forms.
const FORM: &str = "application/x-www-form-urlencoded";
const FORM_IN_PARTS: &str = "multipart/form-data";
/// The name in a form that is no key.
const PASSCODE: &[u8] = b"auth";
/// A value runs no scripts in the name of this site, and is what its type says.
const VALUE_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

pub(crate) struct Kvs {
    node: Arc<Node>,
    /// Keys that begin so may be read by anybody.
    public: Option<Vec<u8>>,
    forms: Semaphore,
}

impl Kvs {
    pub fn new(node: Arc<Node>) -> Self {
        let public = node.config.fronts.kvs_public.as_ref().map(|prefix| prefix.as_bytes().to_vec());
        Self { node, public, forms: Semaphore::new(FORMS) }
    }
}

impl kvdb_server::Service for Kvs {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        challenged(self.answer(request, cx).await)
    }
}

/// The keys that commas separate, each once.
fn keys_of(names: &[u8]) -> Result<Vec<Key>, Problem> {
    let mut seen = HashSet::new();
    let names = names.split(|b| *b == b',').filter(|name| !name.is_empty());
    let mut keys: Vec<Key> = names.map(|name| Ok(Key::new(name)?)).collect::<Result<_, Problem>>()?;
    keys.retain(|key| seen.insert(key.clone()));
    if keys.is_empty() {
        return Err(Problem::new(ErrorCode::BadRequest, "name a key, as in ?k=KEY, or several, as in ?k=A,B"));
    }
    Ok(keys)
}

impl Kvs {
    async fn answer(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        if request.uri().path() != "/" {
            return Err(Problem::new(ErrorCode::NotFound, "kvs has one path: /"));
        }
        match *request.method() {
            Method::GET | Method::HEAD => {
                let pairs = form::parse(request.uri().query().unwrap_or_default().as_bytes(), MAX_OPERATIONS)?;
                match pairs.iter().find(|(name, _)| name == b"k") {
                    Some((_, names)) => Box::pin(self.read(request.headers(), names)).await,
                    None => Ok(page::index(request.headers())),
                }
            }
            Method::POST => Box::pin(self.store(request, &cx)).await,
            _ => Ok(not_allowed("GET, HEAD, POST", &cx)),
        }
    }

    async fn read(&self, headers: &HeaderMap, names: &[u8]) -> Result<Response, Problem> {
        let (node, keys) = (&self.node, keys_of(names)?);
        let public = |key: &Key| self.public.as_ref().is_some_and(|prefix| key.as_bytes().starts_with(prefix));
        authorise(node, headers, Right::Read, keys.iter().filter(|key| !public(key)).map(Key::as_bytes))?;
        several::question(&keys)?;
        for _ in 0..MAX_LOOKS {
            let (key, record) = several::newest_of(node, &keys).await?.ok_or_else(several::nothing)?;
            if record.len > MAX_VALUES_PAGE_BYTES {
                let at_master = at_master(node, headers)?;
                return several::to_newest(node, &at_master, &keys, (key, record), &Query::default(), &Leave::of_all(node));
            }
            // If the key has another value by now, that one was the newest meanwhile; if it has none, it is looked for again.
            let mut page = values::of_keys(node, &[key], MAX_VALUES_PAGE_BYTES).await?;
            if let Some(Found { key, record, value: Some(value) }) = page.found.pop() {
                let mut response = body::status(StatusCode::OK);
                *response.body_mut() = body::full(several::held(value, page.memory));
                let headers = response.headers_mut();
                several::name_key(headers, &key)?;
                let plain = HeaderValue::from_static("application/octet-stream");
                let content_type = record.content_type.as_deref().and_then(|t| HeaderValue::from_str(t).ok()).unwrap_or(plain);
                headers.insert(header::CONTENT_TYPE, content_type);
                headers.insert(header::CONTENT_SECURITY_POLICY, VALUE_POLICY);
                headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                if let Ok(etag) = HeaderValue::from_str(&record.hash.etag()) {
                    headers.insert(header::ETAG, etag);
                }
                return Ok(response);
            }
        }
        Err(Problem::new(ErrorCode::Busy, "the keys change faster than they can be read; try again"))
    }

    async fn store(&self, request: Request, cx: &RequestContext) -> Result<Response, Problem> {
        let (head, mut body) = request.into_parts();
        let kind = Kind::of(&head.headers)?;
        let busy = || Problem::new(ErrorCode::Busy, "too many forms arrive at once; try again");
        let place = tokio::time::timeout(FORM_WAIT, self.forms.acquire()).await;
        let _place = place.map_err(|_| busy())?.map_err(|_| busy())?;
        let document = read_all(&mut body, MAX_FORM_BYTES).await?;
        let bytes = document.len();
        let pairs = match kind {
            Kind::UrlEncoded => form::parse(&document, MAX_OPERATIONS + 1)?,
            Kind::Multipart(content_type) => multipart::parse(content_type, document, MAX_OPERATIONS + 1).await?,
        };
        let operations = permitted(&self.node, pairs)?;
        let memory = self.node.batches.room(bytes as u64).await?;
        let keys = operations.len();
        batch::run(&self.node, operations, None, memory, cx).await?;
        Ok(body::text(StatusCode::OK, format!("stored {keys} {}\n", if keys == 1 { "key" } else { "keys" })))
    }
}

/// What a form stores: all its pairs but the passcode, which must be a token that may write all of their keys.
fn permitted(node: &Node, mut pairs: Vec<Pair>) -> Result<Vec<Operation>, Problem> {
    let wrong = || Problem::new(ErrorCode::Forbidden, "`auth` must be the passcode, a token that may write these keys; nothing was stored");
    let passcode = pairs.iter().rfind(|(name, _)| name == PASSCODE).and_then(|(_, value)| String::from_utf8(value.clone()).ok());
    pairs.retain(|(name, _)| name != PASSCODE);
    let (passcode, tokens) = (passcode.ok_or_else(wrong)?, node.tokens.as_ref().ok_or_else(wrong)?.get());
    let holder = tokens.holder(Some(&passcode)).map_err(|_| wrong())?;
    let operations = puts(pairs)?;
    if operations.is_empty() {
        return Err(Problem::new(ErrorCode::BadRequest, "the form has no pair but `auth`"));
    }
    operations.iter().try_for_each(|put| holder.may(Right::Write, put.key.as_bytes())).map_err(|_| wrong())?;
    Ok(operations)
}

/// How a form is written; without a content type as browsers write it.
#[derive(Debug, PartialEq)]
enum Kind<'a> {
    UrlEncoded,
    /// Its content type names what separates the parts.
    Multipart(&'a str),
}

impl<'a> Kind<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Problem> {
        let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::UrlEncoded) };
        let given = given.to_str().unwrap_or_default();
        match given.split(';').next().unwrap_or_default().trim() {
            t if t.eq_ignore_ascii_case(FORM) => Ok(Self::UrlEncoded),
            t if t.eq_ignore_ascii_case(FORM_IN_PARTS) => Ok(Self::Multipart(given)),
            _ => Err(Problem::new(ErrorCode::BadRequest, format!("send the form as {FORM}, as `curl -d` does, or as {FORM_IN_PARTS}"))),
        }
    }
}

/// The headers as if the request had come to the master's own port, where a reader goes on whom a volume sends back.
fn at_master(node: &Node, headers: &HeaderMap) -> Result<HeaderMap, Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    let host = host.map(|host| format!("{}:{}", host.host(), node.listening.port())).and_then(|host| HeaderValue::try_from(host).ok());
    let host = host.ok_or_else(|| Problem::new(ErrorCode::BadRequest, "the Host header is missing or malformed"))?;
    Ok(HeaderMap::from_iter([(header::HOST, host)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_keys_and_each_counts_once() {
        let shown = |names: &str| keys_of(names.as_bytes()).map(|keys| keys.iter().map(Key::display).collect::<Vec<_>>());
        assert_eq!(shown("a").unwrap(), ["a"]);
        assert_eq!(shown("b,a,,b,c d,").unwrap(), ["b", "a", "c d"]);
        for bad in ["", ",,", "-/x"] {
            assert_eq!(shown(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn only_forms_are_taken() {
        let headers = |t: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(t))]);
        for urlencoded in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; charset=utf-8"] {
            assert_eq!(Kind::of(&headers(urlencoded)).unwrap(), Kind::UrlEncoded);
        }
        assert_eq!(Kind::of(&HeaderMap::new()).unwrap(), Kind::UrlEncoded);
        let parts = "Multipart/Form-Data; boundary=x";
        assert_eq!(Kind::of(&headers(parts)).unwrap(), Kind::Multipart(parts));
        assert!(Kind::of(&headers("application/json")).is_err());
    }
}
