//! What is known of a request besides the request.

use crate::sendfile::FileSender;
use http::HeaderMap;
use kvdb_protocol::UnixMillis;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

/// The header that carries a request's id, both ways.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Longest request id that is taken from a client, in characters.
const MAX_REQUEST_ID_CHARS: usize = 64;

/// Who asks, where, and under which id.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The id in logs, answers and problems: the client's `X-Request-Id` if it is 1 to 64 of `[A-Za-z0-9._-]`, else a new one.
    pub request_id: Arc<str>,
    /// The peer's end of the connection.
    pub remote: SocketAddr,
    /// This server's end of the connection.
    pub local: SocketAddr,
    /// Sends parts of files on this connection.
    pub files: FileSender,
}

impl RequestContext {
    /// The context of a request with these headers.
    pub fn new(headers: &HeaderMap, remote: SocketAddr, local: SocketAddr, files: FileSender) -> Self {
        let given = headers.get(REQUEST_ID_HEADER).and_then(|v| v.to_str().ok()).filter(|id| is_sane(id));
        let request_id = given.map_or_else(made, Arc::from);
        Self { request_id, remote, local, files }
    }
}

/// A UUID v7, from the thread's own source of randomness: the one of the `uuid` crate asks the kernel each time.
fn made() -> Arc<str> {
    let id = uuid::Builder::from_unix_timestamp_millis(UnixMillis::now().0, &rand::random()).into_uuid();
    Arc::from(&*id.simple().encode_lower(&mut [0; uuid::fmt::Simple::LENGTH]))
}

thread_local! {
    /// The request that is being worked on by this thread.
    static CURRENT: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Has the lines that this thread logs name a request, until it is dropped.
///
/// A span would do the same for two allocations and a good part of a lookup's time.
pub(crate) fn name_lines(request_id: &Arc<str>) -> Named {
    Named(CURRENT.replace(Some(Arc::clone(request_id))))
}

/// The request that this thread's lines are about.
pub(crate) fn current() -> Option<Arc<str>> {
    // A line may be logged while a thread ends.
    CURRENT.try_with(|c| c.borrow().clone()).ok().flatten()
}

pub(crate) struct Named(Option<Arc<str>>);

impl Drop for Named {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_REQUEST_ID_CHARS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_ids_are_taken_from_clients() {
        for good in ["a", "A-b_c.9", &"x".repeat(64)] {
            assert!(is_sane(good), "{good}");
        }
        for bad in ["", "a b", "a\"", "ü", "a/b", &"x".repeat(65)] {
            assert!(!is_sane(bad), "{bad}");
        }
    }

    #[test]
    fn ids_that_are_made_are_sane_and_differ() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let of = || RequestContext::new(&HeaderMap::new(), at, at, FileSender::default());
        let (a, b) = (of(), of());
        assert!(is_sane(&a.request_id));
        assert_ne!(a.request_id, b.request_id);
    }
}
