//! What each call does, in one process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // All of it is a test.

use kvdb_embedded::{Content, Error, Key, OpenError, Options, Store};
use kvdb_tests::eventually;
use kvdb_tests::values::value;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn plain(dir: &Path) -> Store {
    Store::open(Options::plain().at(dir.join("store"))).unwrap()
}

fn keys(store: &Store, prefix: &str) -> Vec<String> {
    store.keys(prefix).map(|k| k.unwrap().display()).collect()
}

/// All files of a store's values.
fn files(store: &Store) -> usize {
    kvdb_tests::cluster::files_below(&store.dir().join("volume1/blobs")).len()
}

#[test]
fn values_of_every_size_come_back_as_they_were_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 65_536, 65_537, 262_144, 262_145, 3 * MIB + 1];
    let store = plain(dir.path());
    for size in sizes {
        store.create(format!("of {size}"), value(size, 1), None).unwrap();
    }
    let check = |store: &Store| {
        for size in sizes {
            assert!(store.get(format!("of {size}")).unwrap().unwrap() == value(size, 1), "{size}");
        }
        assert_eq!(store.get("other").unwrap(), None);
    };
    check(&store);
    drop(store);
    let store = plain(dir.path());
    check(&store);
    store.close().unwrap();
    check(&plain(dir.path()));
}

#[test]
fn create_of_an_existing_key_is_an_error_and_changes_nothing_and_put_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    store.create("a", "one", None).unwrap();
    let error = store.create("a", "two", None).unwrap_err();
    assert!(matches!(&error, Error::KeyExists(key) if key == "a") && error.to_string().contains("'a' exists"), "{error}");
    assert_eq!(store.get("a").unwrap().unwrap(), b"one");
    assert!(!store.put("a", "three", None).unwrap(), "it was there");
    assert!(store.put("b", "four", None).unwrap(), "it is new");
    assert_eq!(store.get("a").unwrap().unwrap(), b"three");
    assert!(store.delete("a").unwrap());
    assert!(!store.delete("a").unwrap(), "there is nothing to delete any more");
    store.create("a", "five", None).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), b"five");
}

#[test]
fn a_value_that_has_expired_is_absent_for_every_call_and_its_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    store.create("forever", value(MIB, 1), None).unwrap();
    store.create("long", "y", Some(Duration::from_secs(3600))).unwrap();
    let life = Duration::from_millis(100);
    store.create("short", value(MIB, 2), Some(life)).unwrap();
    store.create("deleted", "x", Some(life)).unwrap();
    std::thread::sleep(life);
    assert_eq!(keys(&store, ""), ["forever", "long"]);
    assert_eq!((store.get("short").unwrap(), store.get("deleted").unwrap()), (None, None));
    assert!(!store.delete("deleted").unwrap(), "there is nothing to delete");
    assert!(matches!(store.create("long", "z", None), Err(Error::KeyExists(_))), "this one lives");
    eventually("the space of the expired value is given back", || (files(&store) == 1).then_some(()));
    store.create("short", "again", None).unwrap();
    drop(store);
    let store = plain(dir.path());
    assert_eq!(store.get("short").unwrap().unwrap(), b"again", "without a time to live now");
    assert_eq!(store.get("long").unwrap().unwrap(), b"y");
}

#[test]
fn a_value_expires_while_the_store_is_closed_and_over_many_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    for n in 0..300 {
        store.put(format!("{n}"), "x", Some(Duration::from_millis(700))).unwrap();
    }
    drop(store);
    std::thread::sleep(Duration::from_millis(701));
    let store = plain(dir.path());
    assert_eq!(keys(&store, ""), [""; 0]);
    store.create("0", "new", None).unwrap();
}

#[test]
fn a_time_to_live_of_nothing_or_for_ever_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    for bad in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(36_501 * 86_400), Duration::MAX] {
        assert!(matches!(store.create("a", "", Some(bad)), Err(Error::Ttl(_))), "{bad:?}");
    }
    assert_eq!(store.get("a").unwrap(), None);
    store.create("a", "", Some(Duration::from_secs(36_500 * 86_400))).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), b"");
}

