//! Values go in and come out exact.

use super::*;

fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 4095, 4096, 4097, 3 * MIB + 5];
    for n in [64 * KIB, 256 * KIB, MIB] {
        sizes.extend([n - 1, n, n + 1]);
    }
    sizes
}

fn every_size_comes_back(direct_io: bool) {
    let mut volume = Volume::new();
    volume.options.direct_io = direct_io;
    let store = volume.open();
    let mut values = Vec::new();
    for (n, len) in sizes().into_iter().enumerate() {
        for (m, known) in [Some(len as u64), None].into_iter().enumerate() {
            let v = new_value("size", (2 * n + m) as u64, known);
            let bytes = content(len);
            let prepared = put_in_pieces(&store, &v, &bytes, [300_007, 4096][m]).unwrap();
            assert_eq!(prepared, Prepared { len: len as u64, hash: kvdb_protocol::ContentHash::of(&bytes) });
            assert_eq!(volume.blob(&v).exists(), len > 64 * KIB, "{len}");
            values.push((v, bytes));
        }
    }
    let check = |store: &Store| {
        for (v, bytes) in &values {
            assert!(read(store, v).unwrap() == *bytes, "{} bytes, known {:?}, direct {direct_io}", bytes.len(), v.len);
            let entry = store.verify(&v.key, v.version).unwrap().entry;
            assert_eq!((entry.len, entry.expires, entry.seq), (bytes.len() as u64, v.expires, None));
            assert_eq!((entry.content_type, entry.replicas), (v.content_type.clone(), v.replicas.clone()));
            assert_eq!(entry.modified, UnixMillis(v.version.unix_millis()));
        }
    };
    check(&store);
    drop(store);
    check(&volume.open());
    assert_eq!(volume.files("tmp"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn every_size_comes_back_exact_around_the_page_cache() {
    every_size_comes_back(true);
}

#[test]
fn every_size_comes_back_exact_through_the_page_cache() {
    every_size_comes_back(false);
}

#[test]
fn the_content_of_a_blob_file_begins_at_its_first_byte() {
    let volume = Volume::new();
    let store = volume.open();
    let (v, bytes) = (new_value("plain", 1, None), content(700 * KIB));
    put(&store, &v, &bytes);
    let file = std::fs::read(volume.blob(&v)).unwrap();
    assert!(file.starts_with(&bytes));
    assert!(file.len() < bytes.len() + 400, "footer and tail are small");
    let stored = store.get(&v.key, v.version).unwrap().unwrap();
    assert!(stored.content_file().is_some());
}

#[test]
fn no_more_is_taken_than_was_announced_or_permitted() {
    let volume = Volume::new();
    let store = volume.open();
    let too_large = NewValue { max_len: 10, ..new_value("k", 1, Some(11)) };
    assert!(matches!(store.begin(too_large), Err(StoreError::TooLarge { max: 10 })));
    for max_len in [10, 100 * KIB as u64] {
        let mut staged = store.begin(NewValue { max_len, ..new_value("k", 2, None) }).unwrap();
        staged.write(&content(max_len as usize)).unwrap();
        assert!(matches!(staged.write(b"x"), Err(StoreError::TooLarge { max }) if max == max_len));
    }
    for len in [5, 100 * KIB as u64] {
        let mut staged = store.begin(new_value("k", 3, Some(len))).unwrap();
        staged.write(&content(len as usize - 1)).unwrap();
        assert!(matches!(staged.write(b"xy"), Err(StoreError::Length { .. })));
        assert!(matches!(staged.finish(), Err(StoreError::Length { .. })), "one byte is missing");
    }
    assert_eq!(store.status().values, 0);
    assert!(volume.files("blobs").is_empty() && volume.files("tmp").is_empty());
}

#[test]
fn a_value_that_is_dropped_leaves_nothing_and_gives_its_room_back() {
    let volume = Volume::new();
    let store = volume.open();
    for len in [Some(40 * MIB as u64), Some(10), None] {
        let mut staged = store.begin(new_value("k", 1, len)).unwrap();
        staged.write(&content(10)).unwrap();
        if len != Some(10) {
            staged.write(&content(3 * MIB)).unwrap();
            assert_eq!(volume.files("tmp").len(), 1);
        }
        drop(staged);
        assert!(volume.files("tmp").is_empty());
    }
    assert_eq!((store.status().values, store.status().prepared), (0, 0));
    assert!(store.entries(None, 10).unwrap().0.is_empty());
}

#[test]
fn space_is_reserved_on_the_file_system_before_the_first_byte() {
    use std::os::unix::fs::MetadataExt as _;
    let volume = Volume::new();
    let store = volume.open();
    let staged = store.begin(new_value("k", 1, Some(32 * MIB as u64))).unwrap();
    let taken = std::fs::metadata(&volume.files("tmp")[0]).unwrap().blocks() * 512;
    assert!(taken >= 32 * MIB as u64, "{taken}");
    drop(staged);
}

#[test]
fn without_room_a_value_is_refused_before_any_byte() {
    let mut volume = Volume::new();
    volume.options.keep_free_bytes = u64::MAX;
    let store = volume.open();
    for len in [Some(0), Some(MIB as u64), None] {
        let refused = store.begin(new_value("k", 1, len)).err().unwrap();
        assert!(matches!(refused, StoreError::NoSpace { free: 0, .. }), "{refused}");
        assert_eq!(refused.to_problem().status, 507);
    }
    assert!(volume.files("tmp").is_empty());
    assert!(store.status().writable && store.status().free_bytes == 0);
    // Deleting needs no room of values.
    store.remove(&[reclaim(&new_value("k", 1, None), Some(DELETED))]).unwrap();
    assert_eq!(store.entries(None, 10).unwrap().0.len(), 1);
}

#[test]
fn values_for_which_there_is_no_room_are_refused_at_once_or_when_it_runs_out() {
    let volume = Volume::new();
    let mut store = volume.open();
    // A file system that fills up: a megabyte less at every question.
    let left = AtomicU64::new(64 * MIB as u64);
    let ask = move || Ok(crate::disk::Room { total: 1 << 30, available: left.fetch_sub(MIB as u64, Ordering::Relaxed) });
    Arc::get_mut(&mut store.inner).unwrap().space = Arc::new(Space::asking(Box::new(ask), 0));
    let huge = NewValue { max_len: u64::MAX, ..new_value("k", 1, Some(300 * MIB as u64)) };
    assert!(matches!(store.begin(huge), Err(StoreError::NoSpace { .. })));
    let mut staged = store.begin(new_value("k", 2, None)).unwrap();
    let block = content(MIB);
    let refused = (0..300).find_map(|_| staged.write(&block).err()).unwrap();
    assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
    drop(staged);
    assert!(volume.files("tmp").is_empty() && store.status().writable);
    let beyond_the_format = NewValue { max_len: u64::MAX, ..new_value("k", 3, Some(1 << 60)) };
    assert!(matches!(store.begin(beyond_the_format), Err(StoreError::TooLarge { .. })));
}

#[test]
fn the_same_version_again_is_the_same_value_or_refused() {
    let volume = Volume::new();
    let store = volume.open();
    for (n, len) in [(1, 10), (2, 200 * KIB)] {
        let v = new_value("k", n, None);
        let first = put(&store, &v, &content(len));
        assert_eq!(put(&store, &v, &content(len)), first, "the same bytes");
        let other = put_in_pieces(&store, &v, &vec![1; len], MIB);
        assert!(matches!(other, Err(StoreError::VersionUsed { .. })), "other bytes");
        assert!(read(&store, &v).unwrap() == content(len), "the first stands");
        store.remove(&[reclaim(&v, Some(DELETED))]).unwrap();
        assert!(matches!(put_in_pieces(&store, &v, &content(len), MIB), Err(StoreError::VersionUsed { .. })), "deleted for good");
    }
    assert_eq!(store.status().values, 0);
    assert!(volume.files("blobs").is_empty() && volume.files("tmp").is_empty());
}

#[test]
fn many_writers_finish_at_once_and_all_are_kept() {
    let volume = Volume::new();
    let store = volume.open();
    let values: Vec<_> =
        (0..48u64).map(|n| (new_value(&format!("k{}", n % 7), n, None), content(if n % 2 == 0 { 900 } else { 90_000 }))).collect();
    std::thread::scope(|s| {
        for part in values.chunks(6) {
            let store = &store;
            s.spawn(move || {
                for (v, bytes) in part {
                    put(store, v, bytes);
                }
            });
        }
    });
    assert_eq!((store.status().values, store.status().prepared), (48, 48));
    drop(store);
    let store = volume.open();
    assert_eq!((store.status().values, store.status().prepared), (48, 48));
    values.iter().for_each(|(v, bytes)| assert!(read(&store, v).unwrap() == *bytes));
}
