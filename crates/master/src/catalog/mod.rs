//! The catalog: what the master knows of all keys, durable.
//!
//! One committer changes it (`committer`); readers never see what is not durable (`inflight`); what
//! becomes of an operation is a pure decision (`decide`); the engine beneath is a trait (`engine`).
//! Bytes on disk: `docs/format-catalog.md`.

mod batch;
mod clock;
mod committer;
mod core;
mod create;
mod decide;
mod delete_all;
mod directory;
pub mod engine;
mod error;
mod expiry;
pub mod exported;
mod import;
mod inflight;
mod journal;
mod journal_format;
mod keyspace;
mod list;
pub mod memory_engine;
#[doc(hidden)]
pub mod outside;
mod placing;
mod quota;
mod record;
mod resolve;
pub mod sled_engine;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod transaction_ops;
mod unwanted;
mod view;

pub use batch::{BatchAnswer, BatchId, Changed, CommitBatch, Member};
pub use create::RebuildError;
pub use decide::{CommitDelete, CommitPut, MAX_TICKET_LIFE};
pub use delete_all::{DeleteAll, DeletedPage, MAX_KEYS as MAX_DELETED_KEYS};
pub use error::CatalogError;
pub use expiry::Swept;
pub use import::{ImportError, Imported};
pub use list::{ListEntry, ListPage, ListQuery};
pub use placing::{Duty, Placed, SetReplicas};
pub use quota::{Ledger, Usage};
pub use record::Record;
pub use resolve::Doubt;
pub use snapshot::Export;
pub use transaction::{MAX_OPEN as MAX_OPEN_TXNS, Transaction, TxnAnswer, TxnState};
pub use unwanted::{Unlisted, Unwanted};

use self::core::Core;
use crate::rebuild::{Merger, Summary};
use clock::{Clock, Clocks, machine_clocks};
use committer::{Committer, Op, QUEUE_LENGTH, Reply};
use directory::Directory;
use engine::Engine;
use kvdb_protocol::message::{CommitAnswer, Outcome, ReclaimItem, SettleItem};
use kvdb_protocol::{ClusterId, ClusterSecret, Key, UnixMillis, VersionId, VolumeId};
use sled_engine::SledEngine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Default for [`CatalogOptions::cache_bytes`]: 64 MiB.
pub const DEFAULT_CACHE_BYTES: u64 = 64 << 20;

/// Copies of one operation, so that a batch keeps to its size.
const UNWANTED_AT_ONCE: usize = 64;

/// How to open a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogOptions {
    /// Its directory; made where there is none.
    pub dir: PathBuf,
    /// Memory for the engine's cache, in bytes.
    pub cache_bytes: u64,
}

impl CatalogOptions {
    /// The defaults, for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), cache_bytes: DEFAULT_CACHE_BYTES }
    }
}

/// Numbers about the catalog; all are of what is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatalogStats {
    /// Number of keys; expired ones count until they are swept.
    pub keys: u64,
    /// Bytes of their values, one copy of each.
    pub bytes: u64,
    /// Sequence of the last commit.
    pub seq: u64,
    /// Whether writes are taken; if not, one failed, and a restart is needed.
    pub writable: bool,
    /// Transactions that are open; those that have expired count until they are swept.
    pub open_txns: usize,
}

/// The catalog. Cloning is cheap; the last clone to go closes it.
#[derive(Clone)]
pub struct Catalog(Arc<Inner>);

struct Inner {
    cluster: ClusterId,
    core: Arc<Core>,
    /// None once closed.
    ops: Mutex<Option<mpsc::Sender<Op>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Last, so that the directory is locked as long as anything of it is in use.
    directory: Directory,
}

impl Catalog {
    /// Opens the catalog in a directory, or makes one there. Blocks while the engine recovers.
    pub fn open(options: CatalogOptions) -> Result<Self, CatalogError> {
        let directory = Directory::lock(&options.dir)?;
        if !directory.has_database()? {
            create::empty_database(&directory, options.cache_bytes)?;
        }
        let engine: Arc<dyn Engine> = Arc::new(SledEngine::open(&directory.database(), options.cache_bytes)?);
        Self::start(engine, directory, machine_clocks())
    }

