//! Connections on threads of their own.

mod common;

use common::{Server, get, put};
use kvdb_server::ServeOptions;
use std::time::Duration;

async fn server(drain_time: Duration) -> Server {
    Server::start(ServeOptions { connection_threads: 2, drain_time, ..ServeOptions::default() }).await
}

#[tokio::test]
async fn many_connections_are_answered_at_the_same_time_and_stay_open() {
    let server = server(common::PATIENCE).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.connect().await);
    }
    for _ in 0..3 {
        for client in &mut clients {
            client.send(put("Content-Length: 5\r\n", "value")).await;
        }
        for client in &mut clients {
            assert_eq!(client.answer().await.status, 201);
        }
    }
    assert_eq!(server.stored().len(), 60);
    let mut server = server;
    clients[0].send(get("/wait")).await;
    server.next_waiting().await;
    for client in &mut clients[1..] {
        client.send(get("/target")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    server.site.release.notify_one();
    assert_eq!(clients[0].answer().await.body, b"released");
}

#[tokio::test]
async fn a_panic_is_a_500_and_its_thread_goes_on() {
    let server = server(common::PATIENCE).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send(get("/panic")).await;
        assert_eq!(client.answer().await.status, 500);
    }
    assert_eq!(server.ask(get("/target")).await.status, 200);
}

#[tokio::test]
async fn at_shutdown_what_is_in_flight_ends_and_the_threads_do() {
    let mut server = server(common::PATIENCE).await;
    let mut client = server.connect().await;
    client.send(get("/wait")).await;
    server.next_waiting().await;
    server.shutdown.cancel();
    server.site.release.notify_one();
    assert_eq!(client.answer().await.body, b"released");
    assert!(client.rest().await.is_empty());
    server.stopped().await;
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_end_of_the_drain_time() {
    let mut server = server(Duration::from_millis(100)).await;
    let mut client = server.connect().await;
    client.send(get("/wait")).await;
    server.next_waiting().await;
    server.shutdown.cancel();
    server.stopped().await;
    assert!(client.rest().await.is_empty());
}
