//! Peers that are silent, slow, or stop reading. Each test waits for an event; none measures how long it took.

mod common;

use common::{PATIENCE, Server, get, put};
use kvdb_server::{BodyLimits, ServeOptions};
use std::sync::atomic::Ordering;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = Server::start(ServeOptions { head_timeout: SHORT, ..ServeOptions::default() }).await;
    assert!(server.connect().await.rest().await.is_empty());
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off_however_often_a_byte_comes() {
    let server = Server::start(ServeOptions { head_timeout: SHORT, ..ServeOptions::default() }).await;
    let mut client = server.connect().await;
    client.send("GET /target HTTP/1.1\r\nHost: h\r\nX: ").await;
    let trickle = async {
        use tokio::io::AsyncWriteExt;
        while client.stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickle).await.expect("the connection was not closed");
}

#[tokio::test]
async fn a_second_head_that_stops_is_cut_off_before_the_idle_time() {
    let options = ServeOptions { head_timeout: SHORT, idle_timeout: 10 * PATIENCE, ..ServeOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.connect().await;
    client.send(get("/target")).await;
    assert_eq!(client.answer().await.status, 200);
    client.send("GET /targ").await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_time_and_is_closed_after_the_idle_time() {
    let options = ServeOptions { head_timeout: SHORT, idle_timeout: 4 * SHORT, ..ServeOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.connect().await;
    client.send(get("/target")).await;
    assert_eq!(client.answer().await.status, 200);
    tokio::time::sleep(2 * SHORT).await;
    client.send(get("/target")).await;
    assert_eq!(client.answer().await.status, 200);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408_and_not_stored() {
    let body = BodyLimits { no_progress: SHORT, ..BodyLimits::default() };
    let mut server = Server::start(ServeOptions { body, ..ServeOptions::default() }).await;
    let mut client = server.connect().await;
    client.send(put("Content-Length: 10\r\n", "12345")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes(), answer.problem().retry), (408, true, true));
    assert_eq!(server.next_failure().await.code.as_str(), "request_timeout");
    assert!(server.stored().is_empty());
}

#[tokio::test]
async fn a_body_that_trickles_below_the_least_rate_is_a_408() {
    let body = BodyLimits { no_progress: PATIENCE, min_bytes_per_second: 1 << 20, grace: SHORT };
    let mut server = Server::start(ServeOptions { body, ..ServeOptions::default() }).await;
    let mut client = server.connect().await;
    client.send(put("Content-Length: 1000000\r\n", "")).await;
    let trickle = async {
        use tokio::io::AsyncWriteExt;
        while client.stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    let failure = tokio::select! {
        failure = server.next_failure() => failure,
        () = trickle => server.next_failure().await,
    };
    assert!(failure.detail.contains("too slowly"), "{failure}");
}

#[tokio::test]
async fn a_service_that_takes_its_time_does_not_make_its_client_slow() {
    let body = BodyLimits { no_progress: SHORT, min_bytes_per_second: 1 << 30, grace: SHORT };
    let mut server = Server::start(ServeOptions { body, ..ServeOptions::default() }).await;
    let mut client = server.connect().await;
    client.send(get("/wait")).await;
    server.next_waiting().await;
    client.send(put("Content-Length: 5\r\n", "12345")).await;
    tokio::time::sleep(2 * SHORT).await;
    server.site.release.notify_one();
    assert_eq!(client.answer().await.body, b"released");
    assert_eq!(client.answer().await.status, 201);
}

#[tokio::test]
async fn a_reader_that_stops_is_cut_off_and_costs_bounded_memory() {
    let server = Server::start(ServeOptions { write_stall_timeout: SHORT, ..ServeOptions::default() }).await;
    let mut client = server.connect().await;
    client.send(get("/endless")).await;
    assert_eq!(client.head().await.status, 200);
    // The service's body is dropped when the connection is cut: then nobody else holds its counter.
    let dropped = async {
        while std::sync::Arc::strong_count(&server.site.produced) > 1 {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("the answer is still being sent");
    let produced = server.site.produced.load(Ordering::SeqCst);
    assert!(produced < 64 << 20, "{produced} bytes were made for a client that reads none");
    let rest = client.rest().await;
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "a cut answer looks whole");
}

#[tokio::test]
async fn an_answer_that_a_client_resets_is_dropped() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(get("/endless")).await;
    assert_eq!(client.head().await.status, 200);
    // Unread bytes make the close a reset.
    drop(client);
    let dropped = async {
        while std::sync::Arc::strong_count(&server.site.produced) > 1 {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("the answer is still being sent");
}
