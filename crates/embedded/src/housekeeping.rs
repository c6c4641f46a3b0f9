//! The background thread: it gives back the space of what was replaced, deleted or has expired, and its timer is the one that
//! the catalog waits by.

use crate::error::OpenError;
use crate::store::Inner;
use kvdb_protocol::limits::MAX_PEER_BATCH;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// How often it is looked for what has expired, and for what failed before.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause between two steps, so that writers are not held up by many values that expire at once.
const PAUSE: Duration = Duration::from_millis(10);

/// The thread. It ends when this is dropped.
pub(crate) struct Housekeeping {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A runtime for [`Housekeeping::start`], with the handle by which the store's callers enter it.
pub(crate) fn runtime() -> Result<(Runtime, Handle), OpenError> {
    let runtime = Builder::new_current_thread().enable_time().thread_name("kvdb-embedded").build().map_err(OpenError::Thread)?;
    let handle = runtime.handle().clone();
    Ok((runtime, handle))
}

impl Housekeeping {
    pub(crate) fn start(runtime: Runtime, store: Arc<Inner>) -> Result<Self, OpenError> {
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work_forever(&store) => {}
                    _ = stopped => {}
                }
            });
            // It waits for a removal that is under way.
            drop(runtime);
        };
        let thread = std::thread::Builder::new().name("kvdb-embedded".into()).spawn(work).map_err(OpenError::Thread)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the background thread ended in a panic");
        }
    }
}

async fn work_forever(store: &Arc<Inner>) {
    let mut failing = false;
    loop {
        let done = work(store).await;
        if let Err(error) = &done
            && !failing
        {
            tracing::warn!(%error, "space is given back later");
        }
        failing = done.is_err();
        drop(tokio::time::timeout(PERIOD, store.to_remove.notified()).await);
    }
}

async fn work(store: &Arc<Inner>) -> Result<(), String> {
    loop {
        let swept = store.catalog.sweep_expired().await.map_err(|e| e.to_string())?;
        reclaim(store).await?;
        if !swept.more {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Removes what the catalog has on its list for the volume.
async fn reclaim(store: &Arc<Inner>) -> Result<(), String> {
    let volume = store.volume.volume();
    loop {
        let items = store.catalog.reclaim_list(volume, MAX_PEER_BATCH).await.map_err(|e| e.to_string())?;
        if items.is_empty() {
            return Ok(());
        }
        let of = Arc::clone(store);
        let removed = tokio::task::spawn_blocking(move || of.volume.remove(&items).map(|()| items));
        let items = removed.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        store.catalog.reclaim_done(volume, &items).await.map_err(|e| e.to_string())?;
    }
}
