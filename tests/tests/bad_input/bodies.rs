//! Bodies that are shorter, longer, broken or cut, and connections that are used to their ends.

use crate::{check_no_files, check_still_serves};
use kvdb_tests::values::{assert_same, content_md5, value};
use kvdb_tests::{Cluster, Connection, Request, eventually};

/// A master's key beyond what it drops, and a volume's ticket for a value of `len` bytes.
fn places(cluster: &Cluster, len: usize) -> [(String, String); 2] {
    let url = cluster.write_url("/k", len);
    [(cluster.master_addr(), "/k".into()), (url.address, url.target)]
}

#[test]
fn of_a_body_that_ends_early_nothing_is_stored() {
    let cluster = Cluster::start(2);
    for (announced, sent) in [(10, 5), (1, 0), (300_000, 299_999), (300_000, 0), (3 << 20, 2 << 20)] {
        for (address, target) in places(&cluster, announced) {
            for ends_politely in [true, false] {
                let mut connection = Connection::open(&address);
                connection.send(format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {announced}\r\n\r\n"));
                connection.send(value(sent, 1));
                if ends_politely {
                    connection.end_sending();
                    connection.answer().expect_problem(400, "incomplete_body");
                }
            }
        }
        cluster.get("/k").expect_problem(404, "not_found");
    }
    check_no_files(&cluster);
    check_still_serves(&cluster);
}

#[test]
fn what_follows_a_body_is_the_next_request() {
    let cluster = Cluster::start(1);
    let url = cluster.write_url("/k", 5);
    let mut connection = Connection::open(&url.address);
    connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloworld\r\n\r\n", url.target));
    connection.answer().expect(201);
    connection.answer().expect(400);
    assert!(connection.rest().is_empty(), "and after that the connection is closed");
    assert_eq!(cluster.value("/k"), b"hello");

    let mut connection = Connection::open(&cluster.master_addr());
    connection.send("PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloworld\r\n\r\n");
    connection.answer().expect(307);
    connection.answer().expect(400);
}

#[test]
fn of_bad_chunks_nothing_is_stored() {
    let cluster = Cluster::start(2);
    let large = format!("{:x}\r\n{}\r\n", 200_000, "x".repeat(200_000));
    for first in ["5\r\nhello\r\n", &large] {
        for rest in [
            "zz\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloXX0\r\n\r\n",
            "fffffffffffffffff\r\nhello",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
        ] {
            for (address, target) in places(&cluster, 1 << 20) {
                let mut connection = Connection::open(&address);
                connection.send(format!("PUT {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{first}{rest}"));
                assert_eq!(connection.answer().status, 400, "{rest:?} after {} bytes at {address}", first.len());
            }
            cluster.get("/k").expect_problem(404, "not_found");
        }
    }
    check_no_files(&cluster);
    check_still_serves(&cluster);
}

#[test]
fn without_the_last_chunk_nothing_is_stored() {
    let cluster = Cluster::start(2);
    let large = format!("{:x}\r\n{}\r\n", 200_000, "x".repeat(200_000));
    for sent in ["5\r\nhello\r\n", "5\r\nhel", "5\r\nhello\r\n0\r\n", &large, &large[..100_000]] {
        for (address, target) in places(&cluster, 1 << 20) {
            let mut connection = Connection::open(&address);
            connection.send(format!("PUT {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{sent}"));
            connection.end_sending();
            assert_eq!(connection.answer().status, 400, "{} bytes at {address}", sent.len());
        }
        cluster.get("/k").expect_problem(404, "not_found");
    }
    check_no_files(&cluster);
}

#[test]
fn chunk_extensions_and_trailers_are_not_part_of_the_value() {
    let cluster = Cluster::start(1);
    let url = cluster.write_url("/k", 10);
    let mut connection = Connection::open(&url.address);
    connection.send(format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
        url.target
    ));
    connection.answer().expect(201);
    assert_eq!(cluster.value("/k"), b"hello");
}

