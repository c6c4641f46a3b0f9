//! The form of an exported catalog: lines of JSON, the last of which proves that all before are there.
//! The table of lines is in `docs/protocol.md`.

use super::placing::Duty;
use super::record::Record;
use bytes::Bytes;
use kvdb_protocol::message::{Committed, Deleted};
use kvdb_protocol::{ClusterId, ContentHash, Key, UnixMillis, VersionId, VolumeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Format of exports.
pub const EXPORT_FORMAT: u32 = 1;
/// Longest line, in bytes: a key of which every byte is escaped, and the rest, with room.
pub const MAX_LINE_BYTES: usize = 16 << 10;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Catalog(Header),
    /// A volume.
    Volume {
        /// Its id.
        id: VolumeId,
        /// Its last known address.
        address: String,
    },
    /// What a volume is for, where it is not simply used.
    Duty {
        /// The volume.
        id: VolumeId,
        /// What for.
        duty: Duty,
    },
    /// An address listed besides those of the command line.
    Listed {
        /// `host:port`.
        address: String,
    },
    /// A key's record; these are in order of key.
    Record(KeyRecord),
    /// A copy that a volume has still to remove; these follow the records.
    Reclaim(Reclaimed),
    /// The export failed, for this reason.
    Failed(String),
    /// The last.
    End(End),
}

/// Which catalog it is, and as of when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`EXPORT_FORMAT`].
    pub format: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's time.
    pub time: UnixMillis,
    /// Sequence of the last commit that is in it.
    pub seq: u64,
    /// All times and versions given out so far are before this, in milliseconds.
    pub lease: u64,
    /// Number of records.
    pub keys: u64,
    /// Bytes of their values, one copy of each.
    pub bytes: u64,
}

/// A key and its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key.
    pub key: Key,
    /// Its record.
    #[serde(flatten)]
    pub record: Record,
}

/// A copy that is to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// Where it is.
    pub volume: VolumeId,
    /// Its version.
    pub version: VersionId,
    /// Its key.
    pub key: Key,
    /// Where the key was deleted.
    pub deleted: Option<Deleted>,
    /// How the version had been committed, where it is known.
    pub committed: Option<Committed>,
}

/// What must have come before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Records.
    pub records: u64,
    /// Copies to be removed.
    pub reclaim: u64,
    /// BLAKE3 of all lines before, their newlines included.
    pub blake3: ContentHash,
}

/// Writes lines, and counts and hashes them.
#[derive(Default)]
pub(super) struct Sealer {
    hasher: blake3::Hasher,
    records: u64,
    reclaim: u64,
}

impl Sealer {
    pub(super) fn line(&mut self, line: &Line) -> Bytes {
        self.records += u64::from(matches!(line, Line::Record(_)));
        self.reclaim += u64::from(matches!(line, Line::Reclaim(_)));
        let bytes = kvdb_server::duplex::line(line);
        self.hasher.update(&bytes);
        bytes
    }

    pub(super) fn end(&mut self) -> Bytes {
        let blake3 = ContentHash(*self.hasher.finalize().as_bytes());
        self.line(&Line::End(End { records: self.records, reclaim: self.reclaim, blake3 }))
    }
}

/// Why lines are not a whole export.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A newer program wrote it.
    #[error("the export has format {0}, and this program knows up to {EXPORT_FORMAT}; use a newer kvDB")]
    NewerFormat(u32),
    /// It is not an export, or was changed.
    #[error("line {line} is not one of a catalog's export: {why}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// Why.
        why: String,
    },
    /// It ends too early, or lines are missing.
    #[error("the export is not whole ({0}); use another one")]
    Cut(&'static str),
    /// The master could not go on.
    #[error("the master could not finish the export: {0}")]
    Failed(String),
    /// It cannot be read.
    #[error("the export cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads lines, and checks that they are in order, unchanged and all there.
#[derive(Default)]
pub struct Checker {
    hasher: blake3::Hasher,
    lines: u64,
    records: u64,
    reclaim: u64,
    last_key: Option<Key>,
    end: bool,
}

impl Checker {
    /// The next line, its newline included.
    pub fn line(&mut self, bytes: &[u8]) -> Result<Line, ExportError> {
        self.lines += 1;
        if bytes.last() != Some(&b'\n') {
            return Err(if bytes.len() >= MAX_LINE_BYTES { self.bad("it is too long") } else { ExportError::Cut("it ends within a line") });
        }
        if self.end {
            return Err(self.bad("it follows the end"));
        }
        let line: Line = serde_json::from_slice(bytes).map_err(|e| self.bad(e))?;
        self.accept(&line)?;
        self.hasher.update(bytes);
        Ok(line)
    }

    fn accept(&mut self, line: &Line) -> Result<(), ExportError> {
        match line {
            Line::Catalog(h) if h.format > EXPORT_FORMAT => return Err(ExportError::NewerFormat(h.format)),
            Line::Catalog(_) if self.lines == 1 => {}
            Line::Catalog(_) => return Err(self.bad("a second beginning")),
            _ if self.lines == 1 => return Err(self.bad("it is not the beginning")),
            Line::Volume { .. } | Line::Duty { .. } | Line::Listed { .. } => {}
            Line::Record(r) => {
                if self.reclaim > 0 || self.last_key.as_ref().is_some_and(|last| *last >= r.key) {
                    return Err(self.bad("it is out of order"));
                }
                self.last_key = Some(r.key.clone());
                self.records += 1;
            }
            Line::Reclaim(_) => self.reclaim += 1,
            Line::Failed(why) => return Err(ExportError::Failed(why.clone())),
            Line::End(end) => {
                if (end.records, end.reclaim) != (self.records, self.reclaim) {
                    return Err(ExportError::Cut("the numbers at its end are others"));
                }
                if end.blake3 != ContentHash(*self.hasher.finalize().as_bytes()) {
                    return Err(ExportError::Cut("the hash at its end is of other lines"));
                }
                self.end = true;
            }
        }
        Ok(())
    }

    /// All lines were read.
    pub fn finish(&self) -> Result<(), ExportError> {
        if self.end { Ok(()) } else { Err(ExportError::Cut("its end is missing")) }
    }

    fn bad(&self, why: impl ToString) -> ExportError {
        ExportError::Line { line: self.lines, why: why.to_string() }
    }
}

/// Reads the next line of an export; none at its end.
pub fn read_line(from: &mut impl std::io::BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
    std::io::BufRead::read_until(&mut std::io::Read::take(from, most), b'\n', line).map(|n| n > 0)
}
