//! What holds for every parser of outside bytes, whatever the bytes are.
//!
//! A target takes bytes, panics where a parser breaks what it promises, and says whether the parser accepted them.
//! `scripts/fuzz` searches for bytes that break one; the corpus that it left in `fuzz/corpus` is tried by `cargo test`.
//! Each target also has seeds, made by the code that writes what is parsed: all of them must be accepted.

// What fails here is a finding.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod catalog;
mod chain;
mod conditions;
mod digest;
mod export;
mod footer;
mod form;
mod input;
mod journal;
mod key;
mod limits;
mod lines;
mod list;
mod message;
mod multipart;
mod query;
mod range;
mod record;
mod sample;
mod ticket;
mod url;

/// A parser, and how it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the fuzz target and of its corpus.
    pub name: &'static str,
    /// Tries the parser; true: it accepted the bytes.
    pub check: fn(&[u8]) -> bool,
    /// Bytes that it accepts, made by the code that writes them.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), check: $name::check, seeds: $name::seeds }),*];
    };
}

targets!(batch catalog chain conditions digest export footer form journal key limits lines list message multipart query range record ticket url);

/// The target of this name.
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|t| t.name == name).expect("a target of this name")
}
