//! Checking what is at rest: every damage is found, and nothing else is.

use super::*;
use crate::format::record::{Place, ValueRecord};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

/// Checks all of a copy. None: it is not here.
fn check(store: &Store, v: &NewValue) -> Option<Result<u64, StoreError>> {
    let mut check = match store.check(&v.key, v.version) {
        Ok(check) => check?,
        Err(e) => return Some(Err(e)),
    };
    let mut bytes = 0;
    loop {
        match check.step() {
            Ok(step) => {
                bytes += step.bytes;
                if step.done {
                    return Some(Ok(bytes));
                }
            }
            Err(e) => return Some(Err(e.into())),
        }
    }
}

fn is_good(store: &Store, v: &NewValue) -> bool {
    matches!(check(store, v), Some(Ok(_)))
}

#[track_caller]
fn assert_corrupt(store: &Store, v: &NewValue, what: &str) {
    let found = check(store, v);
    assert!(matches!(found, Some(Err(StoreError::Corrupt { .. }))), "{what}: {found:?}");
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[test]
fn what_is_right_is_found_right_whatever_its_length_prepared_or_committed() {
    let volume = Volume::new();
    let store = volume.open();
    let lengths = [0, 1, 60_000, 65_537, MIB - 200, MIB - 1, MIB, MIB + 1, 2 * MIB - 100, 3 * MIB + 4096];
    for (n, len) in (1..).zip(lengths) {
        let v = new_value("k", n, None);
        put(&store, &v, &content(len));
        if n % 2 == 0 {
            store.mark_committed(&v.key, v.version, n).unwrap();
        }
        assert!(check(&store, &v).unwrap().unwrap() >= len as u64, "{len} bytes");
    }
    assert!(check(&store, &new_value("absent", 99, None)).is_none());
}

#[test]
fn a_flipped_bit_anywhere_in_a_file_is_found() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    let len = MIB as u64 + 5000;
    put(&store, &v, &content(len as usize));
    let path = volume.blob(&v);
    let file_len = std::fs::metadata(&path).unwrap().len();
    let content = [0, 4095, SUBTREE_BYTES, MIB as u64 - 1, MIB as u64, len - 1];
    for offset in content.into_iter().chain((len..file_len).step_by(3)).chain([file_len - 1]) {
        flip(&path, offset);
        assert_corrupt(&store, &v, &format!("byte {offset}"));
        flip(&path, offset);
    }
    assert!(is_good(&store, &v));
}

#[test]
fn a_file_that_is_cut_extended_holed_swapped_or_missing_is_found() {
    let volume = Volume::new();
    let store = volume.open();
    let (v, other) = (new_value("k", 1, None), new_value("o", 2, None));
    put(&store, &v, &content(2 * MIB));
    put(&store, &other, &vec![7; 2 * MIB]);
    let (path, good) = (volume.blob(&v), std::fs::read(volume.blob(&v)).unwrap());
    let swapped = std::fs::read(volume.blob(&other)).unwrap();
    let holed = [&good[..MIB], &vec![0; MIB], &good[2 * MIB..]].concat();
    let damaged: [(&str, &[u8]); 6] = [
        ("empty", &[]),
        ("cut", &good[..good.len() - 1]),
        ("cut in the content", &good[..MIB]),
        ("extended", &[&good[..], b"x"].concat()),
        ("holed", &holed),
        ("swapped", &swapped),
    ];
    for (what, bytes) in damaged {
        std::fs::write(&path, bytes).unwrap();
        assert_corrupt(&store, &v, what);
    }
    std::fs::remove_file(&path).unwrap();
    assert_corrupt(&store, &v, "missing");
    std::fs::write(&path, &good).unwrap();
    assert!(is_good(&store, &v));
    // Cut after the check has begun.
    let mut begun = store.check(&v.key, v.version).unwrap().unwrap();
    begun.step().unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB as u64 + 7).unwrap();
    assert!(matches!(begun.step(), Err(ReadError::Corrupt { .. })));
}

