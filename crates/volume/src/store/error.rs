//! What can go wrong in the store, and what clients are told.

use crate::disk::DiskError;
use crate::format::FormatError;
use crate::index::IndexError;
use kvdb_protocol::{ClusterId, ErrorCode, Problem, VersionId};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a volume's directory cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is in use by another process; stop that one, or give this volume a directory of its own", .0.display())]
    Locked(PathBuf),
    /// A newer program wrote it.
    #[error("{} was written by a newer kvDB (format {found}, this program knows {known}); start it with that version", path.display())]
    NewerFormat {
        /// The file or directory that says so.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// It is something else.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Nothing can be written there.
    #[error("{} takes no writes ({source}); mount it read-write, or give it to the user that runs the volume", path.display())]
    ReadOnlyDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds other things and no volume.
    #[error(
        "{} holds files but no kvdb-volume.json, so it is not a volume's directory (it has '{found}'); \
         give an empty directory, or put kvdb-volume.json back if this is a volume that lost it", path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// A name in it.
        found: String,
    },
    /// The identity file cannot be understood.
    #[error("{} is damaged: {why}; restore it from a copy: it holds this volume's id and its cluster's", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no thread left.
    #[error("cannot start the threads that write: {0}")]
    NoThreads(io::Error),
    /// The index cannot be opened for a reason that a new one would not cure.
    #[error("the index in {} cannot be opened: {why}", path.display())]
    Index {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] DiskError),
}

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No room.
    #[error("there is no space on this volume: {need} bytes are needed, {free} are free for values")]
    NoSpace {
        /// Bytes needed.
        need: u64,
        /// Bytes that new values may take.
        free: u64,
    },
    /// Larger than permitted.
    #[error("the value is larger than the {max} bytes that are permitted")]
    TooLarge {
        /// The bound in bytes.
        max: u64,
    },
    /// Not of the length that was announced.
    #[error("the value has {found} bytes, and {expected} were announced")]
    Length {
        /// Announced, in bytes.
        expected: u64,
        /// Received so far, in bytes.
        found: u64,
    },
    /// The volume has stopped taking writes.
    #[error("this volume takes no writes: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// Another value of this version is here, or was.
    #[error("version {version} was used before, for another value or for one that is deleted")]
    VersionUsed {
        /// The version.
        version: VersionId,
    },
    /// It is not here.
    #[error("version {version} is not on this volume")]
    Absent {
        /// The version.
        version: VersionId,
    },
    /// What is on disk is not what was written.
    #[error("the copy of version {version} is damaged: {what}")]
    Corrupt {
        /// The version.
        version: VersionId,
        /// What is wrong, and where.
        what: String,
    },
    /// It belongs to another cluster.
    #[error("this volume belongs to cluster {owner}, not to {asked}; use an empty directory to add a volume to that one")]
    OtherCluster {
        /// Its cluster.
        owner: ClusterId,
        /// The one that asked.
        asked: ClusterId,
    },
    /// What was given cannot be stored.
    #[error("this cannot be stored: {0}")]
    Format(#[from] FormatError),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] DiskError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Why a value cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// What is on disk is not what was written.
    #[error("the copy of version {version} is damaged at {place}")]
    Corrupt {
        /// The version.
        version: VersionId,
        /// Where.
        place: String,
    },
    /// The disk cannot be read.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl StoreError {
    /// What a client is told.
    pub fn to_problem(&self) -> Problem {
        let code = match self {
            Self::NoSpace { .. } | Self::Index(IndexError::NoSpace { .. }) => ErrorCode::NoSpace,
            Self::Io(e) if e.is_no_space() => ErrorCode::NoSpace,
            Self::Io(e) if e.is_read_only() => ErrorCode::ReadOnly,
            Self::Io(e) if e.is_no_descriptor() => ErrorCode::Busy,
            Self::TooLarge { .. } => ErrorCode::ValueTooLarge,
            Self::Length { .. } => ErrorCode::IncompleteBody,
            Self::ReadOnly { .. } | Self::Index(IndexError::Stopped(_)) => ErrorCode::ReadOnly,
            Self::VersionUsed { .. } => ErrorCode::Conflict,
            Self::Absent { .. } => ErrorCode::NotFound,
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::OtherCluster { .. } => ErrorCode::Misdirected,
            Self::Format(_) => ErrorCode::BadRequest,
            Self::Io(_) | Self::Index(_) => ErrorCode::Internal,
        };
        Problem::new(code, self.public_text())
    }

    /// Without paths of this machine, which are nobody else's business.
    fn public_text(&self) -> String {
        match self {
            Self::Io(e) => format!("the volume cannot {} a file: {}", e.op, e.source),
            Self::ReadOnly { .. } | Self::Index(IndexError::Stopped(_)) => {
                "this volume takes no writes since its disk failed; its log and its status say why".into()
            }
            other => other.to_string(),
        }
    }

    /// Whether nothing more may be written after this: what is on the disk is not known.
    pub(super) fn is_failed_sync(&self) -> bool {
        matches!(self, Self::Io(e) if e.is_failed_sync())
    }
}

impl ReadError {
    /// What a client is told.
    pub fn to_problem(&self) -> Problem {
        match self {
            Self::Corrupt { .. } => Problem::new(ErrorCode::Corrupt, self.to_string()),
            Self::Io(e) => Problem::new(ErrorCode::Internal, format!("the volume cannot {} a file: {}", e.op, e.source)),
        }
    }
}

impl From<ReadError> for StoreError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Corrupt { version, place } => Self::Corrupt { version, what: place },
            ReadError::Io(e) => Self::Io(e),
        }
    }
}
