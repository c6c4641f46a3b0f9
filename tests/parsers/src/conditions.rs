//! Preconditions, as volumes read them for reads, and the master for writes.

use crate::input::{Input, chosen};
use crate::sample;
use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderValue};
use kvdb_master::preconditions;
use kvdb_protocol::ticket::Tags;
use kvdb_volume::conditions::{Verdict, evaluate, if_range_holds};

const NAMES: [HeaderName; 5] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];

/// Lines of a byte that chooses the name, and the value.
pub(crate) fn check(data: &[u8]) -> bool {
    let (mut input, mut headers) = (Input(data), HeaderMap::new());
    while !input.0.is_empty() {
        let name = &NAMES[usize::from(input.byte()) % NAMES.len()];
        let Ok(value) = HeaderValue::from_bytes(input.line()) else { return false };
        headers.append(name, value);
    }
    let (hash, etag) = (sample::hash(), sample::hash().etag());
    let verdict = evaluate(&headers, &etag, sample::NOW);
    if_range_holds(&headers, &etag, sample::NOW);
    let written = preconditions::from_headers(&headers);
    if let Ok(condition) = &written {
        for tags in [&condition.if_match, &condition.if_none_match].into_iter().flatten() {
            assert!(!matches!(tags, Tags::Of(hashes) if hashes.len() > 16));
        }
    }
    let (Some(if_match), Some(if_none_match)) =
        (expected(&headers, IF_MATCH, &etag, false), expected(&headers, IF_NONE_MATCH, &etag, true))
    else {
        return false;
    };
    // Where both follow the grammar, RFC 9110 §13.2.2 leaves no choice.
    match (if_match, if_none_match) {
        (Some(false), _) => assert_eq!(verdict, Verdict::Failed, "If-Match does not hold"),
        (Some(true), Some(true)) => assert_eq!(verdict, Verdict::NotModified, "If-None-Match does not hold"),
        (Some(true), Some(false)) => assert_eq!(verdict, Verdict::Proceed, "both hold"),
        (Some(true), None) => assert_ne!(verdict, Verdict::Failed, "If-Match holds"),
        (None, Some(true)) => assert_ne!(verdict, Verdict::Proceed, "If-None-Match does not hold"),
        (None, Some(false)) => assert_ne!(verdict, Verdict::NotModified, "If-None-Match holds: the date does not count"),
        (None, None) => {}
    }
    if let Ok(condition) = written {
        assert_eq!(condition.holds(Some(hash)), if_match != Some(false) && if_none_match != Some(true), "the master reads them otherwise");
    }
    if_match.is_some() || if_none_match.is_some()
}

/// Whether the header names the value: RFC 9110 §8.8.3 and §13.1, read byte by byte. Outer none: it does not follow the
/// grammar; inner none: it is not there.
fn expected(headers: &HeaderMap, name: HeaderName, etag: &str, weak: bool) -> Option<Option<bool>> {
    let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Some(None);
    }
    let joined = lines.join(&b","[..]);
    let mut rest = joined.trim_ascii();
    if rest == b"*" {
        return Some(Some(true));
    }
    let (mut named, mut some) = (false, false);
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return some.then_some(Some(named));
        }
        let (is_weak, tag) = rest.strip_prefix(b"W/").map_or((false, rest), |t| (true, t));
        let inner = tag.strip_prefix(b"\"")?;
        let end = inner.iter().position(|b| *b == b'"')?;
        if !inner[..end].iter().all(|b| *b > 0x20 && *b != 0x7F) {
            return None;
        }
        named |= tag[..end + 2] == *etag.as_bytes() && (weak || !is_weak);
        some = true;
        rest = inner[end + 1..].trim_ascii_start();
        if !(rest.is_empty() || rest.starts_with(b",")) {
            return None;
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let etag = sample::hash().etag();
    let date = "Tue, 14 Nov 2023 22:13:20 GMT";
    [
        format!("\0{etag}"),
        format!("\0W/{etag}\n\x01\"x\", {etag}"),
        format!("\x01*\n\x02{date}"),
        format!("\0{etag}, \"y\"\n\x03{date}\n\x04{etag}"),
        format!("\x01\"x\"\n\x01W/{etag}\n\x04{date}"),
    ]
    .map(|s| chosen(&[], s))
    .to_vec()
}
