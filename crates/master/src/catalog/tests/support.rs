//! Catalogs for tests, and engines that block or fail when told to.

use crate::catalog::engine::{ApplyError, Batch, Engine, EngineError, Pair};
use crate::catalog::memory_engine::MemoryEngine;
use crate::catalog::{Catalog, CommitDelete, CommitPut};
use kvdb_protocol::message::{CommitAnswer, Committed, Standing};
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, ErrorCode, Key, UnixMillis, VersionId, VolumeId};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tempfile::TempDir;

pub(super) const FAR: UnixMillis = UnixMillis(u64::MAX);

pub(super) fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

pub(super) fn key(k: impl AsRef<[u8]>) -> Key {
    Key::new(k.as_ref()).unwrap()
}

/// A put of a value that is told by its length, to volumes 1 and 2.
pub(super) fn put(k: impl AsRef<[u8]>, version: VersionId, len: u64) -> CommitPut {
    CommitPut {
        key: key(k),
        version,
        create: false,
        condition: Condition::default(),
        commit_by: FAR,
        len,
        hash: ContentHash::of(&len.to_le_bytes()),
        content_type: None,
        expires: None,
        replicas: vec![volume(1), volume(2)],
    }
}

pub(super) fn delete(k: impl AsRef<[u8]>, version: Option<VersionId>) -> CommitDelete {
    CommitDelete { key: key(k), version, condition: Condition::default(), commit_by: FAR }
}

pub(super) fn committed(answer: CommitAnswer) -> Committed {
    match answer {
        CommitAnswer::Committed(c) => c,
        CommitAnswer::Refused(p) => panic!("refused: {p}"),
    }
}

/// The same answer once the version was replaced or deleted.
pub(super) fn gone(answer: &CommitAnswer) -> CommitAnswer {
    match answer {
        CommitAnswer::Committed(c) => CommitAnswer::Committed(Committed { standing: Standing::Gone, ..*c }),
        refused => refused.clone(),
    }
}

pub(super) fn refused(answer: CommitAnswer) -> ErrorCode {
    match answer {
        CommitAnswer::Refused(p) => p.code,
        CommitAnswer::Committed(c) => panic!("committed: {c:?}"),
    }
}

/// Polls once.
pub(super) async fn is_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// A machine whose wall clock is set by the test. Its forward clock stands still.
#[derive(Clone)]
pub(super) struct Wall(Arc<AtomicU64>);

impl Wall {
    pub(super) const START: u64 = 1_700_000_000_000;

    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(Self::START)))
    }

    pub(super) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::SeqCst);
    }

    pub(super) fn clocks(&self) -> crate::catalog::Clocks {
        let wall = Arc::clone(&self.0);
        Box::new(move || (wall.load(Ordering::SeqCst), 0))
    }
}

/// A catalog over an engine, whose clock is the test's.
pub(super) struct Fixture {
    pub(super) catalog: Catalog,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) wall: Wall,
    pub(super) dir: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::over(Arc::new(MemoryEngine::default()))
    }

    pub(super) fn over(engine: Arc<dyn Engine>) -> Self {
        let (wall, dir) = (Wall::new(), tempfile::tempdir().unwrap());
        let catalog = Catalog::with_clocks(Arc::clone(&engine), dir.path(), wall.clocks()).unwrap();
        Self { catalog, engine, wall, dir }
    }

    /// The catalog opened again, as after a crash: without a close.
    pub(super) fn crashed(self) -> Self {
        // A close would write; so the old one is kept from the engine by a copy of what is durable.
        let copy = copy_of(self.engine.as_ref());
        let Self { catalog, wall, dir, .. } = self;
        drop(catalog);
        let engine: Arc<dyn Engine> = Arc::new(copy);
        let catalog = Catalog::with_clocks(Arc::clone(&engine), dir.path(), wall.clocks()).unwrap();
        Self { catalog, engine, wall, dir }
    }

    /// Moves the machine's clock forward until the cluster's has followed.
    pub(super) async fn pass(&self, ms: u64) {
        let target = self.catalog.now().0 + ms;
        self.wall.set(target);
        while self.catalog.now().0 < target {
            tokio::task::yield_now().await;
        }
    }

    /// Commits a new version.
    pub(super) async fn put(&self, k: impl AsRef<[u8]>, len: u64) -> VersionId {
        let version = self.catalog.next_version();
        committed(self.catalog.commit(put(k, version, len)).await.unwrap());
        version
    }

    pub(super) async fn version(&self, k: impl AsRef<[u8]>) -> Option<VersionId> {
        self.catalog.lookup(&key(k)).await.unwrap().map(|r| r.version)
    }
}

fn copy_of(engine: &dyn Engine) -> MemoryEngine {
    let copy = MemoryEngine::default();
    let mut batch = Batch::default();
    engine.scan(Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap().into_iter().for_each(|(k, v)| batch.put(k, v));
    copy.apply(&batch).unwrap();
    copy
}

/// What the next batches of a [`Controlled`] engine meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Durable,
    /// Shown to readers, then the sync fails.
    LostSync,
    /// The engine panics.
    Panic,
}

/// An engine that shows a batch to readers at once, and then waits to be told whether it is durable.
pub(super) struct Controlled {
    inner: MemoryEngine,
    control: Mutex<Option<(Sender<()>, Receiver<Fate>)>>,
    pub(super) free: AtomicU64,
}

/// The test's end of a [`Controlled`] engine.
pub(super) struct Controls {
    applied: Receiver<()>,
    fate: Sender<Fate>,
}

impl Controls {
    /// Waits until a batch is shown but not durable.
    pub(super) fn wait_applied(&self) {
        self.applied.recv().unwrap();
    }

    pub(super) fn decide(&self, fate: Fate) {
        self.fate.send(fate).unwrap();
    }
}

impl Controlled {
    pub(super) fn new() -> Arc<Self> {
        let free = AtomicU64::new(u64::MAX);
        Arc::new(Self { inner: MemoryEngine::default(), control: Mutex::new(None), free })
    }

    /// From now on every batch waits for its fate; once the controls are dropped, all are durable.
    pub(super) fn control(&self) -> Controls {
        let ((applied_in, applied), (fate, fate_out)) = (channel(), channel());
        *self.control.lock().unwrap() = Some((applied_in, fate_out));
        Controls { applied, fate }
    }
}

impl Engine for Controlled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.inner.get(key)
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, EngineError> {
        self.inner.scan(from, to, limit)
    }

    fn apply(&self, batch: &Batch) -> Result<(), ApplyError> {
        self.inner.apply(batch)?;
        let control = self.control.lock().unwrap();
        let Some((applied, fate)) = control.as_ref() else { return Ok(()) };
        let fate = applied.send(()).ok().and_then(|()| fate.recv().ok()).unwrap_or(Fate::Durable);
        drop(control);
        match fate {
            Fate::Durable => Ok(()),
            Fate::LostSync => Err(ApplyError::Unknown(EngineError::Io("injected".into()))),
            Fate::Panic => panic!("injected"),
        }
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        Ok(0)
    }

    fn free_bytes(&self) -> Result<u64, EngineError> {
        Ok(self.free.load(Ordering::SeqCst))
    }
}
