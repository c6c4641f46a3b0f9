//! What can go wrong in the catalog, and what to do about it.

use super::engine::EngineError;
use kvdb_protocol::{ErrorCode, Problem};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the catalog cannot be opened, or cannot answer.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Another process holds the directory.
    #[error("{} is in use by another master; stop that one, or give this one another directory", .0.display())]
    Locked(PathBuf),
    /// The directory was written by a newer program.
    #[error("{} has catalog format {found}, and this program knows up to {known}; use a newer kvDB", dir.display())]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// The directory has a part missing, or holds something else.
    #[error("{}: {what}", dir.display())]
    NotACatalog {
        /// The directory.
        dir: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A new catalog is only made in an empty directory: not where one was damaged, or in another program's.
    #[error("{} is not empty ({found} is in it) and holds no catalog; give the catalog's directory, or an empty one for a new catalog", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// A file outside the engine.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A stored value cannot be understood.
    #[error("the catalog's {what} cannot be read ({why}); restore the directory, or make a new one with `kvdb rebuild`")]
    Corrupt {
        /// Which value.
        what: String,
        /// Why.
        why: String,
    },
    /// The request itself is wrong: the caller's fault.
    #[error("{0}")]
    BadRequest(String),
    /// The write may or may not have happened.
    #[error("the catalog could not make the write durable; its outcome is known once the master has been restarted")]
    OutcomeUnknown,
    /// A write failed earlier: nothing was changed, and no write will be taken until a restart.
    #[error("the catalog takes no writes since one failed; see to the master's disk, then restart the master")]
    Stopped,
    /// The file system is nearly full: nothing was changed; it can be tried again.
    #[error("the master's disk is nearly full ({free} bytes left); make room on it")]
    NoSpace {
        /// Bytes left.
        free: u64,
    },
    /// The keys of a quota are being counted: nothing was changed; it can be tried again.
    #[error("how many keys there are {0} is being counted, for a quota; try again in a while")]
    Counting(String),
    /// One export at a time.
    #[error("an export is running; try again when it has ended")]
    ExportRunning,
    /// The export cannot go on.
    #[error("{0}")]
    ExportFailed(String),
    /// The catalog was closed: nothing was changed.
    #[error("the master is stopping")]
    Closed,
}

impl CatalogError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_path_buf(), source }
    }

    pub(super) fn corrupt(what: impl std::fmt::Display, why: impl ToString) -> Self {
        Self::Corrupt { what: what.to_string(), why: why.to_string() }
    }

    /// As a client or a volume is told.
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::NoSpace { .. } => ErrorCode::NoSpace,
            Self::Counting(_) => ErrorCode::Busy,
            Self::Stopped | Self::Closed | Self::ExportRunning | Self::ExportFailed(_) => ErrorCode::Unavailable,
            Self::BadRequest(_) => ErrorCode::BadRequest,
            _ => ErrorCode::Internal,
        };
        Problem::new(code, self.to_string())
    }
}
