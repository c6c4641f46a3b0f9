//! Heads: hosts, lengths, codings, expectations, sizes.

use crate::{answer_to, check_no_files, check_still_serves};
use kvdb_tests::{Cluster, Connection, Request};

/// The master with a key's path, and a volume with a ticket for it.
fn places(cluster: &Cluster) -> [(String, String); 2] {
    let url = cluster.write_url("/k", 5);
    [(cluster.master_addr(), "/k".into()), (url.address, url.target)]
}

#[track_caller]
fn check(cluster: &Cluster, head_lines: &str, body: &str, allowed: &[u16]) {
    for (address, target) in places(cluster) {
        let answer = answer_to(&address, format!("PUT {target} HTTP/1.1\r\n{head_lines}\r\n{body}"));
        assert!(allowed.contains(&answer.status), "{head_lines:?} at {address}: {answer}");
        assert!(!answer.continued, "{head_lines:?}: nobody asked for the body");
    }
    cluster.get("/k").expect_problem(404, "not_found");
}

#[test]
fn no_host_two_hosts_or_a_bad_one_are_refused() {
    let cluster = Cluster::start(1);
    for head in ["Content-Length: 5\r\n", "Host: a\r\nHost: a\r\nContent-Length: 5\r\n", "Host: a\r\nHost: b\r\nContent-Length: 5\r\n"] {
        check(&cluster, head, "hello", &[400]);
    }
    for host in ["a/b", "a b", "a\tb", "<x>", "a@b/", "a\"b"] {
        check(&cluster, &format!("Host: {host}\r\nContent-Length: 5\r\n"), "hello", &[400]);
    }
    check_still_serves(&cluster);
}

#[test]
fn a_content_length_that_is_no_number_is_refused() {
    let cluster = Cluster::start(1);
    for length in ["-1", "+5", "0x10", "18446744073709551616", "99999999999999999999999999", "5, 5", "5 5", "5;", "five", "", "1e3", "5.0"]
    {
        check(&cluster, &format!("Host: x\r\nContent-Length: {length}\r\n"), "hello", &[400]);
    }
    check(&cluster, "Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n", "hello!", &[400]);
    // Larger than any value may be.
    for length in ["18446744073709551615", "18446744073709551613", "9223372036854775807", "5368709121"] {
        check(&cluster, &format!("Host: x\r\nContent-Length: {length}\r\n"), "hello", &[400, 413, 431]);
    }
    check_no_files(&cluster);
    check_still_serves(&cluster);
}

#[test]
fn a_length_that_a_client_announces_ahead_must_be_a_number_too() {
    let cluster = Cluster::start(1);
    for length in ["-1", "+5", "0x10", "", "18446744073709551616", "x"] {
        let request = Request::put("/k", "").header("Kvdb-Content-Length", length);
        cluster.ask(&request).expect_problem(400, "bad_request");
    }
    cluster.ask(&Request::put("/k", "").header("Kvdb-Content-Length", "18446744073709551615")).expect_problem(413, "value_too_large");
}

#[test]
fn a_length_together_with_chunks_is_refused_or_read_as_chunks_and_closed() {
    let cluster = Cluster::start(1);
    for lines in ["Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"] {
        for (address, target) in places(&cluster) {
            let mut connection = Connection::open(&address);
            // Whoever goes by the length takes the rest for a second request.
            let smuggled = format!("DELETE {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            connection.send(format!("PUT {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n{smuggled}"));
            let answer = connection.answer();
            assert!(matches!(answer.status, 200 | 201 | 400), "{lines:?}: {answer}");
            assert!(answer.closes(), "{lines:?}: {answer}");
            assert!(connection.rest().is_empty(), "nothing of what follows is answered");
        }
        let stored = cluster.get("/k");
        assert!(stored.status == 404 || stored.body == b"hello", "{stored}");
        cluster.follow(&Request::delete("/k"));
    }
    check_still_serves(&cluster);
}

#[test]
fn codings_other_than_chunked_are_refused() {
    let cluster = Cluster::start(1);
    for coding in ["gzip, chunked", "chunked, chunked", "chunked, gzip", "gzip", "identity", "xchunked", "chunked;q=1", ""] {
        check(&cluster, &format!("Host: x\r\nTransfer-Encoding: {coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n", &[400, 501]);
    }
    check(&cluster, "Host: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", &[400, 501]);
    check_no_files(&cluster);
}

#[test]
fn malformed_header_lines_are_refused() {
    let cluster = Cluster::start(1);
    for line in ["X: a\r\n folded", "X : a", "no colon", ": empty", "X: a\0b", "X: a\rb", "Content-Length : 5", " X: a", "X\u{1}: a"] {
        check(&cluster, &format!("Host: x\r\n{line}\r\nContent-Length: 5\r\n"), "hello", &[400]);
    }
    for (address, target) in places(&cluster) {
        for line in [
            format!("PUT {target} HTTP/2.0"),
            format!("PUT {target} HTTP/1.2"),
            format!("PUT {target} http/1.1"),
            "PUT".into(),
            "\0\0\0\0".into(),
        ] {
            let mut connection = Connection::open(&address);
            connection.send(format!("{line}\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"));
            assert_eq!(connection.answer().status, 400, "{line:?}");
        }
    }
    cluster.get("/k").expect(404);
    check_still_serves(&cluster);
}

#[test]
fn tls_or_noise_on_the_port_is_closed() {
    let cluster = Cluster::start(1);
    for address in [cluster.master_addr(), cluster.volume_addr(0)] {
        for bytes in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &kvdb_tests::values::value(5000, 1), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let mut connection = Connection::open(&address);
            connection.send(bytes);
            connection.end_sending();
            let rest = connection.rest();
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{rest:?}");
        }
    }
    check_still_serves(&cluster);
}

#[test]
fn a_hundred_and_one_headers_or_a_megabyte_of_head_are_431() {
    let cluster = Cluster::start(1);
    let many: String = (0..100).map(|i| format!("X-{i}: y\r\n")).collect();
    check(&cluster, &format!("Host: x\r\n{many}"), "", &[431]);
    check(&cluster, &format!("Host: x\r\nX: {}\r\n", "y".repeat(1 << 20)), "", &[431]);
    let fine: String = (0..97).map(|i| format!("X-{i}: y\r\n")).collect();
    for (address, target) in places(&cluster) {
        let answer = answer_to(&address, format!("PUT {target} HTTP/1.1\r\nHost: x\r\n{fine}Content-Length: 5\r\n\r\nhello"));
        assert!(matches!(answer.status, 201 | 307), "{answer}");
    }
    check_still_serves(&cluster);
}

#[test]
fn an_expectation_that_cannot_be_met_is_417() {
    let cluster = Cluster::start(1);
    for expect in ["foo", "100-continue, foo", "", "100"] {
        check(&cluster, &format!("Host: x\r\nContent-Length: 5\r\nExpect: {expect}\r\n"), "", &[417]);
    }
    check_still_serves(&cluster);
}

#[test]
fn a_body_too_large_for_its_ticket_is_refused_before_it_is_asked_for() {
    let cluster = Cluster::start(1);
    let url = cluster.write_url("/k", 5);
    let answer =
        answer_to(&url.address, format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n", url.target));
    assert!(!answer.continued, "{answer}");
    answer.expect_problem(413, "value_too_large");
    cluster.get("/k").expect(404);
}
