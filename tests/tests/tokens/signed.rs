//! Signed URLs: for browsers, and for whoever has no token.

use crate::{OWNER, TokensFile, cluster, entry, get, put, unauthorized, with};
use kvdb_tests::outside::{curl, curl_is_here, run};
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Answer, Cluster, Request, Url, eventually};
use serde_json::{Value, json};

#[track_caller]
fn ask_to_sign(cluster: &Cluster, n: u8, asked: &Value) -> Answer {
    cluster.ask(&with(n, Request::post("/-/sign", asked.to_string())))
}

/// A URL that this token has signed.
#[track_caller]
fn sign(cluster: &Cluster, n: u8, asked: &Value) -> Url {
    let answer = ask_to_sign(cluster, n, asked).expect(200).json();
    Url::parse(answer["url"].as_str().unwrap()).unwrap()
}

fn follow(request: Request, url: &Url) -> Answer {
    request.at(&url.target).follow(&url.address)
}

#[test]
fn curl_reads_and_stores_by_signed_urls_alone() {
    if !curl_is_here() {
        return;
    }
    let (cluster, _file) = cluster(2, &[]);
    let large = value(3_000_000, 1);
    put(&cluster, "/photos/a%20b.jpg", &large);
    let text = |url: &Url| format!("http://{}{}", url.address, url.target);
    let ask = |args: &[&str]| run(curl(cluster.dir()).arg("-L").args(args)).stdout;
    let read = text(&sign(&cluster, OWNER, &json!({"key": "photos/a b.jpg", "for": "1h"})));
    assert_same(&ask(&[&read]), &large, "the value");
    assert_same(&ask(&["-r", "1000-1999", &read]), &large[1000..2000], "a range");
    assert!(String::from_utf8(ask(&["-I", &read])).unwrap().to_lowercase().contains("content-length: 3000000"));

    std::fs::write(cluster.dir().join("up"), &large).unwrap();
    let write = text(&sign(&cluster, OWNER, &json!({"key": "up", "method": "PUT", "for": "10m"})));
    assert_eq!(ask(&["-T", "up", "-w", "%{http_code}", &write]), b"201");
    assert_eq!(ask(&["-X", "PUT", "-d", "small", "-w", "%{http_code}", &format!("{write}&ttl=1h")]), b"200");
    let stored = get(&cluster, "/up").expect(200);
    assert_eq!((stored.text().as_str(), stored.header("kvdb-ttl").is_some()), ("small", true));
    // One to store is none to read.
    assert!(String::from_utf8(ask(&[&write])).unwrap().contains("forbidden"));
}

#[test]
fn a_signed_url_permits_its_method_on_its_key_and_no_byte_of_it_can_be_altered() {
    let (cluster, _file) = cluster(1, &[]);
    put(&cluster, "/k", b"v");
    put(&cluster, "/l", b"v");
    let url = sign(&cluster, OWNER, &json!({"key": "k", "for": "1h"}));
    assert_eq!(follow(Request::get(""), &url).expect(200).text(), "v");
    assert_eq!(follow(Request::new("HEAD", ""), &url).expect(200).header("content-length"), Some("1"));
    let signed = url.parameter("signed").unwrap();
    for at in 0..signed.len() {
        let mut other = signed.to_string().into_bytes();
        other[at] = if other[at] == b'1' { b'2' } else { b'1' };
        let other = url.with_parameter("signed", std::str::from_utf8(&other).unwrap());
        cluster.ask(&Request::get(&other.target)).expect_problem(403, "forbidden");
    }
    for (method, target) in [("GET", "/l"), ("GET", "/k/"), ("PUT", "/k"), ("POST", "/new")] {
        let answer = cluster.ask(&Request::new(method, &format!("{target}?signed={signed}")).body("x"));
        assert!(answer.expect_problem(403, "forbidden").text().contains("not for this request"));
    }
    unauthorized(cluster.ask(&Request::delete(&format!("/k?signed={signed}"))));
    cluster.ask(&Request::get(&format!("/k?signed={}", "1".repeat(5000)))).expect_problem(403, "forbidden");
    cluster.ask(&Request::get("/k?signed=%FF")).expect_problem(403, "forbidden");
    // What a bearer may do anyway, a signature that is no good does not keep from him.
    cluster.ask(&with(OWNER, Request::get("/l?signed=x"))).expect(302);
}

