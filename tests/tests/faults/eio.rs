//! EIO from every call that a server makes on its files.

use crate::number;
use crate::strace::Fault;
use crate::world::{Ended, World, short_tickets};
use kvdb_tests::cluster::files_below;
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Request, eventually};
use std::fs::File;
use std::path::{Path, PathBuf};

/// In the index.
const SMALL: usize = 1000;
/// Gathered in memory until it is complete; a larger one goes to its file as it comes.
const MEDIUM: usize = 600_000;
const LARGE: usize = 1_600_000;

/// Files on which a call fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Any,
    Journal,
    Blobs,
}

/// Calls of a volume, where they fail, and whether the volume takes no more values after that.
const OF_VOLUME: [(&str, On, bool); 11] = [
    ("fdatasync", On::Any, true),
    ("fdatasync", On::Journal, true),
    ("fsync", On::Any, true),
    ("write,writev", On::Journal, true),
    ("pwrite64", On::Any, false),
    ("fallocate", On::Any, false),
    ("ftruncate", On::Any, false),
    ("rename,renameat,renameat2", On::Any, false),
    ("open,openat", On::Any, false),
    ("mkdir,mkdirat", On::Any, false),
    ("pread64,preadv", On::Blobs, false),
];

fn paths(world: &World, volume: usize, on: On) -> Vec<PathBuf> {
    let dir = world.cluster.volume_dir(volume);
    let found = match on {
        On::Any => return Vec::new(),
        On::Journal => files_below(&dir.join("index")).into_iter().filter(|f| f.extension().is_some_and(|e| e == "jnl")).collect(),
        On::Blobs => world.cluster.blob_files(volume),
    };
    assert!(!found.is_empty());
    found
}

/// Has a file leave the page cache: what was checked and is there is sent without reading it again.
fn evict(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn writable(world: &World, volume: usize) -> bool {
    let status = world.cluster.status();
    let address = world.cluster.volume_addr(volume);
    let listed = status["volumes"].as_array().unwrap().iter().find(|v| v["address"] == address.as_str());
    listed.unwrap()["status"]["writable"] == true
}

#[test]
fn a_volume_whose_file_operations_fail_gives_true_answers_and_loses_nothing() {
    let mut world = World::new(short_tickets(2).start());
    for i in 0..3 {
        world.must_put(&format!("/small-{i}"), SMALL);
        world.must_put(&format!("/medium-{i}"), MEDIUM);
        world.must_put(&format!("/large-{i}"), LARGE);
    }
    for (case, (calls, on, stops)) in OF_VOLUME.into_iter().enumerate() {
        let volume = case % 2;
        if calls.starts_with("mkdir") {
            // Values of the same seconds share a directory; a volume that has just started makes sure of each.
            world.cluster.kill_volume(volume);
            world.cluster.start_volume(volume);
            world.cluster.wait_all_up();
        }
        let paths = paths(&world, volume, on);
        let fault = Fault::inject(world.cluster.volume(volume).pid(), calls, "EIO", &paths, world.cluster.dir());
        if on == On::Blobs {
            paths.iter().for_each(|path| evict(path));
        }
        let ended = [
            world.put("/large-0", LARGE),
            world.put("/medium-0", MEDIUM),
            world.put("/small-0", SMALL),
            world.put(&format!("/large-new-{case}"), LARGE),
            world.put(&format!("/medium-new-{case}"), MEDIUM),
            world.put(&format!("/small-new-{case}"), SMALL),
        ];
        world.check(false);
        if on == On::Blobs {
            // Each read takes one of two replicas by chance.
            eventually("a read has met it", || {
                world.check(false);
                (fault.count() > 0).then_some(())
            });
        }
        let mut failed = fault.end();
        println!("{calls} of volume {volume}: {ended:?}, {failed:?}");
        assert!(failed.count > 0, "no {calls} failed: the case tries nothing");
        if stops {
            assert!(ended.iter().any(|e| *e != Ended::Done), "{calls}: {ended:?}");
            failed.files.sort_unstable();
            assert!(!failed.files.is_empty() && failed.files.is_sorted_by(|a, b| a < b), "{calls} was tried again: {failed:?}");
            eventually("the volume says that it takes no writes", || (!writable(&world, volume)).then_some(()));
            assert_ne!(world.put("/large-1", LARGE), Ended::Done, "two copies although one volume takes none");
            world.check(false);
            world.cluster.kill_volume(volume);
            world.cluster.start_volume(volume);
            world.cluster.wait_all_up();
        }
        eventually("it takes writes again", || writable(&world, volume).then_some(()));
        until_settled(&world.cluster);
        world.check_settled();
        world.must_put("/large-1", LARGE);
        world.must_put("/small-1", SMALL);
        // What was replaced is gone, so that the next fault meets none of its removal.
        until_settled(&world.cluster);
    }
}

#[test]
fn a_file_that_cannot_be_removed_is_removed_at_the_next_start_and_its_key_is_gone_at_once() {
    let mut world = World::new(short_tickets(2).start());
    world.must_put("/stays", LARGE);
    world.must_put("/goes", LARGE);
    let fault = Fault::inject(world.cluster.volume(0).pid(), "unlink,unlinkat", "EIO", &[], world.cluster.dir());
    assert_eq!(world.delete("/goes"), Ended::Done);
    world.check(false);
    eventually("the other copy is reclaimed", || (fault.count() > 0 && world.cluster.blob_files(1).len() == 1).then_some(()));
    fault.end();
    assert_eq!(world.cluster.blob_files(0).len(), 2);
    world.cluster.kill_volume(0);
    world.cluster.start_volume(0);
    world.cluster.wait_all_up();
    until_settled(&world.cluster);
    assert_eq!(world.cluster.blob_files(0).len(), 1);
    world.check_settled();
}

#[test]
fn a_master_whose_file_operations_fail_gives_true_answers_and_loses_nothing() {
    let mut world = World::new(short_tickets(2).start());
    world.must_put("/small", SMALL);
    world.must_put("/large", LARGE);
    // One way to write: the journal's. The first kinds are enough for every day.
    let all = ["fdatasync", "pwrite64", "fdatasync,sync_file_range,pwrite64,fsync,ftruncate"];
    for calls in &all[..number("KVDB_FAULT_ROUNDS", 2).min(3) as usize] {
        let fault = Fault::inject(world.cluster.master().pid(), calls, "EIO", &[], world.cluster.dir());
        // The volume asks for ten seconds what became of the first.
        let ended = [world.put("/large", LARGE), world.put("/small", SMALL), world.put("/new", LARGE), world.delete("/small")];
        world.check(true);
        let failed = fault.end();
        println!("{calls} of the master: {ended:?}, {failed:?}");
        assert!(failed.count > 0, "no {calls} failed: the case tries nothing");
        assert_eq!(ended, [Ended::Open, Ended::Refused(503), Ended::Refused(503), Ended::Refused(503)], "{calls}");
        // The disk is well again, but what it holds is not known.
        assert_eq!(world.put("/other", LARGE), Ended::Refused(503), "{calls}: a write after a failed sync");
        world.cluster.ask(&Request::get("/-/health/ready")).expect(503);
        assert_eq!(world.cluster.status()["writable"], false);
        world.cluster.kill_master();
        world.cluster.start_master();
        world.cluster.wait_all_up();
        until_settled(&world.cluster);
        world.check_settled();
        world.must_put("/small", SMALL);
        // What was replaced is gone, so that the next fault meets none of its removal.
        until_settled(&world.cluster);
    }
}
