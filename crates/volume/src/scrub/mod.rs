//! Reads and checks all that is at rest, again and again, and at once what a read could not read.

mod pace;
mod state;

use crate::bad;
use crate::disk::{DiskError, Op};
use crate::format::record::entry_key;
use crate::index::IndexError;
use crate::node::Node;
use crate::store::{Check, Store, StoreError};
use kvdb_protocol::message::{Entry, ScrubStatus, ValueEntry};
use kvdb_protocol::{Key, VersionId, VolumeId};
use pace::Rate;
use state::{Next, State};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Copies that reads could not read and that wait to be checked. What is refused here is found by the next read of it,
/// or by the pass.
const MAX_SUSPECTS: usize = 64;
/// Entries that are taken from the index at a time.
const PAGE: usize = 256;
/// How often it is kept where the pass is.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// No rest is longer without another look at what there is to do.
const MAX_REST: Duration = Duration::from_secs(60);
/// How long to wait for a master's first word.
const CONTACT_POLL: Duration = Duration::from_millis(200);
/// A copy that seems bad is read once more after this.
const SECOND_TRY: Duration = Duration::from_millis(200);
/// Waits of the pace that are shorter are left to add up.
const MIN_WAIT: Duration = Duration::from_millis(5);

/// What the scrub shares with the rest of the volume.
pub(crate) struct Scrub {
    dir: PathBuf,
    volume: VolumeId,
    state: Mutex<State>,
    /// What the file says.
    kept: Mutex<State>,
    suspects: Mutex<VecDeque<(Key, VersionId)>>,
    wake: Notify,
}

impl Scrub {
    /// Goes on from what was kept.
    pub fn open(dir: &Path, volume: VolumeId) -> Self {
        let state = State::read(dir, volume);
        let kept = Mutex::new(state.clone());
        Self { dir: dir.into(), volume, state: Mutex::new(state), kept, suspects: Mutex::default(), wake: Notify::new() }
    }

    /// Has a pass begin now.
    pub fn ask(&self) {
        lock(&self.state).wanted = true;
        self.wake.notify_one();
    }

    /// A read could not read a copy: have it checked at once.
    pub fn suspect(&self, key: &Key, version: VersionId) {
        let mut suspects = lock(&self.suspects);
        if suspects.len() < MAX_SUSPECTS && !suspects.iter().any(|(_, v)| *v == version) {
            suspects.push_back((key.clone(), version));
            self.wake.notify_one();
        }
    }

    pub fn status(&self, of_bytes: u64) -> ScrubStatus {
        lock(&self.state).status(of_bytes)
    }

