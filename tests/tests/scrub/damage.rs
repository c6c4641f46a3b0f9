//! Copies that go bad while nobody reads them.

use super::{builder, flip, in_quarantine, metric, pass};
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request, eventually};
use std::path::PathBuf;

/// The one file of a volume that begins with these bytes.
fn file_of(cluster: &Cluster, volume: usize, bytes: &[u8]) -> PathBuf {
    let begins = |p: &PathBuf| std::fs::read(p).is_ok_and(|found| found.starts_with(bytes));
    cluster.blob_files(volume).into_iter().find(begins).unwrap()
}

/// Both volumes serve the value again, whole.
#[track_caller]
fn until_both_are_good(cluster: &Cluster, target: &str, bytes: &[u8]) {
    eventually("the bad copy was made anew", || {
        let copies = cluster.copies(target);
        let good = copies.iter().filter(|c| c.status == 200).inspect(|c| assert_same(&c.body, bytes, target)).count();
        (good == 2).then_some(())
    });
}

#[test]
fn a_pass_that_is_asked_for_finds_what_was_flipped_cut_or_lost_and_nothing_else() {
    let cluster = builder().start();
    let lengths = [3 << 20, 70_000, 1 << 20, 300_000, 16, 2 << 20];
    let values: Vec<_> = (0..).zip(lengths).map(|(i, len)| (format!("/key-{i}"), value(len, i))).collect();
    for (target, bytes) in &values {
        cluster.put(target, bytes);
    }
    for (i, status) in pass(&cluster).iter().enumerate() {
        let scrub = &status["scrub"];
        let total = lengths.iter().sum::<usize>();
        assert_eq!((scrub["values"].as_u64(), scrub["bytes"].as_u64(), scrub["bad"].as_u64()), (Some(6), Some(total as u64), Some(0)));
        assert_eq!(scrub["of_bytes"], total);
        assert_eq!(metric(&cluster, i, "kvdb_scrub_bad_total"), 0);
        assert!(metric(&cluster, i, "kvdb_scrub_bytes_total") >= total as u64);
    }
    // Each copy of a value in its turn, never both.
    flip(&file_of(&cluster, 0, &values[0].1), 2_500_000);
    flip(&file_of(&cluster, 1, &values[1].1), 69_999);
    let footer = file_of(&cluster, 0, &values[2].1);
    flip(&footer, (1 << 20) + 40);
    let cut = file_of(&cluster, 1, &values[3].1);
    std::fs::OpenOptions::new().write(true).open(cut).unwrap().set_len(200_000).unwrap();
    std::fs::remove_file(file_of(&cluster, 0, &values[5].1)).unwrap();
    let told = pass(&cluster);
    assert_eq!((told[0]["scrub"]["bad"].as_u64(), told[1]["scrub"]["bad"].as_u64()), (Some(3), Some(2)));
    assert_eq!((metric(&cluster, 0, "kvdb_scrub_bad_total"), metric(&cluster, 1, "kvdb_scrub_bad_total")), (3, 2));
    // The missing file leaves nothing to put aside.
    assert_eq!((in_quarantine(&cluster, 0).len(), in_quarantine(&cluster, 1).len()), (2, 2));
    assert_eq!((told[0]["quarantined"].as_u64(), told[1]["quarantined"].as_u64()), (Some(2), Some(2)));
    for (target, bytes) in &values {
        assert_same(&cluster.value(target), bytes, target);
        until_both_are_good(&cluster, target, bytes);
    }
    let again = pass(&cluster);
    assert_eq!((again[0]["scrub"]["bad"].as_u64(), again[1]["scrub"]["bad"].as_u64()), (Some(3), Some(2)));
    let log = cluster.master_log();
    assert_eq!(log.lines().filter(|l| l.contains("a copy is bad")).count(), 5, "{log}");
}

#[test]
fn a_copy_that_is_put_aside_while_the_master_is_down_is_told_when_it_is_back() {
    let mut cluster = builder().start();
    let bytes = value(2 << 20, 3);
    cluster.put("/key", &bytes);
    let url = cluster.read_url("/key");
    cluster.kill_master();
    flip(&file_of(&cluster, 0, &bytes), 10);
    // No other replica is to be had without the master.
    Request::get(&url.target).send(&cluster.volume_addr(0));
    eventually("it is put aside", || (in_quarantine(&cluster, 0).len() == 1).then_some(()));
    cluster.kill_volume(0);
    cluster.start_volume(0);
    cluster.start_master();
    cluster.wait_all_up();
    until_both_are_good(&cluster, "/key", &bytes);
}

#[test]
fn a_copy_that_a_read_cannot_read_is_checked_at_once_and_made_anew() {
    let cluster = builder().start();
    let bytes = value(2 << 20, 4);
    cluster.put("/key", &bytes);
    let file = file_of(&cluster, 1, &bytes);
    let away = cluster.dir().join("away");
    std::fs::rename(&file, &away).unwrap();
    std::os::unix::fs::symlink(&away, &file).unwrap();
    eventually("a read has met it and it is put aside", || {
        assert_same(&cluster.value("/key"), &bytes, "/key");
        (metric(&cluster, 1, "kvdb_scrub_bad_total") == 1).then_some(())
    });
    until_both_are_good(&cluster, "/key", &bytes);
}

/// Values live in the index up to 64 KiB. Enough of them, and the first are in its table files.
#[test]
fn a_bit_that_flips_in_a_small_value_inside_the_index_is_found() {
    let mut cluster = builder().start();
    let values: Vec<_> = (0..160).map(|i| (format!("/key-{i:03}"), value(60_000, i))).collect();
    for (target, bytes) in &values {
        cluster.put(target, bytes);
    }
    cluster.stop_volume(0);
    let index = cluster.volume_dir(0).join("index");
    let (file, at) = kvdb_tests::cluster::files_below(&index)
        .into_iter()
        .filter(|p| p.extension().is_none_or(|e| e != "jnl"))
        .find_map(|p| {
            let found = std::fs::read(&p).unwrap();
            let at = values.iter().find_map(|(_, v)| find(&found, &v[..64]))?;
            Some((p, at as u64))
        })
        .expect("no small value is in a table yet");
    println!("flipping byte {at} of {}", file.display());
    flip(&file, at + 5);
    cluster.start_volume(0);
    cluster.wait_all_up();
    let told = pass(&cluster);
    assert_eq!((told[0]["scrub"]["bad"].as_u64(), told[1]["scrub"]["bad"].as_u64()), (Some(1), Some(0)));
    for (target, bytes) in &values {
        until_both_are_good(&cluster, target, bytes);
    }
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|w| w == part)
}
