//! The body of a request, guarded against senders that stall, trickle or stop.
//!
//! Polling a body for the first time makes hyper send `100 Continue`: decide on 307, 401, 413 or 507 before.

use crate::deadline::Deadline;
use crate::leftover::{Leftover, Unread};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kvdb_protocol::{ErrorCode, Problem};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// A request as a [`crate::Service`] gets it.
pub type Request = hyper::Request<GuardedBody>;

/// How slow a sender may be. Only the time in which the server waits for it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Longest wait for the next bytes.
    pub no_progress: Duration,
    /// Smallest average rate, in bytes a second; 0: none.
    pub min_bytes_per_second: u64,
    /// Waiting time before the rate counts.
    pub grace: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { no_progress: Duration::from_secs(30), min_bytes_per_second: 1 << 10, grace: Duration::from_secs(30) }
    }
}

impl BodyLimits {
    /// For streams between servers, which are quiet by nature: `no_progress` alone.
    pub fn quiet(no_progress: Duration) -> Self {
        Self { no_progress, min_bytes_per_second: 0, grace: Duration::ZERO }
    }

    /// How much longer a sender of `received` bytes may be waited for, after `waited` in earlier waits.
    fn allowance(&self, received: u64, waited: Duration) -> (Duration, BodyError) {
        let earned = match received.checked_div(self.min_bytes_per_second) {
            Some(seconds) => Duration::from_secs(seconds).max(self.grace).saturating_sub(waited),
            None => Duration::MAX,
        };
        if earned < self.no_progress { (earned, BodyError::TooSlow) } else { (self.no_progress, BodyError::Timeout) }
    }
}

/// Why a body did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// No byte came for [`BodyLimits::no_progress`].
    #[error("the body stopped arriving; send it again without pauses")]
    Timeout,
    /// It came slower than [`BodyLimits::min_bytes_per_second`].
    #[error("the body arrived too slowly; send it again over a faster connection")]
    TooSlow,
    /// The connection ended before the announced end.
    #[error("the body ended before its announced end; send it again")]
    Incomplete,
    /// Its framing is wrong, as with a bad chunk size.
    #[error("the body's framing is malformed: {0}")]
    Malformed(String),
}

impl From<BodyError> for Problem {
    fn from(e: BodyError) -> Self {
        let code = match e {
            BodyError::Timeout | BodyError::TooSlow => ErrorCode::RequestTimeout,
            BodyError::Incomplete => ErrorCode::IncompleteBody,
            BodyError::Malformed(_) => ErrorCode::BadRequest,
        };
        Self::new(code, e.to_string())
    }
}

impl From<hyper::Error> for BodyError {
    fn from(e: hyper::Error) -> Self {
        let io = std::error::Error::source(&e).and_then(|s| s.downcast_ref::<io::Error>());
        match io.map(io::Error::kind) {
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other) => {
                Self::Malformed(io.map(ToString::to_string).unwrap_or_default())
            }
            _ => Self::Incomplete,
        }
    }
}

/// The body of a request. When it is dropped before its end, what is left goes back to the connection,
/// which decides whether the connection can be kept.
pub struct GuardedBody {
    inner: Option<Incoming>,
    /// None where there is no body.
    leftover: Option<Arc<Leftover>>,
    limits: BodyLimits,
    /// The client waits for `100 Continue` before it sends.
    expects_continue: bool,
    started: bool,
    received: u64,
    waited: Duration,
    waiting: Option<Wait>,
    deadline: Deadline,
    ended: bool,
    failure: Option<BodyError>,
}

struct Wait {
    since: Instant,
    verdict: BodyError,
}

impl GuardedBody {
    pub(crate) fn new(inner: Incoming, leftover: Option<Arc<Leftover>>, limits: BodyLimits, expects_continue: bool) -> Self {
        let ended = inner.is_end_stream();
        Self {
            inner: Some(inner),
            leftover,
            limits,
            expects_continue,
            started: false,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
            deadline: Deadline::default(),
            ended,
            failure: None,
        }
    }

    /// Whether the body has been polled, and so `100 Continue` sent where the client asked for it.
    pub fn has_started(&self) -> bool {
        self.started
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue && !self.ended
    }

