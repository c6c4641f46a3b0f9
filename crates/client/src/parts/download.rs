//! A large value into a file, from several replicas at once; what was received outlives a failure.

use super::fetch::{Sink, fetch};
use super::partial::{PartFile, bytes_of, parts};
use super::pinned::Pinned;
use super::{DEFAULT_PARALLEL, MAX_RESTARTS, PARTS_FROM_BYTES};
use crate::client::Client;
use crate::error::Error;
use crate::info::Info;
use crate::source::Progress;
use kvdb_protocol::Key;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// Subtrees of one part: 8 MiB.
const PART_SUBTREES: u64 = 32;

/// How a value is read into a file.
#[derive(Clone, Debug)]
pub struct DownloadOptions {
    /// Connections at a time, over all replicas; each takes about 2 MiB of memory. With 1 or 0 the value comes in one piece,
    /// from one replica.
    pub parallel: usize,
    /// Shorter values come in one piece, in bytes.
    pub parts_from: u64,
    /// Is told the number of bytes that are right, those found in the file included.
    pub progress: Progress,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self { parallel: DEFAULT_PARALLEL, parts_from: PARTS_FROM_BYTES, progress: Progress::default() }
    }
}

/// What a download did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// What is known of the value.
    pub info: Info,
    /// Bytes of it that were received.
    pub fetched: u64,
    /// Bytes of it that an earlier download had left, and that were found right.
    pub kept: u64,
}

impl Client {
    /// Reads a value into a file, which appears, or is replaced, when all of it was received and found right and is on stable storage.
    ///
    /// A large value comes in parts, from several replicas at once. Each 256 KiB are checked against the value's BLAKE3 when they
    /// arrive, and written to `FILE.kvdb-part` only if they are right; a replica that breaks off, stalls or sends wrong bytes is left
    /// for another. All parts are of one version: if the value is replaced meanwhile, it begins again with the new one, a few times,
    /// then it is [`Error::Changed`]. After a failure, or when the future is dropped, the file of parts stays, and the next call goes
    /// on from what is right in it. Other values come as by [`Client::get_to_file`].
    pub async fn download(&self, key: &Key, target: impl AsRef<Path>, options: DownloadOptions) -> Result<Downloaded, Error> {
        let mut restarts = 0;
        loop {
            match self.download_once(key, target.as_ref(), &options).await {
                Err(Error::Changed(_)) if restarts < MAX_RESTARTS => restarts += 1,
                other => return other,
            }
        }
    }

    async fn download_once(&self, key: &Key, target: &Path, options: &DownloadOptions) -> Result<Downloaded, Error> {
        options.progress.set(0);
        let pinned = match options.parallel {
            0 | 1 => None,
            _ => Pinned::find(self, key, options.parts_from, &options.progress).await?,
        };
        let Some(pinned) = pinned else {
            let info = self.get_to_file(key, target, options.progress.clone()).await?;
            return Ok(Downloaded { fetched: info.len, kept: 0, info });
        };
        let len = pinned.info.len;
        let (file, missing) = blocking(target, {
            let (target, pinned) = (target.to_path_buf(), Arc::clone(&pinned));
            move || {
                let file = PartFile::open(&target, len)?;
                let missing = file.missing(&pinned)?;
                Ok((Arc::new(file), missing))
            }
        })
        .await?;
        let kept = len - bytes_of(&missing, len);
        options.progress.set(kept);
        let fetched = fetch_all(&pinned, missing, &file, options.parallel).await;
        blocking(target, {
            let gone = matches!(fetched, Err(Error::NotFound(_)));
            let whole = fetched.is_ok();
            move || {
                file.close();
                if gone {
                    file.discard();
                }
                if whole { file.finish() } else { Ok(()) }
            }
        })
        .await?;
        fetched?;
        Ok(Downloaded { info: pinned.info.clone(), fetched: pinned.fetched.load(Ordering::Relaxed), kept })
    }
}

async fn fetch_all(pinned: &Arc<Pinned>, missing: Vec<Range<u64>>, file: &Arc<PartFile>, parallel: usize) -> Result<(), Error> {
    let mut parts = parts(missing, PART_SUBTREES);
    // Dropped, it ends all that run.
    let mut running = JoinSet::new();
    loop {
        while running.len() < parallel
            && let Some(part) = parts.next()
        {
            let sink: Arc<dyn Sink> = file.clone();
            running.spawn(fetch(Arc::clone(pinned), part, sink));
        }
        match running.join_next().await {
            None => return Ok(()),
            Some(done) => done.unwrap_or_else(|e| Err(pinned.broken(format!("a task that reads died: {e}"))))?,
        }
    }
}

async fn blocking<T: Send + 'static>(target: &Path, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Error> {
    let path: PathBuf = target.into();
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|error| Error::Target { path, error })
}
