//! Bytes that change on disk are found before they are given out.

use super::*;
use std::os::unix::fs::FileExt as _;

/// A volume with one committed value of two full subtrees and a bit, closed.
fn with_value() -> (Volume, NewValue, u64) {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(2 * SUBTREE_BYTES as usize + 100));
    store.mark_committed(&v.key, v.version, 1).unwrap();
    let file_len = std::fs::metadata(volume.blob(&v)).unwrap().len();
    (volume, v, file_len)
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_found_by_reading_what_it_concerns() {
    let (volume, v, file_len) = with_value();
    let store = volume.open();
    let content_len = 2 * SUBTREE_BYTES + 100;
    let content_offsets = [0, 1, SUBTREE_BYTES - 1, SUBTREE_BYTES, 2 * SUBTREE_BYTES, content_len - 1];
    for offset in content_offsets.into_iter().chain(content_len..file_len) {
        flip(&volume.blob(&v), offset);
        let stored = store.get(&v.key, v.version).unwrap().unwrap();
        for i in 0..3 {
            // In the content only its subtree is concerned, in the footer all are.
            let concerned = offset >= content_len || offset / SUBTREE_BYTES == i;
            match stored.read_subtree(i) {
                Ok(bytes) => {
                    assert!(!concerned && bytes[..] == content(content_len as usize)[(i * SUBTREE_BYTES) as usize..][..bytes.len()])
                }
                Err(ReadError::Corrupt { version, .. }) => assert!(concerned && version == v.version, "byte {offset}, subtree {i}"),
                Err(e) => panic!("{e}"),
            }
        }
        assert!(matches!(store.verify(&v.key, v.version), Err(StoreError::Corrupt { .. })), "byte {offset}");
        flip(&volume.blob(&v), offset);
    }
    store.verify(&v.key, v.version).unwrap();
}

#[test]
fn a_flipped_bit_in_a_footer_that_no_index_knows_is_put_aside() {
    let (volume, v, file_len) = with_value();
    let content_len = 2 * SUBTREE_BYTES + 100;
    for offset in [content_len, content_len + 20, content_len + 97, file_len - 40, file_len - 32, file_len - 22, file_len - 1] {
        let _ = std::fs::remove_dir_all(volume.path().join("index"));
        flip(&volume.blob(&v), offset);
        let store = volume.open();
        assert_eq!((store.status().values, store.status().quarantined), (0, 1), "byte {offset}");
        drop(store);
        let aside = volume.files("quarantine").remove(0);
        flip(&aside, offset);
        std::fs::rename(aside, volume.blob(&v)).unwrap();
    }
}

#[test]
fn a_file_that_is_cut_extended_holed_or_swapped_is_damaged() {
    let (volume, v, file_len) = with_value();
    let store = volume.open();
    let path = volume.blob(&v);
    let good = std::fs::read(&path).unwrap();
    let check = |what: &str| {
        let found = store.verify(&v.key, v.version);
        assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{what}: {found:?}");
        std::fs::write(&path, &good).unwrap();
        store.verify(&v.key, v.version).unwrap();
    };
    for len in [0, 5, file_len - 1, file_len - 40] {
        std::fs::write(&path, &good[..len as usize]).unwrap();
        check("cut");
    }
    std::fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    check("extended");
    std::fs::write(&path, [&vec![0; 4096][..], &good[4096..]].concat()).unwrap();
    check("holed");
    let other = new_value("other", 2, None);
    put(&store, &other, &vec![9; 2 * SUBTREE_BYTES as usize + 96]);
    let swapped = std::fs::read(volume.blob(&other)).unwrap();
    assert_eq!(swapped.len(), good.len(), "another value whose file is as long");
    std::fs::write(&path, swapped).unwrap();
    check("swapped");
    std::fs::remove_file(&path).unwrap();
    check("missing");
}

#[test]
fn a_file_cut_while_it_is_read_is_damaged_and_not_short() {
    let (volume, v, _) = with_value();
    let store = volume.open();
    let stored = store.get(&v.key, v.version).unwrap().unwrap();
    stored.read_subtree(0).unwrap();
    std::fs::OpenOptions::new().write(true).open(volume.blob(&v)).unwrap().set_len(SUBTREE_BYTES + 7).unwrap();
    assert!(matches!(stored.read_subtree(1), Err(ReadError::Corrupt { .. })));
}

