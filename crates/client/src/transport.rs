//! One request and its answer: redirects followed by hand, errors turned into [`Error`].

use crate::error::Error;
use crate::url;
use kvdb_protocol::{ContentHash, ErrorCode, Key, Problem, VersionId};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Request, Response, StatusCode, Url};
use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

/// Most redirects of one operation, a volume sending back to the master included.
pub(crate) const MAX_HOPS: usize = 10;
/// Most bytes of an error's document that are read: it may name a thousand keys.
const MAX_PROBLEM_BYTES: usize = 4 << 20;

/// The header with a value's version.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("kvdb-version");
/// The header by which a client tells the master the length of the value that it will send to a volume.
pub(crate) const ANNOUNCED_LENGTH: HeaderName = HeaderName::from_static("kvdb-content-length");

/// Sends requests; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    /// `Authorization`, for the master alone.
    pub(crate) authorization: Option<HeaderValue>,
    /// Longest wait for an answer's head.
    pub(crate) answer_timeout: Duration,
    /// Longest time without a byte, either way.
    pub(crate) stall_timeout: Duration,
}

impl Transport {
    /// A request without a body to `url`.
    pub(crate) fn request(&self, method: Method, url: Url, headers: &HeaderMap) -> Request {
        let mut request = Request::new(method, url);
        *request.headers_mut() = headers.clone();
        if let Some(token) = self.authorization.as_ref().filter(|_| request.url().origin() == self.base.origin()) {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        request
    }

    /// Sends a request without a body and follows redirects to an answer that is none. The answer may be an error.
    pub(crate) async fn follow(&self, method: Method, mut url: Url, headers: &HeaderMap) -> Result<Response, Error> {
        for _ in 0..=MAX_HOPS {
            let response = self.send(self.request(method.clone(), url.clone(), headers)).await?;
            match redirect(&response)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(too_many_hops(&url))
    }

    /// Sends one request without a body.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, Error> {
        self.send_within(self.answer_timeout, request).await
    }

    /// Sends one request without a body to a server that another can stand in for: it is not waited for longer than a stall may take.
    pub(crate) async fn send_to_one_of_several(&self, request: Request) -> Result<Response, Error> {
        self.send_within(self.answer_timeout.min(self.stall_timeout), request).await
    }

    async fn send_within(&self, time: Duration, request: Request) -> Result<Response, Error> {
        let at = request.url().clone();
        match tokio::time::timeout(time, self.http.execute(request)).await {
            Ok(answer) => answer.map_err(|e| broken(&at, &e)),
            Err(_) => Err(silent(&at, time)),
        }
    }

    /// Waits for the next bytes of an answer, and no longer than a stall may take.
    pub(crate) async fn next_chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Error> {
        let waited = within(self.stall_timeout, response.chunk()).await;
        match waited {
            Some(chunk) => chunk.map_err(|e| broken(response.url(), &e)),
            None => Err(silent(response.url(), self.stall_timeout)),
        }
    }

    /// Reads a whole answer of at most `max` bytes.
    pub(crate) async fn read_small(&self, mut response: Response, max: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            if all.len() + chunk.len() > max {
                return Err(not_kvdb(&response, format!("its answer is longer than {max} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Makes an error of an answer that is not a success.
    pub(crate) async fn refusal(&self, key: Option<&Key>, response: Response) -> Error {
        let retry_after = header_text(&response, &RETRY_AFTER).and_then(|t| t.trim().parse().ok()).map(Duration::from_secs);
        let (status, url) = (response.status(), response.url().clone());
        let is_problem = header_text(&response, &CONTENT_TYPE).is_some_and(|t| t.starts_with("application/problem+json"));
        let body = if is_problem { self.read_small(response, MAX_PROBLEM_BYTES).await.unwrap_or_default() } else { Vec::new() };
        // An answer to HEAD has no body, so there the status must do.
        let problem = serde_json::from_slice::<Problem>(&body).ok().or_else(|| of_status(status));
        let Some(problem) = problem else {
            return Error::NotKvdb { url: url::shown(&url), reason: format!("status {status}"), status: status.as_u16() };
        };
        named(key, problem, retry_after)
    }
}

pub(crate) fn named(key: Option<&Key>, problem: Problem, retry_after: Option<Duration>) -> Error {
    match (problem.code, key) {
        (ErrorCode::NotFound, Some(k)) => Error::NotFound(k.clone()),
        (ErrorCode::Exists, Some(k)) => Error::Exists(k.clone()),
        (ErrorCode::PreconditionFailed, Some(k)) => Error::PreconditionFailed(k.clone()),
        (ErrorCode::RangeNotSatisfiable, Some(k)) => Error::OutOfRange(k.clone()),
        _ => Error::Problem { problem: Box::new(problem), retry_after },
    }
}

/// What a bare status means, for those that mean one thing only and can come without a body.
fn of_status(status: StatusCode) -> Option<Problem> {
    let code = match status.as_u16() {
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        412 => ErrorCode::PreconditionFailed,
        414 => ErrorCode::TooLong,
        416 => ErrorCode::RangeNotSatisfiable,
        429 => ErrorCode::TooManyRequests,
        431 => ErrorCode::HeadTooLarge,
        503 => ErrorCode::Unavailable,
        _ => return None,
    };
    Some(Problem::new(code, code.title()))
}

/// Where a redirect leads; none: it is another answer.
pub(crate) fn redirect(response: &Response) -> Result<Option<Url>, Error> {
    if !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
        return Ok(None);
    }
    let location = header_text(response, &LOCATION).ok_or_else(|| not_kvdb(response, "a redirect to nowhere".into()))?;
    url::of_location(response.url(), location).map(Some)
}

pub(crate) fn too_many_hops(at: &Url) -> Error {
    let reason = format!("it was redirected more than {MAX_HOPS} times");
    // Servers that point at each other are in the middle of a change: it may pass.
    Error::Interrupted { url: url::shown(at), reason }
}

pub(crate) fn not_kvdb(response: &Response, reason: String) -> Error {
    Error::NotKvdb { url: url::shown(response.url()), reason, status: response.status().as_u16() }
}

/// Makes an error of the transport's. Its own text holds the URL with the ticket, so only the cause is taken.
pub(crate) fn broken(at: &Url, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let reason = if error.source().is_some() { cause.to_string() } else { "the request could not be sent".into() };
    if error.is_connect() {
        Error::Unreachable { url: url::origin(at), reason }
    } else {
        Error::Interrupted { url: url::origin(at), reason }
    }
}

pub(crate) fn silent(at: &Url, time: Duration) -> Error {
    Error::Interrupted { url: url::origin(at), reason: format!("nothing came for {} s", time.as_secs()) }
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}

/// A header's value, when it is visible ASCII.
pub(crate) fn header_text<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name).and_then(|v| v.to_str().ok())
}

/// The BLAKE3 in an answer's strong entity tag.
pub(crate) fn etag(response: &Response) -> Option<ContentHash> {
    let quoted = header_text(response, &ETAG)?;
    ContentHash::from_hex(quoted.strip_prefix('"')?.strip_suffix('"')?)
}

pub(crate) fn version(response: &Response) -> Option<VersionId> {
    header_text(response, &VERSION)?.parse().ok()
}
