//! What became of a write whose answer was lost: the master is asked, which has the last word.

use crate::client::Client;
use crate::error::Error;
use crate::transport::{MAX_HOPS, redirect, too_many_hops};
use crate::url;
use kvdb_protocol::Key;
use kvdb_protocol::message::{Resolved, path};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use std::time::Duration;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// A commit runs to its end without its client; this gives it the time. What is not committed when the master is asked never will be.
const COMMIT_TIME: Duration = Duration::from_millis(100);

impl Client {
    /// What became of the write that this ticket permitted: final, so that one that was refused can be sent again and does not take effect
    /// twice. None where nobody could say.
    pub(crate) async fn outcome_of(&self, ticket: &str) -> Option<Resolved> {
        tokio::time::sleep(COMMIT_TIME).await;
        let mut retry = self.retry();
        loop {
            match self.ask_outcome(ticket).await {
                Ok(resolved) => return Some(resolved),
                Err(error) => {
                    let reason = error.to_string();
                    if retry.or_give_up(error).await.is_err() {
                        tracing::debug!(reason, "the master does not say what became of a write");
                        return None;
                    }
                }
            }
        }
    }

    /// One try of a delete: a success or an error. The ticket under which the last request of it went out is noted.
    pub(crate) async fn delete_once(&self, key: &Key, ticket: &mut Option<String>) -> Result<Response, Error> {
        let mut at = url::of_key(&self.transport.base, key)?;
        for _ in 0..=MAX_HOPS {
            *ticket = url::ticket(&at).map(String::from);
            let response = self.transport.send(self.transport.request(Method::DELETE, at.clone(), &HeaderMap::new())).await?;
            match redirect(&response)? {
                Some(next) => at = next,
                None if response.status().is_success() => return Ok(response),
                None => return Err(self.transport.refusal(Some(key), response).await),
            }
        }
        Err(too_many_hops(&at))
    }

    async fn ask_outcome(&self, ticket: &str) -> Result<Resolved, Error> {
        let mut at = self.transport.base.clone();
        at.set_path(path::OUTCOME);
        let mut request = self.transport.request(Method::POST, at, &HeaderMap::new());
        *request.body_mut() = Some(ticket.to_string().into());
        let response = self.transport.send(request).await?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(None, response).await);
        }
        let (status, shown) = (response.status().as_u16(), url::shown(response.url()));
        let answer = self.transport.read_small(response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&answer).map_err(|e| Error::NotKvdb {
            url: shown,
            reason: format!("its answer cannot be read: {e}"),
            status,
        })
    }
}
