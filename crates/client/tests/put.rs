//! Storing against servers that refuse, redirect, break off and lie.

mod common;

use common::{Conn, Fake, key, pattern};
use futures_util::stream;
use kvdb_client::{Condition, ContentHash, Error, ErrorCode, PutOptions, REPLAY_BYTES, Source, Tags, VersionId};
use std::path::PathBuf;

fn version(n: u64) -> VersionId {
    VersionId::from_parts(n, 0)
}

/// A master that sends every write to `volume`, and every look at a key too.
fn master_of(volume: &Fake) -> Fake {
    let volume = volume.host.clone();
    Fake::start(move |c| {
        let to = format!("http://{volume}{}", c.seen.target);
        match c.seen.method.as_str() {
            "HEAD" | "GET" => c.redirect(302, &to),
            _ => c.redirect(307, &format!("{to}?ticket=t{}", c.nth)),
        }
    })
}

fn take(c: &mut Conn) {
    let body = c.body();
    c.stored(201, &body);
}

#[tokio::test]
async fn a_value_goes_to_the_volume_and_only_its_length_to_the_master() {
    let volume = Fake::start(take);
    let master = master_of(&volume);
    let options = PutOptions { content_type: Some("text/plain".into()), ..PutOptions::default() };
    let outcome = master.client().put(&key("a/b c"), b"hello".to_vec(), options.clone()).await.unwrap();
    assert_eq!(outcome.created, Some(true));
    assert_eq!(outcome.etag, ContentHash::of(b"hello"));
    let (m, v) = (master.log(), volume.log());
    assert_eq!((m.len(), v.len()), (1, 1));
    assert_eq!((m[0].method.as_str(), m[0].target.as_str()), ("PUT", "/a/b%20c"));
    assert_eq!((m[0].header("content-length"), m[0].header("kvdb-content-length")), (Some("0"), Some("5")));
    assert_eq!((v[0].header("content-length"), v[0].header("content-type")), (Some("5"), Some("text/plain")));
    assert_eq!((v[0].target.as_str(), v[0].body.as_slice()), ("/a/b%20c?ticket=t0", &b"hello"[..]));
    assert_eq!(options.progress.bytes(), 5);
}

#[tokio::test]
async fn a_stream_of_unknown_length_goes_in_chunks() {
    let volume = Fake::start(take);
    let master = master_of(&volume);
    let parts = stream::iter([Ok("ab".into()), Ok("cd".into())]);
    master.client().put(&key("k"), Source::stream(parts, None), PutOptions::default()).await.unwrap();
    assert_eq!(master.log()[0].header("kvdb-content-length"), None);
    assert_eq!(volume.log()[0].body, b"abcd");
}

#[tokio::test]
async fn an_empty_value_and_a_file_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let value = pattern(3_000_000);
    std::fs::write(&path, &value).unwrap();
    let volume = Fake::start(take);
    let client = master_of(&volume).client();
    client.put(&key("k"), Vec::new(), PutOptions::default()).await.unwrap();
    client.put(&key("k"), path, PutOptions::default()).await.unwrap();
    assert!(volume.log()[0].body.is_empty());
    assert!(volume.log()[1].body == value);
}

#[tokio::test]
async fn conditions_and_create_only_are_said_to_both() {
    let volume = Fake::start(take);
    let master = master_of(&volume);
    let hash = ContentHash::of(b"old");
    let condition = Condition { if_match: Some(Tags::Of(vec![hash])), if_none_match: Some(Tags::Any) };
    let options = PutOptions { create_only: true, condition, ..PutOptions::default() };
    master.client().put(&key("k"), b"x".to_vec(), options).await.unwrap();
    for seen in [&master.log()[0], &volume.log()[0]] {
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.header("if-match"), Some(hash.etag().as_str()));
        assert_eq!(seen.header("if-none-match"), Some("*"));
    }
}