    /// Makes a catalog of what a rebuild found, in an empty directory (a lock or a secret may be in it).
    ///
    /// It takes the cluster's id, its secret and the volumes' addresses from the caller. Versions given out before are
    /// never committed in it, and the clock and the sequence go on after the last that any volume has seen.
    /// If it fails, the directory counts as empty still. Blocks.
    pub fn create_from(
        options: &CatalogOptions,
        cluster: (ClusterId, &ClusterSecret),
        members: &[(VolumeId, String)],
        merger: Merger,
    ) -> Result<Summary, RebuildError> {
        create::from_merged(options, cluster, members, merger)
    }

    /// Makes a catalog of an export, in an empty directory; otherwise like [`Catalog::create_from`]. Blocks.
    pub fn import(options: &CatalogOptions, secret: &ClusterSecret, from: impl std::io::BufRead) -> Result<Imported, ImportError> {
        import::import(options, secret, from, UnixMillis::now())
    }

    /// A catalog on an engine that was already made, which may be empty; `dir` takes the lock and the secret.
    pub fn with_engine(engine: Arc<dyn Engine>, dir: &Path) -> Result<Self, CatalogError> {
        Self::with_clocks(engine, dir, machine_clocks())
    }

    fn with_clocks(engine: Arc<dyn Engine>, dir: &Path, clocks: Clocks) -> Result<Self, CatalogError> {
        let directory = Directory::lock(dir)?;
        if engine.get(keyspace::META_CLUSTER)?.is_none() {
            create::first_entries(engine.as_ref(), ClusterId::random(), record::State::default(), 0, 0)?;
        }
        Self::start(engine, directory, clocks)
    }