    /// Keeps where it is, if that has changed. To be called where blocking is allowed.
    pub fn save(&self) {
        // One at a time: they would write to the same temporary file.
        let mut kept = lock(&self.kept);
        let state = lock(&self.state).clone();
        if *kept == state {
            return;
        }
        match state.write(&self.dir, self.volume) {
            Ok(()) => *kept = state,
            Err(error) => tracing::warn!(%error, "where the scrub is cannot be kept: after a restart it goes on from an earlier place"),
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole after every statement, so a panic elsewhere does not spoil it.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Scrubs until the volume stops.
pub(crate) async fn scrub_forever(node: Arc<Node>) {
    // What is counted before there is a recorder is lost, and so is every handle.
    kvdb_server::metrics::install();
    metrics::describe_counter!("kvdb_scrub_bytes_total", "Bytes that the scrub has read and checked.");
    metrics::describe_counter!("kvdb_scrub_bad_total", "Bad copies that the scrub has found.");
    metrics::describe_gauge!("kvdb_scrub_orphans", "Blob files that the last pass found in no index.");
    let stopping = node.stopping.clone();
    let mut runner = Runner::new(node.clone());
    let _ = stopping.run_until_cancelled(runner.run()).await;
    blocking(&node, |node| {
        node.scrub.save();
        Ok(())
    })
    .await
    .ok();
}

struct Runner {
    node: Arc<Node>,
    origin: Instant,
    rate: Rate,
    /// The next entries.
    page: VecDeque<ValueEntry>,
    /// There is nothing after the page.
    last_page: bool,
    /// The beginning of the pass that the page is of.
    pass: Option<kvdb_protocol::UnixMillis>,
    saved: Instant,
    bytes_total: metrics::Counter,
    bad_total: metrics::Counter,
}

/// What a check has found.
enum Found {
    Good,
    Gone,
    Bad(String),
    Unreadable(String),
    /// Nothing can be said of the copy.
    Failed(String),
}

impl Runner {
    fn new(node: Arc<Node>) -> Self {
        let volume = node.volume().to_string();
        Self {
            rate: Rate::new(node.config.scrub_rate_mib.saturating_mul(1 << 20)),
            origin: Instant::now(),
            page: VecDeque::new(),
            last_page: false,
            pass: None,
            saved: Instant::now(),
            bytes_total: metrics::counter!("kvdb_scrub_bytes_total", "volume" => volume.clone()),
            bad_total: metrics::counter!("kvdb_scrub_bad_total", "volume" => volume),
            node,
        }
    }

    async fn run(&mut self) {
        let every = (self.node.config.scrub_every > 0).then(|| Duration::from_secs(self.node.config.scrub_every));
        loop {
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save().await;
            }
            // The guard must not be held over what follows.
            let suspect = lock(&self.node.scrub.suspects).pop_front();
            if let Some((key, version)) = suspect {
                self.check(&key, version).await;
                continue;
            }
            let Some(now) = self.node.clock.told() else {
                tokio::time::sleep(CONTACT_POLL).await;
                continue;
            };
            let held = self.node.store.held();
            let (next, pass) = {
                let mut state = lock(&self.node.scrub.state);
                (state.next(now, every, held), state.began)
            };
            if let Next::Rest(rest) = next {
                self.rest(rest).await;
                continue;
            }
            if self.pass != pass {
                (self.pass, self.last_page) = (pass, false);
                self.page.clear();
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the scrub cannot go on for now");
                self.rest(MAX_REST).await;
            }
        }
    }

    async fn rest(&self, rest: Duration) {
        tokio::select! {
            () = tokio::time::sleep(rest.min(MAX_REST)) => {}
            () = self.node.scrub.wake.notified() => {}
        }
    }

    /// Looks at the next value, or ends the pass.
    async fn look(&mut self) -> Result<(), StoreError> {
        if self.page.is_empty() && !self.last_page {
            self.turn().await?;
        }
        let Some(entry) = self.page.pop_front() else {
            if self.last_page {
                self.end().await;
            }
            return Ok(());
        };
        let checked = self.check(&entry.key, entry.version).await;
        let mut state = lock(&self.node.scrub.state);
        if checked {
            state.values += 1;
            state.bytes += entry.len;
        }
        state.cursor = Some((entry.key, entry.version));
        Ok(())
    }

    /// Takes the next entries from the index.
    async fn turn(&mut self) -> Result<(), StoreError> {
        let after = lock(&self.node.scrub.state).cursor.clone().map(|(key, version)| entry_key(&key, version));
        let (entries, next) = blocking(&self.node, move |node| {
            let mut after = after;
            loop {
                let (entries, next) = node.store.entries(after.as_deref(), PAGE)?;
                let values: VecDeque<_> = entries.into_iter().filter_map(value).collect();
                // A page of tombstones alone has no value to go on from.
                if !values.is_empty() || next.is_none() {
                    return Ok((values, next));
                }
                after = next;
            }
        })
        .await?;
        self.page = entries;
        self.last_page = next.is_none();
        Ok(())
    }

    async fn end(&mut self) {
        let stop = self.node.stopping.clone();
        let orphans = blocking(&self.node, move |node| node.store.orphans(|| stop.is_cancelled())).await;
        // What is being written or fetched has a file before it has an entry.
        let orphans = orphans.map(|found| found.into_iter().filter(|v| !self.node.is_in_flight(*v)).count());
        match orphans {
            Ok(0) => {}
            Ok(n) => tracing::warn!(files = n, "blob files are in no index; the next start takes them in or removes them"),
            Err(ref error) => tracing::warn!(%error, "the scrub could not look for files that are in no index"),
        }
        if let Ok(n) = orphans {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            metrics::gauge!("kvdb_scrub_orphans", "volume" => self.node.volume().to_string()).set(n);
        }
        let status = {
            let mut state = lock(&self.node.scrub.state);
            state.end(self.node.clock.now());
            state.status(0)
        };
        self.pass = None;
        tracing::info!(values = status.values, bytes = status.bytes, bad = status.bad, "the scrub has ended a pass");
        self.save().await;
    }

    async fn save(&mut self) {
        self.saved = Instant::now();
        blocking(&self.node, |node| {
            node.scrub.save();
            Ok(())
        })
        .await
        .ok();
    }

    /// Checks a copy and puts it aside if it is bad. False: it was not here (any more), or nothing can be said of it.
    async fn check(&mut self, key: &Key, version: VersionId) -> bool {
        let mut found = self.read(key, version).await;
        // Once more: what was wrong may have been the way from the disk.
        if let Found::Bad(_) | Found::Unreadable(_) = found {
            tokio::time::sleep(SECOND_TRY).await;
            found = self.read(key, version).await;
        }
        let why = match found {
            Found::Good => return true,
            Found::Gone => return false,
            Found::Failed(error) => {
                tracing::warn!(%key, %version, error, "the scrub cannot check a copy now");
                return false;
            }
            Found::Bad(why) | Found::Unreadable(why) => why,
        };
        tracing::error!(%key, %version, volume = %self.node.volume(), why, "the scrub has found a bad copy");
        if bad::put_aside(&self.node, key, version, why).await {
            self.bad_total.increment(1);
            lock(&self.node.scrub.state).bad += 1;
        }
        true
    }

    /// Reads all of a copy, no faster than the rate: a value that is begun is not spread over the period, since an
    /// open file keeps the space of a value that is deleted meanwhile.
    async fn read(&mut self, key: &Key, version: VersionId) -> Found {
        let wanted = key.clone();
        let mut check = match blocking(&self.node, move |node| node.store.check(&wanted, version)).await {
            Ok(Some(check)) => check,
            Ok(None) => return Found::Gone,
            Err(e) => return classify(e),
        };
        loop {
            let wait = self.rate.wait(self.origin.elapsed());
            if wait >= MIN_WAIT {
                tokio::time::sleep(wait).await;
            }
            let begun = self.origin.elapsed();
            let wanted = key.clone();
            let stepped = blocking(&self.node, move |node| step(&node.store, &wanted, version, check)).await;
            match stepped {
                Ok(None) => return Found::Gone,
                Ok(Some((step, back))) => {
                    self.rate.spent(begun, step.bytes);
                    self.bytes_total.increment(step.bytes);
                    if step.done {
                        return Found::Good;
                    }
                    check = back;
                }
                Err(e) => return classify(e),
            }
        }
    }
}

fn value(entry: Entry) -> Option<ValueEntry> {
    match entry {
        Entry::Value(value) => Some(value),
        Entry::Tombstone { .. } => None,
    }
}

/// None: it was removed.
fn step(store: &Store, key: &Key, version: VersionId, mut check: Check) -> Result<Option<(crate::store::Step, Check)>, StoreError> {
    if !store.is_here(key, version)? {
        return Ok(None);
    }
    let step = check.step()?;
    Ok(Some((step, check)))
}

fn classify(error: StoreError) -> Found {
    let why = error.to_problem().detail;
    match error {
        StoreError::Corrupt { what, .. } => Found::Bad(what),
        StoreError::Io(e) if e.is_unreadable() => Found::Unreadable(why),
        StoreError::Index(IndexError::Unreadable(_)) => Found::Unreadable(why),
        _ => Found::Failed(why),
    }
}

async fn blocking<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let node = node.clone();
    match tokio::task::spawn_blocking(move || work(&node)).await {
        Ok(result) => result,
        Err(e) => Err(StoreError::Io(DiskError { op: Op::Read, path: PathBuf::new(), source: std::io::Error::other(e) })),
    }
}
