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
    named(unnamed(problem.clone()), cx)
}

/// The same where the request's id is not at hand: the server fills it in on the way out.
pub fn unnamed(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = body::status(status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response.extensions_mut().insert(Unnamed(problem));
    response
}

/// Fills in the id of an [`unnamed`] problem; any other answer passes.
pub(crate) fn named(mut response: Response, cx: &RequestContext) -> Response {
    let Some(Unnamed(problem)) = response.extensions_mut().remove() else { return response };
    let problem = Problem { request_id: cx.request_id.to_string(), ..problem };
    let body = body::json(response.status(), &problem).into_body();
    response.map(|_| body)
}

/// A problem whose answer has no body yet.
#[derive(Clone)]
struct Unnamed(Problem);
