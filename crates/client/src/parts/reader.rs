//! A large value in order, from several replicas at once, in bounded memory.

use super::fetch::{Sink, fetch};
use super::partial::parts;
use super::pinned::Pinned;
use super::{MAX_RESTARTS, PARTS_FROM_BYTES};
use crate::client::Client;
use crate::error::Error;
use crate::get::Reader;
use crate::info::Info;
use crate::source::Progress;
use bytes::Bytes;
use kvdb_protocol::Key;
use kvdb_protocol::tree::subtree_count;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Subtrees of one part: 2 MiB.
const PART_SUBTREES: u64 = 8;

/// The bytes of a value in order. Of a large one, every byte that is handed over was checked before.
pub struct PartsReader {
    client: Client,
    key: Key,
    parallel: usize,
    restarts: u32,
    from: From,
}

enum From {
    /// One answer, whose last bytes are handed over only if all are right.
    Whole(Box<Reader>),
    Parts(Parts),
}

struct Parts {
    pinned: Arc<Pinned>,
    left: Box<dyn Iterator<Item = Range<u64>> + Send>,
    /// In order.
    running: VecDeque<Running>,
    ready: VecDeque<Bytes>,
    handed_over: u64,
}

struct Running {
    task: JoinHandle<Result<(), Error>>,
    to: Arc<Collected>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Collected(Mutex<VecDeque<Bytes>>);

impl Sink for Collected {
    fn take(&self, _: u64, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(bytes.into());
        Ok(Vec::new())
    }
}

impl Client {
    /// Begins to read a value, in order. From [`PARTS_FROM_BYTES`] on it comes in parts of 2 MiB, `parallel` at a time, over all
    /// replicas, each checked before it is handed over; shorter ones, and all with `parallel` of 1 or 0, as by [`Client::get`].
    ///
    /// All bytes are of one version: if the value is replaced after the first of them was handed over, it is [`Error::Changed`].
    pub async fn get_in_parts(&self, key: &Key, parallel: usize) -> Result<PartsReader, Error> {
        let mut restarts = 0;
        loop {
            match open(self, key, parallel).await {
                Ok(from) => return Ok(PartsReader { client: self.clone(), key: key.clone(), parallel, restarts, from }),
                Err(Error::Changed(_)) if restarts < MAX_RESTARTS => restarts += 1,
                Err(e) => return Err(e),
            }
        }
    }
}

async fn open(client: &Client, key: &Key, parallel: usize) -> Result<From, Error> {
    let pinned = match parallel {
        0 | 1 => None,
        _ => Pinned::find(client, key, PARTS_FROM_BYTES, &Progress::default()).await?,
    };
    let Some(pinned) = pinned else { return Ok(From::Whole(Box::new(client.get(key).await?))) };
    #[allow(clippy::single_range_in_vec_init, reason = "a list of runs, of which there is one")]
    let left = Box::new(parts(vec![0..subtree_count(pinned.info.len)], PART_SUBTREES));
    Ok(From::Parts(Parts { pinned, left, running: VecDeque::new(), ready: VecDeque::new(), handed_over: 0 }))
}

impl PartsReader {
    /// What is known of the value.
    pub fn info(&self) -> &Info {
        match &self.from {
            From::Whole(reader) => reader.info(),
            From::Parts(parts) => &parts.pinned.info,
        }
    }

    /// The next bytes; none at the end, and only if all were right.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let parts = match &mut self.from {
                From::Whole(reader) => return reader.chunk().await,
                From::Parts(parts) => parts,
            };
            match parts.next(self.parallel).await {
                // Nobody has seen anything of it yet.
                Err(Error::Changed(_)) if parts.handed_over == 0 && self.restarts < MAX_RESTARTS => {
                    self.restarts += 1;
                    self.from = open(&self.client, &self.key, self.parallel).await?;
                }
                other => return other,
            }
        }
    }
}

impl Parts {
    async fn next(&mut self, parallel: usize) -> Result<Option<Bytes>, Error> {
        while self.ready.is_empty() {
            while self.running.len() < parallel
                && let Some(part) = self.left.next()
            {
                let to = Arc::new(Collected::default());
                let task = tokio::spawn(fetch(Arc::clone(&self.pinned), part, to.clone()));
                self.running.push_back(Running { task, to });
            }
            let Some(first) = self.running.front_mut() else {
                if self.handed_over < self.pinned.info.len {
                    return Err(self.pinned.broken("the reader has failed before".into()));
                }
                return Ok(None);
            };
            let done = (&mut first.task).await.unwrap_or_else(|e| Err(self.pinned.broken(format!("a task that reads died: {e}"))));
            let done = done.map(|()| std::mem::take(&mut *first.to.0.lock().unwrap_or_else(PoisonError::into_inner)));
            if done.is_err() {
                // What follows is of no use without it.
                self.running.clear();
                self.left = Box::new(std::iter::empty());
            } else {
                self.running.pop_front();
            }
            self.ready = done?;
        }
        let next = self.ready.pop_front();
        self.handed_over += next.as_ref().map_or(0, |b| b.len() as u64);
        Ok(next)
    }
}
