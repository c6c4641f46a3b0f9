//! What every request must satisfy before a service sees it.

use crate::guard::Request;
use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use kvdb_protocol::limits::{MAX_HEADERS, MAX_URI_BYTES};
use kvdb_protocol::{ErrorCode, Problem};

/// Checks a request's head, and brings its target into the form of path and query.
pub(crate) fn check(request: &mut Request) -> Result<(), Problem> {
    check_size(request)?;
    check_host(request.version(), request.headers())?;
    check_expect(request.headers())?;
    check_coding(request.headers())?;
    if request.method() != Method::CONNECT
        && let Some(uri) = origin_form(request.uri())?
    {
        *request.uri_mut() = uri;
    }
    Ok(())
}

/// hyper bounds both itself, a little differently; these are the documented bounds.
fn check_size(request: &Request) -> Result<(), Problem> {
    let target_bytes = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    if target_bytes > MAX_URI_BYTES {
        return Err(Problem::new(ErrorCode::TooLong, format!("the request target may have {MAX_URI_BYTES} bytes at most")));
    }
    if request.headers().len() > MAX_HEADERS {
        return Err(Problem::new(ErrorCode::HeadTooLarge, format!("a request may have {MAX_HEADERS} header fields at most")));
    }
    Ok(())
}

/// RFC 9112 §3.2: a request of HTTP/1.1 has exactly one valid `Host`.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Err(bad("the request has no Host header, which HTTP/1.1 asks for")),
        (_, Some(_)) => Err(bad("the request has more than one Host header")),
        (Some(host), None) if !host.as_bytes().iter().all(|b| may_stand_in_host(*b)) => Err(bad("the Host header is not a host")),
        _ => Ok(()),
    }
}

fn may_stand_in_host(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&b)
}

fn check_expect(headers: &HeaderMap) -> Result<(), Problem> {
    let known = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(known) {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::ExpectationFailed, "the only expectation that can be met is 100-continue"))
}

/// hyper takes any list of codings that ends in `chunked`, and would pass on the coded bytes as if they were the value.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Problem::new(ErrorCode::NotImplemented, "the only transfer coding that is understood is chunked")),
    }
}

/// The path and query of an absolute-form target; `None` if it has that form already.
fn origin_form(uri: &Uri) -> Result<Option<Uri>, Problem> {
    if uri.scheme().is_none() && uri.authority().is_none() {
        return Ok(None);
    }
    let target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().path_and_query(target).build().map_err(|e| bad(format!("the request target is not understood: {e}")))?;
    Ok(Some(uri))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.clone(), HeaderValue::from_static(v))).fold(HeaderMap::new(), |mut map, (n, v)| {
            map.append(n, v);
            map
        })
    }

    fn status(r: Result<(), Problem>) -> u16 {
        r.err().map_or(200, |p| p.status)
    }

    #[test]
    fn there_is_one_host_in_http_1_1_and_at_most_one_in_http_1_0() {
        let host = |v, of: &[&'static str]| status(check_host(v, &headers(&of.iter().map(|h| (HOST, *h)).collect::<Vec<_>>())));
        assert_eq!(host(Version::HTTP_11, &["a:1"]), 200);
        assert_eq!(host(Version::HTTP_11, &["[::1]:80"]), 200);
        assert_eq!(host(Version::HTTP_11, &[]), 400);
        assert_eq!(host(Version::HTTP_10, &[]), 200);
        assert_eq!(host(Version::HTTP_11, &["a", "a"]), 400);
        assert_eq!(host(Version::HTTP_10, &["a", "b"]), 400);
        assert_eq!(host(Version::HTTP_11, &["a/b"]), 400);
        assert_eq!(host(Version::HTTP_11, &["a b"]), 400);
    }

    #[test]
    fn the_only_expectation_is_100_continue() {
        let expect = |of: &[&'static str]| status(check_expect(&headers(&of.iter().map(|h| (EXPECT, *h)).collect::<Vec<_>>())));
        assert_eq!(expect(&[]), 200);
        assert_eq!(expect(&["100-Continue"]), 200);
        assert_eq!(expect(&["foo"]), 417);
        assert_eq!(expect(&["foo", "100-continue"]), 417);
    }

    #[test]
    fn the_only_coding_is_chunked() {
        let coding = |of: &[&'static str]| status(check_coding(&headers(&of.iter().map(|h| (TRANSFER_ENCODING, *h)).collect::<Vec<_>>())));
        assert_eq!(coding(&[]), 200);
        assert_eq!(coding(&["Chunked"]), 200);
        assert_eq!(coding(&["gzip, chunked"]), 501);
        assert_eq!(coding(&["gzip", "chunked"]), 501);
        assert_eq!(coding(&["chunked", "chunked"]), 501);
    }

    #[test]
    fn an_absolute_target_becomes_path_and_query() {
        let form = |t: &str| origin_form(&t.parse().unwrap()).unwrap().map(|u| u.to_string());
        assert_eq!(form("http://h:1/a%2Fb?x=1").as_deref(), Some("/a%2Fb?x=1"));
        assert_eq!(form("http://h").as_deref(), Some("/"));
        assert_eq!(form("http://h?list").as_deref(), Some("/?list"));
        assert_eq!(form("/a"), None);
        assert_eq!(form("*"), None);
    }
}
