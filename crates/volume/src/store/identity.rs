//! Who the volume is: `kvdb-volume.json` and `secret`.

use super::error::{OpenError, StoreError};
use crate::disk::{self, Context as _, DiskError, Op};
use crate::format::FORMAT;
use kvdb_protocol::{ClusterId, ClusterSecret, VolumeId};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Name of the file that makes a directory a volume's.
pub const IDENTITY_FILE: &str = "kvdb-volume.json";
/// Name of the file that keeps the cluster's secret.
pub const SECRET_FILE: &str = "secret";
/// What may be in a directory that becomes a volume's: file systems make it.
const TOLERATED: &str = "lost+found";
/// Most bytes of either file that are read.
const MAX_BYTES: u64 = 64 << 10;
const IDENTITY_MODE: u32 = 0o644;
const SECRET_MODE: u32 = 0o600;

/// The content of `kvdb-volume.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the directory.
    pub format: u32,
    /// The volume.
    pub volume: VolumeId,
    /// Its cluster; none before it is adopted.
    pub cluster: Option<ClusterId>,
}

/// What is read for its format before anything else is believed.
#[derive(Deserialize)]
struct OnlyFormat {
    format: u32,
}

impl Identity {
    /// Reads a directory's identity; a directory that is empty gets one.
    pub fn read_or_make(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(IDENTITY_FILE);
        match read_small(&path) {
            Ok(bytes) => Self::parse(&path, &bytes),
            Err(e) if e.is_not_found() => Self::make(dir, path),
            Err(e) => Err(e.into()),
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, OpenError> {
        let bad = |e: serde_json::Error| OpenError::BadIdentity { path: path.to_path_buf(), why: e.to_string() };
        let OnlyFormat { format } = serde_json::from_slice(bytes).map_err(bad)?;
        if format > FORMAT {
            return Err(OpenError::NewerFormat { path: path.to_path_buf(), found: format, known: FORMAT });
        }
        if format != FORMAT {
            return Err(OpenError::BadIdentity { path: path.to_path_buf(), why: format!("there is no format {format}") });
        }
        serde_json::from_slice(bytes).map_err(bad)
    }

    fn make(dir: &Path, path: PathBuf) -> Result<Self, OpenError> {
        // A first start that was cut off may have left the temporary file, and nothing else.
        let half_made = disk::temporary_name(&path);
        let foreign = disk::list(dir)?.into_iter().find(|f| f.name != TOLERATED && Some(f.name.as_os_str()) != half_made.file_name());
        if let Some(found) = foreign {
            return Err(OpenError::NotOurs { path: dir.to_path_buf(), found: found.name.to_string_lossy().into_owned() });
        }
        let identity = Self { format: FORMAT, volume: VolumeId::random(), cluster: None };
        identity.write(dir)?;
        Ok(identity)
    }

    /// Writes it, durably.
    pub fn write(&self, dir: &Path) -> Result<(), DiskError> {
        let path = dir.join(IDENTITY_FILE);
        let mut text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).at(Op::Write, &path)?;
        text.push(b'\n');
        disk::replace_file(&path, &text, IDENTITY_MODE)
    }
}

/// Reads the secret that was handed over; none where there is none.
pub fn read_secret(dir: &Path) -> Result<Option<ClusterSecret>, OpenError> {
    let path = dir.join(SECRET_FILE);
    let bytes = match read_small(&path) {
        Err(e) if e.is_not_found() => return Ok(None),
        other => other?,
    };
    let bad = |why: String| OpenError::BadIdentity { path: path.clone(), why };
    let text = String::from_utf8(bytes).map_err(|_| bad("it is not text".into()))?;
    ClusterSecret::new(&text).map(Some).map_err(|e| bad(e.to_string()))
}

/// Keeps a secret, durably, readable by its owner alone.
pub fn write_secret(dir: &Path, secret: &ClusterSecret) -> Result<(), StoreError> {
    Ok(disk::replace_file(&dir.join(SECRET_FILE), format!("{}\n", secret.expose()).as_bytes(), SECRET_MODE)?)
}

fn read_small(path: &Path) -> Result<Vec<u8>, DiskError> {
    let mut bytes = Vec::new();
    disk::open_regular(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).at(Op::Read, path)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "it is too long")).at(Op::Read, path);
    }
    Ok(bytes)
}
