//! What every answer has.

mod common;

use common::{Server, get};

#[tokio::test]
async fn every_answer_has_an_id_a_server_and_a_date() {
    let server = Server::plain().await;
    for path in ["/target", "/nowhere", "/panic", "/busy"] {
        let answer = server.ask(get(path)).await;
        assert_eq!(answer.header("server"), "kvdb");
        assert!(answer.header("date").ends_with(" GMT"));
        assert_eq!(answer.header("x-request-id").len(), 32, "{path}");
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_replaced() {
    let server = Server::plain().await;
    let ask = async |id: &str| server.ask(format!("GET /nowhere HTTP/1.1\r\nHost: h\r\nX-Request-Id: {id}\r\n\r\n")).await;
    let answer = ask("trace-1.a_B").await;
    assert_eq!(answer.header("x-request-id"), "trace-1.a_B");
    assert_eq!(answer.problem().request_id, "trace-1.a_B");
    let answer = ask("not sane").await;
    assert_ne!(answer.header("x-request-id"), "not sane");
    assert_eq!(answer.problem().request_id, answer.header("x-request-id"));
}

#[tokio::test]
async fn problems_are_json_and_say_when_to_come_back() {
    let server = Server::plain().await;
    let answer = server.ask(get("/nowhere")).await;
    assert_eq!((answer.status, answer.problem().code.as_str(), answer.header("retry-after")), (404, "not_found", ""));
    let answer = server.ask(get("/busy")).await;
    assert_eq!((answer.status, answer.problem().code.as_str(), answer.header("retry-after")), (503, "no_replica", "1"));
}

#[tokio::test]
async fn head_has_the_length_of_get_and_no_body() {
    let server = Server::plain().await;
    for path in ["/target", "/nowhere"] {
        let length = server.ask(get(path)).await.header("content-length").to_string();
        let mut client = server.connect().await;
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n") + &get("/target?next")).await;
        let head = client.head().await;
        assert_eq!(head.header("content-length"), length, "{path}");
        assert_eq!(client.answer().await.body, b"/target?next");
    }
}

#[tokio::test]
async fn head_of_a_streamed_answer_keeps_the_length_that_the_service_gave() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send("HEAD /cut HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, "8"));
}

#[tokio::test]
async fn an_answer_whose_body_fails_is_cut_short() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(get("/cut")).await;
    assert_eq!(client.head().await.header("content-length"), "8");
    assert_eq!(client.rest().await, b"half");
}

#[tokio::test]
async fn a_service_knows_both_ends_of_its_connection() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send(get("/remote")).await;
    let expected = format!("{} {}", client.stream.local_addr().unwrap(), server.address);
    assert_eq!(client.answer().await.body, expected.as_bytes());
}

#[tokio::test]
async fn the_pages_of_every_server_are_answered_with_the_requests_id() {
    let server = Server::plain().await;
    assert_eq!(server.ask(get("/-/health/live")).await.body, b"ok\n");
    let unready = server.ask(get("/-/health/ready")).await;
    assert_eq!((unready.status, unready.problem().detail.as_str()), (503, "not in this test"));
    assert_eq!(unready.problem().request_id, unready.header("x-request-id"));
    let metrics = server.ask(get("/-/metrics")).await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains(r#"kvdb_http_requests_total{server="server",method="GET",code="503"}"#), "{text}");
    assert!(text.contains(r#"kvdb_http_connections{server="server"}"#), "{text}");
}
