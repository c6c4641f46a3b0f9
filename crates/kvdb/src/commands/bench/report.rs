//! The figures of one operation.

use super::work::Outcome;
use crate::args::{Bench, Common, Operation};
use crate::output;
use clap::ValueEnum as _;
use serde_json::json;
use std::time::Duration;

/// Prints one line, for people or as JSON.
pub fn print(common: &Common, operation: Operation, args: &Bench, outcome: &Outcome) -> std::io::Result<()> {
    let value = operation.to_possible_value();
    let name = value.as_ref().map_or("", |v| v.get_name());
    let seconds = outcome.took.as_secs_f64().max(f64::MIN_POSITIVE);
    // Figures for people: the last digits of a float do not matter.
    #[allow(clippy::cast_precision_loss)]
    let (ops, mb) = (outcome.times.len() as f64 / seconds, outcome.bytes as f64 / 1e6 / seconds);
    let [p50, p99, most] = [50, 99, 100].map(|percent| at(&outcome.times, percent).as_secs_f64() * 1e3);
    if common.json {
        let figures = json!({
            "op": name, "size": args.size, "clients": args.clients, "count": outcome.times.len(), "failures": outcome.failures,
            "seconds": seconds, "ops_per_second": ops, "mb_per_second": mb, "p50_ms": p50, "p99_ms": p99, "max_ms": most,
        });
        return output::line(&figures.to_string());
    }
    let rate = if outcome.bytes == 0 { String::new() } else { format!("{mb:9.1} MB/s") };
    let failed = if outcome.failures == 0 { String::new() } else { format!("  {} failed", outcome.failures) };
    output::line(&format!("{name:12} {ops:9.1} /s {rate:14}  p50 {p50:9.3} ms  p99 {p99:9.3} ms  max {most:9.3} ms{failed}"))
}

/// The time that so many percent of the operations did not exceed.
fn at(times: &[Duration], percent: usize) -> Duration {
    times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}
