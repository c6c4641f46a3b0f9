//! Who the volume is: `kvdb-volume.json` and `secret`.

use super::error::{OpenError, StoreError};
use super::{Owner, Store};
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
    /// Whether clients' reads need a ticket; absent where an older program wrote it.
    #[serde(default)]
    pub reads_need_tickets: bool,
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
        let identity = Self { format: FORMAT, volume: VolumeId::random(), cluster: None, reads_need_tickets: false };
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

impl Store {
    /// Makes it a cluster's, durably. Doing so again is fine; a secret then takes the place of the one kept.
    ///
    /// # Errors
    /// It belongs to another cluster, or that cannot be written.
    pub fn adopt(&self, cluster: ClusterId, secret: Option<&ClusterSecret>) -> Result<(), StoreError> {
        let dir = &self.inner.options.dir;
        let mut owner = self.inner.owner();
        if let Some(own) = owner.cluster.filter(|own| *own != cluster) {
            return Err(StoreError::OtherCluster { owner: own, asked: cluster });
        }
        // The secret first: a volume that has a cluster must not lack it.
        if let Some(secret) = secret.filter(|s| owner.secret.as_ref() != Some(s)) {
            write_secret(dir, secret)?;
            owner.secret = Some(secret.clone());
        }
        if owner.cluster.is_none() {
            self.identity(&Owner { cluster: Some(cluster), ..owner.clone() }).write(dir)?;
            owner.cluster = Some(cluster);
        }
        Ok(())
    }

    /// Whether clients' reads need a ticket, as it was kept last.
    pub fn reads_need_tickets(&self) -> bool {
        self.inner.owner().reads_need_tickets
    }

    /// Keeps whether clients' reads need a ticket, durably.
    ///
    /// # Errors
    /// That cannot be written.
    pub fn keep_reads_need_tickets(&self, needed: bool) -> Result<(), StoreError> {
        let mut owner = self.inner.owner();
        if owner.reads_need_tickets != needed {
            self.identity(&Owner { reads_need_tickets: needed, ..owner.clone() }).write(&self.inner.options.dir)?;
            owner.reads_need_tickets = needed;
        }
        Ok(())
    }

    fn identity(&self, owner: &Owner) -> Identity {
        let Owner { cluster, reads_need_tickets, .. } = *owner;
        Identity { format: FORMAT, volume: self.inner.volume, cluster, reads_need_tickets }
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
