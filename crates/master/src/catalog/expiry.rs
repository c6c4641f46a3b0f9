//! Values that expire: absent for readers from their very millisecond on, and removed soon after.
//!
//! # Why a reader that meets an expired record may have to wait
//!
//! A batch is decided at one time of the clock, and visible once it is durable, some milliseconds later. If a value expires
//! between the two, the batch has taken it for present (`If-Match` held, say), and so came before the expiry. A reader that finds the
//! expired record meanwhile must not say "absent": what the batch brings would then come back from before the absence. It waits
//! until no batch is under way that was decided before the expiry, and looks again.
//!
//! # Why a tombstone is left
//!
//! A version that the expired one had replaced may still be on a volume that is down. A rebuild that found neither the expired
//! version nor a tombstone would bring it back.

use super::core::Core;
use super::decide::{self, Now};
use super::engine::Engine;
use super::error::CatalogError;
use super::keyspace;
use super::record::Record;
use super::view::View;
use super::{Catalog, Op};
use kvdb_protocol::message::Deleted;
use kvdb_protocol::{Key, UnixMillis};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most expired values removed in one step.
const SWEEP: usize = 256;
/// A step ends when its keys and values exceed this.
const SWEEP_BYTES: usize = 64 << 10;
/// How often it is looked whether a batch is through.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a step of the removal of expired values did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Values removed.
    pub removed: usize,
    /// Whether there may be more to remove now.
    pub more: bool,
}

/// The time at which the batch under way was decided.
#[derive(Debug)]
pub(super) struct Deciding(AtomicU64);

/// There is no batch under way.
const IDLE: u64 = u64::MAX;

impl Default for Deciding {
    fn default() -> Self {
        Self(AtomicU64::new(IDLE))
    }
}

impl Deciding {
    /// A batch begins; `now` gives its time. In this order: whoever sees no batch has read the clock before this one does.
    pub(super) fn begin(&self, now: impl FnOnce() -> UnixMillis) -> (UnixMillis, UnderWay<'_>) {
        self.0.store(0, Ordering::SeqCst);
        let time = now();
        self.0.store(time.0, Ordering::SeqCst);
        (time, UnderWay(self))
    }

    /// Whether no batch is under way that was decided before `at`, a time that has been reached.
    pub(super) fn is_past(&self, at: UnixMillis) -> bool {
        self.0.load(Ordering::SeqCst) >= at.0
    }
}

/// A batch that was begun. Dropped, it is through.
pub(super) struct UnderWay<'a>(&'a Deciding);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.store(IDLE, Ordering::SeqCst);
    }
}

/// Removes what has expired, the earliest first.
pub(super) fn sweep(view: &mut View<'_>, engine: &dyn Engine, now: &Now) -> Result<Swept, CatalogError> {
    now.require(now.room.for_delete)?;
    let end = keyspace::expiries_after(now.expiry);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let due = engine.scan(Bound::Included(&[keyspace::EXPIRY]), to, SWEEP)?;
    let (mut swept, began) = (Swept { removed: 0, more: due.len() == SWEEP }, view.bytes());
    for (entry, _) in due {
        if view.bytes() - began >= SWEEP_BYTES {
            swept.more = true;
            break;
        }
        let (at, key) = keyspace::parse_expiry(&entry).ok_or_else(|| CatalogError::corrupt("expiry", "its key is malformed"))?;
        match view.record(&key)?.filter(|r| r.expires == Some(at)) {
            Some(record) => {
                let deleted = Deleted { seq: view.next_seq(), time: now.time };
                view.set_record(&key, Some(&record), None)?;
                decide::retire(view, now, &key, &record, Some(deleted))?;
                swept.removed += 1;
            }
            // Replaced or removed by an operation of this batch.
            None => view.delete(entry),
        }
    }
    Ok(swept)
}

impl Core {
    /// Returns once no batch is under way that was decided before `at`, a time that has been reached.
    pub(super) async fn decided_past(&self, at: UnixMillis) {
        while !self.deciding.is_past(at) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The records of these keys that have not expired. A durable view must be held. An error: it is too early to tell, see
    /// [`Core::decided_past`].
    fn live_records(&self, keys: &[Key]) -> Result<Result<Vec<Option<Record>>, UnixMillis>, CatalogError> {
        let mut records = keys.iter().map(|k| self.record(k)).collect::<Result<Vec<_>, _>>()?;
        let now = self.clock.expiry_now();
        let expired = |r: &Record| r.expired(now);
        let latest = records.iter().flatten().filter(|r| expired(r)).filter_map(|r| r.expires).max();
        if let Some(at) = latest.filter(|at| !self.deciding.is_past(*at)) {
            return Ok(Err(at));
        }
        records.iter_mut().for_each(|r| *r = r.take().filter(|r| !expired(r)));
        Ok(Ok(records))
    }
}

impl Catalog {
    /// The record of a key that was found expired, if it has another by now.
    pub(super) async fn lookup_again(&self, key: &Key, mut found: Record) -> Result<Option<Record>, CatalogError> {
        loop {
            self.0.core.decided_past(found.expires.unwrap_or_default()).await;
            match self.0.core.record(key)? {
                Some(now) if now.version == found.version => return Ok(None),
                Some(now) if now.expired(self.expiry_now()) => found = now,
                other => return Ok(other),
            }
        }
    }

    /// The records of several keys, in the order given, all as of one moment; none where there is none or it has expired.
    /// Linearizable.
    pub async fn lookup_all(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, CatalogError> {
        loop {
            let keys = keys.to_vec();
            match self.read_durable(move |core| core.live_records(&keys)).await? {
                Ok(records) => return Ok(records),
                Err(at) => self.0.core.decided_past(at).await,
            }
        }
    }

    /// The clock that values expire by. It follows the machine's, but never back while the master runs; see `clock.rs`.
    pub fn expiry_now(&self) -> UnixMillis {
        self.0.core.clock.expiry_now()
    }

    /// Removes values that have expired, as a delete does, a step at a time.
    pub async fn sweep_expired(&self) -> Result<Swept, CatalogError> {
        self.ask(Op::SweepExpired).await
    }
}
