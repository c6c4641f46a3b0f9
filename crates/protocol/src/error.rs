//! Error codes, their HTTP statuses, and the problem document that carries them (RFC 9457).

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $retry:literal, $title:literal;)*) => {
        /// A stable name for what went wrong. Clients may rely on the text and the status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code as clients see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whether the same request can succeed later.
            pub fn retry(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// A short human text, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request cannot be understood.
    BadRequest = "bad_request", 400, false, "The request is malformed";
    /// The key is empty, reserved or badly escaped.
    BadKey = "bad_key", 400, false, "The key is not usable";
    /// A digest that the sender gave does not match what arrived.
    DigestMismatch = "digest_mismatch", 400, false, "The value does not have the digest that was announced";
    /// The body ended before its announced length.
    IncompleteBody = "incomplete_body", 400, true, "The value did not arrive whole";
    /// No credentials.
    Unauthorized = "unauthorized", 401, false, "Credentials are needed";
    /// Credentials or a ticket that do not permit this.
    Forbidden = "forbidden", 403, false, "This is not permitted";
    /// A ticket that was altered, is foreign or has expired.
    BadTicket = "bad_ticket", 403, false, "The ticket is not valid";
    /// No such key or page.
    NotFound = "not_found", 404, false, "There is no such key";
    /// No transaction of this id is open.
    NoSuchTransaction = "no_such_transaction", 404, false, "There is no such transaction";
    /// The method is not for this resource.
    MethodNotAllowed = "method_not_allowed", 405, false, "The method is not allowed here";
    /// The sender was too slow.
    RequestTimeout = "request_timeout", 408, true, "The request took too long to arrive";
    /// A create found the key in use.
    Exists = "exists", 409, false, "The key exists";
    /// The operation lost against another one that was committed first.
    Conflict = "conflict", 409, true, "Another write came first";
    /// A length is needed.
    LengthRequired = "length_required", 411, false, "A Content-Length is needed";
    /// If-Match or If-None-Match does not hold.
    PreconditionFailed = "precondition_failed", 412, false, "A precondition does not hold";
    /// The value is larger than allowed.
    ValueTooLarge = "value_too_large", 413, false, "The value is too large";
    /// The key or the request target is too long.
    TooLong = "too_long", 414, false, "The key or the URL is too long";
    /// The key is longer than a limit of its prefix allows.
    KeyTooLong = "key_too_long", 414, false, "The key is longer than its prefix allows";
    /// A limit of the prefix names other content types.
    ContentTypeRefused = "content_type_refused", 415, false, "The content type is not allowed here";
    /// No byte of the value is in the range.
    RangeNotSatisfiable = "range_not_satisfiable", 416, false, "The range lies outside the value";
    /// An Expect that is not 100-continue.
    ExpectationFailed = "expectation_failed", 417, false, "The expectation cannot be met";
    /// Another cluster's or another volume's request.
    Misdirected = "misdirected", 421, false, "The request belongs to another server";
    /// A limit of the prefix asks for other content.
    ContentInvalid = "content_invalid", 422, false, "The value's content is not as it must be here";
    /// Bytes that the form of the answer cannot carry.
    NotText = "not_text", 422, false, "The value is not text";
    /// A bound on requests is reached.
    TooManyRequests = "too_many_requests", 429, true, "Too many requests at once";
    /// The head is too large.
    HeadTooLarge = "head_too_large", 431, false, "The request's head is too large";
    /// A fault of the server.
    Internal = "internal", 500, true, "The server failed";
    /// Not offered.
    NotImplemented = "not_implemented", 501, false, "This is not implemented";
    /// Bytes on disk are not what was written.
    Corrupt = "corrupt", 500, true, "The copy is damaged";
    /// A server that is needed is down, starting or stopping.
    Unavailable = "unavailable", 503, true, "The service is not available now";
    /// No replica of the value is up.
    NoReplica = "no_replica", 503, true, "No replica of the value is reachable";
    /// Not enough volumes take writes.
    NoVolumes = "no_volumes", 503, true, "Not enough volumes take writes";
    /// A volume has stopped taking writes.
    ReadOnly = "read_only", 503, true, "The volume takes no writes";
    /// All places for work are taken.
    Busy = "busy", 503, true, "The server is busy";
    /// The write may or may not have happened; it settles by itself.
    OutcomeUnknown = "outcome_unknown", 504, true, "The outcome is not known yet";
    /// No space on disk.
    NoSpace = "no_space", 507, true, "There is no space left";
    /// The keys or bytes that a prefix may have are used up; something must be deleted, or the quota raised.
    QuotaExceeded = "quota_exceeded", 507, false, "The quota is used up";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Keys that a problem names, written as in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys(pub Vec<String>);

/// The body of every error: `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    /// `urn:kvdb:error:` and the code.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// The same for every occurrence of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time and what to do.
    pub detail: String,
    /// The stable code.
    pub code: ErrorCode,
    /// The request's id, as in the servers' logs.
    #[serde(default)]
    pub request_id: String,
    /// Whether the same request can succeed later.
    pub retry: bool,
    /// The volume that could not do its part, where it is one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<crate::id::VolumeId>,
    /// The keys that are to blame, where it is some of several; written as in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Box<Keys>>,
}

impl Problem {
    /// A problem of this code; the server fills in the request id.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:kvdb:error:{code}").into(),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: String::new(),
            retry: code.retry(),
            volume: None,
            keys: None,
        }
    }

    /// Names the volume that could not do its part.
    #[must_use]
    pub fn at_volume(mut self, volume: crate::id::VolumeId) -> Self {
        self.volume = Some(volume);
        self
    }
}

impl Problem {
    /// Names the keys that are to blame.
    #[must_use]
    pub fn of_keys<'a>(mut self, keys: impl IntoIterator<Item = &'a crate::key::Key>) -> Self {
        self.keys = Some(Box::new(Keys(keys.into_iter().map(crate::key::Key::display).collect())));
        self
    }
}

impl From<crate::key::KeyError> for Problem {
    fn from(e: crate::key::KeyError) -> Self {
        let code = match e {
            crate::key::KeyError::TooLong(_) => ErrorCode::TooLong,
            _ => ErrorCode::BadKey,
        };
        Self::new(code, e.to_string())
    }
}

impl From<crate::ticket::TicketError> for Problem {
    fn from(e: crate::ticket::TicketError) -> Self {
        Self::new(ErrorCode::BadTicket, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_json_carries_them_as_text() {
        let texts: std::collections::HashSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for c in ErrorCode::ALL {
            assert!((400..600).contains(&c.status()));
            let json = serde_json::to_value(Problem::new(*c, "d")).unwrap();
            assert_eq!(json["code"], c.as_str());
            assert_eq!(json["status"], c.status());
        }
    }
}
