//! Reading from servers that break off, lie and change.

mod common;

use common::{Conn, Fake, key, pattern};
use futures_util::StreamExt;
use kvdb_client::{Client, ContentHash, Error, ErrorCode, ListOptions, Progress};
use std::time::Duration;

fn master_of(volume: &Fake) -> Fake {
    let volume = volume.host.clone();
    Fake::start(move |c| {
        let to = format!("http://{volume}{}", c.seen.target);
        let status = if c.seen.method == "DELETE" { 307 } else { 302 };
        c.redirect(status, &format!("{to}?v=1"));
    })
}

fn cluster(volume: impl Fn(&mut Conn) + Send + Sync + 'static) -> (Client, Fake, Fake) {
    let volume = Fake::start(volume);
    let master = master_of(&volume);
    (master.client(), master, volume)
}

#[tokio::test]
async fn a_value_is_read_whole_and_in_parts() {
    let value = pattern(1_000_000);
    let served = value.clone();
    let (client, _master, volume) = cluster(move |c| c.serve(&served, usize::MAX));
    let reader = client.get(&key("k")).await.unwrap();
    assert_eq!((reader.info().len, reader.info().etag), (1_000_000, ContentHash::of(&value)));
    assert_eq!(reader.info().volume, format!("http://{}", volume.host));
    assert!(reader.read_all(1_000_000).await.unwrap() == value);
    let parts = [(client.get_range(&key("k"), 10..20).await, 10..20), (client.get_range(&key("k"), 999_990..).await, 999_990..1_000_000)];
    for (reader, expected) in parts {
        assert_eq!(reader.unwrap().read_all(100).await.unwrap(), value[expected]);
    }
    assert!(matches!(client.get(&key("k")).await.unwrap().read_all(999_999).await, Err(Error::TooLong { .. })));
    assert!(matches!(client.get_range(&key("k"), 5..5).await, Err(Error::OutOfRange(_))));
}

#[tokio::test]
async fn an_empty_value_is_read() {
    let (client, _master, _volume) = cluster(|c| c.serve(b"", usize::MAX));
    assert!(client.get(&key("k")).await.unwrap().read_all(0).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_read_that_breaks_off_goes_on_where_it_was_by_way_of_the_master() {
    let value = pattern(1_000_000);
    let served = value.clone();
    // Breaks off five times, more often than there are retries without progress.
    let (client, master, volume) = cluster(move |c| c.serve(&served, if c.nth < 5 { 150_000 } else { usize::MAX }));
    let got = client.get(&key("k")).await.unwrap().read_all(u64::MAX).await.unwrap();
    assert!(got == value);
    assert_eq!((master.log().len(), volume.log().len()), (6, 6));
    let second = &volume.log()[1];
    assert_eq!(second.header("range"), Some("bytes=150000-999999"));
    assert_eq!(second.header("if-match"), Some(ContentHash::of(&value).etag().as_str()));
}

#[tokio::test]
async fn a_range_that_breaks_off_goes_on_within_its_bounds() {
    let value = pattern(100_000);
    let served = value.clone();
    let (client, _master, volume) = cluster(move |c| c.serve(&served, if c.nth == 0 { 100 } else { usize::MAX }));
    let got = client.get_range(&key("k"), 1_000..=1_999).await.unwrap().read_all(u64::MAX).await.unwrap();
    assert_eq!(got, value[1_000..2_000]);
    assert_eq!(volume.log()[1].header("range"), Some("bytes=1100-1999"));
}

#[tokio::test]
async fn a_read_without_progress_ends_after_its_tries() {
    let value = pattern(1_000);
    let (client, master, _volume) = cluster(move |c| c.serve(&value, if c.nth == 0 { 500 } else { 0 }));
    let e = client.get(&key("k")).await.unwrap().read_all(u64::MAX).await.unwrap_err();
    assert!(matches!(e, Error::Interrupted { .. }) && e.is_retryable(), "{e}");
    assert_eq!(master.log().len(), 4, "the first and three retries");
}

#[tokio::test]
async fn a_value_that_was_replaced_meanwhile_is_never_mixed_with_its_successor() {
    let (old, new) = (pattern(1_000), vec![9; 1_000]);
    let served = (old.clone(), new.clone());
    // Once a server that heeds If-Match, once one that does not.
    for heeds in [true, false] {
        let (old, new) = served.clone();
        let (client, _master, _volume) = cluster(move |c| match c.nth {
            0 => c.serve(&old, 500),
            _ if heeds => c.problem(ErrorCode::PreconditionFailed),
            _ => c.serve(&new, usize::MAX),
        });
        let e = client.get(&key("k")).await.unwrap().read_all(u64::MAX).await.unwrap_err();
        assert!(matches!(e, Error::Changed(_)), "{e}");
    }
}

#[tokio::test]
async fn one_wrong_bit_anywhere_is_an_error_and_the_last_bytes_are_not_handed_over() {
    let value = pattern(300_000);
    for at in [0, 150_000, 299_999] {
        let mut wrong = value.clone();
        wrong[at] ^= 1;
        let (etag, length) = (ContentHash::of(&value).etag(), value.len().to_string());
        let (client, _master, _volume) = cluster(move |c| c.answer(200, &[("ETag", &etag), ("Content-Length", &length)], &wrong));
        let mut reader = client.get(&key("k")).await.unwrap();
        let mut got = 0;
        let e = loop {
            match reader.chunk().await {
                Ok(Some(c)) => got += c.len(),
                Ok(None) => panic!("accepted"),
                Err(e) => break e,
            }
        };
        assert!(matches!(e, Error::Corrupt { .. }), "{e}");
        assert!(got < 300_000);
        assert!(reader.chunk().await.is_err(), "an error is not followed by an end");
    }
}

#[tokio::test]
async fn a_silent_server_counts_as_broken_off() {
    let value = pattern(1_000);
    let volume = Fake::start(move |c| {
        c.serve(&value, if c.nth == 0 { 500 } else { usize::MAX });
        if c.nth == 0 {
            std::thread::sleep(Duration::from_secs(20));
        }
    });
    let master = master_of(&volume);
    let client = Client::builder(&master.host).no_proxy().stall_timeout(Duration::from_millis(200)).build().unwrap();
    assert!(client.get(&key("k")).await.unwrap().read_all(u64::MAX).await.unwrap() == pattern(1_000));
}

#[tokio::test]
async fn a_file_appears_only_when_all_of_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    let value = pattern(2_000_000);
    let good = value.clone();
    let (client, _master, _volume) = cluster(move |c| c.serve(&good, if c.nth == 0 { 700_000 } else { usize::MAX }));
    let progress = Progress::default();
    let info = client.get_to_file(&key("k"), &target, progress.clone()).await.unwrap();
    assert_eq!((info.len, progress.bytes()), (2_000_000, 2_000_000));
    assert!(std::fs::read(&target).unwrap() == value);

    let (etag, length) = (ContentHash::of(b"x").etag(), value.len().to_string());
    let (client, _master, _volume) = cluster(move |c| c.answer(200, &[("ETag", &etag), ("Content-Length", &length)], &value));
    let e = client.get_to_file(&key("k"), &target, Progress::default()).await.unwrap_err();
    assert!(matches!(e, Error::Corrupt { .. }), "{e}");
    assert_eq!(std::fs::read(&target).unwrap().len(), 2_000_000, "what was there stands");
    let e = client.get_to_file(&key("k"), dir.path().join("no/out"), Progress::default()).await.unwrap_err();
    assert!(matches!(e, Error::Target { .. }), "{e}");
    assert!(matches!(client.get_to_file(&key("k"), dir.path(), Progress::default()).await, Err(Error::Target { .. })));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["out"], "nothing else is left");
}

