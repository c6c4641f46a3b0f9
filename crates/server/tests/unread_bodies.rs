//! Answers to requests whose body the service did not read.

mod common;

use common::{PATIENCE, Server, get};
use kvdb_server::ServeOptions;
use tokio::io::AsyncWriteExt;

fn early(headers: &str) -> String {
    format!("PUT /early HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_small_body_is_drained_and_the_connection_kept() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(early("Content-Length: 200000\r\n")).await;
    client.send(vec![b'x'; 200_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (307, false));
    client.send(get("/target")).await;
    assert_eq!(client.answer().await.body, b"/target");
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_large_body_can_read_the_early_answer() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(early("Content-Length: 1000000\r\n")).await;
    // All of it is sent before anything is read: were the connection reset, the answer would be lost.
    client.send(vec![b'x'; 900_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (307, true));
    client.end().await;
    client.clean_end().await;
}

#[tokio::test]
async fn a_client_that_goes_on_sending_after_the_early_answer_is_not_reset() {
    let server = Server::start(ServeOptions { linger_time: PATIENCE, ..ServeOptions::default() }).await;
    let mut client = server.connect().await;
    client.send(early("Content-Length: 1000000\r\n")).await;
    assert_eq!(client.answer().await.status, 307);
    for _ in 0..9 {
        // A reset would have time to come back, and fail the next send.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        client.send(vec![b'x'; 100_000]).await;
    }
    client.end().await;
    client.clean_end().await;
}

#[tokio::test]
async fn a_large_body_is_not_read_to_its_end() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(early("Content-Length: 1000000000\r\n")).await;
    let mut sent = 0;
    let chunk = vec![b'x'; 64 << 10];
    while sent < 1_000_000_000 && client.stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 100_000_000, "{sent} bytes were taken");
}

#[tokio::test]
async fn an_unread_chunked_body_closes_the_connection() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(early("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (307, true));
}

#[tokio::test]
async fn a_small_body_that_never_comes_does_not_keep_the_answer_back() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(early("Content-Length: 5\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (307, true));
}

#[tokio::test]
async fn a_client_that_expects_100_gets_the_final_answer_alone_when_its_body_is_not_wanted() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(early("Expect: 100-continue\r\nContent-Length: 5\r\n")).await;
    // The first head that comes is the answer, not a 100.
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (307, true));
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_body_announced_too_large_is_413_with_no_100() {
    let server = Server::plain().await;
    let answer = server.ask("PUT /too-large HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n").await;
    assert_eq!((answer.status, answer.problem().code.as_str()), (413, "value_too_large"));
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_413() {
    let server = Server::plain().await;
    let body = format!("3e8\r\n{}\r\n1\r\ny\r\n", "x".repeat(1000));
    let answer = server.ask(format!("PUT /too-large HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
    assert_eq!((answer.status, answer.closes()), (413, true));
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_when_its_body_is_read_and_keeps_its_connection() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send("PUT /store HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.head().await.status, 100);
    client.send("hello").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (201, false));
    assert_eq!(server.stored(), ["hello"]);
}
