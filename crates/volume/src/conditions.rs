//! Preconditions of a read (RFC 9110 §13).

use http::{HeaderMap, header};
use kvdb_protocol::UnixMillis;
use std::time::{Duration, SystemTime};

/// What the preconditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates `If-Match`, `If-Unmodified-Since`, `If-None-Match` and `If-Modified-Since`, in the order of RFC 9110 §13.2.2.
pub fn evaluate(headers: &HeaderMap, etag: &str, modified: UnixMillis) -> Verdict {
    let modified = whole_seconds(modified);
    if let Some(tags) = joined(headers, header::IF_MATCH) {
        if !matches(&tags, etag, false) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers, header::IF_UNMODIFIED_SINCE)
        && modified > since
    {
        return Verdict::Failed;
    }
    if let Some(tags) = joined(headers, header::IF_NONE_MATCH) {
        if matches(&tags, etag, true) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(headers, header::IF_MODIFIED_SINCE)
        && modified <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a `Range` may be honoured: there is no `If-Range`, or it names this very value.
pub fn if_range_holds(headers: &HeaderMap, etag: &str, modified: UnixMillis) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    if text.contains('"') {
        return text.trim() == etag;
    }
    httpdate::parse_http_date(text).is_ok_and(|date| date == whole_seconds(modified))
}

/// HTTP dates have whole seconds.
fn whole_seconds(time: UnixMillis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.0 / 1000)
}

fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<SystemTime> {
    headers.get(name).and_then(|v| v.to_str().ok()).and_then(|t| httpdate::parse_http_date(t).ok())
}

/// All lines of a header; its tags may hold bytes that are not ASCII.
fn joined(headers: &HeaderMap, name: header::HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    (!lines.is_empty()).then(|| lines.join(&b","[..]))
}

/// Commas inside of quotes belong to a tag.
fn matches(tags: &[u8], etag: &str, weak: bool) -> bool {
    let mut quoted = false;
    let separates = |b: &u8| {
        quoted ^= *b == b'"';
        *b == b',' && !quoted
    };
    let is_it = |t: &[u8]| t == b"*" || t == etag.as_bytes() || (weak && t.strip_prefix(b"W/") == Some(etag.as_bytes()));
    tags.split(separates).any(|t| is_it(t.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"aa\"";
    const AT: UnixMillis = UnixMillis(1_000_000_000_500);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (header::HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn each_precondition_has_its_verdict() {
        let date = "Sun, 09 Sep 2001 01:46:40 GMT";
        let before = "Sun, 09 Sep 2001 01:46:39 GMT";
        for (pairs, want) in [
            (vec![], Verdict::Proceed),
            (vec![("if-match", "\"aa\"")], Verdict::Proceed),
            (vec![("if-match", "W/\"aa\"")], Verdict::Failed),
            (vec![("if-match", "*")], Verdict::Proceed),
            (vec![("if-match", "\"bb\"")], Verdict::Failed),
            (vec![("if-none-match", "\"bb\", W/\"aa\"")], Verdict::NotModified),
            (vec![("if-none-match", "*")], Verdict::NotModified),
            (vec![("if-none-match", "\"bb\"")], Verdict::Proceed),
            (vec![("if-modified-since", date)], Verdict::NotModified),
            (vec![("if-modified-since", before)], Verdict::Proceed),
            (vec![("if-modified-since", "yesterday")], Verdict::Proceed),
            (vec![("if-unmodified-since", date)], Verdict::Proceed),
            (vec![("if-unmodified-since", before)], Verdict::Failed),
            (vec![("if-none-match", "\"bb\""), ("if-modified-since", date)], Verdict::Proceed),
        ] {
            assert_eq!(evaluate(&headers(&pairs), TAG, AT), want, "{pairs:?}");
        }
    }

    #[test]
    fn tags_may_hold_commas_and_bytes_that_are_not_ascii() {
        let with = |name: &'static str, value: &[u8]| {
            let headers = HeaderMap::from_iter([(header::HeaderName::from_static(name), http::HeaderValue::from_bytes(value).unwrap())]);
            evaluate(&headers, TAG, AT)
        };
        for other in [&b"\"\xe9\""[..], b"\"x,*,y\""] {
            assert_eq!(with("if-match", other), Verdict::Failed);
            assert_eq!(with("if-none-match", other), Verdict::Proceed);
        }
        assert_eq!(with("if-match", b"\"\xe9,\", \"aa\""), Verdict::Proceed);
    }

    #[test]
    fn a_stale_if_range_asks_for_the_whole() {
        assert!(if_range_holds(&headers(&[]), TAG, AT));
        assert!(if_range_holds(&headers(&[("if-range", TAG)]), TAG, AT));
        assert!(if_range_holds(&headers(&[("if-range", "Sun, 09 Sep 2001 01:46:40 GMT")]), TAG, AT));
        for stale in ["\"bb\"", "W/\"aa\"", "Sun, 09 Sep 2001 01:46:41 GMT", "x"] {
            assert!(!if_range_holds(&headers(&[("if-range", stale)]), TAG, AT), "{stale}");
        }
    }
}
