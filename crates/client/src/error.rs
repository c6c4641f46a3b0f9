//! What can go wrong, by name.

use kvdb_protocol::{ContentHash, ErrorCode, Key, KeyError, Problem};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an operation failed. A write that failed left the old state as it was, except where
/// [`Error::OutcomeUnknown`] or [`Error::Corrupt`] says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The base URL cannot be used.
    #[error("the master's URL {url:?} cannot be used: {reason}; give it as http://host:port")]
    BaseUrl {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `.` and `..` alone: URL rules remove them from a path whatever way they are written.
    #[error("{0:?} alone cannot be sent in a URL by this client; use it as a part of a longer key")]
    Unsendable(String),
    /// There is no such key.
    #[error("there is no key {0}")]
    NotFound(Key),
    /// A create found the key in use.
    #[error("the key {0} exists")]
    Exists(Key),
    /// A precondition does not hold.
    #[error("a precondition on {0} does not hold: its value is another one than expected")]
    PreconditionFailed(Key),
    /// No byte of the value is in the range.
    #[error("the range lies outside the value of {0}")]
    OutOfRange(Key),
    /// The value was replaced or deleted while it was being read.
    #[error("the value of {0} was changed while it was being read; read it again")]
    Changed(Key),
    /// Any other problem that a server named.
    #[error("{problem}{}", request_note(problem))]
    Problem {
        /// The server's own words.
        problem: Box<Problem>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that is not kvDB's.
    #[error("{url} gave an answer that is not kvDB's: {reason}; is this a kvDB master?")]
    NotKvdb {
        /// Who answered.
        url: String,
        /// What is wrong with the answer.
        reason: String,
        /// Its HTTP status.
        status: u16,
    },
    /// The bytes are not those of the hash. A read: they must not be used. A write: what is stored is not what was sent.
    #[error("the value of {key} has the BLAKE3 {actual} where {expected} is right: {hint}")]
    Corrupt {
        /// The key.
        key: Key,
        /// The hash that is right.
        expected: ContentHash,
        /// The hash that was found.
        actual: ContentHash,
        /// What to do.
        hint: &'static str,
    },
    /// A part of a value that a volume sent is not what the value's BLAKE3 says, and no other try brought it right. Nothing of it was used.
    #[error("bytes {first} to {end} of {key} came wrong from {url}; try again, and have the network between looked at if it stays so")]
    Damaged {
        /// The key.
        key: Key,
        /// Place of the first byte.
        first: u64,
        /// Place after the last byte.
        end: u64,
        /// Who sent it.
        url: String,
    },
    /// No connection could be made; nothing was sent.
    #[error("cannot reach {url}: {reason}; check that it is running and can be reached from here")]
    Unreachable {
        /// Who.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke, or nothing came for too long. Nothing was stored.
    #[error("the connection to {url} broke off: {reason}")]
    Interrupted {
        /// Who.
        url: String,
        /// Why.
        reason: String,
    },
    /// A write of which nobody could say whether it was done. It settles by itself: look at the key later.
    #[error("it is not known whether the write to {key} was done: {reason}; look at the key in a minute")]
    OutcomeUnknown {
        /// The key.
        key: Key,
        /// Why it is not known.
        reason: String,
    },
    /// Changes of several keys together of which nobody could say whether they were made. All of them were, or none.
    #[error("it is not known whether the keys were changed: {reason}; all of them were, or none: look at one in a minute")]
    BatchUnknown {
        /// Why it is not known.
        reason: String,
    },
    /// The value is longer than the caller takes.
    #[error("the value of {key} is longer than {max} bytes")]
    TooLong {
        /// The key.
        key: Key,
        /// The caller's bound, in bytes.
        max: u64,
    },
    /// What was to be sent could not be read. Nothing was stored.
    #[error("cannot read {what}")]
    Source {
        /// The file, or "the source".
        what: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The file for what was received could not be written.
    #[error("cannot write {}", path.display())]
    Target {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

fn request_note(p: &Problem) -> String {
    if p.request_id.is_empty() { String::new() } else { format!(" (request {})", p.request_id) }
}

impl Error {
    /// Whether the same call can succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::OutcomeUnknown { .. }
            | Self::BatchUnknown { .. }
            | Self::Changed(_)
            | Self::Damaged { .. } => true,
            Self::Problem { problem, .. } => problem.retry,
            Self::NotKvdb { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether the client itself tries again: not where the answer will be the same in a few seconds, and
    /// not where it must first be found out what happened.
    pub(crate) fn worth_another_try(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } | Self::BatchUnknown { .. } | Self::Changed(_) => false,
            Self::Problem { problem, .. } => problem.retry && !matches!(problem.code, ErrorCode::NoSpace | ErrorCode::OutcomeUnknown),
            _ => self.is_retryable(),
        }
    }

    /// Whether a write that got this answer may have been done all the same.
    pub(crate) fn leaves_doubt(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } => true,
            Self::Problem { problem, .. } => problem.code == ErrorCode::OutcomeUnknown,
            Self::NotKvdb { status, .. } => *status >= 500,
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
