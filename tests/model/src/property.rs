//! What must hold.

use crate::Cluster;
use crate::bounds::Op;
use crate::rebuild::rebuild;
use crate::state::{Answer, Client, State, Task, VOLUMES, Version, has, members};
use stateright::Property;

/// The name of the one property that is to be possible, not to hold always.
pub const AT_REST: &str = "all is quiet in the end";

/// All properties.
pub fn all() -> Vec<Property<Cluster>> {
    vec![
        Property::always("what a record names is there", named_copies_are_there),
        Property::always("what is acknowledged is in the history of the key", acknowledged_is_durable),
        Property::always("what is refused is not, and no version is committed twice", refused_stays_refused),
        Property::always("a create finds nothing before it", creates_are_alone),
        Property::always("a read brings what was committed, and current while it went on", |_, s: &State| !s.wrongs.read),
        Property::always("what a record names can be read", |m: &Cluster, s: &State| m.bounds.bad_copies > 0 || !s.wrongs.unreadable),
        Property::always("drop is final", |_, s: &State| !s.wrongs.drop_not_final),
        Property::always("no volume removes a copy that the record names", |_, s: &State| !s.wrongs.dropped_named),
        Property::always("no copy that is named is on a reclaim list", no_named_copy_is_reclaimed),
        Property::always("a rebuild brings the key as it is, or with a write in doubt", rebuild_is_right),
        Property::always("when all is quiet, copies and records agree", quiet_is_clean),
        Property::sometimes(AT_REST, is_quiet),
    ]
}

fn position(s: &State, version: Version) -> Option<usize> {
    s.master.disk.history.iter().position(|v| *v == Some(version))
}

fn named_copies_are_there(_: &Cluster, s: &State) -> bool {
    let Some(record) = s.master.disk.record else { return true };
    let there = |v: usize| s.volumes[v].copies[usize::from(record.version)].is_value() || has(s.volumes[v].bad, record.version);
    members(record.replicas).all(|v| there(usize::from(v)))
}

fn acknowledged_is_durable(m: &Cluster, s: &State) -> bool {
    m.numbers().all(|w| {
        let write = &s.writes[usize::from(w)];
        let since = usize::from(write.since);
        write.client != Client::Acknowledged
            || match m.op(w) {
                Op::Delete => s.master.disk.history.iter().skip(since).any(Option::is_none),
                Op::Create | Op::Replace => position(s, w).is_some_and(|i| i >= since),
            }
    })
}

fn refused_stays_refused(m: &Cluster, s: &State) -> bool {
    m.numbers().all(|w| {
        let times = s.master.disk.history.iter().filter(|v| **v == Some(w)).count();
        let most = usize::from(s.writes[usize::from(w)].client != Client::Refused);
        times <= most
    })
}

fn creates_are_alone(m: &Cluster, s: &State) -> bool {
    let creates = m.numbers().filter(|w| m.op(*w) == Op::Create);
    creates.filter_map(|w| position(s, w)).all(|i| i == 0 || s.master.disk.history[i - 1].is_none())
}

fn no_named_copy_is_reclaimed(_: &Cluster, s: &State) -> bool {
    let Some(record) = s.master.disk.record else { return true };
    members(record.replicas).all(|v| s.master.disk.reclaim[usize::from(v)][usize::from(record.version)].is_none())
}

/// A write in doubt is one whose client waits or has no answer: a rebuild may bring it, or what was before it.
fn rebuild_is_right(m: &Cluster, s: &State) -> bool {
    // After a power cut a commit may be known to no volume until it has asked.
    if s.power_was_cut && !is_quiet(m, s) {
        return true;
    }
    // A fetched copy is not known to be committed until its volume is told: with the other one bad it is not whole.
    if s.volumes.iter().any(|v| v.bad != 0) {
        return true;
    }
    let found = rebuild(&m.bounds, s);
    let in_doubt = |w: u8| w >= m.numbers().start && matches!(s.writes[usize::from(w)].client, Client::Waiting | Client::Unknown);
    let doubtful = |entry: &Option<Version>| match entry {
        Some(version) => in_doubt(*version),
        None => m.numbers().any(|w| m.op(w) == Op::Delete && in_doubt(w)),
    };
    let history = &s.master.disk.history;
    let certain = history.iter().rposition(|entry| !doubtful(entry)).map_or(0, |i| i + 1);
    let possible = (certain..=history.len()).map(|n| n.checked_sub(1).and_then(|i| history[i]));
    possible.into_iter().any(|p| p == found) || found.is_some_and(in_doubt)
}

fn is_quiet(m: &Cluster, s: &State) -> bool {
    let mut steps = Vec::new();
    if s.now < m.bounds.ticks || !s.network.is_empty() {
        return false;
    }
    m.progress(s, &mut steps);
    steps.is_empty()
}

fn quiet_is_clean(m: &Cluster, s: &State) -> bool {
    if !is_quiet(m, s) {
        return true;
    }
    let record = s.master.disk.record;
    let idle = s.master.orders.is_empty()
        && s.master.reclaiming.iter().all(Option::is_none)
        && s.master.disk.reclaim.iter().flatten().all(Option::is_none)
        && s.volumes.iter().all(|v| v.tasks.iter().all(|t| *t == Task::None));
    let agrees = |v: usize, version: Version| {
        let named = record.is_some_and(|r| r.version == version && has(r.replicas, v as u8));
        s.volumes[v].copies[usize::from(version)].is_value() == (named && !has(s.volumes[v].bad, version))
    };
    let settled = |w: u8| s.writes[usize::from(w)].client != Client::Waiting;
    let decided = |w: u8| !matches!(s.master.disk.decisions[usize::from(w)], Some((at, Answer::Refused)) if at > s.now);
    idle && (0..VOLUMES).all(|v| (0..m.versions()).all(|version| agrees(v, version))) && m.numbers().all(|w| settled(w) && decided(w))
}
