//! Requests that are framed badly, oddly or at the bounds, through raw sockets. What hyper does with each is in docs/http.md.

mod common;

use common::{Client, Server, get, put};
use kvdb_server::ServeOptions;

/// Sends a body that breaks off, and returns the status of the answer.
async fn broken(request: &str) -> u16 {
    let mut server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(request).await;
    client.end().await;
    let status = client.answer().await.status;
    assert_eq!(server.next_failure().await.status, status);
    assert!(server.stored().is_empty());
    status
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_not_stored() {
    assert_eq!(broken(&put("Content-Length: 10\r\n", "12345")).await, 400);
}

#[tokio::test]
async fn a_body_cut_off_by_a_vanished_client_is_not_stored() {
    let mut server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(put("Content-Length: 10\r\n", "12345")).await;
    drop(client);
    assert_eq!(server.next_failure().await.code.as_str(), "incomplete_body");
    assert!(server.stored().is_empty());
}

#[tokio::test]
async fn bytes_beyond_the_announced_length_are_the_next_request() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(put("Content-Length: 5\r\n", "1234567890")).await;
    client.end().await;
    assert_eq!(client.answer().await.status, 201);
    assert_eq!(server.stored(), ["12345"]);
    let rest = client.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn lengths_that_are_not_plain_numbers_are_refused() {
    let server = Server::plain().await;
    for length in ["-1", "+5", "0x10", "18446744073709551616", "5, 5", "5 5", "", "5\r\nContent-Length: 6"] {
        let answer = server.ask(put(&format!("Content-Length: {length}\r\n"), "12345")).await;
        assert_eq!((answer.status, answer.closes()), (400, true), "{length}");
    }
    // A number, but beyond what hyper counts.
    assert_eq!(server.ask(put("Content-Length: 18446744073709551615\r\n", "12345")).await.status, 431);
    assert!(server.stored().is_empty());
}

#[tokio::test]
async fn the_same_length_twice_is_one_length() {
    let server = Server::plain().await;
    assert_eq!(server.ask(put("Content-Length: 5\r\nContent-Length: 5\r\n", "12345")).await.status, 201);
}

#[tokio::test]
async fn with_both_a_length_and_chunks_the_chunks_count_and_the_connection_closes() {
    for headers in ["Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"] {
        let server = Server::plain().await;
        let mut client = server.connect().await;
        client.send(put(headers, "5\r\nhello\r\n0\r\n\r\n") + &get("/target")).await;
        client.end().await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.closes()), (201, true));
        assert_eq!(server.stored(), ["hello"]);
        assert!(client.rest().await.is_empty(), "a smuggled request was answered");
    }
}

#[tokio::test]
async fn chunks_become_one_body_and_the_connection_stays() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    let chunks = "5;name=value\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    client.send(put("Transfer-Encoding: chunked\r\n", chunks) + &get("/target")).await;
    assert_eq!(client.answer().await.status, 201);
    assert_eq!(client.answer().await.body, b"/target");
    assert_eq!(server.stored(), ["hello world"]);
}

#[tokio::test]
async fn bad_chunks_are_not_stored() {
    for chunks in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello",
        "5\nhello\n0\n\n",
    ] {
        assert_eq!(broken(&put("Transfer-Encoding: chunked\r\n", chunks)).await, 400, "{chunks:?}");
    }
}

#[tokio::test]
async fn a_missing_last_chunk_is_not_stored() {
    for chunks in ["5\r\nhello\r\n", "5\r\nhello", "5\r\nhel", "5\r\nhello\r\n0\r\n"] {
        assert_eq!(broken(&put("Transfer-Encoding: chunked\r\n", chunks)).await, 400, "{chunks:?}");
    }
}

#[tokio::test]
async fn codings_other_than_chunked_are_refused() {
    let server = Server::plain().await;
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for (coding, status) in [("gzip, chunked", 501), ("chunked, chunked", 501), ("chunked, gzip", 400), ("gzip", 400), ("identity", 400)] {
        let answer = server.ask(put(&format!("Transfer-Encoding: {coding}\r\n"), body)).await;
        assert_eq!((answer.status, answer.closes()), (status, true), "{coding}");
    }
    let old = "PUT /store HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(server.ask(old).await.status, 400);
    assert!(server.stored().is_empty());
}

