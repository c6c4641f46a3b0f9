//! Prepared, committed, removed; identity, lock, pages.

use super::*;

#[test]
fn a_prepared_value_is_listed_for_settling_until_it_is_committed() {
    let volume = Volume::new();
    let store = volume.open();
    let late = new_value("a", 9, None);
    let early = new_value("b", 2, None);
    put(&store, &late, &content(5));
    put(&store, &early, &content(100 * KIB));
    let items = store.prepared(10).unwrap();
    assert_eq!(items.iter().map(|i| i.version).collect::<Vec<_>>(), [early.version, late.version], "what ends first comes first");
    assert_eq!((&items[0].key, items[0].commit_by), (&early.key, early.commit_by));
    assert_eq!(store.prepared(1).unwrap().len(), 1);

    assert!(store.mark_committed(&early.key, early.version, 41).unwrap());
    assert!(store.mark_committed(&early.key, early.version, 41).unwrap(), "again");
    assert!(!store.mark_committed(&key("c"), early.version, 41).unwrap(), "not here");
    assert_eq!(store.get(&early.key, early.version).unwrap().unwrap().entry.seq, Some(41));
    assert_eq!(store.prepared(10).unwrap().len(), 1);
    assert_eq!(store.status().prepared, 1);
    drop(store);
    let store = volume.open();
    assert_eq!(store.get(&early.key, early.version).unwrap().unwrap().entry.seq, Some(41));
    assert_eq!((store.status().values, store.status().prepared), (2, 1));
}

