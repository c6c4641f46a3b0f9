//! All keys of a prefix deleted, a page at a time.

use crate::client::Client;
use crate::error::Error;
use crate::url;
use kvdb_protocol::key::query_escape;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Which keys are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that begin with this, which must not be empty.
    Prefix(Vec<u8>),
    /// All keys of the cluster.
    All,
}

/// What a page of a deletion did, durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedPage {
    /// Number of keys.
    pub deleted: u64,
    /// Bytes of their values, one copy of each.
    pub bytes: u64,
    /// Where to go on; none: there are no more.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct WirePage {
    deleted: u64,
    bytes: u64,
    next: String,
}

impl Client {
    /// Deletes a page of keys, up to 1,000 in one durable step; `start` is the `next` of the page before.
    ///
    /// Where an answer was lost, the page is asked for again and deletes what is left of it, so the numbers may then be too small.
    pub async fn delete_page(&self, which: &Which, start: Option<&str>) -> Result<DeletedPage, Error> {
        let mut at = match which {
            Which::Prefix(prefix) => url::of_bytes(&self.transport.base, prefix)?,
            Which::All => self.transport.base.clone(),
        };
        let all = if *which == Which::All { "&all" } else { "" };
        let start = start.map(|s| format!("&start={}", query_escape(s.as_bytes()))).unwrap_or_default();
        at.set_query(Some(&format!("delete-all{all}{start}")));
        let mut retry = self.retry();
        loop {
            let error = match self.delete_page_once(at.clone()).await {
                Ok(page) => return Ok(page),
                Err(e) if e.leaves_doubt() => Error::Interrupted { url: url::origin(&at), reason: e.to_string() },
                Err(e) => e,
            };
            retry.or_give_up(error).await?;
        }
    }

    /// Deletes all of these keys, and tells `each` of every page as it is done. Interrupted, it has deleted the pages that were told;
    /// called again, it goes on. Of keys that are stored meanwhile, some may be deleted and others not.
    pub async fn delete_all(&self, which: &Which, mut each: impl FnMut(&DeletedPage)) -> Result<(), Error> {
        let mut start = None;
        loop {
            let page = self.delete_page(which, start.as_deref()).await?;
            each(&page);
            match page.next {
                Some(next) => start = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn delete_page_once(&self, at: url::Url) -> Result<DeletedPage, Error> {
        let response = self.transport.send(self.transport.request(Method::POST, at, &HeaderMap::new())).await?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(None, response).await);
        }
        let (status, shown) = (response.status().as_u16(), url::shown(response.url()));
        let answer = self.transport.read_small(response, MAX_ANSWER_BYTES).await?;
        parse(&answer).map_err(|reason| Error::NotKvdb { url: shown, reason, status })
    }
}

fn parse(answer: &[u8]) -> Result<DeletedPage, String> {
    let wire: WirePage = serde_json::from_slice(answer).map_err(|e| format!("what it deleted cannot be read: {e}"))?;
    Ok(DeletedPage { deleted: wire.deleted, bytes: wire.bytes, next: Some(wire.next).filter(|n| !n.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_none_refused() {
        let page = parse(br#"{"deleted":3,"bytes":9,"next":"a/b"}"#).unwrap();
        assert_eq!(page, DeletedPage { deleted: 3, bytes: 9, next: Some("a/b".into()) });
        assert_eq!(parse(br#"{"deleted":0,"bytes":0,"next":""}"#).unwrap().next, None);
        assert!(parse(b"{}").is_err() && parse(b"").is_err());
    }
}
