//! Limits as commits are held to them, and how much of each quota is used.
//!
//! # Why a quota is never exceeded, not even by one
//!
//! Only the committer changes records, so it decides on quotas too: each record that a batch changes is noted beside the batch
//! ([`Draft`]), the next operation of the batch is judged with it, and the numbers change when the batch is durable. They are kept in
//! memory alone. At the start, and for a quota that is new, the committer counts the records of the prefix, a portion between two
//! batches. What is changed before the place that it has come to is noted, what is changed behind it is counted later. Until all are
//! counted, nothing is stored under the prefix.

use super::Catalog;
use super::engine::Engine;
use super::error::CatalogError;
use super::keyspace;
use super::record::{Record, decode};
use crate::limits::{Limits, Rule};
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::{ErrorCode, Key, Problem};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// Records counted between two batches; few in tests, so that much happens between.
const PORTION: usize = if cfg!(test) { 2 } else { 1024 };

/// How far a quota's records are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Counted {
    /// Those up to this place in the engine.
    UpTo(Vec<u8>, Instant),
    All,
    /// They cannot be read.
    Failed,
}

/// A quota, and what is used of it.
#[derive(Clone, Debug)]
struct Quota {
    /// Its place in the limits.
    rule: usize,
    used: Used,
    counted: Counted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    keys: u64,
    bytes: u64,
}

/// By how much a batch changes what is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    keys: i128,
    bytes: i128,
}

impl Change {
    /// From one value, of this length, to another.
    fn of(before: Option<u64>, after: Option<u64>) -> Self {
        let count = |len: Option<u64>| i128::from(len.is_some());
        let bytes = |len: Option<u64>| i128::from(len.unwrap_or(0));
        Self { keys: count(after) - count(before), bytes: bytes(after) - bytes(before) }
    }

    fn plus(self, other: Self) -> Self {
        Self { keys: self.keys + other.keys, bytes: self.bytes + other.bytes }
    }
}

impl Used {
    fn after(self, change: Change) -> Self {
        let sum = |n: u64, change: i128| u64::try_from(i128::from(n) + change).unwrap_or(0);
        Self { keys: sum(self.keys, change.keys), bytes: sum(self.bytes, change.bytes) }
    }
}

/// What is used of one quota, as of the last durable batch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// The prefix, written as keys are in lists.
    pub prefix: String,
    /// Its keys; expired ones count until they are swept.
    pub keys: u64,
    /// Bytes of their values, one copy of each.
    pub bytes: u64,
    /// Most keys.
    pub max_keys: Option<u64>,
    /// Most bytes.
    pub max_bytes: Option<u64>,
    /// Whether all are counted; if not, nothing is stored under the prefix.
    pub counted: bool,
}

/// The limits, and what is used of the quotas among them, as of the last durable batch.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    limits: Arc<Limits>,
    quotas: Vec<Quota>,
}

impl Ledger {
    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is used of each quota.
    pub fn usage(&self) -> Vec<Usage> {
        let quotas = self.quotas.iter().filter_map(|q| Some((q, self.rule(q)?)));
        quotas
            .map(|(q, rule)| Usage {
                prefix: rule.shown(),
                keys: q.used.keys,
                bytes: q.used.bytes,
                max_keys: rule.max_keys,
                max_bytes: rule.max_bytes,
                counted: q.counted == Counted::All,
            })
            .collect()
    }

    /// Whether a value may be stored under a key whose present value has this length, as things stand: spares the way to a volume. The
    /// committer has the last word.
    pub fn check(&self, key: &Key, len: Option<u64>, content_type: Option<&str>, present: Option<u64>) -> Result<(), Problem> {
        self.limits.check(key, len, content_type)?;
        let change = Change::of(present, Some(len.unwrap_or(present.unwrap_or(0))));
        let refused = self.quotas.iter().filter(|q| self.covers(q, key)).map(|q| self.refusal(q, Change::default(), change));
        match refused.collect::<Result<Vec<_>, _>>() {
            Ok(problems) => problems.into_iter().flatten().next().map_or(Ok(()), Err),
            Err(e) => Err(e.problem()),
        }
    }

    fn rule(&self, quota: &Quota) -> Option<&Rule> {
        self.limits.rules().get(quota.rule)
    }

    fn covers(&self, quota: &Quota, key: &Key) -> bool {
        self.rule(quota).is_some_and(|rule| rule.covers(key))
    }

