//! Group commit: one thread takes whatever waits, makes one batch of it with one sync, then answers all.

use super::hot::Hot;
use super::requests::{Answer, Notes, Op, Outcome, Request, Requests, stop};
use super::reserve::Reserve;
use super::tables::{Counters, Table, Tables};
use super::{Aside, IndexError, IndexOptions, tombstone_cutoff};
use crate::disk;
use crate::format::record::{
    Place, Record, ValueRecord, bad_row, blob_list_key, entry_key, parse_bad_row, parse_entry_key, parse_time_list_key, time_list_key,
    told_from,
};
use fjall::{OwnedWriteBatch, PersistMode};
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::ReclaimItem;
use kvdb_protocol::{Key, UnixMillis, VersionId};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most changes of one batch.
const MAX_BATCH_OPS: usize = 128;
/// How long an unsynced change may stay so.
const MAX_UNSYNCED: Duration = Duration::from_millis(500);
/// How long a change that nobody waits for may be left unmade.
const MAX_NOTED: Duration = Duration::from_millis(250);
/// How often old tombstones are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Most tombstones dropped in one batch.
const SWEEP_BATCH: usize = 1000;
/// Room without which nothing at all is written, besides twice the batch itself, in bytes.
const LAST_ROOM_BYTES: u64 = 64 << 10;

/// The thread, and the way to it. Dropping it lets the thread finish what waits, and waits for it.
pub struct Committer {
    requests: Option<Requests>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub fn start(tables: Tables, counters: Arc<Counters>, hot: Arc<Hot>, dir: PathBuf, options: IndexOptions) -> std::io::Result<Self> {
        let (requests, waiting) = Requests::new();
        let reserve = Reserve::new(options.reserve.clone(), options.reserve_bytes);
        let worker = Worker {
            tables,
            counters,
            hot,
            dir,
            options,
            notes: requests.notes(),
            stopped: requests.stopped_slot(),
            unsynced_since: None,
            next_sweep: Instant::now(),
            reserve,
        };
        let thread = std::thread::Builder::new().name("kvdb-index".into()).spawn(move || worker.run(&waiting))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Where changes are asked for. None only while it is dropped.
    pub fn requests(&self) -> Result<&Requests, IndexError> {
        self.requests.as_ref().ok_or_else(|| IndexError::Stopped("it is closed".into()))
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        let stopped = self.requests.take().and_then(|r| r.stopped());
        // A thread that hangs in the engine cannot be waited for; the process is then ending anyway.
        if stopped.is_none()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the index's thread ended in a panic");
        }
    }
}

struct Worker {
    tables: Tables,
    counters: Arc<Counters>,
    hot: Arc<Hot>,
    dir: PathBuf,
    options: IndexOptions,
    notes: Notes,
    stopped: Arc<Mutex<Option<String>>>,
    unsynced_since: Option<Instant>,
    next_sweep: Instant,
    reserve: Reserve,
}

