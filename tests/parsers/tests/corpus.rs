//! The corpus of the fuzzers, tried without their engine.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use kvdb_parsers::TARGETS;
use std::fs;
use std::path::{Path, PathBuf};

/// Most files of a target's corpus.
const MOST_FILES: usize = 100;
/// Most bytes of all.
const MOST_BYTES: usize = 200 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap().join("fuzz")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_file_of_the_corpus_is_parsed_as_promised() {
    let mut bytes = 0;
    for target in TARGETS {
        let dir = fuzz().join("corpus").join(target.name);
        let files = names(&dir);
        assert!(!files.is_empty() && files.len() <= MOST_FILES, "{} has {} files", dir.display(), files.len());
        let mut accepted = 0;
        for file in files {
            let path = dir.join(file);
            let input = fs::read(&path).unwrap();
            bytes += input.len();
            let tried = std::panic::catch_unwind(|| (target.check)(&input));
            accepted += usize::from(tried.unwrap_or_else(|_| panic!("{} breaks its parser", path.display())));
        }
        assert!(accepted > 0, "{}: nothing of the corpus is accepted", target.name);
    }
    assert!(bytes <= MOST_BYTES, "the corpus has {bytes} bytes");
}

#[test]
fn what_the_servers_write_is_accepted() {
    for target in TARGETS {
        for (n, seed) in (target.seeds)().iter().enumerate() {
            assert!((target.check)(seed), "seed {n} of {}: {}", target.name, String::from_utf8_lossy(seed));
        }
    }
}

#[test]
fn each_parser_has_a_fuzz_target_and_a_corpus() {
    let mut all: Vec<_> = TARGETS.iter().map(|t| t.name.to_string()).collect();
    all.sort();
    assert_eq!(names(&fuzz().join("corpus")), all);
    let sources: Vec<_> = names(&fuzz().join("fuzz_targets")).iter().map(|n| n.trim_end_matches(".rs").to_string()).collect();
    assert_eq!(sources, all);
}
