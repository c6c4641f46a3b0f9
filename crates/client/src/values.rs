//! Small values of several keys at once, and the newest of several.

use crate::client::Client;
use crate::error::Error;
use crate::list::{Detail, ListOptions, query};
use crate::transport;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_protocol::Key;
use kvdb_protocol::key::{decode, query_escape};
use kvdb_protocol::limits::MAX_VALUES_PAGE_KEYS;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

/// Most bytes of a page: 8 MiB of values, at most doubled by JSON, and 1,000 keys with what is known of them.
const MAX_PAGE_BYTES: usize = 32 << 20;
/// Most bytes of the keys in one URL.
const MAX_QUERY_BYTES: usize = 32 << 10;
const KEY_HEADER: &str = "kvdb-key";

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valued {
    /// The key.
    pub key: Key,
    /// What is known of its value.
    pub detail: Detail,
    /// The value, checked; none where it has more than 64 KiB, and is to be asked for by itself.
    pub value: Option<Vec<u8>>,
}

/// A part of a list, with values, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValuesPage {
    /// The keys with their values.
    pub values: Vec<Valued>,
    /// Of keys that were named, those that have no value.
    pub missing: Vec<Key>,
    /// Common prefixes, with a delimiter only.
    pub prefixes: Vec<Vec<u8>>,
    /// Give this as `start` for the next page; none: there is no more.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct WirePage {
    next: String,
    values: Vec<WireValue>,
    #[serde(default)]
    missing: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
}

#[derive(Deserialize)]
struct WireValue {
    key: String,
    #[serde(flatten)]
    detail: Detail,
    value: Option<String>,
    base64: Option<String>,
}

impl Client {
    /// The values of these keys, in their order, and which of them have none. Values of one page of the server's (1,000 keys or 8 MiB)
    /// are of one moment; more keys take several.
    pub async fn get_many(&self, keys: &[Key]) -> Result<ValuesPage, Error> {
        let (mut all, mut left) = (ValuesPage::default(), keys);
        while !left.is_empty() {
            let (mut some, mut target) = (0, "get".to_string());
            for key in left.iter().take(MAX_VALUES_PAGE_KEYS) {
                let part = format!("&key={}", key.to_query());
                if some > 0 && target.len() + part.len() > MAX_QUERY_BYTES {
                    break;
                }
                target.push_str(&part);
                some += 1;
            }
            let mut start = String::new();
            loop {
                let page = self.values_page(self.at_root(&format!("{target}{start}"))).await?;
                all.values.extend(page.values);
                all.missing.extend(page.missing);
                let Some(next) = page.next else { break };
                start = format!("&start={}", query_escape(next.as_bytes()));
            }
            left = left.get(some..).unwrap_or_default();
        }
        Ok(all)
    }

    /// One page of the keys that begin with `prefix`, which may be empty, with their values.
    pub async fn list_values(&self, prefix: &[u8], options: &ListOptions) -> Result<ValuesPage, Error> {
        let mut at = crate::url::of_bytes(&self.transport.base, prefix)?;
        at.set_query(Some(&format!("{}&values", query(options))));
        self.values_page(at).await
    }

    /// The key among these whose value was written last; none where none has one.
    pub async fn newest(&self, keys: &[Key]) -> Result<Option<Key>, Error> {
        let named: String = keys.iter().map(|k| format!("&key={}", k.to_query())).collect();
        let (at, mut retry) = (self.at_root(&format!("newest{named}")), self.retry());
        loop {
            let request = self.transport.request(Method::HEAD, at.clone(), &HeaderMap::new());
            let failed = match self.transport.send(request).await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(response) if response.status() == StatusCode::FOUND => {
                    let name = response.headers().get(KEY_HEADER).and_then(|v| v.to_str().ok());
                    let key = name.and_then(|n| decode(n).ok()).and_then(|k| Key::new(k).ok());
                    return key.map(Some).ok_or_else(|| transport::not_kvdb(&response, "it does not say which key is the newest".into()));
                }
                Ok(response) => self.transport.refusal(None, response).await,
                Err(e) => e,
            };
            retry.or_give_up(failed).await?;
        }
    }

    fn at_root(&self, query: &str) -> Url {
        let mut at = self.transport.base.clone();
        at.set_query(Some(query));
        at
    }

    async fn values_page(&self, at: Url) -> Result<ValuesPage, Error> {
        let mut retry = self.retry();
        loop {
            match self.page_once(at.clone(), MAX_PAGE_BYTES, parse).await {
                Ok(page) => return Ok(page),
                Err(e) => retry.or_give_up(e).await?,
            }
        }
    }
}

fn parse(body: &[u8]) -> Result<ValuesPage, String> {
    let wire: WirePage = serde_json::from_slice(body).map_err(|e| format!("its page of values cannot be read: {e}"))?;
    let key = |text: &str| decode(text).and_then(Key::new).map_err(|e| format!("its page has the key {text:?}: {e}"));
    let value = |w: WireValue| {
        let value = match (w.value, w.base64) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(coded)) => Some(BASE64_STANDARD.decode(coded).map_err(|e| format!("the value of {} is malformed: {e}", w.key))?),
            (None, None) => None,
        };
        let right = value.as_ref().is_none_or(|v| v.len() as u64 == w.detail.len && kvdb_protocol::ContentHash::of(v) == w.detail.etag);
        if !right {
            return Err(format!("the value of {} is not what its ETag says", w.key));
        }
        Ok(Valued { key: key(&w.key)?, detail: w.detail, value })
    };
    Ok(ValuesPage {
        values: wire.values.into_iter().map(value).collect::<Result<_, _>>()?,
        missing: wire.missing.iter().map(|k| key(k)).collect::<Result<_, _>>()?,
        prefixes: wire.prefixes.iter().map(|p| decode(p).map_err(|e| format!("the prefix {p:?}: {e}"))).collect::<Result<_, _>>()?,
        next: Some(wire.next).filter(|n| !n.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvdb_protocol::{ContentHash, VersionId};

    fn document(value: &str, of: &[u8]) -> Vec<u8> {
        let (etag, version, len) = (ContentHash::of(of), VersionId::from_parts(1, 2), of.len());
        format!(
            r#"{{"next":"","missing":["%25"],"values":[{{"key":"k","version":"{version}","etag":"{etag}","length":{len},"content_type":null,"modified":5,"expires":null,{value}}}]}}"#
        )
        .into_bytes()
    }

    #[test]
    fn values_are_read_as_text_or_base64_and_checked() {
        for (shown, bytes) in [(r#""value":"a\"b""#, &b"a\"b"[..]), (r#""base64":"AP8=""#, &[0, 255])] {
            let page = parse(&document(shown, bytes)).unwrap();
            assert_eq!((page.values[0].value.as_deref(), page.missing[0].as_bytes()), (Some(bytes), &b"%"[..]));
            assert!(parse(&document(shown, b"other")).is_err());
        }
        assert_eq!(parse(&document(r#""location":"/k""#, &[7; 9])).unwrap().values[0].value, None);
        assert!(parse(&document(r#""base64":"?""#, b"")).is_err() && parse(b"{}").is_err());
    }
}
