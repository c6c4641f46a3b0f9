//! How far repair is, for operators.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// A number of values, and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Amount {
    pub values: u64,
    pub bytes: u64,
}

impl Amount {
    pub fn add(&mut self, bytes: u64) {
        self.values += 1;
        self.bytes += bytes;
    }

    pub fn take(&mut self, bytes: u64) {
        self.values = self.values.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What a look at all records found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// By the number of copies that are safe: what is to be copied.
    pub to_copy: BTreeMap<usize, Amount>,
    /// Names that are to be dropped without a copy.
    pub to_drop: Amount,
    /// No good copy can be read.
    pub unreachable: Amount,
    /// There is no place for another copy.
    pub no_place: Amount,
}

/// What repair is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// Looking at all records.
    Counting,
    /// Making copies that are missing, or that are to leave a volume.
    Copying,
    /// Moving copies to emptier volumes.
    Balancing,
}

/// How far repair is.
#[derive(Default)]
pub(super) struct Progress {
    pub phase: Phase,
    pub found: Found,
    /// Still to be moved for balance.
    pub to_move: Amount,
    /// Copied since the master started.
    pub copied: Amount,
    pub failures: u64,
    pub last_error: Option<String>,
    /// When the present work began, and what was copied until then.
    begun: Option<(Instant, u64)>,
}

impl Progress {
    pub fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.begun = match phase {
            Phase::Copying | Phase::Balancing => self.begun.or(Some((Instant::now(), self.copied.bytes))),
            _ => None,
        };
        tell(self);
    }

    /// A value of this length has a copy more; of those with so many safe copies.
    pub fn copied(&mut self, safe: Option<usize>, bytes: u64) {
        self.copied.add(bytes);
        match safe.and_then(|s| self.found.to_copy.get_mut(&s)) {
            Some(amount) => amount.take(bytes),
            None => self.to_move.take(bytes),
        }
        metrics::counter!("kvdb_repair_copied_bytes_total").increment(bytes);
        metrics::counter!("kvdb_repair_copied_values_total").increment(1);
        tell(self);
    }

    pub fn failed(&mut self, error: &str) {
        self.failures += 1;
        self.last_error = Some(error.to_string());
        metrics::counter!("kvdb_repair_failures_total").increment(1);
    }

    fn remaining(&self) -> Amount {
        let copies = self.found.to_copy.values().copied().chain([self.to_move]);
        copies.fold(Amount::default(), |a, b| Amount { values: a.values + b.values, bytes: a.bytes + b.bytes })
    }

    /// Bytes a second since the present work began.
    // A rate needs no exact arithmetic.
    #[allow(clippy::cast_precision_loss)]
    fn rate(&self) -> Option<f64> {
        let (since, before) = self.begun?;
        let seconds = since.elapsed().as_secs_f64();
        let bytes = self.copied.bytes.saturating_sub(before);
        (seconds > 0.0 && bytes > 0).then(|| bytes as f64 / seconds)
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn report(&self, bad: usize, audits: usize) -> Value {
        let remaining = self.remaining();
        let seconds = self.rate().map(|rate| (remaining.bytes as f64 / rate).ceil());
        json!({
            "phase": self.phase,
            "remaining": remaining,
            "remaining_by_safe_copies": self.found.to_copy,
            "bytes_per_second": self.rate().map(f64::round),
            "seconds_left": seconds,
            "to_drop": self.found.to_drop,
            "unreachable": self.found.unreachable,
            "no_place": self.found.no_place,
            "bad_copies": bad,
            "volumes_to_audit": audits,
            "copied": self.copied,
            "failures": self.failures,
            "last_error": self.last_error,
        })
    }
}

// Gauges are floating point by nature.
#[allow(clippy::cast_precision_loss)]
fn tell(progress: &Progress) {
    let remaining = progress.remaining();
    metrics::gauge!("kvdb_repair_remaining_bytes").set(remaining.bytes as f64);
    metrics::gauge!("kvdb_repair_remaining_values").set(remaining.values as f64);
    metrics::gauge!("kvdb_repair_unreachable_values").set(progress.found.unreachable.values as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_shrinks_with_each_copy_and_the_rate_and_time_follow() {
        let mut p = Progress::default();
        p.found.to_copy.insert(1, Amount { values: 2, bytes: 300 });
        p.found.to_copy.insert(2, Amount { values: 1, bytes: 50 });
        p.begin(Phase::Copying);
        assert_eq!(p.remaining(), Amount { values: 3, bytes: 350 });
        p.copied(Some(1), 100);
        assert_eq!(p.remaining(), Amount { values: 2, bytes: 250 });
        p.begun = Some((Instant::now() - std::time::Duration::from_secs(10), 0));
        let report = p.report(4, 1);
        assert_eq!((&report["bytes_per_second"], &report["bad_copies"]), (&json!(10.0), &json!(4)));
        assert!((25.0..=26.0).contains(&report["seconds_left"].as_f64().unwrap()), "{report}");
        assert_eq!(report["phase"], "copying");
    }
}
