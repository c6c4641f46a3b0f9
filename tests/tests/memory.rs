//! Memory is bounded by configuration, not by the size or number of values.
//!
//! `KVDB_MEMORY_MIB` is the size of each of the eight values (default 40: together they are larger than any bound here; the promise
//! was measured with 1024). One test at a time, so that all of them take no more of the disk than one.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use kvdb_tests::process::{peak_kib, program};
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Connection, Url};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const CLIENTS: usize = 8;
/// What a slow reader takes between two pauses.
const PORTION: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(20);
const VOLUME_KIB: u64 = 64 << 10;
/// 64 MiB and the default of `--cache`.
const MASTER_KIB: u64 = (64 + 64) << 10;

fn mib() -> u64 {
    std::env::var("KVDB_MEMORY_MIB").ok().map_or(40, |t| t.parse().expect("KVDB_MEMORY_MIB is a number"))
}

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
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
    let _alone = alone();
    let mut cluster = Cluster::start(2);
    let mut bench = Command::new(program("kvdb"));
    bench.args(["--master", &cluster.url(), "bench", "--clients", &CLIENTS.to_string(), "--count", &CLIENTS.to_string()]);
    let output = bench.args(["--size", &format!("{}M", mib())]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&mut cluster);
}

#[test]
fn a_master_that_relays_for_eight_clients_stays_small() {
    let _alone = alone();
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

#[test]
fn eight_slow_readers_of_large_values_leave_servers_small() {
    let _alone = alone();
    let mut cluster = Cluster::start(2);
    let file = cluster.dir().join("value");
    let hash = write_file(&file);
    for i in 0..CLIENTS {
        let mut curl = Command::new("curl");
        curl.args(["-sSfL", "-o", "/dev/null", "-T"]).arg(&file).arg(format!("{}/slow-{i}", cluster.url()));
        assert!(curl.status().unwrap().success());
    }
    let urls: Vec<Url> = (0..CLIENTS).map(|i| cluster.read_url(&format!("/slow-{i}"))).collect();
    let all_have_begun = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for url in &urls {
            let all_have_begun = &all_have_begun;
            scope.spawn(move || assert_eq!(read_slowly(url, all_have_begun), hash, "{url:?}"));
        }
    });
    check(&mut cluster);
}

/// A file of [`mib`] MiB, no two of them alike; gives its hash.
fn write_file(path: &Path) -> blake3::Hash {
    let (mut file, mut hasher) = (File::create(path).unwrap(), blake3::Hasher::new());
    for i in 0..mib() {
        let bytes = value(1 << 20, i);
        hasher.update(&bytes);
        file.write_all(&bytes).unwrap();
    }
    hasher.finalize()
}

/// Reads a value with a pause after each portion, so that the server has to wait; gives the hash of what came.
fn read_slowly(url: &Url, all_have_begun: &Barrier) -> blake3::Hash {
    let begun = begin_read(url);
    // Before anything fails: the others wait for all.
    all_have_begun.wait();
    let mut connection = begun.unwrap();
    let (mut left, mut hasher) = (usize::try_from(mib() << 20).unwrap(), blake3::Hasher::new());
    while left > 0 {
        std::thread::sleep(PAUSE);
        let bytes = connection.read_exactly(left.min(PORTION)).unwrap();
        left -= bytes.len();
        hasher.update(&bytes);
    }
    assert!(connection.rest().is_empty(), "nothing follows the value");
    hasher.finalize()
}

fn begin_read(url: &Url) -> io::Result<Connection> {
    let mut connection = Connection::try_open(&url.address)?;
    connection.try_send(format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.target, url.address).as_bytes())?;
    let status = connection.read_head()?.status;
    if status == 200 { Ok(connection) } else { Err(io::Error::other(format!("status {status}"))) }
}
