//! Passes over the records: count, then copy, the most endangered first.

use super::copy::carry_out;
use super::plan::{Step, Volumes};
use super::progress::{Found, Phase};
use super::{Shape, volumes};
use crate::catalog::Record;
use crate::node::Node;
use kvdb_protocol::{Key, VolumeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Records looked at together.
const PAGE: usize = 512;
/// Copies at a time.
const AT_A_TIME: usize = 4;
/// Paced like so many bytes, besides its own: what a copy costs whatever its length.
const COST_OF_A_COPY: u64 = 64 << 10;

/// Mends the copies that are known to be bad, and strays, the most endangered first.
pub(super) async fn mend_bad(node: &Arc<Node>) -> Result<(), String> {
    let seen = volumes(node);
    let mut found: Vec<(usize, Key, Record)> = Vec::new();
    for (version, volume, key) in node.repair.bad() {
        let record = node.catalog.lookup(&key).await.map_err(|e| e.to_string())?;
        let Some(record) = record.filter(|r| r.version == version && r.replicas.contains(&volume)) else {
            node.repair.mended(version, volume);
            continue;
        };
        let (safe, step) = look(node, &seen, &record);
        // The others wait for a volume to come back, or for room.
        if matches!(step, Step::Copy { .. } | Step::Drop { .. }) {
            found.push((safe, key, record));
        }
    }
    for key in node.repair.take_strays() {
        if let Some(record) = node.catalog.lookup(&key).await.map_err(|e| e.to_string())?
            && let (safe, Step::Copy { .. } | Step::Drop { .. }) = look(node, &seen, &record)
        {
            found.push((safe, key, record));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    // Once each, also where it was looked at twice with different results: two orders for a version at once would
    // take each other's copies.
    found.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    found.dedup_by(|a, b| a.1 == b.1);
    found.sort_by_key(|f| f.0);
    node.repair.progress().begin(Phase::Copying);
    let mut work = Work::new(node, None);
    for (_, key, record) in found {
        work.begin(key, record, None).await;
    }
    work.end(Phase::Idle).await
}

/// Brings all records to their replicas. Returns how many it could do nothing for; none where the volumes have
/// changed meanwhile, so that what is most endangered has to be looked for anew.
pub(super) async fn all(node: &Arc<Node>, shape: &Shape) -> Result<Option<u64>, String> {
    let found = count(node).await?;
    let classes: Vec<usize> = found.to_copy.keys().copied().collect();
    let rest = found.unreachable.values + found.no_place.values;
    let work = !classes.is_empty() || found.to_drop.values > 0;
    node.repair.progress().found = found;
    if rest > 0 {
        tracing::warn!(values = rest, "values have fewer replicas than they should, and nothing can be done now: see /-/status");
    }
    if !work {
        return Ok(Some(rest));
    }
    node.repair.progress().begin(Phase::Copying);
    let mut failed = None;
    for class in classes {
        match copy_class(node, shape, class).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // One value that cannot be copied must not hold back those that are less endangered.
            Err(why) => failed = Some(why),
        }
    }
    drop_surplus(node).await?;
    if let Some(why) = failed {
        return Err(why);
    }
    let left = count(node).await?;
    let (again, rest) = (!left.to_copy.is_empty() || left.to_drop.values > 0, left.unreachable.values + left.no_place.values);
    node.repair.progress().found = left;
    // Written, or moved, while others were copied.
    Ok((!again).then_some(rest))
}

/// What is to be done, by how endangered it is.
async fn count(node: &Arc<Node>) -> Result<Found, String> {
    node.repair.progress().begin(Phase::Counting);
    let mut found = Found::default();
    let mut pages = Pages::new(node);
    while let Some((seen, page)) = pages.next().await? {
        for (_, record) in page {
            let (safe, step) = look(node, &seen, &record);
            match step {
                Step::Fine => {}
                Step::Copy { .. } => found.to_copy.entry(safe).or_default().add(record.len),
                Step::Drop { .. } => found.to_drop.add(record.len),
                Step::Unreachable => found.unreachable.add(record.len),
                Step::NoPlace => found.no_place.add(record.len),
            }
        }
    }
    node.repair.progress().begin(Phase::Idle);
    Ok(found)
}

/// Copies the values that have so many safe copies. False where the volumes changed.
async fn copy_class(node: &Arc<Node>, shape: &Shape, class: usize) -> Result<bool, String> {
    let mut work = Work::new(node, Some(class));
    let mut pages = Pages::new(node);
    while let Some((seen, page)) = pages.next().await? {
        let now = Shape::of(&seen);
        if (&now.lost, now.wanted) != (&shape.lost, shape.wanted) {
            work.end(Phase::Copying).await?;
            return Ok(false);
        }
        for (key, record) in page {
            let (safe, step) = look(node, &seen, &record);
            if safe == class && matches!(step, Step::Copy { .. }) {
                work.begin(key, record, Some(step)).await;
            }
        }
    }
    work.end(Phase::Copying).await?;
    Ok(true)
}

async fn drop_surplus(node: &Arc<Node>) -> Result<(), String> {
    if node.repair.progress().found.to_drop.values == 0 {
        return Ok(());
    }
    let mut pages = Pages::new(node);
    while let Some((seen, page)) = pages.next().await? {
        for (key, record) in page {
            if let (_, step @ Step::Drop { .. }) = look(node, &seen, &record) {
                carry_out(node, &key, &record, step).await?;
            }
        }
    }
    Ok(())
}

/// Moves copies from the fullest volume to the emptiest, where they differ by much.
pub(super) async fn balance(node: &Arc<Node>, seen: &Volumes) -> Result<(), String> {
    let threshold = f64::from(node.config.rebalance_percent) / 100.0;
    if threshold <= 0.0 {
        return Ok(());
    }
    let Some((from, to, bytes)) = seen.imbalance(threshold) else { return Ok(()) };
    // What is to be removed there still counts as used.
    if node.catalog.reclaim_pending().await.contains_key(&from) {
        return Ok(());
    }
    tracing::info!(%from, %to, bytes, "rebalance: copies move to an emptier volume");
    node.repair.progress().to_move.bytes = bytes;
    node.repair.progress().begin(Phase::Balancing);
    let moved = shift(node, from, to, bytes).await;
    node.repair.progress().to_move = Default::default();
    node.repair.progress().begin(Phase::Idle);
    moved
}

async fn shift(node: &Arc<Node>, from: VolumeId, to: VolumeId, bytes: u64) -> Result<(), String> {
    let mut work = Work::new(node, None);
    let (mut pages, mut left) = (Pages::new(node), bytes);
    let before = Shape::of(&volumes(node));
    'pages: while let Some((seen, page)) = pages.next().await? {
        if Shape::of(&seen) != before || !node.repair.bad().is_empty() {
            break;
        }
        for (key, record) in page {
            // One that is longer than what is left would only turn the difference round.
            if record.len > left {
                continue;
            }
            if let Some(step) = seen.shift(&record, from, to) {
                left -= record.len;
                work.begin(key, record, Some(step)).await;
            }
            if left == 0 {
                break 'pages;
            }
        }
    }
    work.end(Phase::Idle).await?;
    // The volumes' next status tells what came of it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

fn look(node: &Node, seen: &Volumes, record: &Record) -> (usize, Step) {
    let bad = |v| node.repair.is_bad(record.version, v);
    (seen.safe_copies(record, &bad), seen.step(record, &bad, &mut rand::rng()))
}

/// All records, page by page, with the volumes as they are by then. Expired ones are left out.
struct Pages<'a> {
    node: &'a Node,
    after: Option<Key>,
}

impl<'a> Pages<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, after: None }
    }

    async fn next(&mut self) -> Result<Option<(Volumes, Vec<(Key, Record)>)>, String> {
        let mut page = self.node.catalog.records(self.after.take(), PAGE).await.map_err(|e| e.to_string())?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        self.after = Some(last.clone());
        let now = self.node.catalog.expiry_now();
        page.retain(|(_, record)| !record.expired(now));
        Ok(Some((volumes(self.node), page)))
    }
}

