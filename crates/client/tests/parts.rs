//! Reading in parts from servers that break off, lie, stall and change.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Conn, Fake, key, pattern, tree, until};
use kvdb_client::{Client, ContentHash, DownloadOptions, Downloaded, Error, ErrorCode, PARTS_FROM_BYTES, VersionId, part_path};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const SUBTREE: usize = 256 << 10;
const LEN: usize = 80 * SUBTREE + 12_345;

/// A volume that has `value`, and does with the parts of it what `parts` says.
fn volume(value: Arc<Vec<u8>>, parts: impl Fn(&mut Conn, &[u8]) + Send + Sync + 'static) -> Fake {
    let tree = tree(&value);
    Fake::start(move |c| match c.seen.target.ends_with("&tree") {
        true => c.answer(200, &[], &tree),
        false => parts(c, &value),
    })
}

fn good(value: &Arc<Vec<u8>>) -> Fake {
    volume(value.clone(), |c, value| c.serve(value, usize::MAX))
}

/// The master's answer to `?locate`.
fn located(value: &[u8], hosts: &[String]) -> String {
    let locations: Vec<String> = hosts.iter().map(|h| format!("http://{h}/k?v=1")).collect();
    let (etag, version) = (ContentHash::of(value), VersionId::from_parts(1, 2));
    serde_json::json!({"key": "k", "len": value.len(), "etag": etag, "modified": 5, "version": version, "locations": locations}).to_string()
}

fn master(value: &[u8], volumes: &[&Fake]) -> Fake {
    let hosts: Vec<String> = volumes.iter().map(|v| v.host.clone()).collect();
    let answer = located(value, &hosts);
    Fake::start(move |c| match c.seen.target.as_str() {
        "/k?locate" => c.answer(200, &[], answer.as_bytes()),
        _ => c.redirect(302, &format!("http://{}/k?v=1", hosts[0])),
    })
}

fn options() -> DownloadOptions {
    DownloadOptions { parts_from: 1 << 20, ..DownloadOptions::default() }
}