    /// Whether a change after others of its batch would exceed a quota. What makes less of it is always allowed.
    fn refusal(&self, quota: &Quota, earlier: Change, change: Change) -> Result<Option<Problem>, CatalogError> {
        let Some(rule) = self.rule(quota) else { return Ok(None) };
        if quota.counted != Counted::All {
            return Err(CatalogError::Counting(rule.place()));
        }
        let after = quota.used.after(earlier.plus(change));
        let over = |max: Option<u64>, change: i128, after: u64| max.filter(|max| change > 0 && after > *max);
        let what = match (over(rule.max_keys, change.keys, after.keys), over(rule.max_bytes, change.bytes, after.bytes)) {
            (Some(max), _) => format!("at most {max} keys, and there would be {}", after.keys),
            (None, Some(max)) => format!("at most {max} bytes of values, and there would be {}", after.bytes),
            (None, None) => return Ok(None),
        };
        let detail = format!("{} there may be {what}; delete something, or have the quota raised", rule.place());
        Ok(Some(Problem::new(ErrorCode::QuotaExceeded, detail)))
    }

    /// The same with other limits. What is used of a prefix that had a quota before is known.
    pub(super) fn with(&self, limits: Arc<Limits>) -> Self {
        let known = |rule: &Rule| self.quotas.iter().find(|q| self.rule(q).is_some_and(|r| r.prefix == rule.prefix));
        let quotas = limits.rules().iter().enumerate().filter(|(_, rule)| rule.is_quota());
        let quotas = quotas
            .map(|(at, rule)| match known(rule) {
                Some(quota) if quota.counted != Counted::Failed => Quota { rule: at, ..quota.clone() },
                _ => Quota { rule: at, used: Used::default(), counted: Counted::UpTo(Vec::new(), Instant::now()) },
            })
            .collect();
        Self { limits, quotas }
    }

    /// Whether there are records left to count.
    fn counts(&self) -> bool {
        self.quotas.iter().any(|q| matches!(q.counted, Counted::UpTo(..)))
    }

    /// Counts a portion of the first quota that is not counted yet.
    fn count_portion(&mut self, engine: &dyn Engine) {
        let limits = Arc::clone(&self.limits);
        let Some(quota) = self.quotas.iter_mut().find(|q| matches!(q.counted, Counted::UpTo(..))) else { return };
        let (Some(rule), Counted::UpTo(place, began)) = (limits.rules().get(quota.rule), &quota.counted) else { return };
        let (place, began) = (place.clone(), *began);
        match portion(engine, &rule.prefix, &place) {
            Ok((found, next)) => {
                quota.used = quota.used.after(found);
                let ended = next.is_none();
                quota.counted = next.map_or(Counted::All, |next| Counted::UpTo(next, began));
                if ended {
                    let (Used { keys, bytes }, ms) = (quota.used, began.elapsed().as_millis());
                    tracing::info!(prefix = rule.shown(), keys, bytes, ms, "the keys of a quota are counted");
                }
            }
            Err(error) => {
                tracing::error!(prefix = rule.shown(), %error, "the keys of a quota cannot be counted; nothing is stored under the prefix");
                quota.counted = Counted::Failed;
            }
        }
    }
}

/// What the next records of a prefix use, and the last one's place; none: these were all.
fn portion(engine: &dyn Engine, prefix: &[u8], place: &[u8]) -> Result<(Change, Option<Vec<u8>>), CatalogError> {
    let first = keyspace::record_at(prefix);
    let end = keyspace::successor(&first);
    let from = if place.is_empty() { Bound::Included(first.as_slice()) } else { Bound::Excluded(place) };
    let pairs = engine.scan(from, end.as_deref().map_or(Bound::Unbounded, Bound::Excluded), PORTION)?;
    let mut found = Change::default();
    for (_, value) in &pairs {
        found = found.plus(Change::of(None, Some(decode::<Record>(value, "record")?.len)));
    }
    let more = pairs.len() == PORTION;
    Ok((found, pairs.into_iter().next_back().map(|(at, _)| at).filter(|_| more)))
}

/// What a batch changes of the quotas, as it is made up.
#[derive(Clone, Default)]
pub(super) struct Draft {
    ledger: Arc<Ledger>,
    /// One for each quota, where there are any.
    changes: Vec<Change>,
    /// The operation is judged as a whole, by [`Draft::refusal_since`].
    pub(super) judged_at_the_end: bool,
}

impl Draft {
    fn new(ledger: Arc<Ledger>) -> Self {
        Self { changes: vec![Change::default(); ledger.quotas.len()], ledger, judged_at_the_end: false }
    }

    /// A record is changed: lengths before and after.
    pub(super) fn note(&mut self, key: &Key, before: Option<u64>, after: Option<u64>) {
        let before = if lab::has(Bug::ReplacedStillCounts) && after.is_some() { before.map(|_| 0) } else { before };
        for (quota, change) in self.ledger.quotas.iter().zip(&mut self.changes) {
            let counted = match &quota.counted {
                Counted::All => true,
                Counted::UpTo(place, _) => keyspace::record(key) <= *place,
                Counted::Failed => false,
            };
            if counted && self.ledger.covers(quota, key) {
                *change = change.plus(Change::of(before, after));
            }
        }
    }

