//! The catalog saved, restored and compared with what the volumes hold.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod compared;
mod saved;

use kvdb_tests::process::program;
use kvdb_tests::{Cluster, Request};
use serde_json::Value;
use std::process::{Command, Output};

/// `kvdb` with these arguments and the cluster's master and secret.
fn kvdb(cluster: &Cluster, args: &[&str]) -> Output {
    let mut command = Command::new(program("kvdb"));
    command.env_remove("KVDB_SECRET").env_remove("KVDB_SECRET_FILE");
    command.args(args).arg("--secret-file").arg(cluster.volume_dir(0).join("secret")).args(["--master", &cluster.url()]);
    command.output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The lines of an export.
#[track_caller]
fn exported(cluster: &Cluster) -> Vec<Value> {
    done(&kvdb(cluster, &["catalog", "export", "-"])).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// What the lines of one kind say.
fn of_kind(lines: &[Value], kind: &str) -> Vec<Value> {
    lines.iter().filter_map(|l| l.get(kind).cloned()).collect()
}

/// All keys, as the list tells of them.
#[track_caller]
fn listed(cluster: &Cluster) -> Value {
    cluster.ask(&Request::get("/?list&detail&limit=10000")).expect(200).json()
}
