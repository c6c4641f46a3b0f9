//! Listing keys.

use crate::client::Client;
use crate::error::Error;
use crate::url;
use futures_util::{Stream, stream};
use kvdb_protocol::key::{decode, query_escape};
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, Url};
use serde::Deserialize;

/// Most bytes of a page: 10,000 keys of 1024 bytes, each percent-encoded and with its details.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Most keys of a page; the server has a bound and a default of its own.
    pub limit: Option<usize>,
    /// Where to go on: the `next` of the page before.
    pub start: Option<String>,
    /// Keys that have this after the prefix are given as one common prefix, up to and with it.
    pub delimiter: Option<Vec<u8>>,
    /// With length, hash and so on of each key.
    pub detail: bool,
}

/// A part of a list, in order of the keys' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Listed>,
    /// Common prefixes, with a delimiter only.
    pub prefixes: Vec<Vec<u8>>,
    /// Give this as `start` for the next page; none: there is no more.
    pub next: Option<String>,
}

/// A key of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// What is known of its value, where this was asked for.
    pub detail: Option<Detail>,
}

/// What the master knows of a key's value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Detail {
    /// Length in bytes.
    #[serde(alias = "length")]
    pub len: u64,
    /// Its BLAKE3.
    pub etag: ContentHash,
    /// Its content type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// When it was written.
    pub modified: UnixMillis,
    /// When it expires.
    #[serde(default)]
    pub expires: Option<UnixMillis>,
    /// Its version.
    pub version: VersionId,
}

#[derive(Deserialize)]
struct WirePage {
    #[serde(default)]
    next: Option<String>,
    keys: Vec<WireKey>,
    #[serde(default)]
    prefixes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireKey {
    Bare(String),
    Detailed {
        key: String,
        #[serde(flatten)]
        detail: Detail,
    },
}

impl Client {
    /// One page of the keys that begin with `prefix`, which may be empty.
    pub async fn list(&self, prefix: &[u8], options: &ListOptions) -> Result<Page, Error> {
        let mut retry = self.retry();
        loop {
            match self.list_once(prefix, options).await {
                Ok(page) => return Ok(page),
                Err(e) => retry.or_give_up(e).await?,
            }
        }
    }

    /// All pages from `options.start` on, as a stream that ends after an error.
    pub fn list_all(&self, prefix: &[u8], options: ListOptions) -> impl Stream<Item = Result<Page, Error>> + Send + 'static {
        let (client, prefix) = (self.clone(), prefix.to_vec());
        stream::unfold(Some(options), move |options| {
            let (client, prefix) = (client.clone(), prefix.clone());
            async move {
                let mut options = options?;
                let page = client.list(&prefix, &options).await;
                let next = page.as_ref().ok().and_then(|p| p.next.clone());
                let rest = next.map(|next| {
                    options.start = Some(next);
                    options
                });
                Some((page, rest))
            }
        })
    }

    async fn list_once(&self, prefix: &[u8], options: &ListOptions) -> Result<Page, Error> {
        let mut at = url::of_bytes(&self.transport.base, prefix)?;
        at.set_query(Some(&query(options)));
        self.page_once(at, MAX_PAGE_BYTES, parse).await
    }

    /// One page of at most `max` bytes, of whatever `parse` understands.
    pub(crate) async fn page_once<T>(&self, at: Url, max: usize, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, Error> {
        let response = self.transport.follow(Method::GET, at, &HeaderMap::new()).await?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(None, response).await);
        }
        let about = Answer::of(&response);
        let body = self.transport.read_small(response, max).await?;
        parse(&body).map_err(|reason| about.not_kvdb(reason))
    }
}

/// Who answered, for an error after the answer was read.
struct Answer {
    url: String,
    status: u16,
}

impl Answer {
    fn of(response: &Response) -> Self {
        Self { url: url::shown(response.url()), status: response.status().as_u16() }
    }

    fn not_kvdb(self, reason: String) -> Error {
        Error::NotKvdb { url: self.url, reason, status: self.status }
    }
}

pub(crate) fn query(options: &ListOptions) -> String {
    let mut parts = vec!["list".to_string()];
    if let Some(n) = options.limit {
        parts.push(format!("limit={n}"));
    }
    if let Some(start) = &options.start {
        parts.push(format!("start={}", query_escape(start.as_bytes())));
    }
    if let Some(delimiter) = &options.delimiter {
        parts.push(format!("delimiter={}", query_escape(delimiter)));
    }
    if options.detail {
        parts.push("detail".into());
    }
    parts.join("&")
}

fn parse(body: &[u8]) -> Result<Page, String> {
    let wire: WirePage = serde_json::from_slice(body).map_err(|e| format!("its list cannot be read: {e}"))?;
    let key = |text: &str| decode(text).and_then(Key::new).map_err(|e| format!("its list has the key {text:?}: {e}"));
    let mut page = Page { next: wire.next.filter(|n| !n.is_empty()), ..Page::default() };
    for item in wire.keys {
        page.keys.push(match item {
            WireKey::Bare(text) => Listed { key: key(&text)?, detail: None },
            WireKey::Detailed { key: text, detail } => Listed { key: key(&text)?, detail: Some(detail) },
        });
    }
    for text in wire.prefixes {
        page.prefixes.push(decode(&text).map_err(|e| format!("its list has the prefix {text:?}: {e}"))?);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_was_asked_for() {
        assert_eq!(query(&ListOptions::default()), "list");
        let options = ListOptions { limit: Some(3), start: Some("a&b%41".into()), delimiter: Some(b"/".to_vec()), detail: true };
        assert_eq!(query(&options), "list&limit=3&start=a%26b%2541&delimiter=/&detail");
    }

    #[test]
    fn keys_are_read_plain_or_percent_encoded() {
        let page = parse(br#"{"next":"","keys":["a b","%00%FF%25"],"prefixes":["x/","%FF/"]}"#).unwrap();
        assert_eq!(page.next, None);
        assert_eq!(page.keys.iter().map(|k| k.key.as_bytes()).collect::<Vec<_>>(), [&b"a b"[..], &[0, 255, b'%']]);
        assert_eq!(page.prefixes, [b"x/".to_vec(), vec![255, b'/']]);
    }

    #[test]
    fn details_are_read() {
        let hash = ContentHash::of(b"x");
        let version = VersionId::from_parts(1, 2);
        let body = format!(
            r#"{{"keys":[{{"key":"k","len":1,"etag":"{hash}","content_type":null,"modified":5,"expires":null,"version":"{version}"}}]}}"#
        );
        let page = parse(body.as_bytes()).unwrap();
        let detail = Detail { len: 1, etag: hash, content_type: None, modified: UnixMillis(5), expires: None, version };
        assert_eq!(page.keys, [Listed { key: Key::new("k").unwrap(), detail: Some(detail) }]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [&b"[]"[..], b"{}", br#"{"keys":[""]}"#, br#"{"keys":["%"]}"#, br#"{"keys":[5]}"#, b"<html>"] {
            assert!(parse(bad).is_err());
        }
    }
}
