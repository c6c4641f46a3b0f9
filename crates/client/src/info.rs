//! What is known of a value.

use crate::error::Error;
use crate::transport::{self, header_text, not_kvdb};
use crate::url;
use kvdb_protocol::ttl::{EXPIRES_HEADER, TTL_HEADER};
use kvdb_protocol::{ContentHash, UnixMillis, VersionId};
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LAST_MODIFIED};
use std::time::Duration;

/// A value, as the volume that has it describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Length of the whole value, in bytes.
    pub len: u64,
    /// Its BLAKE3, which is also its entity tag.
    pub etag: ContentHash,
    /// Its content type.
    pub content_type: Option<String>,
    /// When it was written, to the second.
    pub modified: Option<UnixMillis>,
    /// Its version.
    pub version: Option<VersionId>,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// What was left of its time when it was asked for.
    pub ttl: Option<Duration>,
    /// The volume that answered, as `http://host:port`.
    pub volume: String,
}

impl Info {
    /// From an answer that stands for the whole value.
    pub(crate) fn of_whole(response: &Response) -> Result<Self, Error> {
        let len = header_text(response, &CONTENT_LENGTH).and_then(|t| t.parse().ok());
        Self::with_len(response, len.ok_or_else(|| not_kvdb(response, "it has no Content-Length".into()))?)
    }

    /// From a 206, and with the first byte and the number of bytes that it brings.
    pub(crate) fn of_part(response: &Response) -> Result<(Self, u64, u64), Error> {
        let range = header_text(response, &CONTENT_RANGE).and_then(parse_content_range);
        let (first, count, total) = range.ok_or_else(|| not_kvdb(response, "a part without a sound Content-Range".into()))?;
        Ok((Self::with_len(response, total)?, first, count))
    }

    fn with_len(response: &Response, len: u64) -> Result<Self, Error> {
        let etag = transport::etag(response).ok_or_else(|| not_kvdb(response, "its ETag is not a BLAKE3".into()))?;
        let modified = header_text(response, &LAST_MODIFIED).and_then(|t| httpdate::parse_http_date(t).ok());
        let number = |name| header_text(response, &HeaderName::from_static(name)).and_then(|t| t.parse().ok());
        Ok(Self {
            len,
            etag,
            content_type: header_text(response, &CONTENT_TYPE).map(str::to_string),
            modified: modified.map(UnixMillis::from),
            version: transport::version(response),
            expires: number(EXPIRES_HEADER).map(UnixMillis),
            ttl: number(TTL_HEADER).map(Duration::from_millis),
            volume: url::origin(response.url()),
        })
    }
}

/// `bytes first-last/total` as first, count and total.
fn parse_content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then(|| (first, last - first + 1, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_must_lie_within_the_value() {
        assert_eq!(parse_content_range("bytes 0-0/1"), Some((0, 1, 1)));
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, 5, 10)));
        for bad in ["bytes 5-10/10", "bytes 6-5/10", "bytes */10", "bytes 0-1/*", "0-1/2", "bytes 0-/2"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
