//! Copies that are not what was written: never served as if they were, and the other replica stands in.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use kvdb_tests::cluster::files_below;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

const LEN: usize = 3 << 20;

/// Two volumes, each with a copy of one value of 3 MiB.
fn cluster() -> (Cluster, Vec<u8>) {
    cluster_that_verifies("cold")
}

fn cluster_that_verifies(reads: &str) -> (Cluster, Vec<u8>) {
    let (cluster, bytes) = (Cluster::builder(2).volume_args(["--verify-reads", reads]).start(), value(LEN, 7));
    cluster.put("/key", &bytes).expect(201);
    for i in 0..2 {
        assert_eq!(cluster.blob_files(i).len(), 1);
    }
    (cluster, bytes)
}

fn blob(cluster: &Cluster, volume: usize) -> std::path::PathBuf {
    cluster.blob_files(volume).pop().unwrap()
}

fn flip(file: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn in_quarantine(cluster: &Cluster, volume: usize) -> usize {
    files_below(&cluster.volume_dir(volume).join("quarantine")).len()
}

/// Reads until the damaged copy was hit and put aside: no answer may be complete and wrong.
fn read_until_quarantined(cluster: &Cluster, volume: usize, bytes: &[u8], may_be_cut: bool) {
    eventually("the damaged copy is put aside", || {
        match Request::get("/key").try_follow(&cluster.master_addr()) {
            Ok(answer) => assert!(answer.expect(200).body == bytes, "a wrong byte in a complete answer"),
            Err(error) => assert!(may_be_cut, "a read was cut although nothing had been sent: {error}"),
        }
        (in_quarantine(cluster, volume) == 1).then_some(())
    });
    for _ in 0..10 {
        assert!(cluster.value("/key") == bytes);
    }
}

#[test]
fn a_flipped_bit_at_the_begin_of_one_copy_is_never_noticed_by_clients() {
    let (cluster, bytes) = cluster();
    flip(&blob(&cluster, 0), 100);
    read_until_quarantined(&cluster, 0, &bytes, false);
}

#[test]
fn a_flipped_bit_that_another_program_brought_into_the_page_cache_is_never_served() {
    let (cluster, bytes) = cluster();
    flip(&blob(&cluster, 0), 100);
    // As a backup would: now all of it is there, and may be sent without touching the disk.
    assert_eq!(fs::read(blob(&cluster, 0)).unwrap()[..LEN].iter().zip(&bytes).filter(|(a, b)| a != b).count(), 1);
    read_until_quarantined(&cluster, 0, &bytes, false);
}

#[test]
fn a_bit_that_flips_after_the_value_was_read_is_never_served() {
    for cached in [true, false] {
        let (cluster, bytes) = cluster();
        // Both copies were read, checked, and are in the page cache.
        for _ in 0..40 {
            assert!(cluster.value("/key") == bytes);
        }
        let file = blob(&cluster, 0);
        flip(&file, 100);
        if !cached {
            let file = fs::File::open(&file).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        read_until_quarantined(&cluster, 0, &bytes, false);
    }
}

#[test]
fn with_every_read_verified_nothing_flipped_is_served_and_with_none_it_is() {
    let (cluster, bytes) = cluster_that_verifies("always");
    for _ in 0..20 {
        assert!(cluster.value("/key") == bytes);
    }
    flip(&blob(&cluster, 0), 100);
    read_until_quarantined(&cluster, 0, &bytes, false);

    let (cluster, bytes) = cluster_that_verifies("never");
    flip(&blob(&cluster, 0), 100);
    eventually("the flipped bit is served", || {
        let found = cluster.value("/key");
        let wrong = found.iter().zip(&bytes).filter(|(a, b)| a != b).count();
        assert!(found.len() == LEN && wrong <= 1, "{wrong} wrong bytes of {}", found.len());
        (wrong == 1).then_some(())
    });
    assert_eq!(in_quarantine(&cluster, 0), 0);
}

#[test]
fn a_flipped_bit_far_inside_cuts_the_answer_and_the_next_one_is_right() {
    let (cluster, bytes) = cluster();
    flip(&blob(&cluster, 1), LEN as u64 - 10);
    read_until_quarantined(&cluster, 1, &bytes, true);
}

#[test]
fn a_flipped_bit_in_the_footer_is_never_noticed_by_clients() {
    let (cluster, bytes) = cluster();
    flip(&blob(&cluster, 0), LEN as u64 + 40);
    read_until_quarantined(&cluster, 0, &bytes, false);
}

#[test]
fn a_truncated_or_extended_copy_is_never_noticed_by_clients() {
    for len in [LEN as u64 / 2, LEN as u64 + 100_000] {
        let (cluster, bytes) = cluster();
        fs::OpenOptions::new().write(true).open(blob(&cluster, 0)).unwrap().set_len(len).unwrap();
        read_until_quarantined(&cluster, 0, &bytes, false);
    }
}

#[test]
fn a_missing_copy_is_never_noticed_by_clients() {
    let (cluster, bytes) = cluster();
    fs::remove_file(blob(&cluster, 0)).unwrap();
    for _ in 0..20 {
        assert!(cluster.value("/key") == bytes);
    }
}

#[test]
fn with_both_copies_damaged_the_answer_is_an_error_and_not_an_endless_redirect() {
    let (cluster, _) = cluster();
    for i in 0..2 {
        flip(&blob(&cluster, i), 5);
    }
    for _ in 0..3 {
        cluster.get("/key").expect_problem(503, "no_replica");
    }
}

#[test]
fn a_damaged_copy_is_never_served_to_a_range_either() {
    let (cluster, bytes) = cluster();
    flip(&blob(&cluster, 0), 2_000_000);
    for _ in 0..20 {
        let answer = cluster.follow(&Request::get("/key").header("range", "bytes=1999990-2000010"));
        assert!(answer.expect(206).body == bytes[1_999_990..=2_000_010]);
    }
}
