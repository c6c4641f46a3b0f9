//! The command line: `mget`, `newest`, `ls --values`, and a time to live.

use kvdb_tests::process::program;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, eventually};
use serde_json::Value;
use std::process::{Command, Output};

fn kvdb(cluster: &Cluster, args: &[&str]) -> Output {
    Command::new(program("kvdb")).args(["--master", &cluster.url()]).args(args).output().unwrap()
}

#[track_caller]
fn lines(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    let output = kvdb(cluster, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

#[test]
fn several_values_are_shown_named_or_listed_and_the_newest_is_written_out() {
    let cluster = Cluster::start(1);
    cluster.put("/k/1", b"one");
    cluster.put("/k/2", b"two\nlines");
    cluster.put("/k/3", &value(70_000, 3));
    cluster.put("/k/s/4", b"four");
    let all = ["k/1\tone", "k/2\ttwo\\nlines", "k/3\t(70000 bytes)"];
    assert_eq!(lines(&cluster, &["mget", "k/1", "k/2", "k/3"]), all);
    assert_eq!(lines(&cluster, &["ls", "k/", "--values", "-d", "/"]), [&all[..], &["k/s/"]].concat());
    assert_eq!(lines(&cluster, &["ls", "k/", "--values", "-n", "1"]), all[..1]);
    let json: Value = serde_json::from_str(&lines(&cluster, &["--json", "mget", "k/2"])[0]).unwrap();
    assert_eq!((json["key"].as_str(), json["value"].as_str(), json["len"].as_u64()), (Some("k/2"), Some("two\nlines"), Some(9)));
    let missing = kvdb(&cluster, &["mget", "k/1", "none"]);
    assert_eq!((missing.status.success(), missing.stdout.as_slice()), (false, &b"k/1\tone\n"[..]));
    let names: Vec<String> = (0..1_500).map(|i| format!("many/{i}")).collect();
    cluster.put("/many/1400", b"late");
    let args: Vec<&str> = ["--quiet", "mget"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert_eq!(kvdb(&cluster, &args).stdout, b"many/1400\tlate\n", "more than one page of names");
    assert_eq!(kvdb(&cluster, &["newest", "k/1", "k/s/4", "k/2"]).stdout, b"four");
    cluster.put("/k/1", b"again");
    assert_eq!(kvdb(&cluster, &["newest", "k/s/4", "k/1", "none"]).stdout, b"again");
    assert!(!kvdb(&cluster, &["newest", "none", "nor this"]).status.success());
}

#[test]
fn a_value_is_stored_for_a_time_and_what_is_left_of_it_is_shown() {
    let cluster = Cluster::start(1);
    let file = cluster.dir().join("file");
    std::fs::write(&file, "token").unwrap();
    let file = file.to_str().unwrap();
    lines(&cluster, &["put", "late", file, "--ttl", "1h"]);
    let stat: Value = serde_json::from_str(&lines(&cluster, &["--json", "stat", "late"])[0]).unwrap();
    let left = stat["ttl_ms"].as_u64().unwrap();
    assert!(left <= 3_600_000 && left > 3_500_000 && stat["expires"].is_string(), "{stat}");
    assert!(lines(&cluster, &["stat", "late"]).iter().any(|l| l.starts_with("expires") && l.ends_with(" ms)")));
    lines(&cluster, &["put", "soon", file, "--ttl", "300ms"]);
    eventually("it expires", || (!kvdb(&cluster, &["stat", "soon"]).status.success()).then_some(()));
    lines(&cluster, &["put", "late", file]);
    assert!(lines(&cluster, &["stat", "late"]).contains(&"expires   -".to_string()));
    for bad in ["0", "soon", "-1s", "36501d"] {
        assert!(!kvdb(&cluster, &["put", "x", file, "--ttl", bad]).status.success(), "{bad}");
    }
}
