//! What is at rest is read and checked: bad copies are found without a reader, never served, and told to the master.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod capacity;
mod cold;
mod damage;
mod pass;

use kvdb_tests::cluster::files_below;
use kvdb_tests::process::program;
use kvdb_tests::{Builder, Cluster, eventually};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cluster of two volumes that scrub only when asked.
fn builder() -> Builder {
    Cluster::builder(2).volume_args(["--scrub-every", "0"])
}

/// Has everything read and checked.
#[track_caller]
fn ask(cluster: &Cluster) {
    let mut command = Command::new(program("kvdb"));
    command.args(["--master", &cluster.url(), "cluster", "scrub", "--secret-file"]).arg(cluster.db_dir().join("secret"));
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// What the master's status says of a volume.
#[track_caller]
fn status(cluster: &Cluster, volume: usize) -> Value {
    let status = cluster.status();
    let listed = status["volumes"].as_array().unwrap().iter().find(|v| v["address"] == cluster.volume_addr(volume));
    listed.unwrap()["status"].clone()
}

/// Waits for the end of a pass that ends after this call; gives the volumes' last words.
#[track_caller]
fn pass(cluster: &Cluster) -> Vec<Value> {
    let began = cluster.status()["time"].as_u64().unwrap();
    ask(cluster);
    let all = 0..cluster.volume_count();
    all.map(|i| {
        eventually("the scrub has ended a pass", || {
            let status = status(cluster, i);
            let ended = status["scrub"]["ended"].as_u64();
            (ended.is_some_and(|t| t >= began) && status["scrub"]["began"].is_null()).then_some(status)
        })
    })
    .collect()
}

fn in_quarantine(cluster: &Cluster, volume: usize) -> Vec<PathBuf> {
    files_below(&cluster.volume_dir(volume).join("quarantine"))
}

fn flip(file: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// The value of a metric whose line begins so.
#[track_caller]
fn metric(cluster: &Cluster, volume: usize, name: &str) -> u64 {
    let page = kvdb_tests::Request::get("/-/metrics").send(&cluster.volume_addr(volume)).expect(200).text();
    let line = page.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("there is no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
