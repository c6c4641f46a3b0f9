//! States that a crash can leave, and what the next start makes of them.

use super::*;

/// A copy of the directory as it is now, as `kill -9` would leave it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for e in std::fs::read_dir(from).unwrap() {
        let (e, target) = (e.as_ref().unwrap(), to.join(e.as_ref().unwrap().file_name()));
        if e.path().is_dir() {
            copy(&e.path(), &target);
        } else {
            std::fs::copy(e.path(), target).unwrap();
        }
    }
}

/// A second volume that is a copy of the first as it is now.
fn killed(volume: &Volume) -> Volume {
    let after = Volume::new();
    copy(volume.path(), after.path());
    after
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_the_rest_is_gone() {
    let volume = Volume::new();
    let store = volume.open();
    let (small, large, half) = (new_value("s", 1, None), new_value("l", 2, None), new_value("h", 3, Some(5 * MIB as u64)));
    put(&store, &small, &content(1000));
    put(&store, &large, &content(MIB));
    let mut staged = store.begin(half.clone()).unwrap();
    staged.write(&content(3 * MIB)).unwrap();
    assert_eq!(volume.files("tmp").len(), 1);

    let after = killed(&volume);
    let store = after.open();
    assert!(read(&store, &small).unwrap() == content(1000));
    assert!(read(&store, &large).unwrap() == content(MIB));
    assert!(store.get(&half.key, half.version).unwrap().is_none());
    assert!(after.files("tmp").is_empty());
    assert_eq!(store.prepared(10).unwrap().len(), 2);
}

#[test]
fn a_file_without_an_entry_is_taken_in_as_prepared() {
    let volume = Volume::new();
    let v = new_value("k", 1, None);
    let store = volume.open();
    let before = killed(&volume);
    put(&store, &v, &content(800 * KIB));
    // The index of before, the file of after.
    copy(&volume.path().join("blobs"), &before.path().join("blobs"));
    let store = before.open();
    assert!(read(&store, &v).unwrap() == content(800 * KIB));
    let entry = store.verify(&v.key, v.version).unwrap().entry;
    assert_eq!((entry.seq, entry.content_type, entry.expires), (None, v.content_type.clone(), v.expires));
    assert_eq!((entry.modified, entry.replicas), (UnixMillis(v.version.unix_millis()), v.replicas.clone()));
    let items = store.prepared(10).unwrap();
    assert_eq!((items.len(), items[0].version, items[0].commit_by), (1, v.version, v.commit_by));
}

#[test]
fn an_entry_without_a_file_goes() {
    let volume = Volume::new();
    let store = volume.open();
    let values: Vec<_> = (1..40).map(|n| new_value("k", n, None)).collect();
    for v in &values {
        put(&store, v, &content(70 * KIB));
    }
    drop(store);
    for v in values.iter().step_by(2) {
        std::fs::remove_file(volume.blob(v)).unwrap();
    }
    let store = volume.open();
    for (n, v) in values.iter().enumerate() {
        assert_eq!(store.get(&v.key, v.version).unwrap().is_some(), n % 2 == 1, "{n}");
    }
    assert_eq!((store.status().values, store.prepared(100).unwrap().len()), (19, 19));
}

#[test]
fn the_removal_of_a_deleted_value_is_done_again_where_the_file_came_back() {
    let volume = Volume::new();
    let store = volume.open();
    let (deleted, replaced) = (new_value("d", 1, None), new_value("r", 2, None));
    put(&store, &deleted, &content(MIB));
    put(&store, &replaced, &content(MIB));
    let before = killed(&volume);
    store.remove(&[reclaim(&deleted, Some(DELETED)), reclaim(&replaced, None)]).unwrap();
    drop(store);
    copy(&before.path().join("blobs"), &volume.path().join("blobs"));
    let store = volume.open();
    assert!(store.get(&deleted.key, deleted.version).unwrap().is_none());
    assert!(!volume.blob(&deleted).exists());
    // Of the other nobody here knows: the master is asked.
    assert_eq!(store.prepared(10).unwrap().iter().map(|i| i.version).collect::<Vec<_>>(), [replaced.version]);
}

#[test]
fn an_index_that_is_gone_is_made_again_from_the_files() {
    let volume = Volume::new();
    let store = volume.open();
    let values: Vec<_> = (0..30).map(|n| new_value(&format!("k{n}"), n, None)).collect();
    for v in &values {
        put(&store, v, &content(65 * KIB + v.version.unix_millis() as usize % 7));
    }
    drop(store);
    std::fs::remove_dir_all(volume.path().join("index")).unwrap();
    let store = volume.open();
    assert_eq!((store.status().values, store.status().prepared), (30, 30));
    values.iter().for_each(|v| drop(store.verify(&v.key, v.version).unwrap()));
}

#[test]
fn an_index_that_is_damaged_is_put_aside_and_made_again() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    drop(store);
    for e in std::fs::read_dir(volume.path().join("index")).unwrap() {
        let path = e.unwrap().path();
        if path.is_file() {
            std::fs::write(&path, b"this is not an index").unwrap();
        }
    }
    let store = volume.open();
    assert!(read(&store, &v).unwrap() == content(MIB));
    assert_eq!(store.prepared(10).unwrap().len(), 1);
    assert!(volume.path().join("index.damaged-1").is_dir());
}

