//! What became of all requests of a run.

use kvdb_tests::Answer;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub reads: u64,
    pub failed_reads: u64,
    pub acknowledged: u64,
    /// Of these, batches and transactions.
    pub batches: u64,
    /// Of these, transactions.
    pub transactions: u64,
    /// Batches and transactions that were told of again.
    pub repeated: u64,
    /// Conditions that did not hold, and deletes that found nothing.
    pub refused: u64,
    /// Of unknown outcome, by the reason.
    pub unknown: BTreeMap<&'static str, u64>,
    /// Broken off, or of unknown outcome, and then asked for: found committed, and refused.
    pub found_committed: u64,
    pub found_refused: u64,
    /// Not begun, since no server was reached.
    pub unreached: u64,
    /// Problems by status and code.
    pub problems: BTreeMap<(u16, String), u64>,
}

impl Tally {
    /// Writes that may have had an effect, or had.
    pub fn writes(&self) -> u64 {
        self.acknowledged + self.refused + self.unknown.values().sum::<u64>()
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn unknown_percent(&self) -> f64 {
        self.unknown.values().sum::<u64>() as f64 * 100.0 / (self.writes().max(1)) as f64
    }

    /// Counts a refusal: nothing that the nemesis does makes a server fail by itself (500) or find a good request bad.
    pub fn problem(&mut self, answer: &Answer) {
        let code = answer.json()["code"].as_str().unwrap_or_else(|| panic!("a refusal without a code: {answer}")).to_string();
        assert!(matches!(answer.status, 403 | 409 | 503), "a refusal that the faults do not explain: {answer}");
        *self.problems.entry((answer.status, code)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.failed_reads += other.failed_reads;
        self.acknowledged += other.acknowledged;
        self.batches += other.batches;
        self.transactions += other.transactions;
        self.repeated += other.repeated;
        self.refused += other.refused;
        self.found_committed += other.found_committed;
        self.found_refused += other.found_refused;
        self.unreached += other.unreached;
        for (why, n) in &other.unknown {
            *self.unknown.entry(why).or_default() += n;
        }
        for (problem, n) in &other.problems {
            *self.problems.entry(problem.clone()).or_default() += n;
        }
    }
}
