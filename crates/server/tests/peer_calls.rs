//! Calls between servers over connections that break.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use kvdb_protocol::{ClusterId, ClusterSecret, VolumeId};
use kvdb_server::peer::{Credentials, Destination, PeerError, Peers};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// Calls a server that takes the first call, and answers nothing; what the second one meets is up to `then`.
async fn call(then: impl FnOnce(TcpListener) + Send + 'static) -> Result<u64, PeerError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        // The whole call has arrived: it may be carried out.
        assert!(first.read(&mut [0; 4096]).unwrap() > 0);
        then(listener);
        drop(first);
    });
    let credentials = Credentials { cluster: ClusterId::random(), key: ClusterSecret::random().peer_key() };
    let to = Destination { address: &address, volume: VolumeId::random(), target: "/-/peer/x" };
    Peers::new().unwrap().post(&credentials, to, &(), Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_call_that_broke_may_have_been_carried_out_even_if_the_next_try_finds_nobody() {
    let error = call(drop).await.unwrap_err();
    assert!(matches!(error, PeerError::Broken { .. }), "{error}");
}

/// Answers the next call so.
fn answering(answer: &'static [u8]) -> impl FnOnce(TcpListener) {
    move |listener| {
        std::thread::spawn(move || {
            let (mut second, _) = listener.accept().unwrap();
            assert!(second.read(&mut [0; 4096]).unwrap() > 0);
            second.write_all(answer).unwrap();
        });
    }
}

#[tokio::test]
async fn a_call_that_broke_may_have_been_carried_out_even_if_the_next_try_is_refused() {
    let error = call(answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")).await.unwrap_err();
    assert!(matches!(error, PeerError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_call_that_broke_and_is_answered_at_the_second_try_is_answered() {
    assert_eq!(call(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")).await.unwrap(), 7);
}