/// None: the key goes.
type Writes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// What one batch has changed so far, so that a later change of the same batch sees it.
struct Batch<'a> {
    tables: &'a Tables,
    /// The last word on each key of each table: the engine gives all writes of a batch one sequence
    /// number, so a key must not be in it twice.
    writes: Writes,
    /// Before the batch, and after it.
    changed: HashMap<Vec<u8>, (Option<Record>, Option<Record>)>,
    must_sync: bool,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        // Also where the index is closed before anything is asked for.
        self.do_duties();
        loop {
            match requests.recv_timeout(self.until_next_duty()) {
                Ok(first) => self.commit(Some(first), requests),
                Err(RecvTimeoutError::Timeout) => self.commit(None, requests),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.do_duties();
        }
        self.commit(None, requests);
        self.sync_deferred();
    }

    fn until_next_duty(&self) -> Duration {
        let sync = self.unsynced_since.map(|t| t + MAX_UNSYNCED);
        let next = sync.map_or(self.next_sweep, |s| s.min(self.next_sweep));
        next.saturating_duration_since(Instant::now()).min(MAX_NOTED)
    }

    fn do_duties(&mut self) {
        if self.unsynced_since.is_some_and(|t| t.elapsed() >= MAX_UNSYNCED) {
            self.sync_deferred();
        }
        if Instant::now() >= self.next_sweep {
            self.next_sweep = match self.sweep() {
                Ok(true) => Instant::now(),
                Ok(false) => Instant::now() + SWEEP_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "old tombstones stay for now");
                    Instant::now() + SWEEP_EVERY
                }
            };
        }
    }

    /// One batch, of what was noted and what is asked for: check, apply, make durable, answer all.
    fn commit(&mut self, first: Option<Request>, requests: &Receiver<Request>) {
        let mut notes = self.notes.take();
        if first.is_none() && notes.is_empty() {
            return;
        }
        let room = self.too_little_room();
        let mut batch = Batch { tables: &self.tables, writes: BTreeMap::new(), changed: HashMap::new(), must_sync: false };
        let mut answers = Vec::new();
        let mut next = first;
        loop {
            // What was noted before a change was asked for is made before it.
            for note in notes.drain(..) {
                answers.push((Answer::Nobody, batch.apply(note)));
            }
            let Some(Request { op, answer }) = next.take() else { break };
            let outcome = match room {
                Some(free) if op.takes_room() => Err(IndexError::NoSpace { free }),
                _ => batch.apply(op),
            };
            answers.push((answer, outcome));
            if answers.len() < MAX_BATCH_OPS {
                next = requests.try_recv().ok();
                notes = self.notes.take();
            }
        }
        let Batch { writes, changed, must_sync, .. } = batch;
        if let Some(free) = room.and_then(|_| self.no_room_for(&writes)) {
            return answers.into_iter().for_each(|(answer, outcome)| {
                answer.give(outcome.and(Err(IndexError::NoSpace { free })));
            });
        }
        let written = self.write(self.tables.batch(writes), must_sync);
        if written.is_ok() {
            changed.values().for_each(|(before, after)| self.counters.change(before.as_ref(), after.as_ref()));
            // Before anybody is told: what is removed is not read any more.
            self.hot.forget(changed.iter().filter(|(_, (_, after))| !matches!(after, Some(Record::Value(_)))).map(|(k, _)| k.as_slice()));
        }
        for (answer, outcome) in answers {
            let outcome = match (&written, outcome) {
                (Err(reason), Ok(_)) => Err(IndexError::Stopped(reason.clone())),
                (_, outcome) => outcome,
            };
            answer.give(outcome);
        }
    }

    /// The room on the file system, where it is so little that new values are refused.
    fn too_little_room(&mut self) -> Option<u64> {
        let free = disk::room(&self.dir).ok()?.available;
        self.reserve.adjust(free, self.options.min_room_bytes);
        (free < self.options.min_room_bytes).then_some(free)
    }

    /// The room on the file system, where it is too little for this batch: a write that fails would stop the index for good,
    /// and even removals can wait for room.
    fn no_room_for(&self, writes: &Writes) -> Option<u64> {
        let bytes: usize = writes.iter().map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let free = disk::room(&self.dir).ok()?.available;
        (!writes.is_empty() && free < LAST_ROOM_BYTES + 2 * bytes as u64).then_some(free)
    }

    /// Writes a batch. A failed one is never tried again: what is on the disk is not known any more.
    fn write(&mut self, batch: OwnedWriteBatch, must_sync: bool) -> Result<(), String> {
        if let Some(reason) = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(reason);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mode = if must_sync && !lab::has(Bug::IndexNotSynced) { PersistMode::SyncData } else { PersistMode::Buffer };
        if let Err(e) = batch.durability(Some(mode)).commit() {
            let reason = e.to_string();
            stop(&self.stopped, &reason);
            return Err(reason);
        }
        // One sync of the journal covers all that was written to it before.
        self.unsynced_since = if must_sync { None } else { self.unsynced_since.or_else(|| Some(Instant::now())) };
        Ok(())
    }

    fn sync_deferred(&mut self) {
        if self.unsynced_since.take().is_some()
            && let Err(e) = self.tables.db.persist(PersistMode::SyncData)
        {
            stop(&self.stopped, &e.to_string());
        }
    }

    /// Drops some of the tombstones that are old enough. Returns whether there may be more.
    fn sweep(&mut self) -> Result<bool, IndexError> {
        let cutoff = tombstone_cutoff(self.options.tombstone_keep);
        let mut writes = BTreeMap::new();
        let mut dropped = 0;
        for guard in self.tables.tombstones.iter().take(SWEEP_BATCH) {
            let k = guard.key()?;
            let (time, entry) = parse_time_list_key(&k)?;
            if time >= cutoff {
                break;
            }
            parse_entry_key(entry)?;
            if matches!(self.tables.record(entry)?, Some(Record::Tombstone(_))) {
                writes.insert((Table::Entries, entry.to_vec()), None);
            }
            writes.insert((Table::Tombstones, k.to_vec()), None);
            dropped += 1;
        }
        self.write(self.tables.batch(writes), false).map_err(IndexError::Stopped)?;
        Ok(dropped == SWEEP_BATCH)
    }
}