#[tokio::test]
async fn heads_that_do_not_parse_are_refused() {
    let server = Server::plain().await;
    let bad = [
        "GET /target HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n",
        "GET /target HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
        "GET /target HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET /target HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "GET /tar get HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /target HTTP/9.9\r\nHost: h\r\n\r\n",
        "GET  /target HTTP/1.1\r\nHost: h\r\n\r\n",
        "G\u{1}T /target HTTP/1.1\r\nHost: h\r\n\r\n",
        "rubbish\r\n\r\n",
    ];
    for request in bad {
        assert_eq!(server.ask(request).await.status, 400, "{request:?}");
    }
}

#[tokio::test]
async fn there_must_be_one_host_except_in_http_1_0() {
    let server = Server::plain().await;
    let none = server.ask("GET /target HTTP/1.1\r\n\r\n").await;
    assert_eq!((none.status, none.problem().code.as_str()), (400, "bad_request"));
    assert_eq!(server.ask("GET /target HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").await.status, 400);
    assert_eq!(server.ask("GET /target HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn an_absolute_target_is_taken_as_its_path_and_query() {
    let server = Server::plain().await;
    assert_eq!(server.ask(get("http://other:80/target?a=%20b")).await.body, b"/target?a=%20b");
}

#[tokio::test]
async fn a_target_has_64_kib_at_most() {
    let server = Server::plain().await;
    let with = |bytes: usize| get(&format!("/target?{}", "x".repeat(bytes - 8)));
    assert_eq!(server.ask(with(65_534)).await.status, 200);
    assert_eq!(server.ask(with(65_535)).await.status, 414);
    assert_eq!(server.ask(with(100_000)).await.status, 414);
}

#[tokio::test]
async fn a_head_has_100_fields_and_256_kib_at_most() {
    let server = Server::plain().await;
    let fields = |n: usize| format!("GET /target HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(n - 1));
    assert_eq!(server.ask(fields(100)).await.status, 200);
    assert_eq!(server.ask(fields(101)).await.status, 431);
    let mut client = server.connect().await;
    client.send(format!("GET /target HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(1 << 20))).await;
    assert_eq!(client.answer().await.status, 431);
    client.end().await;
    client.clean_end().await;
}

#[tokio::test]
async fn the_bound_of_a_head_can_be_lower_than_that_of_the_buffer() {
    let server = Server::start(ServeOptions { max_head_bytes: 16 << 10, ..ServeOptions::default() }).await;
    let with = |bytes: usize| format!("GET /target HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(bytes));
    assert_eq!(server.ask(with(15 << 10)).await.status, 200);
    assert_eq!(server.ask(with(17 << 10)).await.status, 431);
}

#[tokio::test]
async fn an_unknown_expectation_is_417() {
    let server = Server::plain().await;
    let answer = server.ask(put("Expect: foo\r\nContent-Length: 5\r\n", "12345")).await;
    assert_eq!((answer.status, answer.problem().code.as_str()), (417, "expectation_failed"));
    assert!(server.stored().is_empty());
}

#[tokio::test]
async fn a_client_that_shuts_down_its_sending_side_gets_its_answer() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(put("Content-Length: 5\r\n", "12345")).await;
    client.end().await;
    assert_eq!(client.answer().await.status, 201);
    client.clean_end().await;
}

#[tokio::test]
async fn a_request_is_served_to_its_end_although_its_client_shut_down_its_sending_side() {
    let mut server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(get("/wait")).await;
    client.end().await;
    server.next_waiting().await;
    // Time in which a server that minds would notice; one that does not passes however long it is.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    server.site.release.notify_one();
    assert_eq!(client.answer().await.body, b"released");
    client.clean_end().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(put("Content-Length: 5\r\n", "12345") + &get("/target?1") + &get("/target?2")).await;
    assert_eq!(client.answer().await.body, b"12345");
    assert_eq!(client.answer().await.body, b"/target?1");
    assert_eq!(client.answer().await.body, b"/target?2");
}

#[tokio::test]
async fn bodies_of_all_sizes_arrive_exact_on_one_connection() {
    let server = Server::plain().await;
    let mut client: Client = server.connect().await;
    for size in [0usize, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 1 << 20] {
        let body: String = (0..size).map(|i| char::from(b'a' + u8::try_from(i % 23).unwrap())).collect();
        client.send(put(&format!("Content-Length: {size}\r\n"), &body)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.len()), (201, size));
        assert!(answer.body == body.as_bytes(), "{size} bytes differ");
    }
}
