//! Clients that a volume sends back have dropped their token, and are known to the master all the same.

use crate::{OWNER, cluster, entry, get, put, token, unauthorized, with};
use kvdb_tests::outside::{python, requests_is_here};
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request, Url, eventually};

/// Where the owner is sent.
#[track_caller]
fn sent_to(cluster: &Cluster, request: Request) -> Url {
    Url::of(&cluster.ask(&with(OWNER, request)))
}

/// A URL back at the master, where a volume sends whoever comes late.
#[track_caller]
fn way_back(cluster: &Cluster, request: &Request) -> Url {
    put(cluster, "/k", b"one");
    put(cluster, "/l", b"one");
    put(cluster, "/k", b"two");
    let url = sent_to(cluster, request.clone());
    put(cluster, "/k", b"three");
    // The volume removes what was replaced soon after.
    let back = eventually("the version is gone", || {
        Some(request.clone().at(&url.target).send(&url.address)).filter(|answer| answer.status == 302)
    });
    let back = Url::of(&back);
    assert_eq!(back.address, cluster.master_addr());
    back
}

#[test]
fn a_reader_who_comes_late_goes_back_and_on_without_a_token() {
    let (cluster, _file) = cluster(2, &[]);
    for request in [Request::get("/k"), Request::new("HEAD", "/k"), Request::get("/?newest&key=l&key=k")] {
        let back = way_back(&cluster, &request);
        assert!(back.parameter("missed").is_some() && back.parameter("signed").is_some(), "{back:?}");
        let answer = request.clone().at(&back.target).follow(&back.address).expect(200);
        assert_eq!(answer.header("content-length"), Some("5"));
        // Without the signature it is a request like any other.
        let bare = back.target.replace(&format!("signed={}&", back.parameter("signed").unwrap()), "");
        assert_ne!(bare, back.target);
        assert_eq!(request.clone().at(&bare).send(&back.address).status, 401);
    }
}

