//! The catalog's values as bytes: a version byte, then postcard.

use super::error::CatalogError;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{CommitAnswer, Committed, Deleted, Standing};
use kvdb_protocol::{ContentHash, ErrorCode, Key, Problem, UnixMillis, VersionId, VolumeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// Version byte of all values of this format.
pub(super) const VALUE_FORMAT: u8 = 1;

/// What the master knows of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The committed version.
    pub version: VersionId,
    /// Its length, in bytes.
    pub len: u64,
    /// Its hash.
    pub hash: ContentHash,
    /// Its content type.
    pub content_type: Option<String>,
    /// When its version was given out: its Last-Modified.
    pub modified: UnixMillis,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// The volumes that hold it.
    pub replicas: Vec<VolumeId>,
    /// Its place in the order of all commits.
    pub seq: u64,
    /// Whether the key was new, so that a commit that is asked for again gets the same answer.
    pub created: bool,
}

impl Record {
    /// Whether it has expired at `now`: then it is absent for readers.
    pub fn expired(&self, now: UnixMillis) -> bool {
        self.expires.is_some_and(|at| at <= now) && !lab::has(Bug::ExpiredServed)
    }

    /// The answer to its commit.
    pub fn committed(&self) -> Committed {
        Committed { seq: self.seq, created: self.created, modified: self.modified, removed: None, standing: Standing::Current }
    }
}

/// A copy that a volume has still to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReclaimEntry {
    pub(super) key: Key,
    pub(super) deleted: Option<Deleted>,
    /// How the version had been committed; none: it is not known to have been.
    pub(super) committed: Option<CommittedAs>,
}

/// The stored form of [`Committed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommittedAs {
    pub(super) seq: u64,
    pub(super) created: bool,
    pub(super) modified: UnixMillis,
    pub(super) removed: Option<VersionId>,
}

impl From<Committed> for CommittedAs {
    fn from(c: Committed) -> Self {
        Self { seq: c.seq, created: c.created, modified: c.modified, removed: c.removed }
    }
}

/// What is remembered of a value's commit is remembered because it was replaced or deleted.
impl From<CommittedAs> for Committed {
    fn from(c: CommittedAs) -> Self {
        let standing = if c.removed.is_some() { Standing::Current } else { Standing::Gone };
        Self { seq: c.seq, created: c.created, modified: c.modified, removed: c.removed, standing }
    }
}

/// What was decided about a version that may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Decision {
    Committed(CommittedAs),
    /// The code as text: its place in the list of codes may change.
    Refused {
        code: String,
        detail: String,
    },
}

impl From<Decision> for CommitAnswer {
    fn from(d: Decision) -> Self {
        match d {
            Decision::Committed(c) => Self::Committed(c.into()),
            Decision::Refused { code, detail } => {
                let known = ErrorCode::ALL.iter().copied().find(|c| c.as_str() == code);
                Self::Refused(Problem::new(known.unwrap_or(ErrorCode::Conflict), detail))
            }
        }
    }
}

/// What the master remembers of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeEntry {
    pub(super) address: String,
}

/// The order of commits, and how much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Sequence of the last commit.
    pub(super) seq: u64,
    /// Number of records, expired ones included.
    pub(super) keys: u64,
    /// Bytes of their values (one copy of each).
    pub(super) bytes: u64,
}

/// Encodes a value. `what` names it in errors.
pub(super) fn encode<T: Serialize>(value: &T, what: impl Display) -> Result<Vec<u8>, CatalogError> {
    postcard::to_extend(value, vec![VALUE_FORMAT]).map_err(|e| CatalogError::corrupt(what, e))
}

/// Decodes a value. `what` names it in errors.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], what: impl Display) -> Result<T, CatalogError> {
    match bytes.split_first() {
        Some((&VALUE_FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(CatalogError::corrupt(what, format!("{} bytes too many", rest.len()))),
            Err(e) => Err(CatalogError::corrupt(what, e)),
        },
        Some((&found, _)) => Err(CatalogError::corrupt(what, format!("it has format {found}, which this program does not know"))),
        None => Err(CatalogError::corrupt(what, "it is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            version: VersionId::from_parts(7, 8),
            len: 5,
            hash: ContentHash::of(b"hello"),
            content_type: Some("text/plain".into()),
            modified: UnixMillis(1_000),
            expires: None,
            replicas: vec![VolumeId::from_bytes([1; 16])],
            seq: 3,
            created: true,
        }
    }

    #[test]
    fn a_record_round_trips_and_every_truncation_is_an_error() {
        let bytes = encode(&record(), "record").unwrap();
        assert_eq!(decode::<Record>(&bytes, "record").unwrap(), record());
        for at in 0..bytes.len() {
            assert!(decode::<Record>(&bytes[..at], "record").is_err(), "cut at {at}");
        }
        assert!(decode::<Record>(&[bytes.clone(), vec![0]].concat(), "record").is_err());
    }

    #[test]
    fn a_value_of_a_newer_format_is_refused_by_name() {
        let mut bytes = encode(&record(), "record of a").unwrap();
        bytes[0] = 2;
        let error = decode::<Record>(&bytes, "record of a").unwrap_err().to_string();
        assert!(error.contains("record of a") && error.contains("format 2"), "{error}");
    }

    #[test]
    fn a_value_has_expired_from_its_very_millisecond_on() {
        let r = Record { expires: Some(UnixMillis(10)), ..record() };
        assert!(!r.expired(UnixMillis(9)));
        assert!(r.expired(UnixMillis(10)));
    }
}
