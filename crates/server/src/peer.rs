//! Calls between servers: who signs them, how they are sent, what can go wrong.

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method, StatusCode};
use kvdb_protocol::secret::{PEER_HEADER, PeerCall};
use kvdb_protocol::{ClusterId, ErrorCode, PeerKey, Problem, VolumeId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::time::Duration;

/// The header that names the volume that is called, or that calls the master.
pub const VOLUME_HEADER: &str = "kvdb-volume";
/// How long a connection to another server may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections are dropped well before the other side drops them.
const POOL_IDLE: Duration = Duration::from_secs(20);
const MAX_IDLE_PER_HOST: usize = 64;
/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What a server needs to sign and to check calls.
#[derive(Clone)]
pub struct Credentials {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its key for calls between servers.
    pub key: PeerKey,
}

impl Credentials {
    /// Checks the signature of a call that names `volume`; `body` is `None` where it is a stream.
    pub fn verify(&self, head: &http::request::Parts, volume: VolumeId, body: Option<&[u8]>) -> Result<(), Problem> {
        let target = head.uri.path_and_query().map_or("/", |t| t.as_str());
        let call = PeerCall { cluster: self.cluster, volume, method: head.method.as_str(), target, body };
        let given = header(&head.headers, PEER_HEADER)
            .ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "this page is for servers of the cluster; the call is not signed"))?;
        if self.key.verify(&call, given) {
            Ok(())
        } else {
            Err(Problem::new(
                ErrorCode::Forbidden,
                "the call is not signed with this cluster's secret, or is for another cluster or volume",
            ))
        }
    }
}

/// The volume that a call names in its head.
pub fn named_volume(headers: &HeaderMap) -> Result<VolumeId, Problem> {
    header(headers, VOLUME_HEADER)
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| Problem::new(ErrorCode::BadRequest, "the call does not name a volume"))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Why a call to another server brought no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection: the call has certainly not been carried out.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The server.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The call may or may not have been carried out.
    #[error("no answer from {address}: {detail}")]
    Broken {
        /// The server.
        address: String,
        /// Why.
        detail: String,
    },
    /// The server said no.
    #[error("{address} refused: {problem}")]
    Refused {
        /// The server.
        address: String,
        /// Its answer.
        problem: Problem,
    },
}

impl PeerError {
    /// As an answer to whoever asked: the other's own where it gave one.
    pub fn to_problem(&self) -> Problem {
        match self {
            Self::Refused { problem, .. } => problem.clone(),
            Self::Unreachable { .. } | Self::Broken { .. } => Problem::new(ErrorCode::Unavailable, self.to_string()),
        }
    }
}

/// Sends calls to other servers: no proxies, no redirects, kept connections.
#[derive(Clone)]
pub struct Peers {
    http: reqwest::Client,
}

/// Where a call goes.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// The volume that is called, or the caller where the master is called.
    pub volume: VolumeId,
    /// Path and query.
    pub target: &'a str,
}

