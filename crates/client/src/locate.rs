//! Where all live replicas of a value are.

use crate::client::Client;
use crate::error::Error;
use crate::info::Info;
use crate::list::Detail;
use crate::url;
use kvdb_protocol::Key;
use kvdb_protocol::ttl::TTL_HEADER;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Url};
use serde::Deserialize;
use std::time::Duration;

/// Most bytes of the master's answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Wire {
    #[serde(flatten)]
    detail: Detail,
    locations: Vec<String>,
}

/// A value, and where it can be read.
pub(crate) struct Located {
    /// What the master knows of it.
    pub(crate) info: Info,
    /// The URL of this version at each live replica; at least one.
    pub(crate) locations: Vec<Url>,
}

impl Client {
    /// Asks once. None: the master does not tell of replicas, and redirects instead.
    pub(crate) async fn locate(&self, key: &Key) -> Result<Option<Located>, Error> {
        let mut at = url::of_key(&self.transport.base, key)?;
        at.set_query(Some("locate"));
        let response = self.transport.send(self.transport.request(Method::GET, at.clone(), &HeaderMap::new())).await?;
        if response.status().is_redirection() {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(self.transport.refusal(Some(key), response).await);
        }
        let (status, ttl) = (response.status().as_u16(), ttl(response.headers()));
        let body = self.transport.read_small(response, MAX_ANSWER_BYTES).await?;
        let malformed = |reason: String| Error::NotKvdb { url: url::shown(&at), reason, status };
        let wire: Wire = serde_json::from_slice(&body).map_err(|e| malformed(format!("its answer cannot be read: {e}")))?;
        let locations: Vec<Url> = wire.locations.iter().map(|l| url::of_location(&at, l)).collect::<Result<_, _>>()?;
        let first = locations.first().ok_or_else(|| malformed("it names no replica".into()))?;
        let Detail { len, etag, content_type, modified, expires, version } = wire.detail;
        let volume = url::origin(first);
        let info = Info { len, etag, content_type, modified: Some(modified), version: Some(version), expires, ttl, volume };
        Ok(Some(Located { info, locations }))
    }
}

fn ttl(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HeaderName::from_static(TTL_HEADER))?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}
