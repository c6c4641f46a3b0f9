//! Bad input through raw sockets: every row of it has one right answer, at the master and, under a real ticket, at a volume.
// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bodies;
mod heads;
mod keys;
mod patience;
mod ranges;

use kvdb_tests::cluster::files_below;
use kvdb_tests::{Answer, Cluster, Connection, eventually};

/// Sends exactly these bytes, ends the sending side, and reads the first answer.
#[track_caller]
fn answer_to(address: &str, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(bytes);
    connection.answer()
}

/// Waits until no volume holds any file of a value, finished or not; values inside an index are not files.
#[track_caller]
fn check_no_files(cluster: &Cluster) {
    for i in 0..cluster.volume_count() {
        eventually("no file is left", || {
            let unfinished = files_below(&cluster.volume_dir(i).join("tmp"));
            (cluster.blob_files(i).is_empty() && unfinished.is_empty()).then_some(())
        });
    }
}

/// The servers have answered all that, and still serve.
#[track_caller]
fn check_still_serves(cluster: &Cluster) {
    cluster.put("/still-serves", b"yes");
    assert_eq!(cluster.value("/still-serves"), b"yes");
    for log in std::iter::once(cluster.master_log()).chain((0..cluster.volume_count()).map(|i| cluster.volume_log(i))) {
        assert!(!log.contains("panic"), "a server panicked:\n{log}");
    }
}
