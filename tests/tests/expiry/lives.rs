//! What a time to live means to each request.

use crate::{expires, expiry_of, now, sleep_until};
use kvdb_tests::values::{etag, value};
use kvdb_tests::{Cluster, Request, eventually};

#[test]
fn a_time_to_live_is_given_in_the_query_or_a_header_and_told_by_the_master_and_the_volume() {
    let cluster = Cluster::start(2);
    let units = [("2d", 172_800_000), ("3h", 10_800_000), ("90m", 5_400_000), ("100s", 100_000), ("100", 100_000), ("70000ms", 70_000)];
    for (text, ms) in units {
        let before = now();
        cluster.follow(&Request::put(&format!("/query?ttl={text}"), "v"));
        cluster.follow(&Request::put("/header", "v").header("Kvdb-Ttl", text));
        cluster.follow(&Request::put(&format!("/both?ttl={text}"), "v").header("Kvdb-Ttl", "7d"));
        for target in ["/query", "/header", "/both"] {
            let at = expiry_of(&cluster, target);
            assert!((before + ms..=now() + ms).contains(&at), "{target} {text}: {at}");
            for request in [Request::get(target), Request::new("HEAD", target), Request::get(target).header("If-None-Match", &etag(b"v"))] {
                let answer = cluster.follow(&request);
                let left: u64 = answer.header("kvdb-ttl").unwrap().parse().unwrap();
                assert!(expires(&answer) == at && left <= ms && left > ms - 60_000, "{answer}");
            }
        }
    }
    let detail = cluster.ask(&Request::get("/query?list&detail")).expect(200).json();
    assert_eq!(detail["keys"][0]["expires"].as_u64(), Some(expiry_of(&cluster, "/query")));
    cluster.put("/query", b"w");
    let answer = cluster.follow(&Request::get("/query"));
    assert_eq!((answer.header("kvdb-expires"), answer.header("kvdb-ttl")), (None, None), "stored without one, it is unlimited");
}

#[test]
fn a_write_that_is_sent_to_another_volume_keeps_its_time_to_live() {
    let cluster = Cluster::builder(3).master_args(["--replicas", "1"]).start();
    let ids: Vec<String> = cluster.status()["volumes"].as_array().unwrap().iter().map(|v| v["id"].as_str().unwrap().into()).collect();
    for (i, pair) in [(0, 1), (1, 2), (0, 2)].into_iter().enumerate() {
        let before = now();
        let target = format!("/k{i}?ttl=1h&avoid={}&full={}", ids[pair.0], ids[pair.1]);
        cluster.follow(&Request::put(&target, "v")).expect(201);
        assert!((before + 3_600_000..=now() + 3_600_000).contains(&expiry_of(&cluster, &format!("/k{i}"))));
    }
}

#[test]
fn a_time_to_live_that_is_malformed_zero_or_endless_is_refused_and_stores_nothing() {
    let cluster = Cluster::start(1);
    for bad in ["", "0", "0ms", "-1", "1.5s", "5w", "s", "36501d", "18446744073709551616", "%FF", "1%20s"] {
        let answer = cluster.follow(&Request::put(&format!("/a?ttl={bad}"), "v")).expect(400);
        assert_eq!(answer.json()["code"], "bad_request", "{bad}");
        assert!(answer.text().contains("time to live"), "{answer}");
    }
    cluster.follow(&Request::put("/a", "v").header("Kvdb-Ttl", "soon")).expect(400);
    cluster.follow(&Request::put("/a?ttl=5s", "v").header("Kvdb-Ttl", "soon")).expect(400);
    cluster.follow(&Request::post("/a?ttl=", "v")).expect(400);
    cluster.get("/a").expect(404);
}

#[test]
fn from_its_very_millisecond_on_a_value_is_absent_for_every_request_and_its_space_comes_back() {
    let cluster = Cluster::start(2);
    let large = value(200_000, 1);
    // Kept long enough to be seen; each is created by another way in.
    cluster.follow(&Request::put("/k/put?ttl=6s", large.clone()).expect_continue()).expect(201);
    cluster.follow(&Request::post("/k/post?ttl=6s", "small")).expect(201);
    cluster.follow(&Request::put("/k/relayed?ttl=6s", large.clone()).chunked(10_000)).expect(201);
    cluster.follow(&Request::put("/k/sent", large.clone()).header("Kvdb-Ttl", "6s")).expect(201);
    let keys = ["/k/put", "/k/post", "/k/relayed", "/k/sent"];
    let known = keys.map(|key| (key, expiry_of(&cluster, key), cluster.read_url(key)));
    keys.iter().for_each(|key| drop(cluster.get(key).expect(200)));
    for (key, at, url) in &known {
        sleep_until(*at);
        cluster.ask(&Request::get(key)).expect(404);
        cluster.ask(&Request::new("HEAD", key)).expect(404);
        cluster.follow(&Request::delete(key)).expect(404);
        cluster.follow(&Request::put(key, "x").header("If-Match", "*")).expect(412);
        // An older URL leads back to the master, which knows nothing of the key.
        let ask = || Some(Request::get(&url.target).follow(&url.address)).filter(|a| a.status != 200);
        eventually("the volume has heard the time", ask).expect(404);
    }
    assert_eq!(cluster.ask(&Request::get("/k/?list")).expect(200).json()["keys"], serde_json::json!([]));
    eventually("all copies are gone", || {
        let none = (0..2).all(|i| cluster.blob_files(i).is_empty());
        let status = cluster.status();
        (none && status["keys"].as_u64() == Some(0)).then_some(())
    });
    cluster.follow(&Request::post("/k/post", "again")).expect(201);
    cluster.follow(&Request::put("/k/put", "again").header("If-None-Match", "*")).expect(201);
    assert_eq!(cluster.value("/k/post"), b"again");
}

#[test]
fn a_value_that_was_not_yet_removed_is_absent_and_can_be_made_anew() {
    let cluster = Cluster::start(1);
    for i in 0..20 {
        let (target, how) = (format!("/k{i}"), i % 2);
        cluster.follow(&Request::put(&format!("{target}?ttl=40ms"), "old")).expect(201);
        sleep_until(now() + 40);
        match how {
            0 => cluster.follow(&Request::post(&target, "new")).expect(201),
            _ => cluster.follow(&Request::put(&format!("{target}?ttl=1h"), "new").header("If-None-Match", "*")).expect(201),
        };
        assert_eq!(cluster.value(&target), b"new");
    }
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    for i in 0..20 {
        assert_eq!(cluster.value(&format!("/k{i}")), b"new", "the removal of the old one takes nothing else");
    }
}
