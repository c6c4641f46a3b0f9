//! What is known of a request besides the request.

use crate::sendfile::FileSender;
use http::HeaderMap;
use std::net::SocketAddr;

/// The header that carries a request's id, both ways.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Longest request id that is taken from a client, in characters.
const MAX_REQUEST_ID_CHARS: usize = 64;

/// Who asks, where, and under which id.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The id in logs, answers and problems: the client's `X-Request-Id` if it is 1 to 64 of `[A-Za-z0-9._-]`, else a new one.
    pub request_id: String,
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
        let request_id = given.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_string);
        Self { request_id, remote, local, files }
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
