//! What is to be done about one record. Pure: no I/O, no clock.

use crate::catalog::Record;
use crate::placement::{self, Candidate};
use kvdb_protocol::VolumeId;
use kvdb_protocol::lab::{self, Bug};
use rand::Rng;
use std::collections::HashMap;

/// How far a volume can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In touch.
    Up,
    /// Down, and not yet for long: its copies count.
    Away,
    /// Down for long: its copies do not count, and are removed should it come back.
    Gone,
    /// To be emptied. Its copies can be read while it is up, and do not count.
    Leaving {
        /// In touch.
        up: bool,
    },
}

/// A volume at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub standing: Standing,
    /// As of [`Candidate`], for those that are up.
    pub place: Candidate,
    pub used_bytes: u64,
}

/// The volumes at this moment; those that are not in it are gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes {
    pub seen: HashMap<VolumeId, Seen>,
    /// Replicas that a value is to have.
    pub wanted: usize,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as it should be.
    Fine,
    /// `target` fetches the value from one of `sources`; then the volumes are `after`, or stay the same where a bad copy is made anew.
    Copy { target: VolumeId, sources: Vec<VolumeId>, after: Vec<VolumeId> },
    /// Enough copies are there without those left out.
    Drop { after: Vec<VolumeId> },
    /// No good copy can be read now.
    Unreachable,
    /// No volume can take another copy.
    NoPlace,
}

impl Volumes {
    fn standing(&self, id: VolumeId) -> Standing {
        self.seen.get(&id).map_or(Standing::Gone, |s| s.standing)
    }

    fn host(&self, id: VolumeId) -> Option<&str> {
        self.seen.get(&id).map(|s| s.place.host.as_str())
    }

    fn is_up(&self, id: VolumeId) -> bool {
        matches!(self.standing(id), Standing::Up | Standing::Leaving { up: true })
    }

    /// Copies that would survive if nothing more were lost: how endangered a value is.
    pub fn safe_copies(&self, record: &Record, bad: &dyn Fn(VolumeId) -> bool) -> usize {
        let safe = |v: &&VolumeId| !bad(**v) && !matches!(self.standing(**v), Standing::Gone | Standing::Leaving { up: false });
        record.replicas.iter().filter(safe).count()
    }

    /// What to do about a record. `bad` tells of which volumes the copy is known to be bad.
    pub fn step(&self, record: &Record, bad: &dyn Fn(VolumeId) -> bool, rng: &mut impl Rng) -> Step {
        let counts = |v: &VolumeId| !bad(*v) && matches!(self.standing(*v), Standing::Up | Standing::Away);
        let (keep, lost): (Vec<VolumeId>, Vec<VolumeId>) = record.replicas.iter().partition(|v| counts(v));
        if keep.len() >= self.wanted {
            return self.trimmed(record, keep);
        }
        let usable = |v: &VolumeId| (!bad(*v) || lab::has(Bug::CopiedFromBad)) && self.is_up(*v);
        let sources: Vec<VolumeId> = record.replicas.iter().copied().filter(usable).collect();
        if sources.is_empty() {
            return Step::Unreachable;
        }
        let anew = lost.iter().copied().find(|v| bad(*v) && self.standing(*v) == Standing::Up && self.can_take(*v, record.len));
        if let Some(target) = anew {
            return Step::Copy { target, sources, after: record.replicas.clone() };
        }
        let Some(target) = self.place(record, &keep, rng) else { return Step::NoPlace };
        // One that cannot be counted on gives way; the others stay listed, in case they come back before they are replaced.
        let missing_after = self.wanted - keep.len() - 1;
        let stay = if missing_after == 0 { 0 } else { missing_after.min(lost.len().saturating_sub(1)) };
        let after = keep.iter().copied().chain([target]).chain(lost.into_iter().rev().take(stay)).collect();
        Step::Copy { target, sources, after }
    }

