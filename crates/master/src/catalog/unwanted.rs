//! Copies that an operator found to belong to no record are put on the reclaim list, if the catalog agrees.

use super::decide::Now;
use super::error::CatalogError;
use super::record::ReclaimEntry;
use super::view::View;
use kvdb_protocol::message::Deleted;
use kvdb_protocol::{Key, VersionId, VolumeId};
use serde::{Deserialize, Serialize};

/// A copy that no record names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwanted {
    /// Where it is.
    pub volume: VolumeId,
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: VersionId,
    /// Its commit sequence, as the volume has it.
    pub seq: u64,
    /// When the key was deleted, if that is why.
    pub deleted: Option<Deleted>,
    /// Also if the catalog knows of no later commit of the key.
    pub force: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlisted {
    /// It is on the reclaim list, durably.
    ToBeRemoved,
    /// A record names it: nothing was done.
    Named,
    /// The catalog knows of no later commit of the key: nothing was done.
    Unknown,
}

pub(super) fn remove(view: &mut View<'_>, now: &Now, u: &Unwanted) -> Result<Unlisted, CatalogError> {
    now.require(now.room.for_delete)?;
    match view.record(&u.key)? {
        Some(r) if r.version == u.version && r.replicas.contains(&u.volume) => return Ok(Unlisted::Named),
        Some(r) if r.version == u.version || r.seq > u.seq => {}
        _ if u.force => {}
        _ => return Ok(Unlisted::Unknown),
    }
    if view.reclaim(u.volume, u.version)?.is_none() {
        let entry = ReclaimEntry { key: u.key.clone(), deleted: u.deleted, committed: None };
        view.add_reclaim(u.volume, u.version, &entry)?;
    }
    Ok(Unlisted::ToBeRemoved)
}