impl Peers {
    /// Fails only where the HTTP client cannot be made at all.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build()?;
        Ok(Self { http })
    }

    /// `POST` of JSON, answered with JSON. Calls are idempotent, so a broken connection is tried once more. Whatever becomes of the
    /// second try, the first may have been carried out: an error is then [`PeerError::Broken`].
    pub async fn post<A: DeserializeOwned>(
        &self,
        credentials: &Credentials,
        to: Destination<'_>,
        message: &impl Serialize,
        timeout: Duration,
    ) -> Result<A, PeerError> {
        let body = Bytes::from(serde_json::to_vec(message).map_err(|e| broken(to, &e))?);
        match self.call_once(Some(credentials), &Method::POST, to, body.clone(), timeout).await {
            Err(first @ PeerError::Broken { .. }) => {
                let second = self.call_once(Some(credentials), &Method::POST, to, body, timeout).await;
                second.map_err(|second| broken(to, &format_args!("{first}; at the second try: {second}")))
            }
            other => other,
        }
    }

    /// `GET`, answered with JSON; not signed where there are no credentials.
    pub async fn get<A: DeserializeOwned>(
        &self,
        credentials: Option<&Credentials>,
        to: Destination<'_>,
        timeout: Duration,
    ) -> Result<A, PeerError> {
        self.call_once(credentials, &Method::GET, to, Bytes::new(), timeout).await
    }

    /// `GET` as a client asks, with its token if it has one, answered with JSON.
    pub async fn get_with_token<A: DeserializeOwned>(
        &self,
        token: Option<&str>,
        to: Destination<'_>,
        timeout: Duration,
    ) -> Result<A, PeerError> {
        let mut request = self.http.get(url(to)).timeout(timeout);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answered_with_json(to, request).await
    }

    /// `POST` of JSON that is signed only if there are credentials.
    pub async fn post_maybe_signed<A: DeserializeOwned>(
        &self,
        credentials: Option<&Credentials>,
        to: Destination<'_>,
        message: &impl Serialize,
        timeout: Duration,
    ) -> Result<A, PeerError> {
        let body = Bytes::from(serde_json::to_vec(message).map_err(|e| broken(to, &e))?);
        self.call_once(credentials, &Method::POST, to, body, timeout).await
    }

    async fn call_once<A: DeserializeOwned>(
        &self,
        credentials: Option<&Credentials>,
        method: &Method,
        to: Destination<'_>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<A, PeerError> {
        let mut request = self.http.request(method.clone(), url(to)).timeout(timeout).header(VOLUME_HEADER, to.volume.to_string());
        if let Some(c) = credentials {
            request = request.header(PEER_HEADER, signature(c, method, to, Some(&body)));
        }
        if *method != Method::GET {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        }
        answered_with_json(to, request).await
    }

    /// `GET` of a stream of bytes. Returns once the head of the answer is there, which must be within `head_timeout`.
    pub async fn download(
        &self,
        credentials: &Credentials,
        to: Destination<'_>,
        head_timeout: Duration,
    ) -> Result<reqwest::Body, PeerError> {
        let request = self
            .http
            .get(url(to))
            .header(VOLUME_HEADER, to.volume.to_string())
            .header(PEER_HEADER, signature(credentials, &Method::GET, to, Some(b"")));
        answered(to, request, head_timeout).await
    }

    /// `POST` of JSON, answered with a stream of bytes. Returns once the head of the answer is there, which must be within
    /// `head_timeout`.
    pub async fn post_for_stream(
        &self,
        credentials: &Credentials,
        to: Destination<'_>,
        message: &impl Serialize,
        head_timeout: Duration,
    ) -> Result<reqwest::Body, PeerError> {
        let body = Bytes::from(serde_json::to_vec(message).map_err(|e| broken(to, &e))?);
        let request = self
            .http
            .post(url(to))
            .header(VOLUME_HEADER, to.volume.to_string())
            .header(PEER_HEADER, signature(credentials, &Method::POST, to, Some(&body)))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body);
        answered(to, request, head_timeout).await
    }

    /// `POST` of a stream, answered with a stream that flows at the same time. Returns once the head of the
    /// answer is there.
    pub async fn stream(
        &self,
        credentials: &Credentials,
        to: Destination<'_>,
        headers: HeaderMap,
        body: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
        head_timeout: Duration,
    ) -> Result<reqwest::Body, PeerError> {
        let request = self
            .http
            .post(url(to))
            .headers(headers)
            .header(VOLUME_HEADER, to.volume.to_string())
            .header(PEER_HEADER, signature(credentials, &Method::POST, to, None))
            .body(reqwest::Body::wrap_stream(body));
        answered(to, request, head_timeout).await
    }
}

/// Sends a request, and reads its 200.
async fn answered_with_json<A: DeserializeOwned>(to: Destination<'_>, request: reqwest::RequestBuilder) -> Result<A, PeerError> {
    let answer = request.send().await.map_err(|e| send_error(to, e))?;
    let status = answer.status();
    let bytes = read_answer(to, answer).await?;
    if status != StatusCode::OK {
        return Err(refused(to, status, &bytes));
    }
    serde_json::from_slice(&bytes).map_err(|e| broken(to, &e))
}

/// Sends a request, and gives the body of its 200.
async fn answered(to: Destination<'_>, request: reqwest::RequestBuilder, head_timeout: Duration) -> Result<reqwest::Body, PeerError> {
    let answer = tokio::time::timeout(head_timeout, request.send())
        .await
        .map_err(|_| broken(to, &"it did not answer in time"))?
        .map_err(|e| send_error(to, e))?;
    let status = answer.status();
    if status != StatusCode::OK {
        let bytes = read_answer(to, answer).await?;
        return Err(refused(to, status, &bytes));
    }
    Ok(http::Response::from(answer).into_body())
}

fn url(to: Destination<'_>) -> String {
    format!("http://{}{}", to.address, to.target)
}

fn signature(c: &Credentials, method: &Method, to: Destination<'_>, body: Option<&[u8]>) -> String {
    c.key.sign(&PeerCall { cluster: c.cluster, volume: to.volume, method: method.as_str(), target: to.target, body })
}

async fn read_answer(to: Destination<'_>, mut answer: reqwest::Response) -> Result<Vec<u8>, PeerError> {
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|e| send_error(to, e))? {
        if bytes.len() + part.len() > MAX_ANSWER_BYTES {
            return Err(broken(to, &"its answer is too long"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

fn refused(to: Destination<'_>, status: StatusCode, body: &[u8]) -> PeerError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => PeerError::Refused { address: to.address.into(), problem },
        Err(_) => broken(to, &format!("it answered {status}, not as a server of this kind does; is the address right?")),
    }
}

fn broken(to: Destination<'_>, detail: &dyn std::fmt::Display) -> PeerError {
    PeerError::Broken { address: to.address.into(), detail: detail.to_string() }
}

fn send_error(to: Destination<'_>, e: reqwest::Error) -> PeerError {
    if e.is_connect() {
        return PeerError::Unreachable { address: to.address.into(), source: e.without_url() };
    }
    let mut detail = e.to_string();
    let mut cause = std::error::Error::source(&e);
    while let Some(c) = cause {
        detail = format!("{detail}: {c}");
        cause = c.source();
    }
    // The URL may hold a ticket.
    PeerError::Broken { address: to.address.into(), detail: detail.replace(&url(to), "its URL") }
}
