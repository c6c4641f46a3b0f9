//! Limits by prefix of the key, against real clusters.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod quotas;
mod reload;
mod rules;

use kvdb_tests::cluster::Builder;
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// A file of limits, which a master is given.
struct LimitsFile {
    path: PathBuf,
    _dir: TempDir,
}

impl LimitsFile {
    fn new(limits: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = Self { path: dir.path().join("limits.json"), _dir: dir };
        file.write(&json!({ "limits": limits }).to_string());
        file
    }

    /// Replaces it, as an editor does: never half of it is there.
    fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &self.path).unwrap();
    }

    fn cluster(&self, volumes: usize) -> Builder {
        Cluster::builder(volumes).master_args(["--limits", self.path.to_str().unwrap()])
    }
}

/// What `/-/status` says of the quota of a prefix.
#[track_caller]
fn usage(cluster: &Cluster, prefix: &str) -> (u64, u64) {
    let status = cluster.status();
    let quotas = status["quotas"].as_array().unwrap();
    let quota = quotas.iter().find(|q| q["prefix"] == prefix).unwrap_or_else(|| panic!("no quota of {prefix:?}: {quotas:?}"));
    assert_eq!(quota["counted"], true, "{quota}");
    (quota["keys"].as_u64().unwrap(), quota["bytes"].as_u64().unwrap())
}

/// Keys and bytes as the list has them.
#[track_caller]
fn listed(cluster: &Cluster, prefix: &str) -> (u64, u64) {
    let page = cluster.ask(&Request::get(&format!("/{prefix}?list&detail&limit=10000"))).expect(200).json();
    assert_eq!(page["next"], "");
    let keys = page["keys"].as_array().unwrap();
    (keys.len() as u64, keys.iter().map(|k| k["len"].as_u64().unwrap()).sum())
}

/// Waits until no volume holds a file.
#[track_caller]
fn no_file_is_left(cluster: &Cluster) {
    for i in 0..cluster.volume_count() {
        eventually("no copy is left", || cluster.blob_files(i).is_empty().then_some(()));
    }
}