#[test]
fn a_client_that_ends_its_sending_side_after_the_body_gets_its_201() {
    let cluster = Cluster::start(2);
    for len in [5, 300_000] {
        let target = format!("/k{len}");
        let url = cluster.write_url(&target, len);
        let mut connection = Connection::open(&url.address);
        connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n", url.target));
        connection.send(value(len, 1));
        connection.end_sending();
        connection.answer().expect(201);
        assert_same(&cluster.value(&target), &value(len, 1), &target);
    }
    let mut relayed = Connection::open(&cluster.master_addr());
    relayed.send("PUT /relayed HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    relayed.send(value(300_000, 1));
    relayed.end_sending();
    relayed.answer().expect(201);
    assert_same(&cluster.value("/relayed"), &value(300_000, 1), "/relayed");
}

#[test]
fn a_write_whose_client_is_gone_after_the_body_is_done_or_not_done_but_never_half() {
    let cluster = Cluster::start(2);
    for round in 0..10 {
        let target = format!("/k{round}");
        let url = cluster.write_url(&target, 300_000);
        let mut connection = Connection::open(&url.address);
        connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n", url.target));
        connection.send(value(300_000, 1));
        drop(connection);
        let again = eventually("the volume has ended it", || {
            let answer = Request::put(&url.target, value(300_000, 2)).send(&url.address);
            (!answer.text().contains("in use")).then_some(answer)
        });
        let expected = if again.status == 201 { value(300_000, 2) } else { value(300_000, 1) };
        assert_same(&cluster.value(&target), &expected, &target);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let cluster = Cluster::builder(1).start();
    cluster.put("/other", b"other");
    let (write, read) = (cluster.write_url("/k", 5), cluster.read_url("/other"));
    let mut connection = Connection::open(&write.address);
    connection.send(format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET {} HTTP/1.1\r\nHost: x\r\n\r\nGET /k HTTP/1.1\r\nHost: x\r\n\r\n",
        write.target, read.target
    ));
    connection.answer().expect(201);
    assert_eq!(connection.answer().expect(200).body, b"other");
    connection.answer().expect(421);

    let mut connection = Connection::open(&cluster.master_addr());
    connection.send(
        "PUT /new HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /k HTTP/1.1\r\nHost: x\r\n\r\nGET /absent HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    connection.answer().expect(307);
    connection.answer().expect(302);
    connection.answer().expect(404);
}

#[test]
fn a_wrong_digest_at_the_volume_itself_keeps_the_old_value() {
    let cluster = Cluster::start(2);
    cluster.put("/k", b"old");
    for len in [5, 300_000] {
        let url = cluster.write_url("/k", len);
        let mut connection = Connection::open(&url.address);
        let head =
            format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\nContent-MD5: {}\r\n\r\n", url.target, content_md5(b"other"));
        connection.send(head);
        connection.send(value(len, 1));
        connection.answer().expect_problem(400, "digest_mismatch");
        assert_eq!(cluster.value("/k"), b"old");
    }
    check_no_files(&cluster);
}

#[test]
fn two_creates_that_both_hold_a_ticket_have_one_winner() {
    let cluster = Cluster::start(2);
    for len in [5, 300_000] {
        let target = format!("/k{len}");
        let ask = Request::put(&target, "").header("Kvdb-Content-Length", &len.to_string()).header("If-None-Match", "*");
        let urls = [0, 1].map(|_| kvdb_tests::Url::of(&cluster.ask(&ask).expect(307)));
        let mut connections = urls.clone().map(|url| {
            let mut connection = Connection::open(&url.address);
            connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n", url.target));
            connection
        });
        for (seed, connection) in connections.iter_mut().enumerate() {
            connection.send(value(len, seed as u64));
        }
        let [first, second] = &mut connections;
        let statuses = [first.answer().status, second.answer().status];
        let winner = statuses.iter().position(|s| *s == 201).unwrap_or_else(|| panic!("{statuses:?}"));
        assert_eq!(statuses[1 - winner], 412, "{statuses:?}");
        assert_same(&cluster.value(&target), &value(len, winner as u64), &target);
    }
}

#[test]
fn a_ticket_is_not_taken_twice_at_once() {
    let cluster = Cluster::start(1);
    let url = cluster.write_url("/k", 300_000);
    let mut first = Connection::open(&url.address);
    first.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n", url.target));
    assert_eq!(first.read_head().unwrap().status, 100, "the first is under way");
    Request::put(&url.target, value(300_000, 2)).send(&url.address).expect_problem(403, "bad_ticket");
    first.send(value(300_000, 1));
    first.answer().expect(201);
    assert_same(&cluster.value("/k"), &value(300_000, 1), "/k");
}