#[test]
fn what_stands_in_the_place_of_a_file_is_unreadable_and_can_be_put_aside() {
    let volume = Volume::new();
    let store = volume.open();
    for (n, what) in (1..).zip(["link", "directory", "pipe"]) {
        let v = new_value(what, n, None);
        put(&store, &v, &content(MIB));
        let path = volume.blob(&v);
        std::fs::rename(&path, volume.dir.path().join(what)).unwrap();
        match what {
            "link" => std::os::unix::fs::symlink(volume.dir.path().join(what), &path).unwrap(),
            "directory" => std::fs::create_dir(&path).unwrap(),
            _ => {
                let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            }
        }
        let found = check(&store, &v);
        assert!(matches!(&found, Some(Err(StoreError::Io(e))) if e.is_unreadable()), "{what}: {found:?}");
        assert!(store.quarantine(&v.key, v.version, what).unwrap());
        assert!(store.get(&v.key, v.version).unwrap().is_none());
        assert!(path.symlink_metadata().is_err());
    }
    assert_eq!(store.bad_copies(UnixMillis(u64::MAX), 10).unwrap().len(), 3);
}

#[test]
fn a_small_value_whose_bytes_or_length_are_not_those_of_its_hash_is_found() {
    let volume = Volume::new();
    let store = volume.open();
    let record = |bytes: &[u8]| ValueRecord {
        len: bytes.len() as u64,
        hash: kvdb_protocol::ContentHash::of(bytes),
        place: Place::Inline,
        content_type: None,
        modified: UnixMillis(1),
        expires: None,
        commit_by: UnixMillis(7),
        replicas: Vec::new(),
        seq: None,
    };
    let there: [(&str, &[u8], bool); 4] =
        [("right", b"abc", true), ("flipped", b"abb", false), ("cut", b"ab", false), ("empty", b"", false)];
    for (n, (what, bytes, good)) in (1..).zip(there) {
        let v = new_value(what, n, None);
        store.inner.index.put(&v.key, v.version, record(b"abc"), Some(bytes.to_vec())).unwrap();
        if good { assert!(is_good(&store, &v)) } else { assert_corrupt(&store, &v, what) }
    }
}

#[test]
fn a_footer_that_differs_from_the_index_is_found() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    let elsewhere = Volume::new();
    let altered = NewValue { content_type: Some("text/y-test".into()), ..v.clone() };
    put(&elsewhere.open(), &altered, &content(MIB));
    std::fs::copy(elsewhere.blob(&v), volume.blob(&v)).unwrap();
    assert_corrupt(&store, &v, "another content type");
}

#[test]
fn a_value_that_is_removed_while_it_is_checked_is_gone_and_not_bad() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(3 * MIB));
    let mut begun = store.check(&v.key, v.version).unwrap().unwrap();
    assert_eq!(begun.step().unwrap(), Step { bytes: MIB as u64, done: false });
    store.remove(&[reclaim(&v, Some(DELETED))]).unwrap();
    assert!(!store.is_here(&v.key, v.version).unwrap());
    assert!(store.check(&v.key, v.version).unwrap().is_none());
    assert!(!store.quarantine(&v.key, v.version, "too late").unwrap());
}

#[test]
fn files_that_have_been_in_no_index_for_a_while_are_told_and_left_alone() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    let stray = new_value("stray", 2, None);
    std::fs::create_dir_all(volume.blob(&stray).parent().unwrap()).unwrap();
    std::fs::write(volume.blob(&stray), b"x").unwrap();
    assert_eq!(store.orphans(|| false).unwrap(), []);
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for v in [&v, &stray] {
        std::fs::File::options().write(true).open(volume.blob(v)).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(store.orphans(|| false).unwrap(), [stray.version]);
    assert_eq!(store.orphans(|| true).unwrap(), []);
    assert!(volume.blob(&stray).exists());
}

#[test]
fn a_small_value_stays_in_memory_only_if_it_was_checked_and_is_right() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, b"small");
    let mut stored = store.get(&v.key, v.version).unwrap().unwrap();
    assert!(stored.small().is_none(), "it was not checked");
    stored.check_inline();
    assert_eq!(stored.small().unwrap().bytes, &b"small"[..]);
    stored.entry.hash = kvdb_protocol::ContentHash::of(b"other");
    stored.check_inline();
    assert!(stored.small().is_none() && stored.read_subtree(0).is_err());
}
