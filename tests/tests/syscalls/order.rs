//! What must be on stable storage before what is said, call by call: also where the file system at hand would forgive another order.

use crate::strace::{Strace, Tracing};
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, Url, eventually};
use std::path::Path;

/// Each step is a call: parts that its line has, the later ones after the call before. Whole calls stand where they ended, words
/// to others where they began.
#[track_caller]
fn assert_in_order(events: &[String], steps: &[&[&str]]) {
    let mut rest = events.iter();
    for (n, parts) in steps.iter().enumerate() {
        let found = rest.any(|line| parts.iter().all(|p| line.contains(p)));
        assert!(found, "no {parts:?} after {:?}, but only\n{}", &steps[..n], events.join("\n"));
    }
}

struct Traced {
    cluster: Cluster,
    first: usize,
    url: Url,
}

impl Traced {
    fn new(method: &str, key: &str, cluster: Cluster) -> Self {
        let request = Request::new(method, key);
        let request = if method == "PUT" { request.body("").header("Kvdb-Content-Length", &LARGE.to_string()) } else { request };
        let url = Url::of(&cluster.ask(&request).expect(307));
        let first = (0..2).find(|i| cluster.volume_addr(*i) == url.address).unwrap();
        Self { cluster, first, url }
    }

    /// Sends it, waits until all is done, and gives the calls of the first volume, the second and the master.
    fn run(&mut self, request: &Request, done: impl Fn(&Cluster) -> bool) -> [Vec<String>; 3] {
        let dir = tempfile::tempdir().unwrap();
        let pids = [self.cluster.volume(self.first).pid(), self.cluster.volume(1 - self.first).pid(), self.cluster.master().pid()];
        let traces = pids.map(|pid| Strace::attach_with(pid, Tracing::Order, dir.path()));
        assert!([200, 201].contains(&request.send(&self.url.address).status));
        eventually("all is done", || done(&self.cluster).then_some(()));
        traces.map(Strace::events)
    }
}

const LARGE: usize = 100_000;

fn cluster() -> Option<Cluster> {
    if let Err(why) = crate::strace::usable() {
        eprintln!("\n*** SKIPPED: the order of system calls was not looked at, as this needs strace and the right to trace: {why}\n");
        return None;
    }
    Some(Cluster::start(2))
}

fn blob(cluster: &Cluster, i: usize) -> Option<String> {
    let file = cluster.blob_files(i).pop()?;
    Some(file.to_str().unwrap().to_string())
}

fn parent(path: &str) -> &str {
    Path::new(path).parent().unwrap().to_str().unwrap()
}

const COMMIT: &str = "POST /-/peer/commits";
/// The frame that says `Prepared`, with its 40 bytes.
const PREPARED: &str = r"\5(\0\0\0";

#[test]
fn a_large_value_is_durable_name_and_directories_included_before_anything_is_said() {
    let Some(cluster) = cluster() else { return };
    let mut traced = Traced::new("PUT", "/order", cluster);
    let request = Request::put(&traced.url.target, value(LARGE, 1));
    let [first, second, master] = traced.run(&request, |c| blob(c, 0).is_some() && blob(c, 1).is_some());
    for (events, volume, said) in [(&first, traced.first, COMMIT), (&second, 1 - traced.first, PREPARED)] {
        let path = blob(&traced.cluster, volume).unwrap();
        let (yy, xx, blobs) = (parent(&path), parent(parent(&path)), parent(parent(parent(&path))));
        let is = |dir: &str| format!("<{dir}>");
        assert_in_order(
            events,
            &[
                &["openat(", "/tmp/", "O_CREAT|O_EXCL"],
                &["pwrite64(", "/tmp/"],
                &["ftruncate(", "/tmp/"],
                &["fdatasync(", "/tmp/", "= 0"],
                &["rename", &path, "= 0"],
                &["fsync(", &is(yy), "= 0"],
                &["write(", ".jnl"],
                &["fdatasync(", ".jnl", "= 0"],
                &[said],
            ],
        );
        assert_in_order(events, &[&["mkdir", &format!("{xx}\""), "= 0"], &["fsync(", &is(blobs), "= 0"], &["rename", &path], &[said]]);
        assert_in_order(events, &[&["mkdir", &format!("{yy}\""), "= 0"], &["fsync(", &is(xx), "= 0"], &["rename", &path], &[said]]);
    }
    assert_in_order(&first, &[&[COMMIT], &["HTTP/1.1 201"]]);
    assert_in_order(&master, &[&["pwrite64(", "/db/journal", "order"], &["fdatasync(", "/db/journal", "= 0"], &["Committed"]]);
}

#[test]
fn a_small_value_is_durable_before_anything_is_said() {
    let Some(cluster) = cluster() else { return };
    let mut traced = Traced::new("PUT", "/order", cluster);
    let request = Request::put(&traced.url.target, b"small".to_vec());
    let [first, second, _] = traced.run(&request, |c| c.value("/order") == b"small");
    for (events, said) in [(first, COMMIT), (second, PREPARED)] {
        assert_in_order(&events, &[&["write(", ".jnl", "small"], &["fdatasync(", ".jnl", "= 0"], &[said]]);
    }
}

#[test]
fn a_removal_is_durable_in_the_index_before_the_file_goes_and_before_it_is_confirmed() {
    let Some(cluster) = cluster() else { return };
    cluster.put("/order", &value(LARGE, 1));
    let mut traced = Traced::new("DELETE", "/order", cluster);
    let request = Request::delete(&traced.url.target);
    let [first, second, master] = traced.run(&request, |c| {
        let waiting = c.status()["volumes"].as_array().unwrap().iter().any(|v| v["reclaim"].as_u64().is_some_and(|n| n > 0));
        blob(c, 0).is_none() && blob(c, 1).is_none() && !waiting
    });
    // The call for the reclaim may come before the volume's own removal, and then does the one what the other confirms.
    let durable: [&[&str]; 2] = [&["write(", ".jnl", "order"], &["fdatasync(", ".jnl", "= 0"]];
    let gone: &[&str] = &["unlink", "/blobs/", "= 0"];
    assert_in_order(&first, &[&[&[COMMIT][..]], &durable[..], &[&["HTTP/1.1 200", "kvdb-version"][..]]].concat());
    for events in [&first, &second] {
        assert_in_order(events, &[&durable[..], &[gone]].concat());
        assert_in_order(events, &[&durable[..], &[&["HTTP/1.1 200"][..]]].concat());
    }
    assert_in_order(&master, &[&["pwrite64(", "/db/journal", "order"], &["fdatasync(", "/db/journal", "= 0"], &["Committed"]]);
}
