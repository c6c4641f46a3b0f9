//! Problems as answers: `application/problem+json` (RFC 9457).

use crate::body::{self, Response};
use crate::context::RequestContext;
use http::{HeaderValue, StatusCode, header};
use kvdb_protocol::Problem;

/// Seconds that a client is asked to wait after 429 and 503.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The answer for a problem, with the request's id filled in. For a service that has headers of its own to add, such as
/// `Allow`; else it returns the problem as its error.
pub fn problem_response(problem: &Problem, cx: &RequestContext) -> Response {
    let problem = Problem { request_id: cx.request_id.clone(), ..problem.clone() };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = body::json(status, &problem);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response
}
