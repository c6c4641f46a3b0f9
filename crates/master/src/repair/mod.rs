//! Repair, drain and rebalance: every value has its replicas, on volumes that are to hold them.
//!
//! `plan` says what is to be done about one record (pure); `pass` goes over the records; `copy` has one
//! value fetched by another volume and changes its record; `audit` finds copies that a volume should hold and does
//! not; `progress` is what operators see. One task makes all copies, the most endangered values first.

mod audit;
mod copy;
mod pass;
pub(crate) mod plan;
mod progress;

use crate::catalog::Duty;
use crate::node::Node;
use kvdb_protocol::{Key, VersionId, VolumeId};
use plan::{Seen, Standing, Volumes};
use progress::Progress;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How often things are looked at without a kick.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause after something could not be done, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_MOST: Duration = Duration::from_secs(300);
/// Bad copies for which nothing could be done are looked at again so often.
const MEND_AGAIN: Duration = Duration::from_secs(30);
/// How often volumes whose comparison failed are compared again.
const AUDIT_PERIOD: Duration = Duration::from_secs(30);
/// Bad copies remembered. Beyond, their volumes are audited again later.
const MAX_BAD: usize = 100_000;
/// Strays remembered. Beyond, all records are looked at again.
const MAX_STRAYS: usize = 10_000;

/// What is known to be wrong, and how far repair is.
#[derive(Default)]
pub(crate) struct Repair {
    kick: Notify,
    audit_soon: Notify,
    todo: Mutex<Todo>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Todo {
    /// Copies that are bad or missing.
    bad: BTreeMap<(VersionId, VolumeId), Key>,
    /// Volumes whose index is to be compared with the catalog.
    audits: BTreeSet<VolumeId>,
    /// Keys whose present version was committed to a volume that is to be left, or that is down.
    strays: BTreeSet<Key>,
    /// There were too many of them to remember.
    many_strays: bool,
    /// Something was noted since it was last looked at.
    fresh: bool,
}

impl Repair {
    /// A volume came up: what it holds may differ from what the catalog names.
    pub fn volume_up(&self, id: VolumeId) {
        self.todo().audits.insert(id);
        self.audit_soon.notify_one();
        self.kick.notify_one();
    }

    /// Something changed.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// A volume cannot serve a copy that it should hold.
    pub fn note_bad(&self, volume: VolumeId, key: Key, version: VersionId) {
        let mut todo = self.todo();
        todo.fresh = true;
        if todo.bad.len() < MAX_BAD {
            todo.bad.insert((version, volume), key);
        } else {
            todo.audits.insert(volume);
        }
        drop(todo);
        self.kick.notify_one();
    }

    /// A value was committed to a volume that is to be left, or that is down: tickets live on for a while.
    pub fn note_stray(&self, key: Key) {
        let mut todo = self.todo();
        todo.fresh = true;
        if todo.strays.len() < MAX_STRAYS {
            todo.strays.insert(key);
        } else {
            todo.many_strays = true;
        }
    }

    fn take_strays(&self) -> BTreeSet<Key> {
        std::mem::take(&mut self.todo().strays)
    }

    /// For the status page.
    pub fn report(&self) -> serde_json::Value {
        let (bad, audits) = {
            let todo = self.todo();
            (todo.bad.len(), todo.audits.len())
        };
        self.progress().report(bad, audits)
    }

    fn is_bad(&self, version: VersionId, volume: VolumeId) -> bool {
        self.todo().bad.contains_key(&(version, volume))
    }

    fn bad(&self) -> Vec<(VersionId, VolumeId, Key)> {
        self.todo().bad.iter().map(|((version, volume), key)| (*version, *volume, key.clone())).collect()
    }

    fn mended(&self, version: VersionId, volume: VolumeId) {
        self.todo().bad.remove(&(version, volume));
    }

    fn next_audit(&self, up: impl Fn(VolumeId) -> bool) -> Option<VolumeId> {
        self.todo().audits.iter().copied().find(|v| up(*v))
    }

    fn take_fresh(&self) -> bool {
        std::mem::take(&mut self.todo().fresh)
    }

    fn audited(&self, volume: VolumeId) {
        self.todo().audits.remove(&volume);
    }