/// Where a test's file is to be.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("out")
    }

    fn part(&self) -> PathBuf {
        part_path(&self.file()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn get(&self, client: &Client) -> Result<Downloaded, Error> {
        client.download(&key("k"), self.file(), options()).await
    }

    /// All of it is there, and nothing else.
    #[track_caller]
    fn has_only(&self, value: &[u8]) {
        assert!(std::fs::read(self.file()).unwrap() == value, "other bytes than the value's");
        assert_eq!(self.names(), ["out"]);
    }
}

/// Bytes that were asked for in ranges.
fn asked(volume: &Fake) -> usize {
    let ranges = volume.log().into_iter().filter_map(|s| s.header("range").map(str::to_string));
    let len = |r: String| {
        let (first, last) = r.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap()
    };
    ranges.map(len).sum()
}

fn ranges(volume: &Fake) -> usize {
    volume.log().iter().filter(|s| s.header("range").is_some()).count()
}

/// A client of few tries and little patience.
fn hasty(master: &Fake) -> Client {
    Client::builder(&master.host).no_proxy().retries(3).stall_timeout(Duration::from_millis(300)).build().unwrap()
}

fn value() -> Arc<Vec<u8>> {
    Arc::new(pattern(LEN))
}

#[tokio::test]
async fn a_large_value_comes_from_all_replicas_and_no_byte_twice() {
    let (value, place) = (value(), Place::new());
    let (a, b) = (good(&value), good(&value));
    let master = master(&value, &[&a, &b]);
    let options = options();
    let done = master.client().download(&key("k"), place.file(), options.clone()).await.unwrap();
    place.has_only(&value);
    assert_eq!((done.fetched, done.kept, done.info.len), (LEN as u64, 0, LEN as u64));
    assert_eq!((done.info.etag, options.progress.bytes()), (ContentHash::of(&value), LEN as u64));
    assert!(asked(&a) > 0 && asked(&b) > 0);
    assert_eq!(asked(&a) + asked(&b), LEN);
    assert_eq!(master.log().len(), 1);
    assert!(a.log().iter().chain(&b.log()).filter(|s| s.header("range").is_some()).all(|s| s.header("if-match").is_some()));
}

#[tokio::test]
async fn values_of_every_length_around_a_subtree_are_exact() {
    for len in [1, SUBTREE - 1, SUBTREE, SUBTREE + 1, 4 * SUBTREE, 4 * SUBTREE + 1, 32 * SUBTREE, 32 * SUBTREE + 1] {
        let (value, place) = (Arc::new(pattern(len)), Place::new());
        let v = good(&value);
        let options = DownloadOptions { parts_from: 1, ..DownloadOptions::default() };
        master(&value, &[&v]).client().download(&key("k"), place.file(), options).await.unwrap();
        place.has_only(&value);
    }
}

#[tokio::test]
async fn a_replica_that_sends_a_wrong_bit_is_left_and_the_bit_is_nowhere() {
    let (value, place) = (value(), Place::new());
    let wrong = volume(value.clone(), |c, value| {
        let flipped: Vec<u8> = value.iter().map(|b| b ^ 1).collect();
        serve_as(c, &flipped, &ContentHash::of(value));
    });
    let right = good(&value);
    let done = place.get(&master(&value, &[&wrong, &right]).client()).await.unwrap();
    place.has_only(&value);
    assert_eq!(done.fetched, LEN as u64);
    assert!((1..=3).contains(&ranges(&wrong)), "only what was under way when the first was found");
    assert_eq!(asked(&right), LEN);
}

/// Serves bytes under the hash of others.
fn serve_as(c: &mut Conn, bytes: &[u8], hash: &ContentHash) {
    let range = c.seen.header("range").unwrap().to_string();
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let content_range = format!("bytes {first}-{last}/{}", bytes.len());
    c.answer(206, &[("ETag", &hash.etag()), ("Content-Range", &content_range)], &bytes[first..=last]);
}

#[tokio::test]
async fn a_bit_that_flips_once_on_the_way_from_the_only_replica_is_asked_for_again() {
    let (value, place) = (value(), Place::new());
    let flips = AtomicUsize::new(0);
    let v = volume(value.clone(), move |c, value| {
        let mut sent = value.to_vec();
        if flips.fetch_add(1, Ordering::SeqCst) == 0 {
            sent[10 * SUBTREE + 7] ^= 0x40;
        }
        serve_as(c, &sent, &ContentHash::of(value));
    });
    let done = place.get(&master(&value, &[&v]).client()).await.unwrap();
    place.has_only(&value);
    assert_eq!(done.fetched, LEN as u64);
}

#[tokio::test]
async fn bytes_that_stay_wrong_are_an_error_and_what_is_right_is_kept() {
    let (value, place) = (value(), Place::new());
    let bad = 10 * SUBTREE + 7;
    let v = volume(value.clone(), move |c, value| {
        let mut sent = value.to_vec();
        sent[bad] ^= 1;
        serve_as(c, &sent, &ContentHash::of(value));
    });
    let e = place.get(&master(&value, &[&v]).client()).await.unwrap_err();
    let place_of_it = (10 * SUBTREE) as u64..(11 * SUBTREE) as u64;
    assert!(matches!(&e, Error::Damaged { first, end, .. } if (*first..*end) == place_of_it) && e.is_retryable(), "{e}");
    assert_eq!(place.names(), ["out.kvdb-part"]);
    let part = std::fs::read(place.part()).unwrap();
    for (found, right) in part.chunks(SUBTREE).zip(value.chunks(SUBTREE)) {
        assert!(found == right || found.iter().all(|b| *b == 0), "a wrong byte was written");
    }
    assert!(part[..10 * SUBTREE] == value[..10 * SUBTREE]);
}

#[tokio::test]
async fn replicas_that_break_off_or_stall_are_left_and_their_parts_come_from_another() {
    for stalls in [false, true] {
        let (value, place) = (value(), Place::new());
        let broken = volume(value.clone(), move |c, value| {
            c.serve(value, 5 * SUBTREE);
            if stalls {
                std::thread::sleep(Duration::from_secs(20));
            }
        });
        let right = good(&value);
        place.get(&hasty(&master(&value, &[&broken, &right]))).await.unwrap();
        place.has_only(&value);
        assert!(ranges(&broken) <= 4);
        assert!(asked(&right) < LEN, "right bytes of a part that broke off are not asked for again");
    }
}

#[tokio::test]
async fn the_only_replica_may_break_off_again_and_again_as_long_as_something_comes() {
    let (value, place) = (value(), Place::new());
    let v = volume(value.clone(), |c, value| c.serve(value, 5 * SUBTREE));
    let master = master(&value, &[&v]);
    place.get(&hasty(&master)).await.unwrap();
    place.has_only(&value);
    assert!(master.log().len() > 4, "more often than there are tries without progress");
}

#[tokio::test]
async fn a_replica_from_which_nothing_comes_any_more_is_an_error_after_its_tries() {
    let (value, place) = (value(), Place::new());
    let v = volume(value.clone(), |c, _| c.problem(ErrorCode::Busy));
    let e = place.get(&hasty(&master(&value, &[&v]))).await.unwrap_err();
    assert!(matches!(&e, Error::Problem { problem, .. } if problem.code == ErrorCode::Busy) && e.is_retryable(), "{e}");
}

/// A cluster that has one value until a part of it was asked for, and then the next one, and so on.
fn changing(values: Vec<Arc<Vec<u8>>>) -> (Fake, Vec<Fake>) {
    let (now, last) = (Arc::new(AtomicUsize::new(0)), values.len() - 1);
    let volumes: Vec<Fake> = (0..values.len())
        .map(|i| {
            let now = now.clone();
            volume(values[i].clone(), move |c, value| {
                // The first part comes, and with it the end of this version.
                let first = c.seen.header("range").is_some_and(|r| r.starts_with("bytes=0-"));
                if first || i == last {
                    c.serve(value, usize::MAX);
                }
                if i < last {
                    now.fetch_max(i + 1, Ordering::SeqCst);
                }
                if !first && i < last {
                    c.redirect(302, "http://127.0.0.1:1/k?missed=1");
                }
            })
        })
        .collect();
    let answers: Vec<String> = values.iter().zip(&volumes).map(|(v, volume)| located(v, std::slice::from_ref(&volume.host))).collect();
    let master = Fake::start(move |c| c.answer(200, &[], answers[now.load(Ordering::SeqCst)].as_bytes()));
    (master, volumes)
}

fn versions(n: usize) -> Vec<Arc<Vec<u8>>> {
    let version = |i: usize| Arc::new(pattern(LEN + i).into_iter().map(|b| b ^ i as u8).collect());
    (0..n).map(version).collect()
}

#[tokio::test]
async fn a_value_that_is_replaced_meanwhile_is_read_anew_and_never_mixed() {
    let (values, place) = (versions(3), Place::new());
    let (master, _volumes) = changing(values.clone());
    let done = place.get(&master.client()).await.unwrap();
    place.has_only(&values[2]);
    assert_eq!(done.info.etag, ContentHash::of(&values[2]));
}

#[tokio::test]
async fn a_value_that_is_replaced_without_end_is_an_error() {
    let place = Place::new();
    let (master, _volumes) = changing(versions(6));
    let e = place.get(&master.client()).await.unwrap_err();
    assert!(matches!(e, Error::Changed(_)) && e.is_retryable(), "{e}");
    assert!(!place.file().exists());
}

#[tokio::test]
async fn a_value_that_is_deleted_meanwhile_leaves_nothing() {
    let (value, place) = (value(), Place::new());
    let v = volume(value.clone(), |c, _| c.problem(ErrorCode::NotFound));
    let answer = located(&value, std::slice::from_ref(&v.host));
    let master = Fake::start(move |c| match c.nth {
        0 => c.answer(200, &[], answer.as_bytes()),
        _ => c.problem(ErrorCode::NotFound),
    });
    let e = place.get(&master.client()).await.unwrap_err();
    assert!(matches!(e, Error::NotFound(_)), "{e}");
    assert!(place.names().is_empty());
}

#[tokio::test]
async fn a_download_goes_on_from_what_is_right_in_the_file_whoever_wrote_it() {
    let (value, place) = (value(), Place::new());
    let mut part = vec![0; LEN + 99];
    part[..20 * SUBTREE].copy_from_slice(&value[..20 * SUBTREE]);
    part[30 * SUBTREE..50 * SUBTREE].copy_from_slice(&value[30 * SUBTREE..50 * SUBTREE]);
    part[80 * SUBTREE..LEN].copy_from_slice(&value[80 * SUBTREE..]);
    part[5 * SUBTREE + 1] ^= 1;
    std::fs::write(place.part(), &part).unwrap();
    let v = good(&value);
    let done = place.get(&master(&value, &[&v]).client()).await.unwrap();
    place.has_only(&value);
    assert_eq!(done.kept as usize, 39 * SUBTREE + (LEN - 80 * SUBTREE));
    assert_eq!((done.fetched as usize, asked(&v)), (41 * SUBTREE, 41 * SUBTREE));
}

#[tokio::test]
async fn a_download_that_was_whole_but_not_named_asks_for_nothing() {
    let (value, place) = (value(), Place::new());
    std::fs::write(place.part(), &*value).unwrap();
    let v = good(&value);
    let done = place.get(&master(&value, &[&v]).client()).await.unwrap();
    place.has_only(&value);
    assert_eq!((done.fetched, ranges(&v)), (0, 0));
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_what_the_next_call_goes_on_from() {
    let (value, place) = (value(), Place::new());
    let v = volume(value.clone(), |c, value| match c.seen.header("range") {
        Some(r) if r.starts_with("bytes=0-") => c.serve(value, usize::MAX),
        _ => std::thread::sleep(Duration::from_secs(20)),
    });
    let stuck = master(&value, &[&v]).client();
    let options = options();
    let k = key("k");
    let work = stuck.download(&k, place.file(), options.clone());
    tokio::select! {
        _ = work => panic!("it cannot end"),
        () = until(|| options.progress.bytes() == 8 << 20) => {}
    }
    assert_eq!(place.names(), ["out.kvdb-part"]);
    let v = good(&value);
    let done = place.get(&master(&value, &[&v]).client()).await.unwrap();
    place.has_only(&value);
    assert_eq!((done.kept, asked(&v)), (8 << 20, LEN - (8 << 20)));
}

#[tokio::test]
async fn what_is_not_ours_is_never_written_to() {
    let (value, place) = (value(), Place::new());
    let v = good(&value);
    let client = master(&value, &[&v]).client();
    let other = place.0.path().join("other");
    std::fs::write(&other, "precious").unwrap();
    let refused = |e: Error| assert!(matches!(e, Error::Target { .. }), "{e}");
    std::os::unix::fs::symlink(&other, place.part()).unwrap();
    refused(place.get(&client).await.unwrap_err());
    std::fs::remove_file(place.part()).unwrap();
    std::fs::hard_link(&other, place.part()).unwrap();
    refused(place.get(&client).await.unwrap_err());
    std::fs::remove_file(place.part()).unwrap();
    let held = std::fs::File::create(place.part()).unwrap();
    held.lock().unwrap();
    refused(place.get(&client).await.unwrap_err());
    drop(held);
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    assert!(matches!(client.download(&key("k"), Path::new("/no/such/dir/f"), options()).await, Err(Error::Target { .. })));
    place.get(&client).await.unwrap();
    assert!(std::fs::read(place.file()).unwrap() == *value);
}

#[tokio::test]
async fn clusters_that_do_not_serve_parts_are_read_in_one_piece() {
    let (value, place) = (value(), Place::new());
    let whole = value.clone();
    let v = Fake::start(move |c| c.serve(&whole, usize::MAX));
    let host = v.host.clone();
    let old_master = Fake::start(move |c| c.redirect(302, &format!("http://{host}/k?v=1")));
    for master in [old_master, master(&value, &[&v])] {
        let done = place.get(&master.client()).await.unwrap();
        place.has_only(&value);
        assert_eq!((done.fetched, ranges(&v)), (LEN as u64, 0));
    }
}

#[tokio::test]
async fn a_tree_that_does_not_add_up_is_asked_for_elsewhere() {
    let (value, place) = (value(), Place::new());
    let served = value.clone();
    let liar = Fake::start(move |c| match c.seen.target.ends_with("&tree") {
        true => c.answer(200, &[], &vec![7; tree(&served).len()]),
        false => c.serve(&served, usize::MAX),
    });
    let right = good(&value);
    place.get(&master(&value, &[&liar, &right]).client()).await.unwrap();
    place.has_only(&value);
    let e = place.get(&master(&value, &[&liar]).client()).await.unwrap_err();
    assert!(matches!(e, Error::Interrupted { .. }), "{e}");
}

const LONG: usize = PARTS_FROM_BYTES as usize + 3 * SUBTREE + 5;

#[tokio::test]
async fn a_reader_brings_parts_in_order_and_only_right_ones() {
    let value = Arc::new(pattern(LONG));
    let broken = volume(value.clone(), |c, value| {
        let mut sent = value.to_vec();
        sent[LONG / 2] ^= 1;
        serve_as(c, &sent, &ContentHash::of(value));
    });
    let right = good(&value);
    let client = master(&value, &[&broken, &right]).client();
    for parallel in [2, 5] {
        let mut reader = client.get_in_parts(&key("k"), parallel).await.unwrap();
        let mut at = 0;
        while let Some(bytes) = reader.chunk().await.unwrap() {
            assert!(bytes == value[at..at + bytes.len()], "wrong bytes at {at}");
            at += bytes.len();
        }
        assert_eq!((at, reader.info().len), (LONG, LONG as u64));
        assert!(reader.chunk().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_reader_of_a_value_that_is_replaced_begins_anew_only_before_its_first_byte() {
    let (old, new) = (Arc::new(pattern(LONG)), Arc::new(vec![9; LONG]));
    for first_part_comes in [false, true] {
        let gone = volume(old.clone(), move |c, value| match c.seen.header("range") {
            Some(r) if first_part_comes && r.starts_with("bytes=0-") => c.serve(value, usize::MAX),
            _ => c.problem(ErrorCode::NotFound),
        });
        let there = good(&new);
        let answers = [located(&old, std::slice::from_ref(&gone.host)), located(&new, std::slice::from_ref(&there.host))];
        let master = Fake::start(move |c| c.answer(200, &[], answers[c.nth.min(1)].as_bytes()));
        let mut reader = master.client().get_in_parts(&key("k"), 3).await.unwrap();
        let mut all = Vec::new();
        let end = loop {
            match reader.chunk().await {
                Ok(Some(bytes)) => all.extend_from_slice(&bytes),
                end => break end,
            }
        };
        if first_part_comes {
            assert!(matches!(end, Err(Error::Changed(_))), "{end:?}");
            assert!(!all.is_empty() && all == old[..all.len()]);
            assert!(reader.chunk().await.is_err(), "an error is not followed by an end");
        } else {
            assert!(end.unwrap().is_none() && all == *new);
        }
    }
}