#[test]
fn a_value_that_is_staged_is_asked_for_after_the_end_of_its_transaction_and_one_that_is_committed_is_not() {
    let volume = Volume::new();
    let store = volume.open();
    let (first, second, done) = (new_value("a", 2, None), new_value("b", 9, None), new_value("c", 3, None));
    for v in [&first, &second, &done] {
        put(&store, v, &content(100));
    }
    store.mark_committed(&done.key, done.version, 41).unwrap();
    let ends = UnixMillis(second.commit_by.0 + 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for v in [&first, &first, &done, &new_value("never", 4, None)] {
        runtime.block_on(store.note_staged(v.key.clone(), v.version, ends)).unwrap();
    }
    drop(store);
    let store = volume.open();
    let found: Vec<_> = store.prepared(10).unwrap().into_iter().map(|i| (i.version, i.commit_by)).collect();
    assert_eq!(found, [(second.version, second.commit_by), (first.version, ends)]);
    assert_eq!((store.status().values, store.status().prepared), (3, 2));
    store.remove(&[reclaim(&first, None), reclaim(&second, None)]).unwrap();
    assert_eq!((store.prepared(10).unwrap().len(), store.status().prepared), (0, 0));
}

#[test]
fn removing_frees_space_at_once_and_can_be_repeated() {
    let volume = Volume::new();
    let store = volume.open();
    let (small, large) = (new_value("a", 1, None), new_value("b", 2, None));
    put(&store, &small, &content(100));
    put(&store, &large, &content(MIB));
    store.mark_committed(&large.key, large.version, 5).unwrap();
    let reader = store.get(&large.key, large.version).unwrap().unwrap();
    let items = [reclaim(&small, None), reclaim(&large, Some(DELETED)), reclaim(&new_value("never", 3, None), None)];
    for _ in 0..2 {
        store.remove(&items).unwrap();
        assert!(store.get(&small.key, small.version).unwrap().is_none());
        assert!(store.get(&large.key, large.version).unwrap().is_none());
        assert!(volume.files("blobs").is_empty());
        let status = store.status();
        assert_eq!((status.values, status.used_bytes, status.prepared), (0, 0, 0));
        let tombstone = Entry::Tombstone { key: large.key.clone(), version: large.version, deleted: DELETED };
        assert_eq!(store.entries(None, 10).unwrap(), (vec![tombstone], None));
    }
    // Who was reading reads on.
    assert!(reader.read_subtree(3).unwrap()[..] == content(MIB)[768 * KIB..]);
    // A tombstone is not taken away by a later removal without one, nor by a restart.
    store.remove(&[reclaim(&large, None)]).unwrap();
    drop(store);
    assert_eq!(volume.open().entries(None, 10).unwrap().0.len(), 1);
}

#[test]
fn a_tombstone_goes_when_it_is_old_and_not_before() {
    let mut volume = Volume::new();
    volume.options.tombstone_keep = Duration::from_secs(3600);
    let store = volume.open();
    let (old, new) = (new_value("old", 1, None), new_value("new", 2, None));
    let at = |time| Some(Deleted { seq: 1, time });
    store.remove(&[reclaim(&old, at(UnixMillis(1_000))), reclaim(&new, at(UnixMillis::now()))]).unwrap();
    drop(store);
    // The sweep runs when the index's thread starts; closing waits for that thread.
    drop(volume.open());
    let (entries, _) = volume.open().entries(None, 10).unwrap();
    assert!(matches!(&entries[..], [Entry::Tombstone { key, .. }] if *key == new.key), "{entries:?}");
}

#[test]
fn entries_come_in_order_of_key_and_version_page_by_page() {
    let volume = Volume::new();
    let store = volume.open();
    let keys: Vec<Vec<u8>> = vec![b"b".to_vec(), b"a".to_vec(), b"a\0".to_vec(), b"a\0\0".to_vec(), b"a\x01".to_vec(), vec![0xFF, 0xFE]];
    let mut expected = Vec::new();
    for (n, k) in keys.iter().enumerate() {
        for m in [5, 3] {
            let v = NewValue { key: Key::new(k.clone()).unwrap(), ..new_value("x", (n * 10 + m) as u64, None) };
            put(&store, &v, &content(n));
            expected.push((v.key.clone(), v.version));
        }
    }
    expected.sort();
    for limit in [1, 5, 100] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = store.entries(cursor.as_deref(), limit).unwrap();
            assert!(page.len() <= limit && !page.is_empty());
            for e in page {
                match e {
                    Entry::Value(v) => found.push((v.key, v.version)),
                    other => panic!("{other:?}"),
                }
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{limit} a page");
    }
}

#[test]
fn a_directory_is_locked_while_it_is_open() {
    let volume = Volume::new();
    let store = volume.open();
    assert!(matches!(volume.try_open(), Err(OpenError::Locked(_))));
    let id = store.volume();
    drop(store);
    assert_eq!(volume.open().volume(), id, "the identity stays");
}

#[test]
fn a_directory_of_a_newer_format_is_refused_by_name() {
    let volume = Volume::new();
    drop(volume.open());
    let path = volume.path().join(IDENTITY_FILE);
    std::fs::write(&path, r#"{"format": 2, "volume": 17, "colour": "blue"}"#).unwrap();
    assert!(matches!(volume.try_open(), Err(OpenError::NewerFormat { found: 2, known: 1, .. })));
    for bad in ["", "{}", r#"{"format":1}"#, r#"{"format":0,"volume":"x"}"#, "\0\0\0"] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(volume.try_open(), Err(OpenError::BadIdentity { .. })), "{bad}");
    }
}

#[test]
fn a_directory_with_other_things_is_refused_and_an_empty_one_taken() {
    let volume = Volume::new();
    std::fs::create_dir_all(volume.path().join("lost+found")).unwrap();
    drop(volume.open());
    let other = Volume::new();
    std::fs::create_dir_all(other.path().join("photos")).unwrap();
    assert!(matches!(other.try_open(), Err(OpenError::NotOurs { found, .. }) if found == "photos"));
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 1, "nothing was put there");
    std::fs::write(other.dir.path().join("file"), b"").unwrap();
    let on_a_file = Store::open(StoreOptions::new(other.dir.path().join("file")));
    assert!(matches!(on_a_file, Err(OpenError::NotADirectory(_))));
    // A volume that lost its identity is not silently a new one.
    std::fs::remove_file(volume.path().join(IDENTITY_FILE)).unwrap();
    assert!(matches!(volume.try_open(), Err(OpenError::NotOurs { .. })));
}

#[test]
fn a_volume_belongs_to_one_cluster_and_keeps_its_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let volume = Volume::new();
    let store = volume.open();
    let (cluster, secret) = (ClusterId::random(), ClusterSecret::random());
    assert_eq!(store.cluster(), None);
    store.adopt(cluster, Some(&secret)).unwrap();
    store.adopt(cluster, Some(&secret)).unwrap();
    store.adopt(cluster, None).unwrap();
    let refused = store.adopt(ClusterId::random(), None).err().unwrap();
    assert!(matches!(refused, StoreError::OtherCluster { owner, .. } if owner == cluster));
    assert_eq!(refused.to_problem().status, 421);
    drop(store);
    let store = volume.open();
    assert_eq!((store.cluster(), store.secret()), (Some(cluster), Some(secret)));
    let mode = std::fs::metadata(volume.path().join(SECRET_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_adoption_that_was_cut_off_leaves_the_volume_free() {
    let volume = Volume::new();
    drop(volume.open());
    std::fs::write(volume.path().join(SECRET_FILE), "0123456789abcdef0123456789abcdef\n").unwrap();
    let store = volume.open();
    assert!(store.cluster().is_none() && store.secret().is_none());
}

#[test]
fn after_a_failed_sync_no_value_is_taken_and_reading_and_removing_go_on() {
    use crate::disk::{DiskError, Op};
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    let mut half = store.begin(new_value("h", 2, None)).unwrap();
    half.write(&content(MIB)).unwrap();
    let failure = |op, errno: rustix::io::Errno| StoreError::Io(DiskError { op, path: "/secret-path".into(), source: errno.into() });
    for harmless in [failure(Op::Write, rustix::io::Errno::IO), failure(Op::Sync, rustix::io::Errno::NOSPC)] {
        store.inner.stop_if_sync_failed(&harmless);
        assert!(store.status().writable, "{harmless}");
    }
    store.inner.stop_if_sync_failed(&failure(Op::SyncDir, rustix::io::Errno::IO));

    let refused = store.begin(new_value("k", 3, None)).err().unwrap();
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
    let problem = refused.to_problem();
    assert_eq!(problem.status, 503);
    assert!(!problem.detail.contains("secret-path"), "paths of this machine are not for clients: {}", problem.detail);
    assert!(store.status().reason.is_some_and(|r| r.contains("secret-path")), "but for its operator");
    assert!(matches!(half.finish(), Err(StoreError::ReadOnly { .. })));
    assert!(!store.status().writable && store.status().reason.is_some());
    assert!(read(&store, &v).unwrap() == content(MIB));
    assert!(store.mark_committed(&v.key, v.version, 1).unwrap());
    store.remove(&[reclaim(&v, Some(DELETED))]).unwrap();
    assert!(volume.files("blobs").is_empty() && volume.files("tmp").is_empty());
}

#[test]
fn directories_that_somebody_removed_are_made_again() {
    let volume = Volume::new();
    let store = volume.open();
    let write = |n: u64| {
        let mut staged = store.begin(new_value("k", n, Some(MIB as u64))).unwrap();
        staged.write(&content(MIB)).unwrap();
        staged.finish()
    };
    write(1).unwrap();
    for entry in std::fs::read_dir(volume.path().join("blobs")).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    write(1 << 40).unwrap();
    // The very directory that was there before.
    write(1 + (1 << 50)).unwrap();
    assert_eq!(volume.files("blobs").len(), 2);
}
