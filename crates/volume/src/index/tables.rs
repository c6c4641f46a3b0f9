//! The tables of the index and how the engine below is set up.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries` | key and version | the record |
//! | `inline` | key and version | the bytes of a small value |
//! | `blobs` | directories and version | the key |
//! | `prepared` | commit-by, key and version | nothing |
//! | `tombstones` | time of the delete, key and version | nothing |
//! | `bad` | key and version | when to tell the master, what is wrong |

use super::{IndexError, IndexOpenError};
use crate::format::record::{Record, parse_blob_list_key, parse_entry_key, parse_time_list_key};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Journals before the oldest is forced out of use, in bytes; the least that the engine permits.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
/// Size at which what was written goes from memory into a table, in bytes. The engine lets up to five of them wait.
const MEMTABLE_BYTES: u64 = 2 << 20;
/// The same for small values' bytes, of which a memtable holds few.
const INLINE_MEMTABLE_BYTES: u64 = 4 << 20;
/// From this length on the bytes of a small value go into files of their own, in bytes.
pub const SEPARATE_BYTES: usize = 1 << 10;
/// Open table files.
const MAX_OPEN_TABLES: usize = 128;
/// One may be busy with a long compaction; the other then still writes memtables out.
const WORKERS: usize = 2;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Entries,
    Inline,
    Blobs,
    Prepared,
    Tombstones,
    Bad,
}

/// Handles to all tables; cheap to clone.
#[derive(Clone)]
pub struct Tables {
    pub db: Database,
    pub entries: Keyspace,
    pub inline: Keyspace,
    pub blobs: Keyspace,
    pub prepared: Keyspace,
    pub tombstones: Keyspace,
    pub bad: Keyspace,
}

/// Numbers of what the index holds, kept up to date by the committer.
#[derive(Debug, Default)]
pub struct Counters {
    values: AtomicU64,
    bytes: AtomicU64,
    prepared: AtomicU64,
}

impl Counters {
    /// Number of values.
    pub fn values(&self) -> u64 {
        self.values.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Those not known to be committed.
    pub fn prepared(&self) -> u64 {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Notes that `before` became `after`. Only the committer (and the count at the start) calls it.
    pub fn change(&self, before: Option<&Record>, after: Option<&Record>) {
        if let Some(Record::Value(v)) = before {
            self.values.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(v.len, Ordering::Relaxed);
            self.prepared.fetch_sub(u64::from(v.seq.is_none()), Ordering::Relaxed);
        }
        if let Some(Record::Value(v)) = after {
            self.values.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(v.len, Ordering::Relaxed);
            self.prepared.fetch_add(u64::from(v.seq.is_none()), Ordering::Relaxed);
        }
    }
}

impl Tables {
    /// Opens or makes them.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, IndexOpenError> {
        // The engine asserts what it believes of its own files, so a damaged one can show as a panic.
        match catch_unwind(AssertUnwindSafe(|| Self::open_tables(dir, cache_bytes))) {
            Ok(Ok(tables)) => Ok(tables),
            Ok(Err(e)) => Err(classify(e)),
            Err(panic) => Err(IndexOpenError::Damaged(panic_text(&*panic))),
        }
    }

    fn open_tables(dir: &Path, cache_bytes: u64) -> Result<Self, fjall::Error> {
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            .max_cached_files(Some(MAX_OPEN_TABLES))
            .max_journaling_size(MAX_JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .open()?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        // Bytes of values go into files of their own, so that they are not rewritten with every compaction.
        let large = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(INLINE_MEMTABLE_BYTES)
                .with_kv_separation(Some(KvSeparationOptions::default().separation_threshold(SEPARATE_BYTES as u32)))
        };
        Ok(Self {
            entries: db.keyspace("entries", small)?,
            inline: db.keyspace("inline", large)?,
            blobs: db.keyspace("blobs", small)?,
            prepared: db.keyspace("prepared", small)?,
            tombstones: db.keyspace("tombstones", small)?,
            bad: db.keyspace("bad", small)?,
            db,
        })
    }

    /// Reads every record and every key once, so that damage shows at the start, and counts.
    pub fn count(&self) -> Result<Counters, IndexError> {
        let scan = || -> Result<Counters, IndexError> {
            let counters = Counters::default();
            for guard in self.entries.iter() {
                let (k, v) = guard.into_inner()?;
                parse_entry_key(&k)?;
                counters.change(None, Some(&Record::decode(&v)?));
            }
            for guard in self.blobs.iter() {
                parse_blob_list_key(&guard.key()?)?;
            }
            for guard in self.prepared.iter().chain(self.tombstones.iter()) {
                parse_entry_key(parse_time_list_key(&guard.key()?)?.1)?;
            }
            for guard in self.inline.iter().chain(self.bad.iter()) {
                parse_entry_key(&guard.key()?)?;
            }
            Ok(counters)
        };
        catch_unwind(AssertUnwindSafe(scan)).unwrap_or_else(|panic| Err(IndexError::Read(panic_text(&*panic))))
    }

    /// One atomic batch: for each key its new value, or none where it goes.
    pub fn batch(&self, writes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>) -> OwnedWriteBatch {
        let mut batch = self.db.batch();
        for ((table, key), value) in writes {
            let table = match table {
                Table::Entries => &self.entries,
                Table::Inline => &self.inline,
                Table::Blobs => &self.blobs,
                Table::Prepared => &self.prepared,
                Table::Tombstones => &self.tombstones,
                Table::Bad => &self.bad,
            };
            match value {
                Some(value) => batch.insert(table, key, value),
                None => batch.remove(table, key),
            }
        }
        batch
    }

    /// The record of an index key.
    pub fn record(&self, entry_key: &[u8]) -> Result<Option<Record>, IndexError> {
        match self.entries.get(entry_key)? {
            Some(bytes) => Ok(Some(Record::decode(&bytes)?)),
            None => Ok(None),
        }
    }
}

/// Tells what a new index cures from what it does not.
fn classify(error: fjall::Error) -> IndexOpenError {
    match error {
        fjall::Error::Locked => IndexOpenError::Locked,
        fjall::Error::InvalidVersion(Some(v)) => IndexOpenError::Newer(format!("{v:?}")),
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) if !is_damage(&e) => IndexOpenError::System(e),
        e => IndexOpenError::Damaged(e.to_string()),
    }
}

/// Whether a read failed because of what is on the disk, and not because the system was short of something.
pub fn tells_of_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => {
            crate::disk::is_unreadable(e) || matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
        }
        fjall::Error::Storage(_) => true,
        _ => false,
    }
}

/// Whether an I/O error tells of files that are missing or cut, rather than of the system's state.
fn is_damage(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::Other)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the engine gave up: {}", text.unwrap_or("no reason given"))
}
