//! Clients that are slow, silent or suddenly gone.

use crate::check_still_serves;
use kvdb_tests::process::rss_kib;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Connection, Request, eventually};

/// Resident memory that a volume may have, whatever its clients do.
const MEMORY_KIB: u64 = 96 << 10;

#[test]
fn silent_and_stalled_clients_are_closed_in_time() {
    let cluster = Cluster::start(1);
    let (write, other) = (cluster.write_url("/k", 300_000), cluster.write_url("/other", 5));
    let head = |target: &str, len| format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\nhel");
    let cases = [
        (cluster.master_addr(), String::new()),
        (cluster.volume_addr(0), String::new()),
        (cluster.master_addr(), "GET /k HTTP/1.1\r\nHos".into()),
        (cluster.volume_addr(0), "GET /k HTTP/1.1\r\nHos".into()),
        (cluster.master_addr(), head("/k", 5)),
        (cluster.master_addr(), head("/k", 300_000)),
        (write.address, head(&write.target, 300_000)),
        (other.address, head(&other.target, 5)),
    ];
    // Each waits until it is closed; reading gives up long after the servers' own time is over.
    std::thread::scope(|scope| {
        for (address, sent) in &cases {
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                connection.send(sent);
                let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
                assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{sent:?} at {address}: {rest}");
            });
        }
    });
    cluster.get("/k").expect(404);
    check_still_serves(&cluster);
}

#[test]
fn slow_readers_of_a_large_value_take_bounded_memory() {
    let mut cluster = Cluster::start(1);
    let bytes = value(64 << 20, 1);
    cluster.put("/k", &bytes);
    let url = cluster.read_url("/k");
    let mut readers: Vec<Connection> = (0..8)
        .map(|_| {
            let mut connection = Connection::open(&url.address);
            connection.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", url.target));
            assert_eq!(connection.read_head().unwrap().status, 200);
            connection
        })
        .collect();
    for reader in &mut readers {
        assert_eq!(reader.read_exactly(1 << 20).unwrap(), bytes[..1 << 20]);
    }
    let pid = cluster.volume(0).pid();
    assert!(rss_kib(pid) < MEMORY_KIB, "{} KiB", rss_kib(pid));
    // Slow, and yet each gets the whole.
    for reader in &mut readers {
        assert!(reader.read_exactly((64 << 20) - (1 << 20)).unwrap() == bytes[1 << 20..]);
    }
    assert!(rss_kib(pid) < MEMORY_KIB, "{} KiB", rss_kib(pid));
}

#[test]
fn a_reset_in_the_middle_of_a_read_frees_the_descriptor() {
    let mut cluster = Cluster::start(1);
    cluster.put("/k", &value(8 << 20, 1));
    let url = cluster.read_url("/k");
    let pid = cluster.volume(0).pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    cluster.get("/k").expect(200);
    let before = descriptors();
    for _ in 0..100 {
        let mut connection = Connection::open(&url.address);
        connection.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", url.target));
        connection.read_exactly(100).unwrap();
        // What is unread when a socket is closed makes its close a reset.
        drop(connection);
    }
    eventually("the descriptors are free again", || (descriptors() <= before + 2).then_some(()));
    cluster.get("/k").expect(200);
}

#[test]
fn uploads_that_are_cut_leave_neither_descriptors_nor_files_nor_places() {
    let mut cluster = Cluster::builder(1).volume_args(["--max-uploads", "2"]).start();
    let pid = cluster.volume(0).pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    cluster.put("/before", &value(300_000, 1));
    let before = descriptors();
    for i in 0..30 {
        let url = cluster.write_url(&format!("/k{i}"), 1 << 20);
        let mut connection = Connection::open(&url.address);
        connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", url.target, 1 << 20));
        connection.send(value(500_000, 1));
    }
    cluster.follow(&Request::delete("/before")).expect(200);
    crate::check_no_files(&cluster);
    eventually("the descriptors are free again", || (descriptors() <= before + 2).then_some(()));
    cluster.put("/after", &value(300_000, 1));
}
