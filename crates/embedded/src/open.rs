//! Opening a directory: the catalog and the volume of a cluster of one, and what a crash left between the two.

use crate::error::{Error, OpenError};
use crate::options::Options;
use kvdb_master::catalog::{Catalog, CatalogError, CatalogOptions};
use kvdb_protocol::ClusterSecret;
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::message::ReclaimItem;
use kvdb_volume::store::{Store as Volume, StoreOptions};
use std::path::Path;
use tokio::runtime::Handle;

/// Names within the directory: those of `kvdb up`.
const CATALOG: &str = "master";
const VOLUME: &str = "volume1";
/// What the catalog remembers as the volume's address; a server that serves the directory replaces it.
const ADDRESS: &str = "embedded";

pub(crate) fn open(dir: &Path, options: &Options, handle: &Handle) -> Result<(Catalog, Volume), OpenError> {
    // Made first, always: a new one could only say that the values are nobody's.
    if dir.join(VOLUME).is_dir() && !dir.join(CATALOG).is_dir() {
        let why = format!("the directory {CATALOG}, which knows the keys, is missing; restore it, or make it again with `kvdb rebuild`");
        return Err(mismatch(dir, why));
    }
    let catalog = Catalog::open(CatalogOptions { dir: dir.join(CATALOG), cache_bytes: options.catalog_cache_bytes });
    let catalog = catalog.map_err(|e| match e {
        CatalogError::Locked(_) => OpenError::AlreadyOpen(dir.to_path_buf()),
        e => OpenError::Catalog(e),
    })?;
    let wait = Waiter(handle);
    let members = wait.on(catalog.members()).map_err(OpenError::Catalog)?;
    if members.len() > 1 {
        return Err(OpenError::SeveralVolumes { dir: dir.to_path_buf(), volumes: members.len() });
    }
    // A catalog that knows a volume has had values; a new and empty volume must not take that one's place.
    if !members.is_empty() && !dir.join(VOLUME).is_dir() {
        return Err(mismatch(dir, format!("the directory {VOLUME}, which holds the values, is missing; restore it")));
    }
    let mut store = StoreOptions::new(dir.join(VOLUME));
    store.capacity_bytes = options.capacity_bytes;
    let volume = Volume::open(store).map_err(|e| match e {
        kvdb_volume::store::OpenError::Locked(_) => OpenError::AlreadyOpen(dir.to_path_buf()),
        e => OpenError::Volume(e),
    })?;
    if let Some((known, _)) = members.first().filter(|(known, _)| *known != volume.volume()) {
        return Err(mismatch(
            dir,
            format!("{VOLUME} is volume {}, and its values are on volume {known}; restore that one", volume.volume()),
        ));
    }
    join(dir, &catalog, &volume, wait, members.is_empty())?;
    settle(&catalog, &volume, wait).map_err(|e| OpenError::Recovery(Box::new(e)))?;
    Ok((catalog, volume))
}

fn mismatch(dir: &Path, why: String) -> OpenError {
    OpenError::Mismatch { dir: dir.to_path_buf(), why }
}

/// Makes the volume the catalog's, as a master does when it first meets one, so that a server can go on with the directory.
fn join(dir: &Path, catalog: &Catalog, volume: &Volume, wait: Waiter<'_>, new: bool) -> Result<(), OpenError> {
    if volume.cluster().is_some_and(|own| own != catalog.cluster()) {
        let why = format!(
            "{CATALOG} is another cluster's catalog than the one that knows the values in {VOLUME}; restore that one, or make it again with `kvdb rebuild`"
        );
        return Err(mismatch(dir, why));
    }
    if volume.cluster().is_none() {
        let secret = catalog.stored_secret().map_err(OpenError::Catalog)?;
        let secret = match secret {
            Some(secret) => secret,
            None => {
                let secret = ClusterSecret::random();
                catalog.store_secret(&secret).map_err(OpenError::Catalog)?;
                secret
            }
        };
        volume.adopt(catalog.cluster(), Some(&secret)).map_err(|e| mismatch(dir, e.to_string()))?;
    }
    if new {
        wait.on(catalog.remember_member(volume.volume(), ADDRESS)).map_err(OpenError::Catalog)?;
    }
    Ok(())
}

/// Settles what the volume holds as prepared. Nothing is under way, since both directories are locked: what no record names never
/// will be committed.
fn settle(catalog: &Catalog, volume: &Volume, wait: Waiter<'_>) -> Result<(), Error> {
    let mut before = None;
    loop {
        let items = volume.prepared(MAX_PEER_BATCH)?;
        let Some(first) = items.first() else { return Ok(()) };
        if before.replace(first.version) == Some(first.version) {
            return Err(Error::Failed(format!("version {} of '{}' stays as it is", first.version, first.key.display())));
        }
        let mut lost = Vec::new();
        for item in items {
            let (record, _) = wait.on(catalog.look(item.key.clone(), Vec::new()))?;
            match record.filter(|r| r.version == item.version && r.replicas.contains(&volume.volume())) {
                Some(record) => drop(volume.mark_committed(&item.key, item.version, record.seq)?),
                None => lost.push(ReclaimItem { key: item.key, version: item.version, deleted: None }),
            }
        }
        volume.remove(&lost)?;
    }
}

/// Waits for the catalog on this thread, also where that belongs to somebody's runtime.
#[derive(Clone, Copy)]
pub(crate) struct Waiter<'a>(pub(crate) &'a Handle);

impl Waiter<'_> {
    pub(crate) fn on<F: Future>(self, future: F) -> F::Output {
        let _within = self.0.enter();
        pollster::block_on(future)
    }
}
