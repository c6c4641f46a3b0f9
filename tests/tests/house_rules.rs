//! The rules of the house: who may import what, how long a file may be, where `unsafe` may stand.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines. This only goes down.
const MOST_LINES: usize = 450;
/// Files that may hold `unsafe`, each a small fenced module.
const MAY_BE_UNSAFE: [&str; 2] = ["tests/src/power.rs", "crates/volume/src/disk/resident.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&root().join("crates"), &mut found);
    sources(&root().join("tests"), &mut found);
    assert!(found.len() > 50, "only {} sources found: this test looks in the wrong place", found.len());
    found
}

/// The crates of this workspace that a crate's `[dependencies]` name.
fn imports(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let ours = dependencies.lines().filter_map(|l| l.strip_prefix("kvdb-"));
    ours.map(|l| l.split(['.', ' ', '=']).next().unwrap().to_string()).collect()
}

#[test]
fn imports_run_one_way() {
    let allowed: [(&str, &[&str]); 7] = [
        ("protocol", &[]),
        ("server", &["protocol"]),
        ("volume", &["protocol", "server"]),
        ("master", &["protocol", "server"]),
        ("client", &["protocol"]),
        ("embedded", &["protocol", "volume", "master"]),
        ("kvdb", &["protocol", "server", "volume", "master", "client"]),
    ];
    for (name, may) in allowed {
        for import in imports(name) {
            assert!(may.contains(&import.as_str()), "crates/{name} must not import kvdb-{import}");
        }
    }
    assert!(imports("kvdb").contains(&"client".to_string()), "the manifests are not read as they are written");
}

#[test]
fn no_ordinary_build_has_the_deliberate_bugs() {
    let mut manifests = vec![root().join("Cargo.toml"), root().join("tests/Cargo.toml"), root().join("tests/model/Cargo.toml")];
    manifests.extend(fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().path().join("Cargo.toml")));
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).unwrap();
        let asks = text.lines().filter(|l| !l.starts_with('#') && l.contains("lab") && l.trim() != "lab = []").count();
        assert!(asks == 0 && !text.contains("default = ["), "{} asks for the feature lab", manifest.display());
    }
}

#[test]
fn the_protocol_does_no_input_or_output() {
    let mut files = Vec::new();
    sources(&root().join("crates/protocol/src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["tokio::", "std::fs", "std::net", "std::io"] {
            assert!(!text.contains(word), "{} uses {word}", file.display());
        }
    }
}

#[test]
fn nothing_outside_the_catalog_knows_its_engine() {
    let mut files = Vec::new();
    for name in ["server", "volume", "master", "client", "embedded", "kvdb"] {
        sources(&root().join("crates").join(name).join("src"), &mut files);
    }
    for file in files.iter().filter(|f| !f.components().any(|c| c.as_os_str() == "catalog")) {
        assert!(!fs::read_to_string(file).unwrap().contains("sled::"), "{} knows sled", file.display());
    }
}

#[test]
fn files_stay_small() {
    for file in all_sources() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines, {MOST_LINES} are allowed: give a concern a file of its own", file.display());
    }
}

#[test]
fn unsafe_stands_only_where_it_is_fenced() {
    let keyword = concat!("unsafe", " ");
    for file in all_sources() {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let has =
            fs::read_to_string(&file).unwrap().lines().any(|l| !l.trim_start().starts_with("//") && l.contains(keyword) && l.contains('{'));
        assert!(!has || MAY_BE_UNSAFE.contains(&name.as_str()), "{name} holds code that the compiler does not check");
    }
}

#[test]
fn no_work_is_left_behind_in_the_code() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimplemented", "!"), concat!("to", "do!(")];
    for file in all_sources() {
        let text = fs::read_to_string(&file).unwrap();
        for mark in marks {
            assert!(!text.contains(mark), "{} says {mark}", file.display());
        }
    }
}
