//! The histogram of how long requests take.
//!
//! The recorder's own histograms keep every sample until somebody asks, which at a hundred thousand requests a second is
//! megabytes and time. Here a sample is two additions.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds.
pub(super) const BOUNDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const NAME: &str = "kvdb_http_request_duration_seconds";

/// All histograms, by server and method.
static ALL: Mutex<Vec<((&str, &str), &Durations)>> = Mutex::new(Vec::new());

/// How many requests took how long.
#[derive(Default)]
pub(super) struct Durations {
    /// By the first bound that is not exceeded.
    within: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    micros: AtomicU64,
}

impl Durations {
    pub fn record(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).and_then(|at| self.within.get(at));
        bucket.unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn render(&self, labels: &str, text: &mut String) -> std::fmt::Result {
        let mut count = 0;
        for (bound, within) in BOUNDS.iter().zip(&self.within) {
            count += within.load(Ordering::Relaxed);
            writeln!(text, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
        }
        count += self.beyond.load(Ordering::Relaxed);
        let sum = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        writeln!(text, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(text, "{NAME}_sum{{{labels}}} {sum}\n{NAME}_count{{{labels}}} {count}")
    }
}

/// The histogram of a server's method. It lives as long as the process; there are few.
pub(super) fn of(server: &'static str, method: &'static str) -> &'static Durations {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = all.iter().find(|(labels, _)| *labels == (server, method)) {
        return known;
    }
    let new: &'static Durations = Box::leak(Box::default());
    all.push(((server, method), new));
    new
}

/// Appends all histograms in Prometheus' text format.
pub(super) fn render(text: &mut String) {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if all.is_empty() {
        return;
    }
    text.push_str(&format!("# HELP {NAME} From the head of a request to the last byte of its answer.\n# TYPE {NAME} histogram\n"));
    for ((server, method), durations) in all.iter() {
        // Writing to a string does not fail.
        let _written = durations.render(&format!("server=\"{server}\",method=\"{method}\""), text);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_that_is_within_their_bound() {
        let durations = Durations::default();
        for ms in [1, 3, 400_000] {
            durations.record(Duration::from_millis(ms));
        }
        let mut text = String::new();
        durations.render("server=\"s\"", &mut text).unwrap();
        let has = |line: &str| assert!(text.lines().any(|l| l == format!("{NAME}_{line}")), "{line}: {text}");
        has("bucket{server=\"s\",le=\"0.0005\"} 0");
        has("bucket{server=\"s\",le=\"0.001\"} 1");
        has("bucket{server=\"s\",le=\"0.005\"} 2");
        has("bucket{server=\"s\",le=\"300\"} 2");
        has("bucket{server=\"s\",le=\"+Inf\"} 3");
        has("sum{server=\"s\"} 400.004");
        has("count{server=\"s\"} 3");
    }
}