impl Op {
    /// Whether it is refused where room is short. Commits and removes never are.
    fn takes_room(&self) -> bool {
        matches!(self, Self::Put { .. }) || (matches!(self, Self::Remove { .. }) && lab::has(Bug::RemovalNeedsRoom))
    }
}

impl Batch<'_> {
    fn apply(&mut self, op: Op) -> Result<Outcome, IndexError> {
        match op {
            Op::Put { key, version, record, inline } => self.put(&key, version, record, inline),
            Op::Adopt { values } => {
                for (key, version, record) in values {
                    self.put(&key, version, record, None)?;
                }
                Ok(Outcome::Done)
            }
            Op::Commit { key, version, seq } => self.commit(&key, version, seq),
            Op::Extend { key, version, commit_by } => self.extend(&key, version, commit_by),
            Op::Remove { items } => self.remove(items),
            Op::PutAside { copies } => self.put_aside(copies),
            Op::Told { copies } => {
                copies.iter().for_each(|(key, version)| self.delete(Table::Bad, entry_key(key, *version)));
                Ok(Outcome::Done)
            }
        }
    }

    fn put(&mut self, key: &Key, version: VersionId, record: ValueRecord, inline: Option<Vec<u8>>) -> Result<Outcome, IndexError> {
        let k = entry_key(key, version);
        match self.current(&k)? {
            // Another request of this batch may have put it: the answer must wait for the sync as well.
            Some(Record::Value(there)) => return Ok(Outcome::Present(Box::new(there))),
            Some(Record::Tombstone(_)) => return Ok(Outcome::Deleted),
            None => {}
        }
        self.insert(Table::Prepared, time_list_key(record.commit_by, &k), Vec::new());
        match record.place {
            Place::Inline => self.insert(Table::Inline, k.clone(), inline.unwrap_or_default()),
            Place::File { .. } => self.insert(Table::Blobs, blob_list_key(version).to_vec(), key.as_bytes().to_vec()),
        }
        self.set(k, Some(Record::Value(record)))?;
        self.must_sync = true;
        Ok(Outcome::Done)
    }

    fn commit(&mut self, key: &Key, version: VersionId, seq: u64) -> Result<Outcome, IndexError> {
        let k = entry_key(key, version);
        let Some(Record::Value(mut record)) = self.current(&k)? else { return self.tell_of_bad(k, UnixMillis(0)) };
        if record.seq.is_none() {
            self.delete(Table::Prepared, time_list_key(record.commit_by, &k));
        }
        if record.seq != Some(seq) {
            record.seq = Some(seq);
            self.set(k, Some(Record::Value(record)))?;
        }
        Ok(Outcome::Done)
    }

    fn extend(&mut self, key: &Key, version: VersionId, commit_by: UnixMillis) -> Result<Outcome, IndexError> {
        let k = entry_key(key, version);
        let Some(Record::Value(mut record)) = self.current(&k)?.filter(|r| matches!(r, Record::Value(v) if v.seq.is_none())) else {
            return self.tell_of_bad(k, commit_by);
        };
        self.delete(Table::Prepared, time_list_key(record.commit_by, &k));
        self.insert(Table::Prepared, time_list_key(commit_by, &k), Vec::new());
        record.commit_by = commit_by;
        self.set(k, Some(Record::Value(record)))?;
        Ok(Outcome::Done)
    }

    fn remove(&mut self, items: Vec<ReclaimItem>) -> Result<Outcome, IndexError> {
        let mut files = Vec::new();
        for ReclaimItem { key, version, deleted } in items {
            let deleted = deleted.filter(|_| !lab::has(Bug::NoTombstone));
            let k = entry_key(&key, version);
            let current = self.current(&k)?;
            if let Some(Record::Value(record)) = &current {
                if record.seq.is_none() {
                    self.delete(Table::Prepared, time_list_key(record.commit_by, &k));
                }
                match record.place {
                    Place::Inline => self.delete(Table::Inline, k.clone()),
                    Place::File { .. } => {
                        self.delete(Table::Blobs, blob_list_key(version).to_vec());
                        files.push(version);
                    }
                }
            }
            match (current, deleted) {
                // A tombstone stays what it is, whatever is asked again.
                (Some(Record::Tombstone(_)), _) | (None, None) => continue,
                (_, Some(deleted)) => {
                    self.insert(Table::Tombstones, time_list_key(deleted.time, &k), Vec::new());
                    self.set(k, Some(Record::Tombstone(deleted)))?;
                }
                (Some(Record::Value(_)), None) => self.set(k, None)?,
            }
            self.must_sync = true;
        }
        Ok(Outcome::Removed(files))
    }

    /// Removes values, and in the same step notes that the master is to be told.
    fn put_aside(&mut self, copies: Vec<Aside>) -> Result<Outcome, IndexError> {
        let mut items = Vec::new();
        for Aside { key, version, why } in copies {
            let k = entry_key(&key, version);
            if let Some(Record::Value(record)) = self.current(&k)? {
                self.insert(Table::Bad, k, bad_row(told_from(&record), &why));
                items.push(ReclaimItem { key, version, deleted: None });
            }
        }
        self.remove(items)
    }

    /// A version is not here. If it was put aside while its outcome was open, the master is to be told from then on, when it knows it.
    fn tell_of_bad(&mut self, k: Vec<u8>, not_before: UnixMillis) -> Result<Outcome, IndexError> {
        if let Some(row) = self.tables.bad.get(&k)? {
            let (_, why) = parse_bad_row(&row)?;
            self.insert(Table::Bad, k, bad_row(not_before, &why));
        }
        Ok(Outcome::Absent)
    }

    fn current(&self, k: &[u8]) -> Result<Option<Record>, IndexError> {
        match self.changed.get(k) {
            Some((_, after)) => Ok(after.clone()),
            None => self.tables.record(k),
        }
    }

    fn set(&mut self, k: Vec<u8>, after: Option<Record>) -> Result<(), IndexError> {
        match &after {
            Some(record) => self.insert(Table::Entries, k.clone(), record.encode()?),
            None => self.delete(Table::Entries, k.clone()),
        }
        let before = match self.changed.remove(&k) {
            Some((before, _)) => before,
            None => self.tables.record(&k)?,
        };
        self.changed.insert(k, (before, after));
        Ok(())
    }

    fn insert(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert((table, key), Some(value));
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.insert((table, key), None);
    }
}
