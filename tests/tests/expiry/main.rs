//! Values with a time to live, against real clusters.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod kills;
mod lives;
mod mortal;
mod rebuilt;

use kvdb_tests::{Answer, Cluster, Request};
pub use mortal::now;
use std::time::Duration;

/// Returns at that time.
pub fn sleep_until(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms.saturating_sub(now())));
}

/// When the master says that a value expires.
pub fn expires(answer: &Answer) -> u64 {
    answer.header("kvdb-expires").unwrap_or_else(|| panic!("it does not expire: {answer}")).parse().unwrap()
}

/// Asks the master itself for a key, which expires.
#[track_caller]
pub fn expiry_of(cluster: &Cluster, target: &str) -> u64 {
    expires(&cluster.ask(&Request::new("HEAD", target)).expect(302))
}
