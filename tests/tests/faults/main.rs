//! Disks, wires, machines and clocks that fail under a running cluster: every answer stays true, no read is ever wrong, and
//! what was acknowledged is there afterwards.
//!
//! `KVDB_FAULT_ROUNDS` repeats what is random with new seeds; a seed is printed and can be given back by `KVDB_FAULT_SEED`.

// A helper that fails fails its test; what was skipped, and seeds, are printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod clock;
mod eio;
mod full;
mod stopped;
mod strace;
mod wire;
mod world;

/// A number from an environment variable.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |t| t.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}