    /// Enough copies count: the others, and those beyond what is wanted, go.
    fn trimmed(&self, record: &Record, keep: Vec<VolumeId>) -> Step {
        let (up, away): (Vec<VolumeId>, Vec<VolumeId>) = keep.into_iter().partition(|v| self.standing(*v) == Standing::Up);
        // The fullest go first, but the first replica on each host stays before a second one does.
        let mut up = up;
        up.sort_by_key(|v| std::cmp::Reverse(self.seen.get(v).map_or(0, |s| s.place.free_bytes)));
        let (mut first, mut second): (Vec<VolumeId>, Vec<VolumeId>) = (Vec::new(), Vec::new());
        for v in up {
            let known = first.iter().any(|f| self.host(*f) == self.host(v));
            if known { second.push(v) } else { first.push(v) }
        }
        let chosen: Vec<VolumeId> = first.into_iter().chain(second).chain(away).take(self.wanted).collect();
        if chosen.len() == record.replicas.len() {
            return Step::Fine;
        }
        Step::Drop { after: record.replicas.iter().copied().filter(|v| chosen.contains(v)).collect() }
    }

    fn can_take(&self, id: VolumeId, len: u64) -> bool {
        self.seen.get(&id).is_some_and(|s| s.place.writable && s.place.free_bytes > len)
    }

    /// A volume for one more copy, on another host than `keep` where there is one.
    fn place(&self, record: &Record, keep: &[VolumeId], rng: &mut impl Rng) -> Option<VolumeId> {
        let open = |s: &&Seen| s.standing == Standing::Up && !record.replicas.contains(&s.place.id);
        let all: Vec<Candidate> = self.seen.values().filter(open).map(|s| s.place.clone()).collect();
        let hosts: Vec<&str> = keep.iter().filter_map(|v| self.host(*v)).collect();
        let elsewhere: Vec<Candidate> = all.iter().filter(|c| !hosts.contains(&c.host.as_str())).cloned().collect();
        let mut choose = |from: &[Candidate]| placement::choose(from, 1, Some(record.len), &[], rng).ok()?.first().copied();
        choose(&elsewhere).or_else(|| choose(&all))
    }

    /// The move of a copy from one volume to another, if it may be made.
    pub fn shift(&self, record: &Record, from: VolumeId, to: VolumeId) -> Option<Step> {
        if !record.replicas.contains(&from) || record.replicas.contains(&to) || !self.can_take(to, record.len) {
            return None;
        }
        if record.replicas.iter().any(|v| !matches!(self.standing(*v), Standing::Up)) {
            return None;
        }
        let crowded = record.replicas.iter().any(|v| *v != from && self.host(*v) == self.host(to));
        if crowded && self.host(from) != self.host(to) {
            return None;
        }
        let after = record.replicas.iter().map(|v| if *v == from { to } else { *v }).collect();
        Some(Step::Copy { target: to, sources: record.replicas.clone(), after })
    }

    /// The fullest and the emptiest volume, and the bytes that would make them equally full, where they differ by more than `threshold`
    /// (a share of their space, 0 to 1).
    // Shares of space need no exact arithmetic.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn imbalance(&self, threshold: f64) -> Option<(VolumeId, VolumeId, u64)> {
        let size = |s: &Seen| (s.used_bytes + s.place.free_bytes) as f64;
        let fill = |s: &Seen| if size(s) > 0.0 { s.used_bytes as f64 / size(s) } else { 0.0 };
        let up: Vec<&Seen> = self.seen.values().filter(|s| s.standing == Standing::Up).collect();
        let from = up.iter().max_by(|a, b| fill(a).total_cmp(&fill(b)))?;
        let to = up.iter().filter(|s| s.place.writable).min_by(|a, b| fill(a).total_cmp(&fill(b)))?;
        if fill(from) - fill(to) <= threshold {
            return None;
        }
        let bytes = (from.used_bytes as f64 * size(to) - to.used_bytes as f64 * size(from)) / (size(from) + size(to));
        Some((from.place.id, to.place.id, bytes as u64))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