#[test]
fn delete_all_and_delete_prefix_take_exactly_what_they_say_and_give_the_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    let long = "k".repeat(1000);
    for n in 0..150 {
        store.create(format!("a/{n}/{long}"), "x", None).unwrap();
    }
    store.create("b", value(MIB, 1), None).unwrap();
    assert!(matches!(store.delete_prefix(""), Err(Error::EmptyPrefix)));
    assert_eq!(store.delete_prefix("a/").unwrap(), 150);
    assert_eq!(keys(&store, ""), ["b"]);
    assert_eq!(store.delete_prefix("a/").unwrap(), 0);
    assert_eq!(store.delete_all().unwrap(), 1);
    assert_eq!(keys(&store, ""), [""; 0]);
    eventually("the space is given back", || (files(&store) == 0).then_some(()));
    drop(store);
    assert_eq!(keys(&plain(dir.path()), ""), [""; 0]);
}

#[test]
fn keys_come_in_order_of_their_bytes_over_more_than_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    let mut expected: Vec<String> = (0..1_100).map(|n| format!("k{n}")).collect();
    std::thread::scope(|scope| {
        for part in expected.chunks(140) {
            let store = &store;
            scope.spawn(move || part.iter().for_each(|k| store.create(k, "", None).unwrap()));
        }
    });
    expected.sort();
    assert_eq!(keys(&store, ""), expected);
    let with: Vec<_> = expected.iter().filter(|k| k.starts_with("k99")).cloned().collect();
    assert_eq!(keys(&store, "k99"), with);
    store.create([0xFF, 0], "bytes", None).unwrap();
    assert_eq!(store.keys([0xFF]).map(|k| k.unwrap()).collect::<Vec<_>>(), [Key::new([0xFF, 0]).unwrap()]);
}

#[test]
fn the_profile_of_key_value_ds_takes_short_keys_and_json_objects_of_16_kib() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::key_value_ds().at(dir.path().join("s"))).unwrap();
    let of = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
    store.create("k".repeat(32), of(16 << 10), None).unwrap();
    assert!(matches!(store.create("k".repeat(33), "{}", None), Err(Error::KeyTooLong { found: 33, max: 32, .. })));
    assert!(matches!(store.create("a", of((16 << 10) + 1), None), Err(Error::ValueTooLarge { max: 16_384, .. })));
    assert!(matches!(store.create("a", "[1]", None), Err(Error::NotAJsonObject(_))));
    assert_eq!(keys(&store, ""), ["k".repeat(32)]);
    drop(store);
    let wider = Options { content: Content::Any, ..Options::key_value_ds() }.at(dir.path().join("s"));
    Store::open(wider).unwrap().create("a", "[1]", None).unwrap();
}

#[test]
fn a_second_opener_in_the_same_process_gets_an_error_at_once_until_the_first_has_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    store.create("a", "1", None).unwrap();
    for _ in 0..3 {
        let error = Store::open(Options::plain().at(dir.path().join("store"))).unwrap_err();
        assert!(matches!(&error, OpenError::AlreadyOpen(at) if at.ends_with("store")), "{error}");
    }
    assert_eq!(store.get("a").unwrap().unwrap(), b"1", "the first is not disturbed");
    drop(store);
    assert_eq!(plain(dir.path()).get("a").unwrap().unwrap(), b"1");
}

#[test]
fn many_threads_may_create_one_key_and_one_of_them_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    const THREADS: usize = 8;
    let (start, created) = (Barrier::new(THREADS), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, start, created) = (&store, &start, &created);
            scope.spawn(move || {
                start.wait();
                for n in 0..30 {
                    let mine = value(70_000, (thread * 100 + n) as u64);
                    match store.create(format!("shared {n}"), &mine, None) {
                        Ok(()) => {
                            created.fetch_add(1, Ordering::SeqCst);
                            assert!(store.get(format!("shared {n}")).unwrap().unwrap() == mine);
                        }
                        Err(e) => assert!(matches!(e, Error::KeyExists(_)), "{e}"),
                    }
                    // Everybody's own key is nobody else's business.
                    store.put(format!("own {thread}"), &mine, None).unwrap();
                    assert!(store.get(format!("own {thread}")).unwrap().unwrap() == mine);
                }
            });
        }
    });
    assert_eq!(created.load(Ordering::SeqCst), 30);
    eventually("the refused and the replaced values are gone", || (files(&store) == 30 + THREADS).then_some(()));
}

