//! Power cuts under load: an ext4 file system on a loop device is shut down without writing out data or journal.
//!
//! Needs root and a free loop device; where these are missing the test says so and checks nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)] // All of it is a test.

mod common;

use common::{WRITERS, act, check, check_space, options, step};
use kvdb_embedded::Store;
use kvdb_tests::power::Disk;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Acknowledged steps before the power goes, in each round.
const ROUNDS: [u64; 6] = [1, 30, 150, 60, 300, 7];

#[test]
fn what_was_acknowledged_is_there_after_power_cuts_and_nothing_is_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let Some(disk) = Disk::new_or_skip(&dir.path().join("image"), &mount) else { return };
    let at = mount.join("store");
    let mut done = vec![0; WRITERS as usize];
    for steps in ROUNDS {
        let store = Store::open(options(&at)).unwrap();
        let (acknowledged, cutting) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for (writer, done) in (0..).zip(&mut done) {
                let (store, acknowledged, cutting) = (&store, &acknowledged, &cutting);
                scope.spawn(move || {
                    // What is answered once the cut has begun proves nothing: see `Disk::cut`.
                    while act(store, &step(writer, *done + 1)).is_ok() && !cutting.load(Ordering::SeqCst) {
                        *done += 1;
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while acknowledged.load(Ordering::SeqCst) < steps {
                std::thread::sleep(Duration::from_micros(200));
            }
            cutting.store(true, Ordering::SeqCst);
            disk.cut();
        });
        drop(store);
        disk.restore();
        let store = Store::open(options(&at)).unwrap();
        for (writer, done) in (0..).zip(&mut done) {
            *done += u64::from(check(&store, writer, *done));
        }
        check_space(&store);
    }
    disk.unmount();
}
