//! Headers of answers that tell when a value expires.

use http::{HeaderMap, HeaderName};
use kvdb_protocol::UnixMillis;
use kvdb_protocol::ttl::{EXPIRES_HEADER, TTL_HEADER};

/// When a value expires (milliseconds since 1970) and what is left of its time at `now` (milliseconds).
pub fn tell(headers: &mut HeaderMap, expires: UnixMillis, now: UnixMillis) {
    headers.insert(HeaderName::from_static(EXPIRES_HEADER), expires.0.into());
    headers.insert(HeaderName::from_static(TTL_HEADER), expires.0.saturating_sub(now.0).into());
}
