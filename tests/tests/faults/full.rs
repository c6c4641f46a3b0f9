//! File systems without room and without inodes, filled by values and by others.

use crate::world::{Ended, World, short_tickets};
use kvdb_tests::eventually;
use kvdb_tests::power::Disk;
use kvdb_tests::settled::until_settled;
use rustix::fs::{FallocateFlags, StatVfs, fallocate};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const SMALL: usize = 1000;
const LARGE: usize = 3 << 20;
/// Removals that take more than a block of the index.
const MANY: usize = 60;

/// A cluster of two volumes, each of these servers on a small file system of its own. Nothing where that is impossible. The last of the
/// three goes first: servers, then their disks, then the directory.
fn on_disks(disks: &[&str], bytes: u64, inodes: u32) -> Option<(TempDir, Vec<Disk>, World)> {
    let dir = tempfile::Builder::new().prefix("kvdb-full-").tempdir().unwrap();
    let mut mounted = Vec::new();
    for name in disks {
        let mount = dir.path().join(name);
        fs::create_dir(&mount).unwrap();
        match Disk::small(&dir.path().join(format!("{name}.img")), &mount, bytes, inodes) {
            Ok(disk) => mounted.push(disk),
            Err(why) => {
                eprintln!("\n*** SKIPPED: no full disk was tried, as this needs root, ext4 and loop devices: {why}\n");
                return None;
            }
        }
    }
    let cluster = short_tickets(2).in_dir(dir.path()).start();
    Some((dir, mounted, World::new(cluster)))
}

fn statvfs(path: &Path) -> StatVfs {
    rustix::fs::statvfs(path).unwrap()
}

fn free(path: &Path) -> u64 {
    let s = statvfs(path);
    s.f_bavail * s.f_frsize
}

/// Takes all room but `leave` bytes, as another program on the same disk would.
fn fill(path: &Path, name: &str, leave: u64) -> PathBuf {
    let alien = path.join(name);
    let mut file = File::create(&alien).unwrap();
    let (mut at, mut step) = (0, 64 * MIB);
    while step >= 4096 {
        let want = free(path).saturating_sub(leave).min(step) / 4096 * 4096;
        if want == 0 || fallocate(&file, FallocateFlags::empty(), at, want).is_err() {
            step /= 2;
        } else {
            at += want;
        }
    }
    if leave == 0 {
        // What is kept for metadata of reserved ranges; a plain write takes the last of it.
        use std::io::{Seek as _, SeekFrom};
        file.seek(SeekFrom::Start(at)).unwrap();
        while file.write_all(&[1; 4096]).and_then(|()| file.sync_data()).is_ok() {}
    }
    alien
}

#[test]
fn a_volume_full_of_values_refuses_more_serves_all_and_takes_deletes_that_give_the_room_back() {
    let Some((_dir, _disks, mut world)) = on_disks(&["volume0", "volume1"], 96 * MIB, 4096) else { return };
    let mut n = 0;
    let refused = loop {
        match world.put(&format!("/large-{n}"), LARGE) {
            Ended::Done => n += 1,
            other => break other,
        }
    };
    println!("{n} values of {LARGE} bytes on 96 MiB");
    assert_eq!(refused, Ended::Refused(507));
    assert!(n > 15, "only {n} values were taken");
    until_settled(&world.cluster);
    // What fits is still taken, until that is full as well.
    let mut small = 0;
    while small < 40 && world.put(&format!("/small-{small}"), 60_000) == Ended::Done {
        small += 1;
    }
    world.check(false);
    let dirs = [world.cluster.volume_dir(0), world.cluster.volume_dir(1)];
    let before = dirs.each_ref().map(|d| free(d));
    for i in 0..5 {
        assert_eq!(world.delete(&format!("/large-{i}")), Ended::Done);
    }
    eventually("the room of five values is back on both", || {
        let freed = |i: usize| free(&dirs[i]).saturating_sub(before[i]) >= 14 * MIB;
        (freed(0) && freed(1)).then_some(())
    });
    eventually("values are taken again", || (world.put("/large-again", LARGE) == Ended::Done).then_some(()));
    until_settled(&world.cluster);
    world.check_settled();
}