#[test]
fn a_copy_in_quarantine_is_kept_and_never_served_again() {
    let (volume, large, _) = with_value();
    let store = volume.open();
    let small = new_value("s", 2, None);
    put(&store, &small, &content(50));
    for (n, v) in [(1, &large), (2, &small)] {
        store.quarantine(&v.key, v.version, "a test").unwrap();
        store.quarantine(&v.key, v.version, "again").unwrap();
        assert!(store.get(&v.key, v.version).unwrap().is_none());
        assert_eq!(store.status().quarantined, n);
    }
    drop(store);
    let store = volume.open();
    assert_eq!((store.status().values, store.status().prepared, store.status().quarantined), (0, 0, 2));
    assert_eq!(volume.files("quarantine").len(), 2);
}

#[test]
fn the_master_is_told_of_a_bad_copy_of_a_staged_value_as_soon_as_that_is_committed() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("s", 2, None);
    put(&store, &v, &content(50));
    assert!(store.quarantine(&v.key, v.version, "a test").unwrap());
    assert_eq!(store.bad_copies(v.commit_by, 10).unwrap().len(), 1);
    let ends = UnixMillis(v.commit_by.0 + 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(store.note_staged(v.key.clone(), v.version, ends)).unwrap();
    drop(store);
    let store = volume.open();
    let at = |time: u64| store.bad_copies(UnixMillis(time), 10).unwrap().len();
    assert_eq!((at(ends.0 - 1), at(ends.0)), (0, 1), "until then it may not know it");
    assert!(!store.mark_committed(&v.key, v.version, 7).unwrap());
    assert_eq!((at(0), store.status().quarantined), (1, 1));
}

#[test]
fn the_master_is_to_be_told_of_bad_copies_until_it_knows_whatever_is_restarted() {
    let (volume, large, _) = with_value();
    let store = volume.open();
    let small = new_value("s", 2, None);
    put(&store, &small, &content(50));
    store.mark_committed(&small.key, small.version, 2).unwrap();
    for v in [&large, &small] {
        assert!(store.quarantine(&v.key, v.version, "a test").unwrap());
        assert!(!store.quarantine(&v.key, v.version, "again").unwrap());
    }
    drop(store);
    let store = volume.open();
    let bad = store.bad_copies(UnixMillis(0), 10).unwrap();
    let told: Vec<_> = bad.iter().map(|b| (&b.key, b.version, b.why.as_str())).collect();
    assert_eq!(told, [(&large.key, large.version, "a test"), (&small.key, small.version, "a test")]);
    assert_eq!(store.bad_copies(UnixMillis(0), 1).unwrap().len(), 1);
    // A copy that is here again is not bad any more; another one is not forgotten by that.
    put(&store, &large, &content(2 * SUBTREE_BYTES as usize + 100));
    assert_eq!(store.bad_copies(UnixMillis(0), 10).unwrap(), bad[1..]);
    store.told(&bad[1..]).unwrap();
    drop(store);
    assert_eq!(volume.open().bad_copies(UnixMillis(u64::MAX), 10).unwrap(), []);
}

#[test]
fn of_a_copy_that_may_still_be_committed_the_master_is_told_when_that_is_over() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 5, None);
    put(&store, &v, &content(50));
    store.quarantine(&v.key, v.version, "a test").unwrap();
    assert_eq!(store.bad_copies(UnixMillis(v.commit_by.0 - 1), 10).unwrap(), []);
    assert_eq!(store.bad_copies(v.commit_by, 10).unwrap().len(), 1);
}

#[test]
fn a_file_that_is_missing_at_a_start_is_told_to_the_master() {
    let (volume, v, _) = with_value();
    std::fs::remove_file(volume.blob(&v)).unwrap();
    let store = volume.open();
    assert_eq!((store.status().values, store.status().quarantined), (0, 0));
    let bad = store.bad_copies(UnixMillis(0), 10).unwrap();
    assert_eq!((bad.len(), &bad[0].key, bad[0].version), (1, &v.key, v.version));
}

#[test]
fn a_blob_file_of_a_newer_format_is_not_put_aside_but_refused() {
    let (volume, v, file_len) = with_value();
    std::fs::remove_dir_all(volume.path().join("index")).unwrap();
    let mut bytes = std::fs::read(volume.blob(&v)).unwrap();
    let (at, end) = (file_len as usize - 24, bytes.len() - 16);
    bytes[at..at + 4].copy_from_slice(&2u32.to_le_bytes());
    let footer = 2 * SUBTREE_BYTES as usize + 100;
    let sum = kvdb_protocol::ContentHash::of(&bytes[footer..end]);
    bytes[end..].copy_from_slice(&sum.0[..16]);
    std::fs::write(volume.blob(&v), bytes).unwrap();
    assert!(matches!(volume.try_open(), Err(OpenError::NewerFormat { found: 2, .. })));
    assert!(volume.blob(&v).exists());
}