    fn start(engine: Arc<dyn Engine>, directory: Directory, clocks: Clocks) -> Result<Self, CatalogError> {
        let meta = create::read_meta(engine.as_ref(), &directory)?;
        // Before the first batch: an older master, which would not know of the journal, then refuses the directory.
        directory.note_format()?;
        create::note_format(engine.as_ref())?;
        let clock = Clock::new(clocks, meta.lease).resume_expiry(meta.expiry);
        create::first_lease(engine.as_ref(), &clock)?;
        let core = Arc::new(Core::new(engine, clock, meta.floor, meta.state)?);
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let committer = Committer::new(Arc::clone(&core), receiver, directory.marker());
        let failed = |e| CatalogError::file(Path::new("the committer's thread"), e);
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let thread = std::thread::Builder::new().name("catalog".into()).spawn(move || committer.run(&timer)).map_err(failed)?;
        let (ops, committer) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self(Arc::new(Inner { cluster: meta.cluster, core, ops, committer, directory })))
    }

    /// The cluster that this catalog is of.
    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    /// The cluster's secret, if one is kept here.
    pub fn stored_secret(&self) -> Result<Option<ClusterSecret>, CatalogError> {
        self.0.directory.secret()
    }

    /// Keeps the cluster's secret; durable on return.
    pub fn store_secret(&self, secret: &ClusterSecret) -> Result<(), CatalogError> {
        self.0.directory.store_secret(secret)
    }

    /// The cluster's clock. It never goes back, across restarts and changes of the machine's clock
    /// included, and follows the machine's clock forward. It stands still while its durable lease cannot
    /// be extended.
    pub fn now(&self) -> UnixMillis {
        self.0.core.clock.now()
    }

    /// A version greater than any given before, across restarts too. Cheap; does no I/O.
    pub fn next_version(&self) -> VersionId {
        self.0.core.clock.next_version()
    }

    /// The record of a key; none where there is none or it has expired. Linearizable.
    ///
    /// Reads in place: a record is nearly always in the engine's cache, and crossing to another thread
    /// would cost more than reading a page that is not.
    pub async fn lookup(&self, key: &Key) -> Result<Option<Record>, CatalogError> {
        match self.0.core.record(key)? {
            // Few records expire, and the clock is shared by all threads.
            Some(r) if r.expires.is_some() && r.expired(self.expiry_now()) => self.lookup_again(key, r).await,
            found => Ok(found),
        }
    }

    /// A page of keys, as of one moment.
    pub async fn list(&self, query: &ListQuery) -> Result<ListPage, CatalogError> {
        loop {
            let query = query.clone();
            match self.read_durable(move |core| list::list(core, &query)).await? {
                Ok(page) => return Ok(page),
                Err(at) => self.0.core.decided_past(at).await,
            }
        }
    }

    /// Commits a value whose replicas are durable. `Refused` is final: the version will never be
    /// committed. An error other than [`CatalogError::OutcomeUnknown`] means that nothing was changed,
    /// and the same call can be made again.
    pub async fn commit(&self, request: CommitPut) -> Result<CommitAnswer, CatalogError> {
        self.ask(|reply| Op::Put(request, reply)).await
    }

    /// Removes a key. Answers and errors are as with [`Catalog::commit`].
    pub async fn delete(&self, request: CommitDelete) -> Result<CommitAnswer, CatalogError> {
        self.ask(|reply| Op::Delete(request, reply)).await
    }

    /// Changes several keys in one durable step, or none of them. Errors are as with [`Catalog::commit`].
    pub async fn commit_batch(&self, batch: CommitBatch) -> Result<BatchAnswer, CatalogError> {
        self.ask(|reply| Op::Batch(Box::new(batch), reply)).await
    }

    /// What became of a write whose answer was lost. If it was not committed, it never will be. None: it is too long ago to
    /// be told.
    pub async fn resolve(&self, doubt: Doubt) -> Result<Option<CommitAnswer>, CatalogError> {
        self.ask(|reply| Op::Resolve(doubt, reply)).await
    }

    /// What became of versions that a volume holds as prepared, in the order asked. `Drop` is final.
    pub async fn settle(&self, volume: VolumeId, items: Vec<SettleItem>) -> Result<Vec<Outcome>, CatalogError> {
        self.ask(|reply| Op::Settle(volume, items, reply)).await
    }

    /// Changes the volumes of a version, if nothing changed since it was looked at. Volumes that are dropped have
    /// their copies on their reclaim list in the same step.
    pub async fn set_replicas(&self, change: SetReplicas) -> Result<Placed, CatalogError> {
        self.ask(|reply| Op::SetReplicas(change, reply)).await
    }

    /// A page of records in order of key, expired ones included, after a key; none at the end.
    pub async fn records(&self, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Record)>, CatalogError> {
        self.read_durable(move |core| core.records(after.as_ref(), limit)).await
    }

    /// The whole catalog as of now, to be read piece by piece while commits go on. One at a time.
    pub async fn export(&self) -> Result<Export, CatalogError> {
        let (core, cluster) = (Arc::clone(&self.0.core), self.0.cluster);
        self.read_durable(move |_| Export::begin(&core, cluster)).await
    }

    /// Has volumes remove copies that no record names; those that one does name stay.
    pub async fn remove_unwanted(&self, copies: Vec<Unwanted>) -> Result<Vec<Unlisted>, CatalogError> {
        let mut told = Vec::with_capacity(copies.len());
        for some in copies.chunks(UNWANTED_AT_ONCE) {
            let some = some.to_vec();
            told.extend(self.ask(|reply| Op::Unwanted(some, reply)).await?);
        }
        Ok(told)
    }

    /// A key's record as of now, expired or not, and which of these copies of it volumes have still to remove.
    pub async fn look(&self, key: Key, copies: Vec<(VolumeId, VersionId)>) -> Result<(Option<Record>, Vec<bool>), CatalogError> {
        self.read_durable(move |core| {
            let reclaimed = |(volume, version)| Ok(core.engine.get(&keyspace::reclaim(volume, version))?.is_some());
            Ok((core.record(&key)?, copies.into_iter().map(reclaimed).collect::<Result<_, CatalogError>>()?))
        })
        .await
    }

    /// Whether a volume has still to remove this version.
    pub async fn is_reclaimed(&self, volume: VolumeId, version: VersionId) -> Result<bool, CatalogError> {
        self.read_durable(move |core| Ok(core.engine.get(&keyspace::reclaim(volume, version))?.is_some())).await
    }

    /// Notes what a volume is for; none: it is simply used. Durable on return.
    pub async fn set_duty(&self, volume: VolumeId, duty: Option<Duty>) -> Result<(), CatalogError> {
        self.ask(|reply| Op::Duty(volume, duty, reply)).await
    }

    /// The volumes that are not simply used.
    pub async fn duties(&self) -> Result<Vec<(VolumeId, Duty)>, CatalogError> {
        self.read_durable(|core| placing::duties(core.engine.as_ref())).await
    }

    /// Lists an address of a volume besides those of the command line, or no longer. Durable on return.
    pub async fn set_listed(&self, address: &str, listed: bool) -> Result<(), CatalogError> {
        self.ask(|reply| Op::Listed(address.to_string(), listed, reply)).await
    }

    /// The addresses listed so.
    pub async fn listed(&self) -> Result<Vec<String>, CatalogError> {
        self.read_durable(|core| placing::listed(core.engine.as_ref())).await
    }

    /// Gives up all removals at a volume that is gone for good.
    pub async fn forget_reclaim(&self, volume: VolumeId) -> Result<(), CatalogError> {
        while self.ask(|reply| Op::ForgetReclaim(volume, reply)).await? {}
        Ok(())
    }

    /// At most `limit` copies that a volume has still to remove.
    pub async fn reclaim_list(&self, volume: VolumeId, limit: usize) -> Result<Vec<ReclaimItem>, CatalogError> {
        self.read_durable(move |core| core.reclaim_list(volume, limit)).await
    }

    /// The volume has removed these copies, durably. Items that are not on its list are ignored.
    pub async fn reclaim_done(&self, volume: VolumeId, items: &[ReclaimItem]) -> Result<(), CatalogError> {
        let versions = items.iter().map(|i| i.version).collect();
        self.ask(|reply| Op::ReclaimDone(volume, versions, reply)).await
    }

    /// Number of copies still to be removed, for each volume that has some.
    pub async fn reclaim_pending(&self) -> BTreeMap<VolumeId, u64> {
        self.0.core.reclaim_counts()
    }

    /// The volumes that were ever part of the cluster, with their last known addresses.
    pub async fn members(&self) -> Result<Vec<(VolumeId, String)>, CatalogError> {
        self.read_durable(Core::volumes).await
    }

    /// Remembers a volume and its address; durable on return. Writes nothing if it is known already.
    pub async fn remember_member(&self, id: VolumeId, address: &str) -> Result<(), CatalogError> {
        self.ask(|reply| Op::Volume(id, address.to_string(), reply)).await
    }

    /// Numbers about the catalog.
    pub fn stats(&self) -> CatalogStats {
        let state = self.0.core.state();
        let core = &self.0.core;
        CatalogStats { keys: state.keys, bytes: state.bytes, seq: state.seq, writable: !core.is_stopped(), open_txns: core.open_txns() }
    }

    /// Bytes that the catalog's database takes on disk.
    pub fn size_on_disk(&self) -> Result<u64, CatalogError> {
        Ok(self.0.core.engine.size_on_disk()?)
    }

    /// Completes what was asked before, and ends. Every later call, of other clones too, gets
    /// [`CatalogError::Closed`], except for reads.
    pub async fn close(self) -> Result<(), CatalogError> {
        let closed = self.ask(Op::Close).await;
        drop(self.0.take_sender());
        closed
    }

    async fn ask<T>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, CatalogError> {
        let sender = self.0.sender().ok_or(CatalogError::Closed)?;
        let (reply, answer) = oneshot::channel();
        // Not taken: certainly not done. Taken and then dropped: the committer died with it.
        sender.send(op(reply)).await.map_err(|_| CatalogError::Closed)?;
        answer.await.unwrap_or(Err(CatalogError::OutcomeUnknown))
    }

    /// Reads on a thread that may block, while all that the engine shows is durable.
    async fn read_durable<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Core) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let core = Arc::clone(&self.0.core);
        let view = core.durable_view().await;
        let done = tokio::task::spawn_blocking(move || {
            let result = read(&core);
            drop(view);
            result
        });
        done.await.map_err(|e| CatalogError::corrupt("pages", e))?
    }
}

impl Inner {
    fn sender(&self) -> Option<mpsc::Sender<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_sender(&self) -> Option<mpsc::Sender<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.take_sender());
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the catalog's committer ended in a panic");
        }
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("cluster", &self.0.cluster).field("stats", &self.stats()).finish_non_exhaustive()
    }
}
