//! Memory is bounded by configuration, not by the size or number of values.
//!
//! `KVDB_MEMORY_MIB` is the size of each of the eight values (default 96; the promise was measured with 1024).

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use kvdb_tests::Cluster;
use kvdb_tests::process::{peak_kib, program};
use std::fs::File;
use std::process::{Child, Command, Stdio};

const CLIENTS: usize = 8;
const VOLUME_KIB: u64 = 64 << 10;
/// 64 MiB and the default of `--cache`.
const MASTER_KIB: u64 = (64 + 64) << 10;

fn mib() -> u64 {
    std::env::var("KVDB_MEMORY_MIB").ok().map_or(96, |t| t.parse().expect("KVDB_MEMORY_MIB is a number"))
}

#[track_caller]
fn check(cluster: &mut Cluster) {
    let master = peak_kib(cluster.master().pid());
    let volumes = [peak_kib(cluster.volume(0).pid()), peak_kib(cluster.volume(1).pid())];
    println!("{CLIENTS} clients, {} MiB each: peak of the master {master} KiB, of the volumes {volumes:?} KiB", mib());
    assert!(master < MASTER_KIB, "the master took {master} KiB");
    assert!(volumes.iter().all(|v| *v < VOLUME_KIB), "the volumes took {volumes:?} KiB");
}

#[test]
fn eight_clients_that_put_and_get_large_values_leave_servers_small() {
    let mut cluster = Cluster::start(2);
    let mut bench = Command::new(program("kvdb"));
    bench.args(["--master", &cluster.url(), "bench", "--clients", &CLIENTS.to_string(), "--count", &CLIENTS.to_string()]);
    let output = bench.args(["--size", &format!("{}M", mib())]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&mut cluster);
}

#[test]
fn a_master_that_relays_for_eight_clients_stays_small() {
    let mut cluster = Cluster::start(2);
    let file = cluster.dir().join("value");
    // A hole is as good as bytes: what matters is how many go through.
    File::create(&file).unwrap().set_len(mib() << 20).unwrap();
    let upload = |i: usize| -> Child {
        // Without `Expect`, curl sends the body at once, and the master relays it.
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code} %{num_redirects}", "-T"]).arg(&file);
        curl.arg(format!("{}/relayed-{i}", cluster.url())).stdout(Stdio::piped()).spawn().unwrap()
    };
    let uploads: Vec<Child> = (0..CLIENTS).map(upload).collect();
    for upload in uploads {
        let output = upload.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "201 0");
    }
    check(&mut cluster);
}
