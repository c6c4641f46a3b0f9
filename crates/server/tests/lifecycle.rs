//! Bounds, panics, and the end of a server.

mod common;

use common::{Server, get, put};
use kvdb_server::ServeOptions;
use std::time::Duration;

#[tokio::test]
async fn at_shutdown_the_request_in_flight_ends_and_its_connection_closes() {
    let mut server = Server::plain().await;
    let mut idle = server.connect().await;
    idle.send(get("/target")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut client = server.connect().await;
    client.send(get("/wait")).await;
    server.next_waiting().await;

    server.shutdown.cancel();
    assert!(idle.rest().await.is_empty());
    server.site.release.notify_one();
    let answer = client.answer().await;
    assert_eq!((answer.body.as_slice(), answer.closes()), (&b"released"[..], true));
    let address = server.address;
    server.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_body_in_flight_at_shutdown_is_taken_whole() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send("PUT /store HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.head().await.status, 100);
    client.send("12").await;
    server.shutdown.cancel();
    client.send("345").await;
    assert_eq!(client.answer().await.status, 201);
    assert_eq!(server.stored(), ["12345"]);
    server.stopped().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_at_the_end_of_the_drain_time() {
    let options = ServeOptions { drain_time: Duration::from_millis(100), ..ServeOptions::default() };
    let mut server = Server::start(options).await;
    let mut client = server.connect().await;
    client.send(get("/wait")).await;
    server.next_waiting().await;
    server.shutdown.cancel();
    server.stopped().await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_goes_on() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(get("/panic")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.problem().code.as_str()), (500, "internal"));
    client.send(get("/target")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn beyond_the_bound_of_requests_the_answer_is_503_except_for_the_servers_own_pages() {
    let mut server = Server::start(ServeOptions { max_requests: 1, ..ServeOptions::default() }).await;
    let mut first = server.connect().await;
    first.send(get("/wait")).await;
    server.next_waiting().await;

    let answer = server.ask(put("Content-Length: 5\r\n", "12345")).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.problem().code.as_str()), (503, "1", "busy"));
    assert!(server.stored().is_empty());
    let mut own = server.connect().await;
    own.send(get("/-/wait")).await;
    server.next_waiting().await;

    // The two wait in the order in which they came.
    server.site.release.notify_one();
    assert_eq!(first.answer().await.body, b"released");
    server.site.release.notify_one();
    assert_eq!(own.answer().await.body, b"released");
    first.send(get("/target")).await;
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test]
async fn beyond_the_bound_of_connections_a_client_waits_for_a_place() {
    let mut server = Server::start(ServeOptions { max_connections: 1, ..ServeOptions::default() }).await;
    let mut first = server.connect().await;
    first.send(get("/wait")).await;
    server.next_waiting().await;
    let mut second = server.connect().await;
    second.send(get("/target")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.stream.readable()).await;
    assert!(early.is_err(), "it was served beside the first");
    server.site.release.notify_one();
    assert_eq!(first.answer().await.status, 200);
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}
