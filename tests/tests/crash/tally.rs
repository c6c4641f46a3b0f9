//! What became of all requests of a run.

use crate::send::Outcome;
use kvdb_tests::Answer;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub acknowledged: u64,
    /// Answered with 504.
    pub unknown: u64,
    /// Broken off.
    pub cut: u64,
    /// No server was reached.
    pub unreached: u64,
    pub reads: u64,
    /// Problems by status and code.
    pub problems: BTreeMap<(u16, String), u64>,
}

impl Tally {
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Acknowledged => self.acknowledged += 1,
            Outcome::Unknown => self.unknown += 1,
            Outcome::Cut => self.cut += 1,
            Outcome::Refused(None) => self.unreached += 1,
            Outcome::Refused(Some(answer)) => self.problem(answer),
        }
    }

    /// Counts a refusal: no crash of another server makes one fail by itself (500) or find a good request bad.
    pub fn problem(&mut self, answer: &Answer) {
        let code = answer.json()["code"].as_str().unwrap_or_else(|| panic!("a refusal without a code: {answer}")).to_string();
        assert!(matches!(answer.status, 404 | 409 | 503), "a refusal that a crash does not explain: {answer}");
        *self.problems.entry((answer.status, code)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.cut += other.cut;
        self.unreached += other.unreached;
        self.reads += other.reads;
        for (problem, n) in &other.problems {
            *self.problems.entry(problem.clone()).or_default() += n;
        }
    }
}
