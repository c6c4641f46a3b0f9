//! The client: how it is made, and its operations without a value.

use crate::error::Error;
use crate::info::Info;
use crate::retry::Retry;
use crate::transport::{self, Transport};
use crate::url;
use kvdb_protocol::message::Resolved;
use kvdb_protocol::{Key, VersionId};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use std::time::Duration;

/// A client of one cluster. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) transport: Transport,
    retries: u32,
}

/// Makes a [`Client`].
#[derive(Clone, Debug)]
pub struct Builder {
    base: String,
    token: Option<String>,
    retries: u32,
    connect_timeout: Duration,
    answer_timeout: Duration,
    stall_timeout: Duration,
    use_proxy: bool,
}

/// What a delete did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// The version that was removed. None where a server did not say, and where an answer was lost and the
    /// key was found gone at the next try: then this call removed it, or somebody else did at the same time.
    pub removed: Option<VersionId>,
}

impl Builder {
    /// A token for the master, sent as `Authorization: Bearer`. It is never sent to a volume.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Further tries after the first that did not succeed, for what can pass by itself. Default 5, which with
    /// the waits between them is about 3 s. A read that makes progress counts from the start again.
    #[must_use]
    pub fn retries(mut self, n: u32) -> Self {
        self.retries = n;
        self
    }

    /// Longest time to make a connection. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, t: Duration) -> Self {
        self.connect_timeout = t;
        self
    }

    /// Longest wait for an answer, after the last byte of the request. Default 120 s.
    #[must_use]
    pub fn answer_timeout(mut self, t: Duration) -> Self {
        self.answer_timeout = t;
        self
    }

    /// Longest time without a byte while a value is under way. Default 30 s.
    #[must_use]
    pub fn stall_timeout(mut self, t: Duration) -> Self {
        self.stall_timeout = t;
        self
    }

    /// Ignores the proxy that the environment names (`http_proxy`, `no_proxy`).
    #[must_use]
    pub fn no_proxy(mut self) -> Self {
        self.use_proxy = false;
        self
    }

    /// The client. Fails with [`Error::BaseUrl`] when the URL or the token cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        let bad = |reason: String| Error::BaseUrl { url: self.base.clone(), reason };
        let base = url::base(&self.base)?;
        let authorization = match &self.token {
            Some(token) => {
                let mut v = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| bad("the token is not ASCII text".into()))?;
                v.set_sensitive(true);
                Some(v)
            }
            None => None,
        };
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .user_agent(concat!("kvdb-client/", env!("CARGO_PKG_VERSION")));
        if !self.use_proxy {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| bad(format!("the HTTP client cannot be set up: {e}")))?;
        let transport = Transport { http, base, authorization, answer_timeout: self.answer_timeout, stall_timeout: self.stall_timeout };
        Ok(Client { transport, retries: self.retries })
    }
}

impl Client {
    /// A client of the master at `base`, such as `http://localhost:3000`, with the defaults of [`Builder`].
    pub fn new(base: impl Into<String>) -> Result<Self, Error> {
        Self::builder(base).build()
    }

    /// Settings to change.
    pub fn builder(base: impl Into<String>) -> Builder {
        Builder {
            base: base.into(),
            token: None,
            retries: 5,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(30),
            use_proxy: true,
        }
    }

    pub(crate) fn retry(&self) -> Retry {
        Retry::new(self.retries)
    }

    /// What is known of a key's value.
    pub async fn stat(&self, key: &Key) -> Result<Info, Error> {
        let response = self.settled(Method::HEAD, key).await?;
        Info::of_whole(&response)
    }

    /// Deletes a key. Where an answer was lost, the master is asked what became of the delete; if it cannot tell, it is sent again.
    pub async fn delete(&self, key: &Key) -> Result<DeleteOutcome, Error> {
        let (mut retry, mut doubt) = (self.retry(), false);
        loop {
            let mut ticket = None;
            let mut failed = match self.delete_once(key, &mut ticket).await {
                Ok(response) => return Ok(DeleteOutcome { removed: transport::version(&response) }),
                Err(e) => e,
            };
            let mut lost = failed.leaves_doubt() || matches!(failed, Error::Interrupted { .. });
            if let Some(ticket) = ticket.filter(|_| lost) {
                match self.outcome_of(&ticket).await {
                    Some(Resolved::Committed { version, .. }) => return Ok(DeleteOutcome { removed: Some(version) }),
                    // It was not done, and never will be.
                    Some(Resolved::Refused { problem }) => (failed, lost) = (transport::named(Some(key), problem, None), false),
                    // A delete under a ticket is never part of a transaction.
                    Some(Resolved::Staged { .. }) | None => {}
                }
            }
            if doubt && matches!(failed, Error::NotFound(_)) {
                return Ok(DeleteOutcome { removed: None });
            }
            doubt |= lost;
            if lost && failed.leaves_doubt() {
                // It settles by itself, and asking again can do no harm: a delete twice is a delete.
                let reason = failed.to_string();
                let busy = Error::Interrupted { url: url::origin(&self.transport.base), reason: reason.clone() };
                retry.or_give_up(busy).await.map_err(|_| Error::OutcomeUnknown { key: key.clone(), reason })?;
            } else {
                retry.or_give_up(failed).await?;
            }
        }
    }

    /// Whether the cluster takes requests; an error says why not. Asks once.
    pub async fn health(&self) -> Result<(), Error> {
        let mut at = self.transport.base.clone();
        at.set_path("/-/health/ready");
        let response = self.transport.send(self.transport.request(Method::GET, at, &HeaderMap::new())).await?;
        if response.status().is_success() { Ok(()) } else { Err(self.transport.refusal(None, response).await) }
    }

    /// Sends a request without a body until there is an answer that counts.
    async fn settled(&self, method: Method, key: &Key) -> Result<Response, Error> {
        let mut retry = self.retry();
        loop {
            match self.once(method.clone(), key).await {
                Ok(response) => return Ok(response),
                Err(e) => retry.or_give_up(e).await?,
            }
        }
    }

    /// One try of a request without a body: a success or an error.
    async fn once(&self, method: Method, key: &Key) -> Result<Response, Error> {
        let at = url::of_key(&self.transport.base, key)?;
        let response = self.transport.follow(method, at, &HeaderMap::new()).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.transport.refusal(Some(key), response).await) }
    }
}