    /// Bytes announced and not yet received; `None` for a chunked body. It polls nothing.
    pub fn remaining(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Replaces the limits, from the next wait on.
    pub fn set_limits(&mut self, limits: BodyLimits) {
        self.limits = limits;
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let now = Instant::now();
        if self.waiting.is_none() {
            let (allowed, verdict) = self.limits.allowance(self.received, self.waited);
            // A limit too far off to be a time is no limit.
            let Some(deadline) = now.checked_add(allowed) else { return Poll::Pending };
            self.deadline.arm(deadline);
            self.waiting = Some(Wait { since: now, verdict });
        }
        match &self.waiting {
            Some(wait) => self.deadline.poll_expired(cx).map(|()| wait.verdict.clone()),
            None => Poll::Pending,
        }
    }

    fn end_wait(&mut self) {
        if let Some(wait) = self.waiting.take() {
            self.waited += wait.since.elapsed();
        }
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.started = true;
        // hyper's own body says "end" after an error; this one says the error again.
        if let Some(failure) = &this.failure {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let failure = match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.end_wait();
                this.received += frame.data_ref().map_or(0, |d| u64::try_from(d.len()).unwrap_or(u64::MAX));
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => error.into(),
            Poll::Pending => match this.poll_wait(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(verdict) => verdict,
            },
        };
        this.failure = Some(failure.clone());
        Poll::Ready(Some(Err(failure)))
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.inner.as_ref().is_none_or(|b| self.ended || b.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        let at_end = self.is_end_stream();
        if let Some(incoming) = self.inner.take().filter(|_| !at_end)
            && let Some(leftover) = &self.leftover
        {
            let silent = self.expects_continue && !self.started;
            leftover.put(Unread { incoming, refused: silent || self.failure.is_some() });
        }
    }
}

impl fmt::Debug for GuardedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedBody").field("received", &self.received).field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}

/// Reads a body of at most `max` bytes to its end. A longer one is a 413, before any of it is read where its length is announced.
pub async fn read_all(body: &mut GuardedBody, max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(ErrorCode::ValueTooLarge, format!("the body may have {max} bytes at most"));
    let announced = usize::try_from(body.size_hint().lower()).map_err(|_| too_large())?;
    if announced > max {
        return Err(too_large());
    }
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > max - bytes.len() {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads and drops at most `max_bytes` for at most `max_time`, so that a client that is still sending reads an early answer.
/// True if the body ended. It starts the body: not for a client that [waits](GuardedBody::expects_continue) for a yes.
pub async fn drain(body: &mut GuardedBody, max_bytes: u64, max_time: Duration) -> bool {
    crate::leftover::drain(body, max_bytes, max_time).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_sender_times_out_and_a_trickling_one_is_too_slow() {
        let limits = BodyLimits { no_progress: 30 * SECOND, min_bytes_per_second: 1024, grace: 40 * SECOND };
        assert_eq!(limits.allowance(0, Duration::ZERO), (30 * SECOND, BodyError::Timeout));
        assert_eq!(limits.allowance(100, 35 * SECOND), (5 * SECOND, BodyError::TooSlow));
        assert_eq!(limits.allowance(1024 * 60, 35 * SECOND), (25 * SECOND, BodyError::TooSlow));
        assert_eq!(limits.allowance(1024 * 600, 35 * SECOND), (30 * SECOND, BodyError::Timeout));
        assert_eq!(limits.allowance(1024 * 40, 41 * SECOND), (Duration::ZERO, BodyError::TooSlow));
    }

    #[test]
    fn a_quiet_stream_has_no_rate() {
        assert_eq!(BodyLimits::quiet(SECOND).allowance(0, 1000 * SECOND), (SECOND, BodyError::Timeout));
    }

    #[test]
    fn every_failure_has_its_status() {
        let status = |e: BodyError| Problem::from(e).status;
        assert_eq!(status(BodyError::Timeout), 408);
        assert_eq!(status(BodyError::TooSlow), 408);
        assert_eq!(status(BodyError::Incomplete), 400);
        assert_eq!(status(BodyError::Malformed("x".into())), 400);
    }
}
