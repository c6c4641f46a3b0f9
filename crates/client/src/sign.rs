//! URLs for somebody who has no token, such as a browser.

use crate::client::Client;
use crate::error::Error;
use crate::url;
use kvdb_protocol::signed_url::PATH;
use kvdb_protocol::{Key, UnixMillis};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What a signed URL permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignFor {
    /// To read the key: `GET` and `HEAD`.
    Reading,
    /// To store a value under it: `PUT` and `POST`.
    Writing,
}

/// A URL that permits one thing until a time, to whoever has it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct SignedUrl {
    /// The whole URL.
    pub url: String,
    /// The last moment at which a request may begin, by the cluster's time.
    pub expires: UnixMillis,
}

/// A signed URL is never printed by accident.
impl std::fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedUrl").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Client {
    /// Has the master sign a URL for a key in the name of this client's token, which must have the right itself, also when the URL is
    /// used. `life` is 1 ms to 7 days.
    ///
    /// An [`Error::Problem`] of the code `bad_request` where the cluster has no tokens, as its URLs need no signature then.
    pub async fn sign(&self, key: &Key, what: SignFor, life: Duration) -> Result<SignedUrl, Error> {
        let method = match what {
            SignFor::Reading => "GET",
            SignFor::Writing => "PUT",
        };
        let asked = json!({ "key": key.to_query(), "method": method, "for": format!("{}ms", life.as_millis()) }).to_string();
        let mut retry = self.retry();
        loop {
            match self.sign_once(asked.clone()).await {
                Ok(signed) => return Ok(signed),
                Err(e) => retry.or_give_up(e).await?,
            }
        }
    }

    async fn sign_once(&self, asked: String) -> Result<SignedUrl, Error> {
        let mut at = self.transport.base.clone();
        at.set_path(PATH);
        let mut request = self.transport.request(Method::POST, at, &HeaderMap::new());
        *request.body_mut() = Some(asked.into());
        let response = self.transport.send(request).await?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(None, response).await);
        }
        let (status, shown) = (response.status().as_u16(), url::shown(response.url()));
        let answer = self.transport.read_small(response, MAX_ANSWER_BYTES).await?;
        let unread = |e: serde_json::Error| Error::NotKvdb { url: shown, reason: format!("its answer cannot be read: {e}"), status };
        serde_json::from_slice(&answer).map_err(unread)
    }
}