#[tokio::test]
async fn the_token_is_for_the_master_alone() {
    let volume = Fake::start(take);
    let master = master_of(&volume);
    let client = kvdb_client::Client::builder(&master.host).no_proxy().token("secret").build().unwrap();
    client.put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
    assert_eq!(master.log()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(volume.log()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_volume_that_cannot_take_it_sends_back_to_the_master_and_the_value_lands_elsewhere() {
    let good = Fake::start(take);
    let good_host = good.host.clone();
    let (bad_host, told) = (std::sync::Arc::new(std::sync::Mutex::new(String::new())), std::sync::Mutex::new(0));
    let to_bad = bad_host.clone();
    let master = Fake::start(move |c| {
        *told.lock().unwrap() += 1;
        let host = if c.seen.target.contains("avoid=") { good_host.clone() } else { to_bad.lock().unwrap().clone() };
        c.redirect(307, &format!("http://{host}/k?ticket=t"));
    });
    let back = format!("http://{}/k?avoid=v1", master.host);
    let bad = Fake::start(move |c| {
        c.body();
        c.redirect(307, &back);
    });
    bad_host.lock().unwrap().clone_from(&bad.host);
    let parts = stream::iter([Ok("ab".into()), Ok("cd".into())]);
    master.client().put(&key("k"), Source::stream(parts, Some(4)), PutOptions::default()).await.unwrap();
    assert_eq!(good.log()[0].body, b"abcd");
    assert_eq!(master.log().len(), 2);
    assert_eq!(master.log()[1].header("content-length"), Some("0"));
}

#[tokio::test]
async fn servers_that_redirect_for_ever_are_left() {
    let master = Fake::start(|c| {
        let at = format!("http://{}/k", c.seen.header("host").unwrap());
        c.redirect(307, &at);
    });
    let client = kvdb_client::Client::builder(&master.host).no_proxy().retries(0).build().unwrap();
    let e = client.put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap_err();
    assert!(e.to_string().contains("redirected more than 10 times"), "{e}");
    assert!(master.log().len() <= 11);
}

#[tokio::test]
async fn a_busy_master_is_asked_again_and_a_refusal_is_final() {
    let volume = Fake::start(take);
    let host = volume.host.clone();
    let master = Fake::start(move |c| match c.nth {
        0 => c.problem(ErrorCode::Busy),
        1 => c.redirect(307, &format!("http://{host}/k?ticket=t")),
        2 => c.problem(ErrorCode::Exists),
        3 => c.problem(ErrorCode::PreconditionFailed),
        _ => c.problem(ErrorCode::NoSpace),
    });
    let client = master.client();
    client.put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
    let k = key("k");
    let put = || client.put(&k, b"x".to_vec(), PutOptions::default());
    assert!(matches!(put().await, Err(Error::Exists(_))));
    assert!(matches!(put().await, Err(Error::PreconditionFailed(_))));
    let e = put().await.unwrap_err();
    assert!(matches!(&e, Error::Problem { problem, .. } if problem.code == ErrorCode::NoSpace) && e.is_retryable(), "{e}");
    assert_eq!(master.log().len(), 5);
}

#[tokio::test]
async fn a_volume_that_is_down_is_unreachable_and_the_master_is_asked_again() {
    let volume = Fake::start(take);
    let host = volume.host.clone();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let master = Fake::start(move |c| match c.nth {
        0 => c.redirect(307, &format!("http://{gone}/k?ticket=secret")),
        _ => c.redirect(307, &format!("http://{host}/k?ticket=t")),
    });
    master.client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
    let never = kvdb_client::Client::builder(gone.to_string()).no_proxy().retries(1).build().unwrap();
    let e = never.put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap_err();
    assert!(matches!(e, Error::Unreachable { .. }), "{e}");
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_last_byte_stored_nothing_and_is_tried_again() {
    // The first volume closes as soon as it has the head: far more than a socket takes is still to come.
    let value = pattern(40_000_000);
    let volume = Fake::start(|c| {
        if c.nth > 0 {
            take(c);
        }
    });
    let master = master_of(&volume);
    master.client().put(&key("k"), value.clone(), PutOptions::default()).await.unwrap();
    assert!(volume.log()[1].body == value);
    assert!(master.log().iter().all(|s| s.method == "PUT"), "there was nothing to look up");
}

#[tokio::test]
async fn a_long_stream_that_was_used_cannot_be_tried_again() {
    let volume = Fake::start(|c| {
        c.body();
        c.problem(ErrorCode::Unavailable);
    });
    let master = master_of(&volume);
    let chunks = (0..9).map(|_| Ok(vec![7; REPLAY_BYTES / 8].into()));
    let e = master.client().put(&key("k"), Source::stream(stream::iter(chunks), None), PutOptions::default()).await.unwrap_err();
    assert!(matches!(&e, Error::Problem { problem, .. } if problem.code == ErrorCode::Unavailable), "{e}");
    assert_eq!(volume.log().len(), 1);
}

#[tokio::test]
async fn a_volume_that_stops_reading_is_left_after_the_stall_timeout() {
    let value = pattern(40_000_000);
    let volume = Fake::start(|c| match c.nth {
        0 => std::thread::sleep(std::time::Duration::from_secs(20)),
        _ => take(c),
    });
    let master = master_of(&volume);
    let client =
        kvdb_client::Client::builder(&master.host).no_proxy().stall_timeout(std::time::Duration::from_millis(300)).build().unwrap();
    client.put(&key("k"), value.clone(), PutOptions::default()).await.unwrap();
    assert!(volume.log()[1].body == value);
}

#[tokio::test]
async fn a_slow_source_is_not_a_stall() {
    let volume = Fake::start(take);
    let master = master_of(&volume);
    let client = kvdb_client::Client::builder(&master.host).no_proxy().stall_timeout(std::time::Duration::from_millis(50)).build().unwrap();
    let slow = stream::unfold(0, |i| async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        (i < 2).then(|| (Ok("ab".into()), i + 1))
    });
    client.put(&key("k"), Source::stream(slow, None), PutOptions::default()).await.unwrap();
    assert_eq!(volume.log().len(), 1);
    assert_eq!(volume.log()[0].body, b"abab");
}

#[tokio::test]
async fn a_server_that_asks_for_a_wait_is_given_it() {
    let volume = Fake::start(take);
    let host = volume.host.clone();
    let master = Fake::start(move |c| match c.nth {
        0 => c.answer(503, &[("Retry-After", "1")], b""),
        _ => c.redirect(307, &format!("http://{host}/k?ticket=t")),
    });
    let start = std::time::Instant::now();
    master.client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn a_source_that_fails_is_an_error_and_is_not_tried_again() {
    let volume = Fake::start(|c| {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| c.body()));
    });
    let master = master_of(&volume);
    let parts = stream::iter([Ok("ab".into()), Err(std::io::Error::other("the tape is torn"))]);
    let e = master.client().put(&key("k"), Source::stream(parts, Some(4)), PutOptions::default()).await.unwrap_err();
    assert!(matches!(&e, Error::Source { error, .. } if error.to_string() == "the tape is torn"), "{e}");
    assert_eq!(master.log().len(), 1);
    let missing = master.client().put(&key("k"), PathBuf::from("/no/such/file"), PutOptions::default()).await.unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
}

#[tokio::test]
async fn a_volume_that_stored_other_bytes_is_an_error() {
    let volume = Fake::start(|c| {
        c.body();
        c.stored(201, b"other");
    });
    let e = master_of(&volume).client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap_err();
    assert!(matches!(e, Error::Corrupt { expected, .. } if expected == ContentHash::of(b"x")), "{e}");
}

#[tokio::test]
async fn a_master_that_takes_the_write_itself_is_not_believed() {
    let master = Fake::start(|c| c.stored(201, b""));
    let e = master.client().put(&key("k"), Vec::new(), PutOptions::default()).await.unwrap_err();
    assert!(matches!(e, Error::NotKvdb { .. }), "{e}");
}

/// Takes the first value and closes without an answer, or answers `outcome_unknown`; then shows `found`.
fn lost(found: Option<&'static [u8]>, found_version: u64, say: bool, then: ErrorCode) -> (Fake, Fake) {
    let volume = Fake::start(move |c| match (c.seen.method.as_str(), found) {
        ("HEAD", Some(value)) => {
            let (etag, v) = (ContentHash::of(value).etag(), version(found_version).to_string());
            c.answer(200, &[("ETag", &etag), ("Kvdb-Version", &v), ("Content-Length", &value.len().to_string())], b"");
        }
        ("HEAD", None) => c.answer(404, &[], b""),
        _ => {
            let body = c.body();
            match c.nth {
                0 if say => c.problem(ErrorCode::OutcomeUnknown),
                0 => {}
                _ if then == ErrorCode::Internal => c.stored(201, &body),
                _ => c.problem(then),
            }
        }
    });
    let host = volume.host.clone();
    let master = Fake::start(move |c| {
        let to = format!("http://{host}/k");
        match c.seen.method.as_str() {
            "HEAD" => c.redirect(302, &to),
            _ => c.answer(307, &[("Location", &format!("{to}?ticket=t")), ("Kvdb-Version", &version(7).to_string())], b""),
        }
    });
    (master, volume)
}

/// What stands for "stored at the second try" in [`lost`].
const STORES: ErrorCode = ErrorCode::Internal;

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_version() {
    for say in [false, true] {
        let (master, volume) = lost(Some(b"x"), 7, say, ErrorCode::Exists);
        let options = PutOptions { create_only: true, ..PutOptions::default() };
        let outcome = master.client().put(&key("k"), b"x".to_vec(), options).await.unwrap();
        assert_eq!((outcome.created, outcome.version), (None, Some(version(7))));
        assert_eq!(volume.log().iter().filter(|s| s.method != "HEAD").count(), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_write_that_did_not_happen_is_followed_by_another_try() {
    let (master, volume) = lost(None, 0, false, STORES);
    let options = PutOptions { create_only: true, ..PutOptions::default() };
    let outcome = master.client().put(&key("k"), b"x".to_vec(), options).await.unwrap();
    assert_eq!(outcome.created, Some(true));
    assert_eq!(volume.log().iter().filter(|s| s.method == "POST").count(), 2);
}

#[tokio::test]
async fn a_plain_write_whose_bytes_are_there_is_done() {
    let (master, _volume) = lost(Some(b"x"), 9, false, ErrorCode::BadRequest);
    master.client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_create_in_doubt_is_not_called_won_because_another_has_the_same_bytes() {
    let (master, _volume) = lost(Some(b"x"), 9, false, ErrorCode::Exists);
    let options = PutOptions { create_only: true, ..PutOptions::default() };
    let e = master.client().put(&key("k"), b"x".to_vec(), options).await.unwrap_err();
    assert!(matches!(e, Error::OutcomeUnknown { .. }), "{e}");
}

#[tokio::test]
async fn a_write_in_doubt_whose_further_tries_fail_stays_unknown() {
    let (master, _volume) = lost(Some(b"old"), 1, true, ErrorCode::BadRequest);
    let e = master.client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap_err();
    assert!(matches!(e, Error::OutcomeUnknown { .. }) && e.is_retryable(), "{e}");
}

/// The first answer of the volume is lost; then the master says what became of the write.
fn lost_and_told(outcome: &'static str) -> (Fake, Fake) {
    let volume = Fake::start(|c| match c.seen.method.as_str() {
        "HEAD" => c.answer(404, &[], b""),
        _ => {
            let body = c.body();
            if c.seen.target.ends_with("t0") {
                return;
            }
            c.stored(201, &body);
        }
    });
    let host = volume.host.clone();
    let master = Fake::start(move |c| match (c.seen.method.as_str(), c.seen.target.as_str()) {
        (_, "/-/outcome") => {
            assert_eq!(c.body(), b"t0", "it is asked with the ticket");
            c.answer(200, &[("Content-Type", "application/json")], outcome.as_bytes());
        }
        ("HEAD", _) => c.redirect(302, &format!("http://{host}/k")),
        _ => c.redirect(307, &format!("http://{host}/k?ticket=t{}", c.nth)),
    });
    (master, volume)
}

fn uploads(volume: &Fake) -> usize {
    volume.log().iter().filter(|s| s.method != "HEAD").count()
}

#[tokio::test]
async fn what_the_master_says_of_a_lost_answer_is_believed() {
    let (master, volume) = lost_and_told(r#"{"outcome":"committed","version":"00000000-0007-7000-8000-000000000000","created":true}"#);
    let outcome = master.client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
    assert_eq!((outcome.created, outcome.etag, uploads(&volume)), (Some(true), ContentHash::of(b"x"), 1));
    assert_eq!(outcome.version.unwrap().to_string(), "00000000-0007-7000-8000-000000000000");
}

#[tokio::test]
async fn a_write_that_the_master_says_was_refused_is_sent_again_or_ends_with_its_reason() {
    let refused = |code: ErrorCode| {
        let problem = serde_json::to_string(&kvdb_client::Problem::new(code, "told so")).unwrap();
        &*format!(r#"{{"outcome":"refused","problem":{problem}}}"#).leak()
    };
    let (master, volume) = lost_and_told(refused(ErrorCode::Conflict));
    let outcome = master.client().put(&key("k"), b"x".to_vec(), PutOptions::default()).await.unwrap();
    assert_eq!((outcome.created, uploads(&volume)), (Some(true), 2));
    let (master, volume) = lost_and_told(refused(ErrorCode::Exists));
    let options = PutOptions { create_only: true, ..PutOptions::default() };
    let e = master.client().put(&key("k"), b"x".to_vec(), options).await.unwrap_err();
    assert!(matches!(e, Error::Exists(_)), "{e}");
    assert_eq!(uploads(&volume), 1, "the answer is known: nothing is in doubt");
}
