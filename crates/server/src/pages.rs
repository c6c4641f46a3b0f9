//! The pages that both servers have.

use crate::body::{self, Response};
use crate::problem::unnamed;
use http::{HeaderValue, Method, StatusCode, header};
use kvdb_protocol::{ErrorCode, Problem};

/// Whether the process answers.
pub const LIVE: &str = "/-/health/live";
/// Whether the server does its work.
pub const READY: &str = "/-/health/ready";
/// Metrics in Prometheus' text format.
pub const METRICS: &str = "/-/metrics";

/// Answers `/-/health/live`, `/-/health/ready` (503 with the reason that `ready` gives) and `/-/metrics`; `None` for every
/// other path.
pub fn common(path: &str, method: &Method, ready: impl FnOnce() -> Result<(), String>) -> Option<Response> {
    if !matches!(path, LIVE | READY | METRICS) {
        return None;
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = unnamed(Problem::new(ErrorCode::MethodNotAllowed, "this page can only be read"));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let ok = || body::text(StatusCode::OK, "ok\n");
    let mut response = match path {
        METRICS => body::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", crate::metrics::render()),
        READY => ready().map_or_else(|reason| unnamed(Problem::new(ErrorCode::Unavailable, reason)), |()| ok()),
        _ => ok(),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, method: Method, ready: Result<(), String>) -> Option<Response> {
        common(path, &method, || ready)
    }

    #[test]
    fn health_says_live_even_when_not_ready() {
        let not = || Err("no volume is up".to_string());
        assert_eq!(page(LIVE, Method::GET, not()).unwrap().status(), 200);
        let unready = page(READY, Method::GET, not()).unwrap();
        assert_eq!(unready.status(), 503);
        assert!(unready.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(page(READY, Method::HEAD, Ok(())).unwrap().status(), 200);
    }

    #[test]
    fn pages_are_only_read_and_other_paths_are_not_theirs() {
        let refused = page(METRICS, Method::POST, Ok(())).unwrap();
        assert_eq!((refused.status().as_u16(), &refused.headers()[header::ALLOW]), (405, &HeaderValue::from_static("GET, HEAD")));
        assert!(page("/-/health", Method::GET, Ok(())).is_none());
        assert!(page("/key", Method::GET, Ok(())).is_none());
    }
}
