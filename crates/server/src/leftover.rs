//! What a service left unread of a request's body, and whether the connection can be kept in spite of it.

use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A rest that is announced to be no longer than this is read, to keep the connection.
pub(crate) const SMALL_REST_BYTES: u64 = 256 << 10;
/// How long a small rest may take to arrive.
const SMALL_REST_TIME: Duration = Duration::from_secs(2);

/// A body that was dropped before its end.
pub(crate) struct Unread {
    pub incoming: Incoming,
    /// The client is not to be waited for: it got no `100 Continue`, or what it sent failed already.
    pub refused: bool,
}

/// Where a [`crate::GuardedBody`] leaves what it did not read.
#[derive(Default)]
pub(crate) struct Leftover(Mutex<Option<Unread>>);

impl Leftover {
    pub fn put(&self, unread: Unread) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(unread);
    }

    fn take(&self) -> Option<Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads a small rest to its end. False: the connection must be closed after the answer.
    ///
    /// A body that something still holds, as in a stream both ways, counts as good.
    pub async fn settle(&self) -> bool {
        let Some(Unread { mut incoming, refused }) = self.take() else { return true };
        let small = incoming.size_hint().exact().is_some_and(|rest| rest <= SMALL_REST_BYTES);
        !refused && small && drain(&mut incoming, SMALL_REST_BYTES, SMALL_REST_TIME).await
    }
}

/// Reads and drops at most about `max_bytes` for at most `max_time`; true if the body ended.
pub(crate) async fn drain<B: Body + Unpin>(body: &mut B, max_bytes: u64, max_time: Duration) -> bool
where
    B::Data: bytes::Buf,
{
    let read = async {
        let mut left = max_bytes;
        loop {
            match body.frame().await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, |d| u64::try_from(bytes::Buf::remaining(d)).unwrap_or(u64::MAX));
                    match left.checked_sub(bytes) {
                        Some(rest) => left = rest,
                        None => return false,
                    }
                }
            }
        }
    };
    tokio::time::timeout(max_time, read).await.unwrap_or(false)
}