#[test]
fn a_disk_that_others_fill_to_the_last_byte_stops_no_reads_and_no_deletes_and_nothing_need_be_restarted() {
    let Some((_dir, _disks, mut world)) = on_disks(&["volume0", "volume1"], 96 * MIB, 4096) else { return };
    for i in 0..4 {
        world.must_put(&format!("/large-{i}"), LARGE);
    }
    for i in 0..MANY {
        world.must_put(&format!("/small-{i}"), SMALL);
    }
    let dirs = [world.cluster.volume_dir(0), world.cluster.volume_dir(1)];
    let mut aliens: Vec<PathBuf> = dirs.iter().map(|d| fill(d, "alien-0", 0)).collect();
    assert_eq!([free(&dirs[0]), free(&dirs[1])], [0, 0]);
    for target in ["/large-new", "/large-0", "/small-new", "/small-0"] {
        let ended = world.put(target, if target.starts_with("/large") { LARGE } else { SMALL });
        assert!(matches!(ended, Ended::Refused(503 | 507)), "{target}: {ended:?}");
    }
    world.check(false);
    // The reserve is given up, and is taken by others too.
    assert_eq!(world.delete("/small-0"), Ended::Done);
    eventually("both have given it up", || dirs.iter().all(|d| !d.join("reserve").exists()).then_some(()));
    aliens.extend(dirs.iter().map(|d| fill(d, "alien-1", 0)));
    assert_eq!([free(&dirs[0]), free(&dirs[1])], [0, 0]);
    // More than what is left of a block that the index has.
    for i in 1..MANY {
        assert_eq!(world.delete(&format!("/small-{i}")), Ended::Done);
    }
    world.check(false);
    for i in 0..3 {
        assert_eq!(world.delete(&format!("/large-{i}")), Ended::Done);
    }
    world.check(false);
    eventually("the room of three values is back on both", || (free(&dirs[0]).min(free(&dirs[1])) >= 8 * MIB).then_some(()));
    aliens.iter().for_each(|a| fs::remove_file(a).unwrap());
    eventually("values are taken again", || (world.put("/large-again", LARGE) == Ended::Done).then_some(()));
    world.must_put("/small-again", SMALL);
    until_settled(&world.cluster);
    world.check_settled();
}

#[test]
fn a_volume_without_inodes_refuses_values_and_takes_them_again_when_some_were_removed() {
    let Some((_dir, _disks, mut world)) = on_disks(&["volume0", "volume1"], 96 * MIB, 256) else { return };
    let mut n = 0;
    let refused = loop {
        match world.put(&format!("/file-{n}"), 100_000) {
            Ended::Done => n += 1,
            other => break other,
        }
    };
    println!("{n} values on 256 inodes; free: {}", statvfs(&world.cluster.volume_dir(0)).f_ffree);
    assert_eq!(refused, Ended::Refused(507));
    world.check(false);
    world.must_put("/in-the-index", SMALL);
    for i in 0..10 {
        assert_eq!(world.delete(&format!("/file-{i}")), Ended::Done);
    }
    eventually("values are taken again", || (world.put("/again", 100_000) == Ended::Done).then_some(()));
    until_settled(&world.cluster);
    world.check_settled();
}

#[test]
fn a_master_whose_disk_is_full_serves_reads_refuses_values_and_goes_on_by_itself() {
    let Some((_dir, _disks, mut world)) = on_disks(&["db"], 160 * MIB, 4096) else { return };
    for i in 0..4 {
        world.must_put(&format!("/large-{i}"), LARGE);
        world.must_put(&format!("/small-{i}"), SMALL);
    }
    let db = world.cluster.db_dir();
    let alien = fill(&db, "alien-0", 40 * MIB);
    assert_eq!(world.put("/large-0", LARGE), Ended::Refused(507));
    assert_eq!(world.put("/small-new", SMALL), Ended::Refused(507));
    // Removals need little.
    assert_eq!(world.delete("/large-1"), Ended::Done);
    assert_eq!(world.delete("/small-1"), Ended::Done);
    world.check(false);
    let last = fill(&db, "alien-1", 0);
    assert_eq!(world.put("/small-0", SMALL), Ended::Refused(507));
    println!("a delete with 0 bytes left on the master's disk: {:?}", world.delete("/large-2"));
    world.check(false);
    fs::remove_file(last).unwrap();
    fs::remove_file(alien).unwrap();
    world.must_put("/large-0", LARGE);
    world.must_put("/small-new", SMALL);
    assert_eq!(world.delete("/large-2"), Ended::Done);
    until_settled(&world.cluster);
    world.check_settled();
}