#[tokio::test]
async fn stat_reads_the_heads_of_an_answer() {
    let (client, _master, volume) = cluster(|c| match c.seen.target.starts_with("/no") {
        true => c.answer(404, &[], b""),
        false => {
            let (etag, v) = (ContentHash::of(b"abc").etag(), "01234567-89ab-7def-8123-456789abcdef");
            let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
            let headers = [
                ("ETag", etag.as_str()),
                ("Content-Length", "3"),
                ("Kvdb-Version", v),
                ("Content-Type", "a/b"),
                ("Last-Modified", modified),
            ];
            c.answer(200, &headers, b"");
        }
    });
    let info = client.stat(&key("k")).await.unwrap();
    assert_eq!((info.len, info.etag, info.content_type.as_deref()), (3, ContentHash::of(b"abc"), Some("a/b")));
    assert_eq!(info.modified.unwrap().0, 784_111_777_000);
    assert_eq!(info.version.unwrap().to_string(), "01234567-89ab-7def-8123-456789abcdef");
    assert_eq!(volume.log()[0].method, "HEAD");
    assert!(matches!(client.stat(&key("no")).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_is_sent_again() {
    let (client, _master, volume) = cluster(|c| match c.nth {
        0 => {}
        _ => c.problem(ErrorCode::NotFound),
    });
    assert_eq!(client.delete(&key("k")).await.unwrap().removed, None);
    assert_eq!(volume.log().iter().filter(|s| s.method == "DELETE").count(), 2);
    assert!(matches!(client.delete(&key("k")).await, Err(Error::NotFound(_))), "without doubt it is an error");
}

#[tokio::test]
async fn a_delete_whose_outcome_is_unknown_is_settled_by_asking_again() {
    let (client, _master, _volume) = cluster(|c| match c.nth {
        0 => c.problem(ErrorCode::OutcomeUnknown),
        _ => c.answer(200, &[("Kvdb-Version", "01234567-89ab-7def-8123-456789abcdef")], b""),
    });
    assert!(client.delete(&key("k")).await.unwrap().removed.is_some());
    let (client, _master, volume) = cluster(|c| c.problem(ErrorCode::OutcomeUnknown));
    assert!(matches!(client.delete(&key("k")).await, Err(Error::OutcomeUnknown { .. })));
    assert_eq!(volume.log().len(), 4, "the first and three retries");
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let master = Fake::start(|c| {
        let body = match c.seen.target.as_str() {
            "/p/?list&limit=2" => r#"{"next":"cursor&","keys":["p/a","p/%FF"]}"#,
            "/p/?list&limit=2&start=cursor%26" => r#"{"keys":["p/z"]}"#,
            _ => "?",
        };
        c.answer(200, &[("Content-Type", "application/json")], body.as_bytes());
    });
    let client = master.client();
    let options = ListOptions { limit: Some(2), ..ListOptions::default() };
    let pages: Vec<_> = client.list_all(b"p/", options).collect().await;
    let keys: Vec<_> = pages.into_iter().flat_map(|p| p.unwrap().keys).map(|k| k.key.as_bytes().to_vec()).collect();
    assert_eq!(keys, [b"p/a".to_vec(), b"p/\xff".to_vec(), b"p/z".to_vec()]);
    assert!(matches!(client.list(b"q", &ListOptions::default()).await, Err(Error::NotKvdb { .. })));
}

#[tokio::test]
async fn health_says_why_not() {
    let master = Fake::start(|c| match c.nth {
        0 => c.answer(200, &[], b"ok"),
        _ => c.problem(ErrorCode::Unavailable),
    });
    let client = master.client();
    client.health().await.unwrap();
    assert!(client.health().await.unwrap_err().to_string().contains("told so"));
    assert_eq!(master.log()[0].target, "/-/health/ready");
}
