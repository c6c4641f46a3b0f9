//! Files of values that are held open.

use super::*;
use std::os::unix::fs::FileExt as _;

fn held(store: &Store, v: &NewValue) -> bool {
    store.at_hand(&v.key, v.version).is_some()
}

fn open(store: &Store, v: &NewValue) -> Arc<Stored> {
    store.open_value(&v.key, v.version).unwrap().unwrap()
}

#[test]
fn a_value_that_was_opened_is_at_hand_under_its_own_key() {
    let volume = Volume::new();
    let store = volume.open();
    let (large, small) = (new_value("k", 1, None), new_value("small", 2, None));
    let bytes = content(MIB);
    put(&store, &large, &bytes);
    put(&store, &small, &bytes[..100]);
    assert!(!held(&store, &large));
    open(&store, &large);
    assert_eq!(store.at_hand(&large.key, large.version).unwrap().read_subtree(0).unwrap(), &bytes[..256 * KIB]);
    assert!(store.at_hand(&key("other"), large.version).is_none());
    open(&store, &small);
    assert!(!held(&store, &small), "a value in the index has no file");
}

#[test]
fn what_is_removed_is_at_hand_no_more_and_its_space_comes_back() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    let file = Arc::downgrade(open(&store, &v).content_file().unwrap());
    assert!(file.upgrade().is_some());
    store.remove(&[reclaim(&v, None)]).unwrap();
    assert!(!held(&store, &v));
    assert!(file.upgrade().is_none(), "its file is open");
}

#[test]
fn a_value_that_is_removed_while_it_is_opened_is_not_held() {
    let volume = Volume::new();
    let store = volume.open();
    let (v, other) = (new_value("k", 1, None), new_value("other", 2, None));
    put(&store, &v, &content(MIB));
    put(&store, &other, &content(MIB));
    let removals = store.inner.at_hand.removals();
    let stored = Arc::new(store.get(&v.key, v.version).unwrap().unwrap());
    store.remove(&[reclaim(&v, None)]).unwrap();
    store.inner.at_hand.put(&stored, removals);
    assert!(store.inner.at_hand.lock().values.is_empty());
}

#[test]
fn a_file_that_was_changed_or_put_aside_is_at_hand_no_more() {
    let volume = Volume::new();
    let store = volume.open();
    let v = new_value("k", 1, None);
    put(&store, &v, &content(MIB));
    open(&store, &v);
    let file = std::fs::File::options().write(true).open(volume.blob(&v)).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    // Its ctime may be the same within a tick of the kernel's clock; its length is not.
    file.set_len(MIB as u64).unwrap();
    assert!(!held(&store, &v));

    let v = new_value("k", 2, None);
    put(&store, &v, &content(MIB));
    open(&store, &v);
    assert!(store.quarantine(&v.key, v.version, "a test").unwrap());
    assert!(!held(&store, &v));
}

#[test]
fn only_so_many_files_are_held_open() {
    let volume = Volume::new();
    let store = volume.open();
    let values: Vec<NewValue> = (0..crate::store::at_hand::MAX_FILES + 50).map(|n| new_value("k", n, None)).collect();
    for v in &values {
        put(&store, v, &content(70 * KIB));
        open(&store, v);
    }
    let open = values.iter().filter(|v| held(&store, v)).count();
    assert!((1..=crate::store::at_hand::MAX_FILES as usize).contains(&open), "{open} files are held open");
}