#[test]
fn what_is_signed_for_the_way_back_permits_just_that() {
    let (cluster, _file) = cluster(1, &[]);
    let back = way_back(&cluster, &Request::get("/k"));
    let ask = |request: Request| cluster.ask(&request);
    let signed = format!("signed={}", back.parameter("signed").unwrap());
    for target in ["/l?", "/k/?", "/K?", "/?newest&key=l&key=k&", "/?get&key=l&"] {
        ask(Request::get(&format!("{target}{signed}"))).expect_problem(403, "forbidden");
    }
    for method in ["PUT", "POST"] {
        ask(Request::new(method, &format!("/k?{signed}")).body("x")).expect_problem(403, "forbidden");
    }
    for (method, target) in
        [("DELETE", "/k?"), ("GET", "/k?list&"), ("POST", "/k?delete-all&"), ("POST", "/?batch&"), ("GET", "/-/status?")]
    {
        unauthorized(ask(Request::new(method, &format!("{target}{signed}")).header("Content-Length", "0")));
    }
    unauthorized(ask(Request::post(&format!("/-/sign?{signed}"), r#"{"key":"k","for":"1h"}"#)));
    let newest = way_back(&cluster, &Request::get("/?newest&key=l&key=k"));
    let signed = format!("signed={}", newest.parameter("signed").unwrap());
    for target in ["/k?", "/?newest&key=k&key=l&", "/?newest&key=l&", "/?newest&key=l&key=k&key=m&"] {
        ask(Request::get(&format!("{target}{signed}"))).expect_problem(403, "forbidden");
    }
    ask(Request::get(&format!("/?newest&key=l&key=k&{signed}"))).expect(302);
}

#[test]
fn going_round_does_not_make_it_last_longer_and_it_ends() {
    let file = crate::TokensFile::new(&[crate::owner()]);
    let cluster = file.cluster(1).master_args(["--start-seconds", "2"]).start();
    let back = way_back(&cluster, &Request::get("/k"));
    let until = |url: &Url| url.parameter("signed").unwrap().split('.').next().unwrap().to_string();
    let mut round = back.clone();
    for _ in 0..3 {
        let at_volume = Url::of(&Request::get(&round.target).send(&round.address).expect(302));
        assert_eq!(until(&at_volume), until(&back));
        round = Url { address: back.address.clone(), target: format!("/k?signed={}", at_volume.parameter("signed").unwrap()) };
    }
    let ended = eventually("it has ended", || Some(Request::get(&back.target).send(&back.address)).filter(|a| a.status != 302));
    assert!(ended.text().contains("expired"), "{ended}");
    ended.expect_problem(403, "forbidden");
    // With a token the same URL is good.
    with(OWNER, Request::get(&back.target)).send(&back.address).expect(302);
}

#[test]
fn it_ends_with_the_token_by_which_it_was_made() {
    let (cluster, file) = cluster(1, &[entry(2, &[("", &["read"])])]);
    put(&cluster, "/k", b"one");
    let url = Url::of(&cluster.ask(&with(2, Request::get("/k"))).expect(302));
    let target = format!("/k?signed={}", url.parameter("signed").unwrap());
    cluster.ask(&Request::get(&target)).expect(302);
    file.set(&[crate::owner(), entry(2, &[("k", &["list"])])]);
    eventually("the right is gone", || (cluster.ask(&Request::get(&target)).status == 403).then_some(()));
    file.set(&[crate::owner()]);
    eventually("the token is gone", || cluster.ask(&Request::get(&target)).text().contains("not known here any more").then_some(()));
}

#[test]
fn a_write_that_a_volume_cannot_take_goes_back_and_elsewhere_without_a_token() {
    let (mut cluster, _file) = cluster(4, &[]);
    let length = |request: Request| request.header("Kvdb-Content-Length", "5");
    for (method, expected) in [("POST", 201), ("PUT", 200)] {
        // A chain of two volumes of which the second is gone by the time that the client comes.
        let (url, gone) = loop {
            let url = sent_to(&cluster, length(Request::new(method, "/k?ttl=1h").body("")));
            let at = |i: &usize| cluster.volume_addr(*i) != url.address;
            let ticket = kvdb_protocol::Ticket::decode(
                url.parameter("ticket").unwrap(),
                &crate::secret(&cluster).ticket_key(),
                cluster.status()["cluster"].as_str().unwrap().parse().unwrap(),
            )
            .unwrap();
            let second = ticket.volumes[1].address.clone();
            if let Some(i) = (0..4).filter(at).find(|i| cluster.volume_addr(*i) == second) {
                break (url, i);
            }
        };
        cluster.kill_volume(gone);
        let request = Request::new(method, &url.target).body("hello").expect_continue();
        let back = Url::of(&request.send(&url.address).expect(307));
        assert_eq!(back.address, cluster.master_addr());
        assert!(back.parameter("avoid").is_some() && back.parameter("signed").is_some(), "{back:?}");
        assert_eq!(back.parameter("ttl"), Some("1h"));
        // It permits this key's write, and nothing else.
        let elsewhere = back.target.replacen("/k?", "/other?", 1);
        request.clone().at(&elsewhere).send(&back.address).expect_problem(403, "forbidden");
        Request::get(&back.target).send(&back.address).expect_problem(403, "forbidden");
        unauthorized(Request::delete(&back.target).send(&back.address));
        let stored = request.clone().at(&back.target).follow(&back.address);
        assert_eq!(stored.status, expected, "{stored}");
        let answer = get(&cluster, "/k").expect(200);
        assert_eq!((answer.text().as_str(), answer.header("kvdb-ttl").is_some()), ("hello", true));
        cluster.start_volume(gone);
        cluster.wait_all_up();
    }
}

#[test]
fn a_delete_for_which_no_volume_is_up_is_done_by_its_ticket() {
    let (mut cluster, _file) = cluster(1, &[]);
    put(&cluster, "/k", b"v");
    cluster.kill_volume(0);
    cluster.wait_up(0);
    unauthorized(cluster.ask(&Request::delete("/k")));
    let here = sent_to(&cluster, Request::delete("/k"));
    assert_eq!(here.address, cluster.master_addr());
    let other = here.target.replacen("/k?", "/l?", 1);
    Request::delete(&other).send(&here.address).expect_problem(403, "bad_ticket");
    Request::delete(&here.target).send(&here.address).expect(200);
    cluster.ask(&with(OWNER, Request::get("/k"))).expect(404);
}

#[test]
fn what_became_of_a_write_is_told_to_its_ticket() {
    let (cluster, _file) = cluster(1, &[]);
    let url = sent_to(&cluster, Request::put("/k", "").header("Kvdb-Content-Length", "5"));
    Request::put(&url.target, "hello").send(&url.address).expect(201);
    let told = cluster.ask(&Request::post("/-/outcome", url.parameter("ticket").unwrap())).expect(200).json();
    assert_eq!(told["outcome"], "committed");
}

#[test]
fn large_bodies_that_come_unasked_are_relayed_for_who_may_write() {
    let (cluster, _file) = cluster(2, &[entry(2, &[("a/", &["write"])])]);
    let large = value(3_000_000, 1);
    let sent = |request: Request| request.send(&cluster.master_addr());
    for request in [Request::put("/a/sized", large.clone()), Request::put("/a/chunked", large.clone()).chunked(100_000)] {
        let stored = sent(with(2, request.clone()));
        assert_eq!((stored.status, stored.hops), (201, 0), "{stored}");
    }
    for target in ["/a/sized", "/a/chunked"] {
        assert_same(&get(&cluster, target).expect(200).body, &large, target);
    }
    for request in [Request::put("/b", large.clone()), Request::put("/b", large.clone()).chunked(100_000)] {
        sent(with(2, request.clone())).expect_problem(403, "forbidden");
        unauthorized(sent(request.clone()));
        // Asked first, a client need not send it.
        let asked = sent(with(2, request.expect_continue()));
        assert!(asked.status == 403 && !asked.continued, "{asked}");
    }
    get(&cluster, "/b").expect(404);
}

#[test]
fn pythons_requests_does_everything_with_a_token() {
    if !requests_is_here() {
        return;
    }
    let (cluster, _file) = cluster(2, &[]);
    let program = r#"
import io, os, requests, sys
url, token = sys.argv[1:]
s = requests.Session()
s.headers["Authorization"] = "Bearer " + token

def ok(answer, status):
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    return answer

big = os.urandom(5_000_000)
ok(s.post(url + "/k", data=b"small"), 201)
ok(s.put(url + "/big", data=big), 201)
ok(s.put(url + "/stream", data=iter([big[:1000], big[1000:]])), 201)
assert ok(s.get(url + "/big"), 200).content == big
assert ok(s.get(url + "/stream", headers={"Range": "bytes=10-19"}), 206).content == big[10:20]
assert ok(s.head(url + "/k", allow_redirects=True), 200).headers["Content-Length"] == "5"
assert ok(s.get(url + "/?list"), 200).json()["keys"] == ["big", "k", "stream"]
ok(s.delete(url + "/k"), 200)
ok(s.get(url + "/k"), 404)
signed = ok(s.post(url + "/-/sign", json={"key": "big", "for": "1h"}), 200).json()
assert ok(requests.get(signed["url"]), 200).content == big
assert ok(requests.get(url + "/big"), 401).headers["WWW-Authenticate"] == 'Bearer realm="kvdb"'
"#;
    python(cluster.dir(), program, &[&cluster.url(), &token(OWNER)]);
}