    fn todo(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repairs until aborted.
pub(crate) async fn repair_forever(node: Arc<Node>) {
    let (mut last, mut mended): (Option<Shape>, Option<Instant>) = (None, None);
    let mut pause = PAUSE_FIRST;
    loop {
        drop(timeout(PERIOD, node.repair.kick.notified()).await);
        let due = node.repair.take_fresh() || mended.is_none_or(|at| at.elapsed() > MEND_AGAIN);
        mended = if due { Some(Instant::now()) } else { mended };
        match round(&node, &mut last, due).await {
            Ok(()) => pause = PAUSE_FIRST,
            Err(error) => {
                tracing::warn!(%error, retry_in = ?pause, "repair goes on later");
                node.repair.progress().failed(&error);
                (last, mended) = (None, None);
                // What is found bad meanwhile can perhaps be mended at once.
                drop(timeout(pause, node.repair.kick.notified()).await);
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

async fn round(node: &Arc<Node>, last: &mut Option<Shape>, mend: bool) -> Result<(), String> {
    // A bad copy that cannot be mended must not hold back the others.
    let mended = if mend { pass::mend_bad(node).await } else { Ok(()) };
    let volumes = volumes(node);
    let shape = Shape::of(&volumes);
    let many_strays = std::mem::take(&mut node.repair.todo().many_strays);
    if many_strays || last.as_ref().is_none_or(|l| l.calls_for_a_pass(&shape)) {
        *last = pass::all(node, &shape).await?.map(|rest| Shape { rest, ..shape });
    } else if mended.is_ok() {
        pass::balance(node, &volumes).await?;
    }
    mended
}

/// Compares volumes that came up with the catalog, one at a time, until aborted.
pub(crate) async fn audit_forever(node: Arc<Node>) {
    loop {
        drop(timeout(AUDIT_PERIOD, node.repair.audit_soon.notified()).await);
        while let Some(volume) = node.repair.next_audit(|v| node.members.live().contains_key(&v)) {
            if let Err(error) = audit::audit(&node, volume).await {
                tracing::info!(%volume, %error, "a volume is compared with the catalog later");
                tokio::time::sleep(PAUSE_FIRST).await;
            }
        }
    }
}

/// The volumes at this moment.
fn volumes(node: &Node) -> Volumes {
    let (live, duties) = (node.members.live(), node.members.duties());
    let mut seen: std::collections::HashMap<VolumeId, Seen> = live
        .iter()
        .map(|(id, l)| {
            let standing = if duties.contains_key(id) { Standing::Leaving { up: true } } else { Standing::Up };
            (*id, Seen { standing, place: l.candidate(*id), used_bytes: l.status.used_bytes })
        })
        .collect();
    for id in node.members.known() {
        if seen.contains_key(&id) {
            continue;
        }
        let standing = match duties.get(&id) {
            Some(Duty::Removed) => Standing::Gone,
            Some(Duty::Drain) => Standing::Leaving { up: false },
            None if node.members.down_for(id) > node.config.repair_after => Standing::Gone,
            None => Standing::Away,
        };
        let place = crate::placement::Candidate { id, host: String::new(), free_bytes: 0, busy: 0, writable: false };
        seen.insert(id, Seen { standing, place, used_bytes: 0 });
    }
    Volumes { seen, wanted: node.replicas() }
}

/// What a pass over all records depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    /// Volumes that are gone or leaving.
    lost: BTreeSet<VolumeId>,
    /// Those that are up and to stay.
    up: BTreeSet<VolumeId>,
    wanted: usize,
    /// Values that the last pass could do nothing for.
    rest: u64,
}

impl Shape {
    fn of(volumes: &Volumes) -> Self {
        let with = |wanted: &dyn Fn(Standing) -> bool| volumes.seen.iter().filter(|(_, s)| wanted(s.standing)).map(|(id, _)| *id).collect();
        Self {
            lost: with(&|s| matches!(s, Standing::Gone | Standing::Leaving { .. })),
            up: with(&|s| s == Standing::Up),
            wanted: volumes.wanted,
            rest: 0,
        }
    }

    /// Whether what has changed since may leave values with too few copies, or let more be done.
    fn calls_for_a_pass(&self, now: &Self) -> bool {
        self.lost != now.lost || self.wanted != now.wanted || (self.rest > 0 && self.up != now.up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_records_are_looked_at_when_volumes_are_lost_or_when_one_came_for_what_had_no_place() {
        let id = |n| VolumeId::from_bytes([n; 16]);
        let shape = |lost: &[u8], up: &[u8], wanted, rest| Shape {
            lost: lost.iter().map(|n| id(*n)).collect(),
            up: up.iter().map(|n| id(*n)).collect(),
            wanted,
            rest,
        };
        let before = shape(&[], &[1, 2, 3], 2, 0);
        assert!(!before.calls_for_a_pass(&shape(&[], &[1, 2, 3], 2, 0)));
        assert!(!before.calls_for_a_pass(&shape(&[], &[1, 2], 2, 0)), "one is away, and not yet for long");
        assert!(before.calls_for_a_pass(&shape(&[3], &[1, 2], 2, 0)));
        assert!(before.calls_for_a_pass(&shape(&[], &[1, 2, 3], 3, 0)));
        let stuck = shape(&[3], &[1], 2, 7);
        assert!(stuck.calls_for_a_pass(&shape(&[3], &[1, 2], 2, 0)));
        assert!(!stuck.calls_for_a_pass(&shape(&[3], &[1], 2, 0)));
    }
}