    /// Whether a value may be stored, after what the batch has done so far.
    pub(super) fn refusal(
        &self,
        key: &Key,
        len: u64,
        content_type: Option<&str>,
        before: Option<u64>,
    ) -> Result<Option<Problem>, CatalogError> {
        if let Err(problem) = self.ledger.limits.check(key, Some(len), content_type) {
            return Ok(Some(problem));
        }
        if self.judged_at_the_end {
            return Ok(None);
        }
        for (quota, earlier) in self.ledger.quotas.iter().zip(&self.changes).filter(|(q, _)| self.ledger.covers(q, key)) {
            let earlier = if lab::has(Bug::QuotaPlaceTwice) { Change::default() } else { *earlier };
            if let Some(problem) = self.ledger.refusal(quota, earlier, Change::of(before, Some(len)))? {
                return Ok(Some(problem));
            }
        }
        Ok(None)
    }

    /// Whether what was done since `before`, taken together, exceeds a quota. The problem names those of `keys`, which were stored,
    /// that count against it.
    pub(super) fn refusal_since<'k>(
        &self,
        before: &Self,
        keys: impl Iterator<Item = &'k Key> + Clone,
    ) -> Result<Option<Problem>, CatalogError> {
        let changes = self.changes.iter().zip(&before.changes);
        for (quota, (now, earlier)) in self.ledger.quotas.iter().zip(changes) {
            let of_quota = keys.clone().filter(|key| self.ledger.covers(quota, key));
            if of_quota.clone().next().is_none() {
                continue;
            }
            let change = Change { keys: now.keys - earlier.keys, bytes: now.bytes - earlier.bytes };
            if let Some(problem) = self.ledger.refusal(quota, *earlier, change)? {
                return Ok(Some(problem.of_keys(of_quota)));
            }
        }
        Ok(None)
    }
}

/// Limits that are to be taken, and who waits for that.
type Wanted = (Arc<Limits>, oneshot::Sender<()>);

/// The ledger, which the committer alone changes.
#[derive(Default)]
pub(super) struct Quotas {
    ledger: Mutex<Arc<Ledger>>,
    wanted: Mutex<Option<Wanted>>,
    wake: Notify,
}

impl Quotas {
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&lock(&self.ledger))
    }

    /// What the next batch is made up with.
    pub(super) fn draft(&self) -> Draft {
        Draft::new(self.ledger())
    }

    /// Returns when the committer has to call [`Quotas::step`].
    pub(super) async fn work(&self) {
        while lock(&self.wanted).is_none() && !lock(&self.ledger).counts() {
            self.wake.notified().await;
        }
    }

    /// Takes new limits, and counts a portion of what is not counted. The committer's, while no batch is under way.
    pub(super) fn step(&self, engine: &dyn Engine) {
        let mut ledger = self.ledger();
        let wanted = lock(&self.wanted).take();
        if wanted.is_none() && !ledger.counts() {
            return;
        }
        let mut taken = None;
        if let Some((limits, waiting)) = wanted {
            ledger = Arc::new(ledger.with(limits));
            taken = Some(waiting);
        }
        Arc::make_mut(&mut ledger).count_portion(engine);
        *lock(&self.ledger) = ledger;
        // Whoever waited may have gone away.
        let _gone = taken.map(|waiting| waiting.send(()));
    }

    /// The batch is durable.
    pub(super) fn commit(&self, draft: &Draft) {
        if draft.changes.iter().all(|change| *change == Change::default()) {
            return;
        }
        let mut ledger = self.ledger();
        for (quota, change) in Arc::make_mut(&mut ledger).quotas.iter_mut().zip(&draft.changes) {
            quota.used = quota.used.after(*change);
        }
        *lock(&self.ledger) = ledger;
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalog {
    /// The limits, and what is used of the quotas.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.0.core.quotas.ledger()
    }

    /// Holds all commits from now on to these limits. Quotas that are new are counted first, see [`Usage::counted`].
    ///
    /// # Errors
    /// [`CatalogError::Closed`].
    pub async fn set_limits(&self, limits: Arc<Limits>) -> Result<(), CatalogError> {
        let (waiting, taken) = oneshot::channel();
        *lock(&self.0.core.quotas.wanted) = Some((limits, waiting));
        self.0.core.quotas.wake.notify_one();
        taken.await.map_err(|_| CatalogError::Closed)
    }
}
