//! One line and one count for every request, written when the last byte of its answer has been handed over.

use crate::body::{Body, BoxError, Response};
use crate::context::RequestContext;
use crate::serve::ServeOptions;
use crate::socket::Phase;
use bytes::Bytes;
use http::{Method, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use kvdb_protocol::Token;
use kvdb_protocol::key::decode;
use kvdb_protocol::signed_url::SIGNED;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Longest target in a log line, in bytes.
const MAX_LOGGED_BYTES: usize = 1024;
/// A request that takes longer is always logged.
const SLOW: Duration = Duration::from_secs(1);
/// The query parameters whose values are secrets.
const SECRETS: [&str; 3] = ["ticket", "txn", SIGNED];

/// A line in the making. It is written when it is dropped.
pub(crate) struct Entry {
    server: &'static str,
    log_query: bool,
    method: &'static str,
    target: Uri,
    request_id: Arc<str>,
    remote: SocketAddr,
    started: Instant,
    /// `None`: the answer was never begun.
    status: Option<StatusCode>,
    sent: u64,
    whole: bool,
}

impl Entry {
    pub fn new<B>(options: &ServeOptions, request: &hyper::Request<B>, cx: &RequestContext) -> Self {
        Self {
            server: options.name,
            log_query: options.log_queries,
            method: method_label(request.method()),
            target: request.uri().clone(),
            request_id: Arc::clone(&cx.request_id),
            remote: cx.remote,
            started: Instant::now(),
            status: None,
            sent: 0,
            whole: false,
        }
    }
}

impl Entry {
    /// Whether the line is of no interest to most: health checks, and reads, redirects and calls between servers that went well
    /// and quickly.
    ///
    /// There may be a hundred thousand of these a second; they are counted in the metrics. At the end of a redirect there is a
    /// line of the server that did the work.
    fn is_quiet(&self, elapsed: Duration) -> bool {
        let path = self.target.path();
        if path.starts_with("/-/health/") || path == "/-/metrics" {
            return true;
        }
        let Some(status) = self.status.filter(|_| self.whole && elapsed < SLOW) else { return false };
        let routine = matches!(self.method, "GET" | "HEAD") || path.starts_with("/-/");
        status.is_redirection() || (status.is_success() && routine)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        crate::metrics::count_request(self.server, self.method, self.status, elapsed);
        // The level of a line cannot be a variable. What is not logged is not formatted.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "kvdb::access",
                    $level,
                    server = self.server,
                    method = self.method,
                    path = loggable(&self.target, self.log_query),
                    status = self.status.map_or(0, |s| s.as_u16()),
                    bytes = self.sent,
                    ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    whole = self.whole,
                    request_id = &*self.request_id,
                    remote = %self.remote,
                )
            };
        }
        if self.is_quiet(elapsed) {
            line!(tracing::Level::DEBUG);
        } else {
            line!(tracing::Level::INFO);
        }
    }
}

/// Method tokens are the client's to choose, and labels must be few.
fn method_label(method: &Method) -> &'static str {
    let known = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::PUT, "PUT"),
        (Method::POST, "POST"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::PATCH, "PATCH"),
    ];
    known.iter().find(|(m, _)| m == method).map_or("other", |(_, label)| label)
}

/// Path and query without secrets and without bytes that could forge a line.
fn loggable(uri: &Uri, with_query: bool) -> String {
    let mut text = printable(uri.path());
    if let Some(query) = uri.query().filter(|_| with_query) {
        let parts: Vec<_> = query.split('&').map(redacted).collect();
        text.push('?');
        text.push_str(&printable(&parts.join("&")));
    }
    if text.len() > MAX_LOGGED_BYTES {
        text.truncate(MAX_LOGGED_BYTES);
        text.push_str("...");
    }
    text
}

/// A part of a query, its value hidden if its name, once decoded, is that of a secret. So is what cannot be decoded, and a token, which
/// does not belong there.
fn redacted(part: &str) -> Cow<'_, str> {
    let name = part.split_once('=').map_or(part, |(name, _)| name);
    let (Ok(name), Ok(whole)) = (decode(name), decode(part)) else { return "REDACTED".into() };
    match SECRETS.iter().find(|secret| secret.as_bytes() == name) {
        Some(secret) => format!("{secret}=REDACTED").into(),
        None if Token::stands_in(&whole) => "REDACTED".into(),
        None => part.into(),
    }
}

/// ASCII only, everything else percent-encoded.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_graphic() { out.push(char::from(b)) } else { out.push_str(&format!("%{b:02X}")) }
    }
    out
}

/// The body of an answer on its way out, with what ends when it ends.
pub(crate) struct Observed {
    inner: Body,
    entry: Entry,
    /// Bytes that make it whole, where that is known.
    expected: Option<u64>,
    phase: Arc<Phase>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Observed {
    pub fn wrap(response: Response, mut entry: Entry, phase: Arc<Phase>, place: Option<OwnedSemaphorePermit>) -> hyper::Response<Self> {
        entry.status = Some(response.status());
        let announced = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        response.map(|inner| {
            let expected = if inner.is_end_stream() { Some(0) } else { inner.size_hint().exact().or(announced) };
            Self { inner, entry, expected, phase, _place: place }
        })
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.entry.sent += frame.data_ref().map_or(0, |d| u64::try_from(d.len()).unwrap_or(u64::MAX));
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(%error, request_id = &*self.entry.request_id, "an answer is cut short");
            }
            Poll::Ready(None) => self.entry.whole = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // hyper drops a body without asking for its end once the announced bytes are there.
        self.entry.whole |= self.expected == Some(self.entry.sent);
        self.phase.end_request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(target: &str) -> String {
        loggable(&target.parse().unwrap(), true)
    }

    #[test]
    fn tickets_and_signatures_are_redacted_however_their_name_is_written() {
        assert_eq!(logged("/k?ticket=secret&x=1"), "/k?ticket=REDACTED&x=1");
        assert_eq!(logged("/k?a=1&t%69cket=secret"), "/k?a=1&ticket=REDACTED");
        assert_eq!(logged("/k?ticket"), "/k?ticket=REDACTED");
        assert_eq!(logged("/?txn=secret&commit"), "/?txn=REDACTED&commit");
        assert_eq!(logged("/k?tickets=5"), "/k?tickets=5");
        assert_eq!(logged("/k?signed=1.2.3&missed=4"), "/k?signed=REDACTED&missed=4");
        let token = Token::of_random([7; 32]);
        assert_eq!(logged(&format!("/k?t=x%2F{}&a=1", token.expose().replace('_', "%5F"))), "/k?REDACTED&a=1");
        assert_eq!(logged("/k?start=kvdb_servers"), "/k?start=kvdb_servers");
        assert_eq!(logged("/k?%73igned=1.2.3&%zz=5"), "/k?signed=REDACTED&REDACTED");
    }

    #[test]
    fn a_query_that_carries_values_is_left_out() {
        assert_eq!(loggable(&"/put?secret=value".parse().unwrap(), false), "/put");
    }

    #[test]
    fn nothing_in_a_line_can_end_it() {
        assert_eq!(logged("/a%0d%0ab"), "/a%0d%0ab");
        assert_eq!(printable("a\r\nb \u{85}"), "a%0D%0Ab%20%C2%85");
        let long = format!("/{}", "x".repeat(5000));
        assert_eq!(logged(&long).len(), MAX_LOGGED_BYTES + 3);
    }

    #[test]
    fn methods_that_clients_make_up_share_one_label() {
        assert_eq!(method_label(&Method::PUT), "PUT");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
