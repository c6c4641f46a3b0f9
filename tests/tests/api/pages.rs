//! The servers' own pages, methods, request ids, and what a volume says to those who come uninvited.

use kvdb_tests::{Cluster, Request};

#[test]
fn other_methods_are_405_and_the_allowed_ones_are_named() {
    let cluster = Cluster::start(1);
    for address in [cluster.master_addr(), cluster.volume_addr(0)] {
        for method in ["PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
            let answer = Request::new(method, "/k").send(&address).expect_problem(405, "method_not_allowed");
            let allow = answer.header("allow").unwrap().to_string();
            for allowed in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
                assert!(allow.split(", ").any(|a| a == allowed), "{allow}");
            }
        }
        let answer = Request::new("PUT", "/-/metrics").body("x").send(&address).expect_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn the_request_id_is_the_clients_own_or_a_new_one_and_is_in_the_log() {
    let cluster = Cluster::start(1);
    let own = "my-request.1_A";
    let answer = cluster.ask(&Request::get("/absent").header("X-Request-Id", own)).expect_problem(404, "not_found");
    assert_eq!(answer.header("x-request-id"), Some(own));
    kvdb_tests::eventually("it is in the log", || cluster.master_log().contains(own).then_some(()));

    let long = "x".repeat(65);
    let mut seen = std::collections::HashSet::new();
    for bad in ["", "with space", "ünicode", long.as_str(), "<script>"] {
        let answer = cluster.ask(&Request::get("/absent").header("X-Request-Id", bad));
        let given = answer.header("x-request-id").unwrap().to_string();
        assert!(!given.is_empty() && given != bad, "{bad:?} became {given:?}");
        assert!(seen.insert(given), "each request has another");
    }
}

#[test]
fn health_status_and_metrics_are_there_on_both_servers() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    for address in [cluster.master_addr(), cluster.volume_addr(0)] {
        Request::get("/-/health/live").send(&address).expect(200);
        Request::get("/-/health/ready").send(&address).expect(200);
        let metrics = Request::get("/-/metrics").send(&address).expect(200).text();
        assert!(metrics.contains("kvdb_http_requests_total"), "{metrics}");
    }
    let status = cluster.status();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["volumes"][0]["up"], true, "{status}");
    assert_eq!(status["volumes"][0]["address"], cluster.volume_addr(0).as_str(), "{status}");
}

#[test]
fn a_volume_without_a_cluster_is_live_and_not_ready() {
    let cluster = Cluster::builder(1).start_volumes();
    let address = cluster.volume_addr(0);
    Request::get("/-/health/live").send(&address).expect(200);
    let answer = Request::get("/-/health/ready").send(&address).expect_problem(503, "unavailable");
    assert!(answer.text().contains("master"), "it says what is missing: {answer}");
}

#[test]
fn reserved_keys_are_refused_by_name() {
    let cluster = Cluster::start(1);
    for request in
        [Request::get("/-/x"), Request::put("/-/x", "v"), Request::delete("/-/x"), Request::put("/%2D/x", "v"), Request::put("/-%2Fx", "v")]
    {
        let answer = cluster.ask(&request).expect_problem(400, "bad_key");
        assert!(answer.text().contains("reserved"), "{answer}");
    }
    cluster.put("/-", b"v");
    cluster.put("/-a", b"v");
    assert_eq!(cluster.value("/-"), b"v");
}

#[test]
fn a_volume_that_is_asked_without_a_ticket_or_version_says_where_to_go() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    let address = cluster.volume_addr(0);
    for request in [Request::put("/k", "x"), Request::post("/k", "x"), Request::delete("/k"), Request::put("/k?ticket", "x")] {
        let answer = request.send(&address);
        assert!(matches!(answer.status, 401 | 403), "{answer}");
        assert!(answer.text().contains("master"), "{answer}");
    }
    for request in [Request::get("/k"), Request::get("/?list")] {
        let answer = request.send(&address);
        assert!(matches!(answer.status, 400 | 421), "{answer}");
        assert!(answer.json()["detail"].is_string(), "{answer}");
    }
    assert!(Request::get("/k").send(&address).text().contains("master"));
    Request::get("/k?v=nonsense").send(&address).expect_problem(400, "bad_request");
    assert_eq!(cluster.value("/k"), b"v");
}

#[test]
fn a_volume_redirects_nobody_to_a_host_that_the_master_did_not_name() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    let url = cluster.read_url("/k");
    cluster.follow(&Request::delete("/k")).expect(200);
    // The signed host is followed, for a version that is gone.
    Request::get(&url.target).send(&url.address).expect(302);
    let back = url.parameter("back").unwrap().to_string();
    let mac = back.rsplit(['~', 'E']).next().unwrap().to_string();
    for forged in ["evil.example", &format!("evil.example~{mac}"), &format!("evil.example%7E{mac}"), "", "~", &back[..back.len() - 1]] {
        let answer = Request::get(&url.with_parameter("back", forged).target).send(&url.address);
        assert_eq!(answer.status, 404, "{forged}: {answer}");
        assert!(answer.header("location").is_none());
    }
}

#[test]
fn calls_between_servers_need_a_signature() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    let volume = cluster.volume_addr(0);
    for (address, method, target) in [
        (&volume, "POST", "/-/peer/adopt"),
        (&volume, "POST", "/-/peer/status"),
        (&volume, "POST", "/-/peer/chain"),
        (&volume, "POST", "/-/peer/reclaim"),
        (&volume, "GET", "/-/peer/entries"),
        (&cluster.master_addr(), "POST", "/-/peer/commits"),
        (&cluster.master_addr(), "POST", "/-/peer/settle"),
    ] {
        for signature in [None, Some("00".repeat(32))] {
            let mut request = Request::new(method, target).header("Kvdb-Volume", &uuid_like());
            if method == "POST" {
                request = request.body("{}");
            }
            if let Some(signature) = signature {
                request = request.header("Kvdb-Peer", &signature);
            }
            let answer = request.send(address);
            assert!(matches!(answer.status, 400 | 401 | 403 | 421), "{method} {target}: {answer}");
        }
    }
    assert_eq!(cluster.value("/k"), b"v");
}

fn uuid_like() -> String {
    "00000000-0000-4000-8000-000000000000".into()
}
