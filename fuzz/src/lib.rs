//! What the fuzz targets share: each tries one parser of `kvdb-parsers` in bounded memory.

use cap::Cap;
use kvdb_parsers::Target;
use std::alloc::System;

/// Refuses memory beyond what is allowed, which ends the run as a finding.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What a target may take besides what follows from the size of its input. Readers of sequences reserve up to 1 MiB
/// for each.
const MOST_BYTES: usize = 8 << 20;
/// What it may take for each byte of its input: `lines` makes 4 KiB of one.
const MOST_BYTES_PER_BYTE: usize = 16 << 10;

/// Tries a target.
pub fn run(target: &Target, data: &[u8]) {
    limit(MEMORY.allocated() + MOST_BYTES + MOST_BYTES_PER_BYTE * data.len());
    (target.check)(data);
    limit(usize::MAX);
}

fn limit(bytes: usize) {
    assert!(MEMORY.set_limit(bytes).is_ok(), "the limit of memory cannot be set");
}

/// A fuzz target of this name.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            static TARGET: std::sync::LazyLock<kvdb_parsers::Target> = std::sync::LazyLock::new(|| kvdb_parsers::target($name));
            kvdb_fuzz::run(&TARGET, data);
        });
    };
}
