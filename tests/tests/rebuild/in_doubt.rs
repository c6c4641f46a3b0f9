//! Values whose commit not all volumes heard of when the catalog was lost.
//!
//! The volumes reach the master through a gate of the test's, which tells when a commit is asked for: by then all
//! copies are durable, and none is known to be committed.

use crate::{lose_catalog, rebuild, summary};
use kvdb_protocol::message::path;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Connection, Url, eventually};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

const LEN: usize = 200_000;

/// Where volumes take the master to be.
struct Gate {
    listener: TcpListener,
}

/// A commit that waits to be let through.
struct Commit {
    volume: TcpStream,
    begun: Vec<u8>,
}

impl Gate {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// A cluster that holds `before` at `/k`, whose volumes see the master here from then on.
    fn cluster(&self, before: &[u8]) -> Cluster {
        let mut cluster = Cluster::start(2);
        cluster.put("/k", before);
        cluster.stop_master();
        let address = self.listener.local_addr().unwrap().to_string();
        start_master(&mut cluster, &["--address", &address]);
        cluster
    }

    /// Waits for the next commit.
    fn commit(&self) -> Commit {
        let (mut volume, _) = self.listener.accept().unwrap();
        let mut begun = Vec::new();
        while !begun.windows(path::COMMITS.len()).any(|w| w == path::COMMITS.as_bytes()) {
            let mut part = [0; 4096];
            let n = volume.read(&mut part).unwrap();
            assert!(n > 0, "something else than a commit: {}", String::from_utf8_lossy(&begun));
            begun.extend(&part[..n]);
        }
        Commit { volume, begun }
    }
}

impl Commit {
    /// Lets it through to the master, and the answer back.
    fn pass(self, master: &str) {
        let mut there = TcpStream::connect(master).unwrap();
        there.write_all(&self.begun).unwrap();
        relay(self.volume.try_clone().unwrap(), there.try_clone().unwrap());
        relay(there, self.volume);
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    // Either side may be killed at any time.
    thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)).ok());
}

/// Sends a value whole; the answer is awaited elsewhere.
fn begin(url: &Url, bytes: &[u8]) -> Connection {
    let mut connection = Connection::open(&url.address);
    connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", url.target, bytes.len()));
    connection.send(bytes);
    connection
}

/// The volumes in the order of the value's chain.
fn chain(cluster: &Cluster, url: &Url) -> [usize; 2] {
    let first = (0..2).find(|i| cluster.volume_addr(*i) == url.address).unwrap();
    [first, 1 - first]
}

/// Starts the master; tickets are soon over, so that what is in doubt is soon settled.
fn start_master(cluster: &mut Cluster, args: &[&str]) {
    let list = [cluster.volume_addr(0), cluster.volume_addr(1)].join(",");
    let db = cluster.db_dir().display().to_string();
    let own = [&list, &db, "--start-seconds", "1", "--commit-seconds", "1"];
    cluster.master().set_args(own.iter().chain(args).map(ToString::to_string).collect());
    cluster.start_master();
    cluster.wait_all_up();
}

fn wait_settled(cluster: &Cluster) {
    eventually("nothing is in doubt", || {
        let status = cluster.status();
        status["volumes"].as_array()?.iter().all(|v| v["status"]["prepared"] == 0).then_some(())
    });
}

#[test]
fn a_value_is_kept_on_a_volume_that_was_killed_before_it_heard_of_the_commit() {
    let gate = Gate::new();
    let bytes = value(LEN, 2);
    let mut cluster = gate.cluster(&value(LEN, 1));
    let url = cluster.write_url("/k", LEN);
    let [first, second] = chain(&cluster, &url);
    let mut upload = begin(&url, &bytes);
    let commit = gate.commit();
    cluster.kill_volume(second);
    commit.pass(&cluster.master_addr());
    upload.answer().expect(200);
    // The other one has noted it.
    kvdb_tests::settled::until_settled(&cluster);
    lose_catalog(&mut cluster);
    drop(gate);
    cluster.start_volume(second);

    let done = summary(rebuild(&cluster, &[0, 1], &[]));
    assert_eq!((&done["keys"], &done["uncertain_kept"], &done["under_replicated"]), (&1.into(), &0.into(), &0.into()), "{done}");
    start_master(&mut cluster, &[]);
    wait_settled(&cluster);
    assert_same(&cluster.value("/k"), &bytes, "/k");
    cluster.kill_volume(first);
    cluster.wait_up(1);
    assert_same(&cluster.value("/k"), &bytes, "the copy that was in doubt");
}

/// A cluster without a catalog, whose volumes both hold a whole value at `/k` after the one `before`, and were killed
/// before either heard of a commit.
fn in_doubt(before: &[u8], bytes: &[u8]) -> Cluster {
    let gate = Gate::new();
    let mut cluster = gate.cluster(before);
    let _upload = begin(&cluster.write_url("/k", bytes.len()), bytes);
    let _commit = gate.commit();
    for i in 0..2 {
        cluster.kill_volume(i);
    }
    lose_catalog(&mut cluster);
    for i in 0..2 {
        cluster.start_volume(i);
    }
    cluster
}

#[test]
fn a_value_that_is_whole_but_whose_outcome_nobody_knows_is_kept() {
    let (before, bytes) = (value(LEN, 1), value(LEN + 1, 2));
    let mut cluster = in_doubt(&before, &bytes);
    let done = summary(rebuild(&cluster, &[0, 1], &[]));
    assert_eq!((&done["keys"], &done["uncertain_kept"], &done["uncertain_dropped"]), (&1.into(), &1.into(), &0.into()), "{done}");
    assert_eq!((&done["bytes"], &done["surplus"]), (&(LEN + 1).into(), &2.into()), "{done}");
    start_master(&mut cluster, &[]);
    wait_settled(&cluster);
    assert_same(&cluster.value("/k"), &bytes, "/k");
    for i in 0..2 {
        eventually("the old copy is removed", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
}

#[test]
fn a_value_whose_outcome_nobody_knows_is_dropped_where_that_is_asked_for() {
    let (before, bytes) = (value(LEN, 1), value(LEN + 1, 2));
    let mut cluster = in_doubt(&before, &bytes);
    let done = summary(rebuild(&cluster, &[0, 1], &["--uncertain", "drop"]));
    assert_eq!((&done["keys"], &done["uncertain_kept"], &done["uncertain_dropped"]), (&1.into(), &0.into(), &1.into()), "{done}");
    start_master(&mut cluster, &[]);
    wait_settled(&cluster);
    assert_same(&cluster.value("/k"), &before, "/k");
    for i in 0..2 {
        assert_eq!(cluster.blob_files(i).len(), 1, "the dropped copy is removed");
    }
}
