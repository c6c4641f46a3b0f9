//! What can go wrong, and what to do about it.

use kvdb_master::catalog::CatalogError;
use kvdb_protocol::key::KeyError;
use kvdb_protocol::ttl::TtlError;
use kvdb_protocol::{ErrorCode, Problem};
use kvdb_volume::store::StoreError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a directory cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// This process or another one has it open.
    #[error("{} is open already, here or in another process; close it there first", .0.display())]
    AlreadyOpen(PathBuf),
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// It belongs to a cluster of more than one volume.
    #[error("{} belongs to a cluster of {volumes} volumes, of which an embedded store has only one; serve it with `kvdb up`", dir.display())]
    SeveralVolumes {
        /// The directory.
        dir: PathBuf,
        /// Volumes that its catalog knows.
        volumes: usize,
    },
    /// The catalog is of other values than those beside it.
    #[error("{}: {why}", dir.display())]
    Mismatch {
        /// The directory.
        dir: PathBuf,
        /// What does not fit, and what to do.
        why: String,
    },
    /// The part that knows the keys.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The part that keeps the values.
    #[error(transparent)]
    Volume(kvdb_volume::store::OpenError),
    /// What a crash left behind could not be made good.
    #[error("what was under way when the store was last in use cannot be settled: {0}")]
    Recovery(#[source] Box<Error>),
    /// The system gave no thread or no timer.
    #[error("the background thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// Why the store did not do it. But for [`Error::OutcomeUnknown`] nothing was changed then.
#[derive(Debug, Error)]
pub enum Error {
    /// The key has a value, and the call was to create it.
    #[error("the key '{0}' exists; delete it first, or put to replace its value")]
    KeyExists(String),
    /// Not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Longer than this store takes.
    #[error("the key has {found} {unit}; this store takes at most {max}")]
    KeyTooLong {
        /// Its length.
        found: usize,
        /// The longest.
        max: usize,
        /// What is counted: bytes or characters.
        unit: &'static str,
    },
    /// Keys are counted in characters here, and this one has none.
    #[error("the key is not UTF-8 text, as this store asks")]
    KeyNotText,
    /// Larger than this store takes, or, where it was stored by a server, than can be read here.
    #[error("the value has {found} bytes; at most {max} are taken")]
    ValueTooLarge {
        /// Its length, in bytes.
        found: u64,
        /// The largest, in bytes.
        max: u64,
    },
    /// Only JSON objects are taken here.
    #[error("the value is not a JSON object: {0}")]
    NotAJsonObject(String),
    /// Not a time to live.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// An empty prefix would delete everything.
    #[error("an empty prefix is every key; call delete_all if that is meant")]
    EmptyPrefix,
    /// The bytes on the disk are not those that were stored. They are not returned.
    #[error("the value of '{key}' is damaged on the disk: {what}; store it again from where it came")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// No room on the disk, or below the capacity.
    #[error("there is no room: {0}")]
    NoSpace(String),
    /// A sync failed: whether the write is done is known once the store was opened again. No more writes are taken until then.
    #[error("it is not known whether the write is durable: {0}; see to the disk, then open the store again")]
    OutcomeUnknown(String),
    /// A write failed before: no more are taken until the store was opened again.
    #[error("the store takes no writes: {0}; see to the disk, then open the store again")]
    ReadOnly(String),
    /// Anything else; the text says what.
    #[error("{0}")]
    Failed(String),
}

impl From<CatalogError> for Error {
    fn from(e: CatalogError) -> Self {
        match e {
            CatalogError::OutcomeUnknown => Self::OutcomeUnknown("the catalog could not be synced".into()),
            CatalogError::NoSpace { .. } => Self::NoSpace(e.to_string()),
            CatalogError::Stopped => Self::ReadOnly("a write of the catalog failed".into()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        match e.to_problem().code {
            ErrorCode::NoSpace => Self::NoSpace(e.to_string()),
            ErrorCode::ReadOnly => Self::ReadOnly(e.to_string()),
            _ => Self::Failed(e.to_string()),
        }
    }
}

impl Error {
    /// A commit that was refused.
    pub(crate) fn refused(key: &kvdb_protocol::Key, problem: Problem) -> Self {
        match problem.code {
            ErrorCode::Exists => Self::KeyExists(key.display()),
            _ => Self::Failed(problem.detail),
        }
    }
}