#[test]
fn readers_see_one_of_the_values_that_were_written_while_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    store.create("k", value(300_000, 0), None).unwrap();
    std::thread::scope(|scope| {
        let (store, writing) = (&store, scope.spawn(|| (1..60).for_each(|n| assert!(!store.put("k", value(300_000, n), None).unwrap()))));
        while !writing.is_finished() {
            let found = store.get("k").unwrap().unwrap();
            assert!((0..60).any(|n| found == value(300_000, n)), "a value that nobody wrote");
        }
    });
}

#[test]
fn it_works_inside_of_a_runtime_of_one_thread_or_several() {
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let one = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for runtime in [several, one] {
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let store = plain(dir.path());
            store.create("a", "1", Some(Duration::from_millis(1))).unwrap();
            store.create("b", value(MIB, 1), None).unwrap();
            eventually("it has expired", || (keys(&store, "") == ["b"]).then_some(()));
            assert!(matches!(Store::open(Options::plain().at(store.dir())), Err(OpenError::AlreadyOpen(_))));
            assert_eq!(store.delete_all().unwrap(), 1);
            drop(store);
            plain(dir.path()).close().unwrap();
        });
    }
}

#[test]
fn a_value_that_the_disk_has_damaged_is_an_error_and_is_not_returned() {
    let dir = tempfile::tempdir().unwrap();
    let store = plain(dir.path());
    store.create("a", value(MIB, 1), None).unwrap();
    store.create("b", value(MIB, 2), None).unwrap();
    let blobs = kvdb_tests::cluster::files_below(&store.dir().join("volume1/blobs"));
    let of_a: &PathBuf = blobs.iter().find(|f| std::fs::read(f).unwrap().starts_with(&value(64, 1))).unwrap();
    let mut bytes = std::fs::read(of_a).unwrap();
    bytes[MIB / 2] ^= 1;
    std::fs::write(of_a, bytes).unwrap();
    let error = store.get("a").unwrap_err();
    assert!(matches!(&error, Error::Damaged { key, .. } if key == "a"), "{error}");
    assert!(store.get("b").unwrap().unwrap() == value(MIB, 2));
    store.put("a", "new", None).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), b"new");
}

#[test]
fn a_store_that_is_full_refuses_what_has_no_room_and_takes_it_when_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { capacity_bytes: 3 << 20, ..Options::plain() }.at(dir.path().join("s"))).unwrap();
    store.create("a", value(2 * MIB, 1), None).unwrap();
    assert!(matches!(store.create("b", value(2 * MIB, 2), None), Err(Error::NoSpace(_))));
    assert_eq!(keys(&store, ""), ["a"]);
    assert!(store.delete("a").unwrap());
    eventually("there is room again", || store.create("b", value(2 * MIB, 2), None).ok());
}

#[test]
fn a_part_of_the_directory_that_is_missing_is_named_and_nothing_is_made_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("store");
    drop(plain(dir.path()));
    for part in ["master", "volume1"] {
        std::fs::rename(at.join(part), dir.path().join("aside")).unwrap();
        let error = Store::open(Options::plain().at(&at)).unwrap_err();
        assert!(matches!(&error, OpenError::Mismatch { why, .. } if why.contains(part)), "{error}");
        assert!(!at.join(part).exists());
        std::fs::rename(dir.path().join("aside"), at.join(part)).unwrap();
    }
    // Two stores whose values were exchanged.
    drop(Store::open(Options::plain().at(dir.path().join("other"))).unwrap());
    std::fs::rename(at.join("volume1"), dir.path().join("aside")).unwrap();
    std::fs::rename(dir.path().join("other/volume1"), at.join("volume1")).unwrap();
    assert!(matches!(Store::open(Options::plain().at(&at)), Err(OpenError::Mismatch { .. })));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Store::open(Options::plain().at(&file)).is_err());
}