/// Copies under way: a few at a time, and so many bytes a second.
struct Work<'a> {
    node: &'a Arc<Node>,
    class: Option<usize>,
    tasks: JoinSet<Result<(), String>>,
    /// When the next may begin.
    next: Instant,
    failed: Option<String>,
}

impl<'a> Work<'a> {
    fn new(node: &'a Arc<Node>, class: Option<usize>) -> Self {
        Self { node, class, tasks: JoinSet::new(), next: Instant::now(), failed: None }
    }

    /// Begins a copy, once there is a place for it. Without a step, it is planned by then.
    async fn begin(&mut self, key: Key, record: Record, step: Option<Step>) {
        while self.tasks.len() >= AT_A_TIME {
            self.one_ended().await;
        }
        let step = step.unwrap_or_else(|| look(self.node, &volumes(self.node), &record).1);
        if matches!(step, Step::Copy { .. }) {
            tokio::time::sleep_until(self.next).await;
            self.next = self.next.max(Instant::now()) + pace(record.len, self.node.config.repair_bytes_per_second);
        }
        let (node, class) = (self.node.clone(), self.class);
        self.tasks.spawn(async move {
            match one(&node, &key, &record, step, class).await {
                Ok(()) => Ok(()),
                Err(why) => {
                    tracing::warn!(%key, version = %record.version, error = %why, "a replica was not made; it is tried again");
                    Err(why)
                }
            }
        });
    }

    async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(Ok(()))) | None => {}
            Some(Ok(Err(why))) => self.failed = Some(why),
            Some(Err(died)) => self.failed = Some(died.to_string()),
        }
    }

    /// Waits for what is under way.
    async fn end(mut self, then: Phase) -> Result<(), String> {
        while !self.tasks.is_empty() {
            self.one_ended().await;
        }
        self.node.repair.progress().begin(then);
        self.failed.map_or(Ok(()), Err)
    }
}

async fn one(node: &Arc<Node>, key: &Key, record: &Record, step: Step, class: Option<usize>) -> Result<(), String> {
    let target = match &step {
        Step::Copy { target, .. } => Some(*target),
        Step::Unreachable => return Err("no good copy can be read".into()),
        Step::NoPlace => return Err("no volume can take another copy".into()),
        Step::Fine | Step::Drop { .. } => None,
    };
    let done = carry_out(node, key, record, step).await?;
    let Some(target) = target.filter(|_| done) else { return Ok(()) };
    if node.repair.is_bad(record.version, target) {
        node.repair.mended(record.version, target);
    }
    node.repair.progress().copied(class, record.len);
    Ok(())
}

/// How long copying so many bytes may take at this rate.
// A pace needs no exact arithmetic.
#[allow(clippy::cast_precision_loss)]
fn pace(bytes: u64, per_second: u64) -> Duration {
    Duration::from_secs_f64((bytes + COST_OF_A_COPY) as f64 / per_second.max(1) as f64)
}
