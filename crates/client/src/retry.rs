//! How often, and after how long, something is tried again.

use crate::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A server may ask for a longer wait than ours, up to this.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(30);

/// The tries left to one operation.
#[derive(Debug)]
pub(crate) struct Retry {
    allowed: u32,
    used: u32,
}

impl Retry {
    /// `allowed` further tries after the first.
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, used: 0 }
    }

    /// Waits before another try after `error`, or hands the error back when it is not worth one.
    pub(crate) async fn or_give_up(&mut self, error: Error) -> Result<(), Error> {
        let Some(wait) = self.next_wait(&error, jitter()) else { return Err(error) };
        tracing::debug!(%error, wait_ms = wait.as_millis(), "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Progress was made: the tries count from the start again.
    pub(crate) fn reset(&mut self) {
        self.used = 0;
    }

    fn next_wait(&mut self, error: &Error, jitter: f64) -> Option<Duration> {
        if self.used >= self.allowed || !error.worth_another_try() {
            return None;
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << self.used.min(16)).min(LONGEST_WAIT);
        self.used += 1;
        let asked = error.retry_after().unwrap_or_default().min(LONGEST_ASKED_WAIT);
        // Half fixed, half random, so that many clients do not come back at the same moment.
        Some(doubled.mul_f64(0.5 + jitter / 2.0).max(asked))
    }
}

/// A number in [0, 1); the standard library's hasher is seeded anew each time.
fn jitter() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvdb_protocol::{ErrorCode, Problem};

    fn problem(code: ErrorCode, retry_after: Option<Duration>) -> Error {
        Error::Problem { problem: Box::new(Problem::new(code, "")), retry_after }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let mut r = Retry::new(8);
        let e = problem(ErrorCode::Unavailable, None);
        let waits: Vec<_> = std::iter::from_fn(|| r.next_wait(&e, 1.0)).map(|d| d.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        r.reset();
        assert_eq!(r.next_wait(&e, 0.0), Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_server_may_ask_for_a_longer_wait_within_a_bound() {
        let mut r = Retry::new(2);
        let after = |s| problem(ErrorCode::Busy, Some(Duration::from_secs(s)));
        assert_eq!(r.next_wait(&after(2), 1.0), Some(Duration::from_secs(2)));
        assert_eq!(r.next_wait(&after(3600), 1.0), Some(LONGEST_ASKED_WAIT));
    }

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        let mut r = Retry::new(8);
        for e in [problem(ErrorCode::NoSpace, None), problem(ErrorCode::BadKey, None), problem(ErrorCode::OutcomeUnknown, None)] {
            assert_eq!(r.next_wait(&e, 1.0), None, "{e}");
        }
    }

    #[test]
    fn jitter_lies_between_zero_and_one() {
        for _ in 0..1000 {
            let j = jitter();
            assert!((0.0..1.0).contains(&j), "{j}");
        }
    }
}
