//! Ranges, asked of the volume itself.

use crate::{answer_to, check_still_serves};
use kvdb_tests::values::value;
use kvdb_tests::{Answer, Cluster, Request, Url};

fn ranged(url: &Url, lines: &str) -> Answer {
    answer_to(&url.address, format!("GET {} HTTP/1.1\r\nHost: x\r\n{lines}\r\n", url.target))
}

#[test]
fn every_form_of_a_range_has_its_answer() {
    let cluster = Cluster::start(1);
    for len in [1000_usize, 300_000] {
        let bytes = value(len, 1);
        cluster.put("/k", &bytes);
        let url = cluster.read_url("/k");
        let max = u64::MAX;
        for (range, expected) in [
            ("bytes=0-0".to_string(), Some(0..1)),
            ("bytes=-5".into(), Some(len - 5..len)),
            ("bytes=5-".into(), Some(5..len)),
            ("BYTES=5-6".into(), Some(5..7)),
            (format!("bytes=-{}", len + 1), Some(0..len)),
            (format!("bytes=-{max}"), Some(0..len)),
            (format!("bytes=1-{max}"), Some(1..len)),
            (format!("bytes={}-{}", len - 1, len + 5), Some(len - 1..len)),
            ("bytes=0-99999999999999999999999".into(), Some(0..len)),
            ("bytes=-0".into(), None),
            (format!("bytes={len}-"), None),
            (format!("bytes={}-{}", len + 1, len + 2), None),
            (format!("bytes={max}-"), None),
            ("bytes=99999999999999999999999-".into(), None),
        ] {
            let answer = ranged(&url, &format!("Range: {range}\r\n"));
            match expected {
                Some(part) => {
                    let answer = answer.expect(206);
                    assert_eq!(answer.body, bytes[part.clone()], "{range}");
                    assert_eq!(answer.header("content-range"), Some(format!("bytes {}-{}/{len}", part.start, part.end - 1).as_str()));
                }
                None => {
                    assert_eq!(answer.status, 416, "{range}: {answer}");
                    assert_eq!(answer.header("content-range"), Some(format!("bytes */{len}").as_str()), "{range}");
                    answer.expect_problem(416, "range_not_satisfiable");
                }
            }
        }
    }
}

#[test]
fn ranges_that_are_none_bring_the_whole_value() {
    let cluster = Cluster::start(1);
    let bytes = value(1000, 1);
    cluster.put("/k", &bytes);
    let url = cluster.read_url("/k");
    for range in [
        "bytes=5-2",
        "items=0-5",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=0-5x",
        "bytes=--5",
        "bytes=+1-5",
        "0-5",
        "bytes=0x1-5",
        "",
    ] {
        let answer = ranged(&url, &format!("Range: {range}\r\n")).expect(200);
        assert_eq!(answer.body, bytes, "{range}");
        assert!(answer.header("content-range").is_none(), "{range}");
    }
}

#[test]
fn a_thousand_ranges_bring_no_more_than_the_value() {
    let cluster = Cluster::start(1);
    let bytes = value(100_000, 1);
    cluster.put("/k", &bytes);
    let url = cluster.read_url("/k");
    let overlapping = vec!["0-"; 1000].join(",");
    let apart = (0..1000).map(|i| format!("{}-{}", i * 10, i * 10 + 1)).collect::<Vec<_>>().join(", ");
    for ranges in [overlapping, apart, "0-1,5-6".into()] {
        let answer = ranged(&url, &format!("Range: bytes={ranges}\r\n")).expect(200);
        assert_eq!(answer.body, bytes);
    }
    check_still_serves(&cluster);
}

#[test]
fn no_range_of_an_empty_value_can_be_satisfied() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"");
    let url = cluster.read_url("/k");
    for range in ["0-0", "0-", "-1", "-5", "-0", "5-"] {
        let answer = ranged(&url, &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.header("content-range"), Some("bytes */0"), "{range}: {answer}");
        answer.expect_problem(416, "range_not_satisfiable");
    }
    assert_eq!(ranged(&url, "").expect(200).body, b"");
}

#[test]
fn a_stale_if_range_brings_the_whole_value() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"old");
    let stale = cluster.get("/k").header("etag").unwrap().to_string();
    cluster.put("/k", b"0123456789");
    let (url, fresh) = (cluster.read_url("/k"), cluster.get("/k").header("etag").unwrap().to_string());
    assert_eq!(ranged(&url, &format!("Range: bytes=2-3\r\nIf-Range: {stale}\r\n")).expect(200).body, b"0123456789");
    assert_eq!(ranged(&url, &format!("Range: bytes=2-3\r\nIf-Range: {fresh}\r\n")).expect(206).body, b"23");
    // A range that cannot be satisfied does not matter either then.
    ranged(&url, &format!("Range: bytes=99-\r\nIf-Range: {stale}\r\n")).expect(200);
    ranged(&url, "Range: bytes=2-3\r\nIf-Range: nonsense\r\n").expect(200);
}

#[test]
fn head_knows_no_ranges_and_the_master_passes_them_by() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"0123456789");
    let head = cluster.follow(&Request::new("HEAD", "/k").header("Range", "bytes=2-3")).expect(200);
    assert_eq!(head.header("content-length"), Some("10"));
    cluster.ask(&Request::get("/k").header("Range", "bytes=99-")).expect(302);
}