#[test]
fn a_signed_url_ends_and_so_does_the_ticket_it_brings() {
    let (cluster, _file) = cluster(1, &[]);
    put(&cluster, "/k", b"v");
    // Time enough for what must be done before.
    let answer = ask_to_sign(&cluster, OWNER, &json!({"key": "k", "for": "3s"})).expect(200).json();
    let url = Url::parse(answer["url"].as_str().unwrap()).unwrap();
    let at_volume = Url::of(&cluster.ask(&Request::get(&url.target)).expect(302));
    assert_eq!(Request::get(&at_volume.target).send(&at_volume.address).expect(200).text(), "v");
    let ended = eventually("it has ended", || Some(cluster.ask(&Request::get(&url.target))).filter(|a| a.status != 302));
    assert!(ended.expect_problem(403, "forbidden").text().contains("expired"));
    assert!(cluster.status()["time"].as_u64() > answer["expires"].as_u64());
    eventually("the volume knows the time", || Some(Request::get(&at_volume.target).send(&at_volume.address)).filter(|a| a.status == 403))
        .expect_problem(403, "bad_ticket");
}

#[test]
fn it_hangs_on_the_token_by_which_it_was_signed() {
    let may_read = |right: &str| entry(2, &[("k", &[right])]);
    let (mut cluster, file) = cluster(1, &[may_read("read")]);
    put(&cluster, "/k", b"v");
    let url = sign(&cluster, 2, &json!({"key": "k", "for": "7d"}));
    // A restart of everything changes nothing.
    cluster.kill_and_start(0);
    cluster.kill_and_start(1);
    cluster.wait_all_up();
    follow(Request::get(""), &url).expect(200);
    let refused = || Some(cluster.ask(&Request::get(&url.target))).filter(|a| a.status == 403);
    file.set(&[crate::owner(), may_read("list")]);
    assert!(eventually("the right is gone", refused).text().contains("has not the right any more"));
    file.set(&[crate::owner(), may_read("read")]);
    eventually("the right is back", || (cluster.ask(&Request::get(&url.target)).status == 302).then_some(()));
    // Another token of the same name is another token.
    let mut other = entry(3, &[("k", &["read"])]);
    other["name"] = "t2".into();
    file.set(&[crate::owner(), other]);
    assert!(eventually("the token is gone", refused).text().contains("not known here any more"));
}

#[test]
fn only_what_a_token_may_do_itself_can_be_signed_and_for_a_week_at_most() {
    let (cluster, _file) = cluster(1, &[entry(2, &[("a/", &["read"])]), entry(3, &[("a/", &["write"])])]);
    let asked = |key: &str, method: &str| json!({"key": key, "method": method, "for": "1h"});
    for (n, key, method, status) in [
        (2, "a/k", "GET", 200),
        (2, "a/k", "PUT", 403),
        (2, "b/k", "GET", 403),
        (3, "a/k", "PUT", 200),
        (3, "a/k", "GET", 403),
        (99, "a/k", "GET", 401),
    ] {
        assert_eq!(ask_to_sign(&cluster, n, &asked(key, method)).status, status, "t{n} {method} {key}");
    }
    unauthorized(cluster.ask(&Request::post("/-/sign", asked("a/k", "GET").to_string())));
    for bad in [
        json!({"key": "a/k"}),
        json!({"for": "1h"}),
        json!({"key": "a/k", "for": "0s"}),
        json!({"key": "a/k", "for": "8d"}),
        json!({"key": "a/k", "for": 3600}),
        json!({"key": "a/k", "for": "1h", "method": "DELETE"}),
        json!({"key": "a/k", "for": "1h", "expires": 5}),
        json!("a/k"),
    ] {
        ask_to_sign(&cluster, 2, &bad).expect_problem(400, "bad_request");
    }
    for key in ["", "-/status", "%zz"] {
        ask_to_sign(&cluster, OWNER, &asked(key, "GET")).expect_problem(400, "bad_key");
    }
    ask_to_sign(&cluster, OWNER, &asked("..", "GET")).expect_problem(400, "bad_request");
    cluster.ask(&with(OWNER, Request::post("/-/sign", vec![b' '; 9000]))).expect_problem(413, "value_too_large");
    cluster.ask(&with(OWNER, Request::get("/-/sign"))).expect_problem(400, "bad_key");
}

#[test]
fn any_key_can_be_signed_and_the_url_names_the_master_as_its_clients_do() {
    let file = TokensFile::new(&[crate::owner()]);
    let cluster = file.cluster(1).start();
    for (key, target) in [("a/../b", "/a%2F..%2Fb"), ("%FF%25", "/%FF%25"), ("sn\u{f6}", "/sn%C3%B6"), ("q?a=b&c#d", "/q%3Fa=b%26c%23d")] {
        put(&cluster, target, key.as_bytes());
        let url = sign(&cluster, OWNER, &json!({"key": key, "for": "1h"}));
        assert_eq!(follow(Request::get(""), &url).expect(200).text(), key);
    }
    let asked = with(OWNER, Request::post("/-/sign", json!({"key": "k", "for": "1h"}).to_string()));
    let named = asked.send_as(&cluster.master_addr(), "kv.example:81").expect(200).json();
    assert!(named["url"].as_str().unwrap().starts_with("http://kv.example:81/k?signed="), "{named}");
}