#[test]
fn a_torn_end_of_the_journal_loses_only_what_was_not_acknowledged() {
    let volume = Volume::new();
    let store = volume.open();
    let (first, second) = (new_value("a", 1, None), new_value("b", 2, None));
    put(&store, &first, &content(20_000));
    let length = journal_end(&volume);
    put(&store, &second, &content(20_000));
    let after = killed(&volume);
    let journal = journal(&after);
    // As if the power went in the middle of the second write.
    std::fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(length + 9_000).unwrap();
    let store = after.open();
    assert!(read(&store, &first).unwrap() == content(20_000));
    assert!(store.get(&second.key, second.version).unwrap().is_none());
    put(&store, &second, &content(20_000));
    drop(store);
    assert!(read(&after.open(), &second).unwrap() == content(20_000));
}

fn journal(volume: &Volume) -> std::path::PathBuf {
    let is_journal = |p: &std::path::PathBuf| p.extension().is_some_and(|e| e == "jnl");
    volume.files("index").into_iter().rfind(is_journal).unwrap()
}

/// Where the last written byte of the journal is; the rest of the file is zero.
fn journal_end(volume: &Volume) -> u64 {
    let bytes = std::fs::read(journal(volume)).unwrap();
    bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1
}

#[test]
fn links_pipes_and_strangers_among_the_files_are_left_alone() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    drop(store);
    let parent = volume.blob(&v).parent().unwrap().to_path_buf();
    let names = |n: u8| {
        let mut b = *v.version.as_bytes();
        b[8] ^= n;
        parent.join(VersionId::from_bytes(b).to_string())
    };
    std::os::unix::fs::symlink(volume.blob(&v), names(1)).unwrap();
    std::fs::create_dir(names(2)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, names(3), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    std::fs::write(parent.join("notes.txt"), b"hello").unwrap();
    std::os::unix::fs::symlink("/etc", volume.path().join("tmp/link")).unwrap();
    let store = volume.open();
    assert_eq!(store.status().values, 1);
    assert!(names(3).symlink_metadata().is_ok() && parent.join("notes.txt").exists());
    assert!(Path::new("/etc/passwd").exists(), "a link is removed, not followed");
}

#[test]
fn a_flipped_byte_in_the_index_never_gives_wrong_bytes_nor_loses_a_blob_file() {
    let volume = Volume::new();
    let store = volume.open();
    let values: Vec<_> =
        (0..60).map(|n| (new_value(&format!("k{n}"), n, None), content(if n % 3 == 0 { 66 * KIB } else { 9000 }))).collect();
    for (v, bytes) in &values {
        put(&store, v, bytes);
    }
    drop(store);
    for file in volume.files("index").iter().filter(|f| f.metadata().unwrap().len() > 0) {
        for part in [0, 1, 5, 9] {
            let after = killed(&volume);
            let path = after.path().join(file.strip_prefix(volume.path()).unwrap());
            let mut bytes = std::fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |end| end + 1);
            bytes[(used * part / 9).min(used.saturating_sub(1))] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let store = after.open();
            for (v, bytes) in &values {
                match read(&store, v) {
                    Ok(found) => assert!(found == *bytes, "{}: wrong bytes", path.display()),
                    Err(e) => assert!(bytes.len() < 64 * KIB, "{}, part {part}: {e}", path.display()),
                }
            }
        }
    }
}
