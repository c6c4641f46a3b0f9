//! The rights matrix: each request, each token.

use crate::{cluster, entry, get, put, token, unauthorized, with};
use kvdb_tests::{Answer, Cluster, Request};
use serde_json::json;

const READ: u8 = 11;
const WRITE: u8 = 12;
const DELETE: u8 = 13;
const LIST: u8 = 14;
const ADMIN: u8 = 15;
const NOTHING: u8 = 16;

fn all() -> Vec<serde_json::Value> {
    let of = |n: u8, right: &str| entry(n, &[("a/", &[right])]);
    vec![of(READ, "read"), of(WRITE, "write"), of(DELETE, "delete"), of(LIST, "list"), of(ADMIN, "admin"), entry(NOTHING, &[])]
}

/// A request for a key that begins with `a/` where `{}` stands, and who may do it.
fn matrix() -> Vec<(&'static str, &'static str, Option<&'static str>, &'static [u8])> {
    const BATCH: &str = r#"{"operations":[{"put":"{}k","value":"1"}]}"#;
    const BATCH_DELETE: &str = r#"{"operations":[{"delete":"{}k"}]}"#;
    vec![
        ("GET", "/{}k", None, &[READ]),
        ("HEAD", "/{}k", None, &[READ]),
        ("GET", "/{}k?locate", None, &[READ]),
        ("GET", "/?get&key={}k", None, &[READ]),
        ("GET", "/?newest&key={}k&key={}l", None, &[READ]),
        ("HEAD", "/?newest&key={}k", None, &[READ]),
        ("GET", "/{}?list", None, &[LIST]),
        ("PUT", "/{}k", Some("1"), &[WRITE]),
        ("POST", "/{}new", Some("1"), &[WRITE]),
        ("DELETE", "/{}k", None, &[DELETE]),
        ("POST", "/{}?delete-all&limit=1", None, &[DELETE]),
        ("POST", "/?batch", Some(BATCH), &[WRITE]),
        ("POST", "/?batch", Some(BATCH_DELETE), &[DELETE]),
    ]
}

fn request(method: &str, target: &str, body: Option<&str>, prefix: &str) -> Request {
    let request = Request::new(method, &target.replace("{}", prefix));
    body.map_or(request.clone(), |body| request.body(body.replace("{}", prefix)))
}

/// Its own answer: a redirect is a yes.
fn ask(cluster: &Cluster, who: Option<u8>, request: &Request) -> Answer {
    cluster.ask(&who.map_or(request.clone(), |n| with(n, request.clone())))
}

#[test]
fn each_request_needs_its_right_for_its_prefix_and_says_so() {
    let (cluster, _file) = cluster(1, &all());
    for (method, target, body, may) in matrix() {
        for n in [READ, WRITE, DELETE, LIST, ADMIN, NOTHING] {
            put(&cluster, "/a/k", b"v");
            put(&cluster, "/b/k", b"v");
            let answer = ask(&cluster, Some(n), &request(method, target, body, "a/"));
            if may.contains(&n) || n == ADMIN {
                assert!(matches!(answer.status, 200 | 201 | 302 | 307), "t{n}: {method} {target}: {answer}");
            } else if method == "HEAD" {
                assert!(answer.status == 403 && answer.body.is_empty(), "t{n}: {method} {target}: {answer}");
            } else {
                let answer = answer.expect_problem(403, "forbidden");
                assert!(answer.text().contains(&format!("t{n}")), "the token is named: {answer}");
            }
            // Elsewhere none of them has a right, and the key is as it was.
            assert_eq!(ask(&cluster, Some(n), &request(method, target, body, "b/")).status, 403, "t{n}: {method} {target}");
            assert_eq!(get(&cluster, "/b/k").expect(200).text(), "v");
        }
        let without = ask(&cluster, None, &request(method, target, body, "a/"));
        if method == "HEAD" {
            assert!(without.status == 401 && without.body.is_empty(), "{without}");
        } else {
            unauthorized(without);
        }
    }
}

#[test]
fn a_list_with_values_needs_both_rights() {
    let both = entry(20, &[("a/", &["list"]), ("a/b/", &["read"])]);
    let (cluster, _file) = cluster(1, &[both, entry(READ, &[("", &["read"])]), entry(LIST, &[("", &["list"])])]);
    put(&cluster, "/a/b/k", b"v");
    let ask = |n: u8, target: &str| cluster.ask(&with(n, Request::get(target)));
    for (n, target) in [(READ, "/a/?list&values"), (LIST, "/a/?list&values"), (20, "/a/?list&values"), (20, "/a/b?list&values")] {
        ask(n, target).expect_problem(403, "forbidden");
    }
    assert_eq!(ask(20, "/a/b/?list&values").expect(200).json()["values"][0]["value"], "v");
    ask(20, "/a/?list").expect(200);
    ask(20, "/?list").expect_problem(403, "forbidden");
    // Where a page begins gives no right to what comes before or after the prefix.
    ask(20, "/a/?list&start=a/").expect(200);
    ask(20, "/?list&start=a/").expect_problem(403, "forbidden");
}

#[test]
fn prefixes_end_where_they_end_and_keys_are_compared_as_bytes() {
    let narrow = entry(20, &[("a/", &["read", "write"]), ("%FF", &["write"]), ("c%2Fd", &["write"])]);
    let (cluster, _file) = cluster(1, &[narrow]);
    let may = |target: &str| {
        let answer = cluster.ask(&with(20, Request::put(target, "1").header("Kvdb-Content-Length", "1")));
        assert!(matches!(answer.status, 307 | 403), "{target}: {answer}");
        answer.status == 307
    };
    for target in ["/a/", "/a/x", "/a%2Fx", "/%61/x", "/a//", "/a/../b", "/a/%2E%2E/b", "/%FF", "/%ff%00", "/c/d", "/c%2fd/e"] {
        assert!(may(target), "{target}");
    }
    for target in ["/a", "/b/x", "//a/x", "/./a/x", "/A/x", "/%FE", "/c%252Fd", "/c/", "/a%252Fx"] {
        assert!(!may(target), "{target}");
    }
}

#[test]
fn several_keys_need_the_right_for_each() {
    let (cluster, _file) = cluster(1, &[entry(20, &[("a/", &["read", "write", "delete"])])]);
    put(&cluster, "/a/k", b"v");
    put(&cluster, "/b/k", b"v");
    let ask = |request: Request| cluster.ask(&with(20, request));
    for target in ["/?get&key=a/k&key=b/k", "/?newest&key=b/k&key=a/k", "/?get&key=a/k&key=b/none"] {
        ask(Request::get(target)).expect_problem(403, "forbidden");
    }
    ask(Request::get("/?get&key=a/k&key=a/none")).expect(200);
    // All that a batch may not do is named, and nothing of it is done.
    let operations = json!({"operations": [{"put": "a/k", "value": "2"}, {"delete": "b/k"}, {"create": "c", "value": "2"}]});
    let refused = ask(Request::post("/?batch", operations.to_string())).expect_problem(403, "forbidden");
    assert_eq!(refused.json()["keys"], json!(["b/k", "c"]));
    assert_eq!((get(&cluster, "/a/k").text(), get(&cluster, "/b/k").text()), ("v".into(), "v".into()));
    get(&cluster, "/c").expect(404);
    ask(Request::post("/?delete-all&all", "")).expect_problem(403, "forbidden");
    ask(Request::post("/a?delete-all", "")).expect_problem(403, "forbidden");
    assert_eq!(ask(Request::post("/a/?delete-all", "")).expect(200).json()["deleted"], 1);
}

#[test]
fn the_answer_is_the_same_whether_a_key_exists_or_not() {
    let (cluster, _file) = cluster(1, &[entry(NOTHING, &[])]);
    put(&cluster, "/there", b"v");
    for who in [None, Some(NOTHING)] {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            let shown = |target: &str| {
                let answer = ask(&cluster, who, &Request::new(method, target).header("If-Match", "\"x\""));
                (answer.status, answer.text().replace(answer.header("x-request-id").unwrap(), ""), answer.header("etag").map(String::from))
            };
            assert_eq!(shown("/there"), shown("/gone!"), "{method}");
        }
    }
}

#[test]
fn the_masters_own_pages_are_for_who_may_do_everything_and_health_is_for_everybody() {
    let (cluster, _file) = cluster(1, &[entry(ADMIN, &[("a/", &["admin"])]), entry(20, &[("", &["read", "write", "delete", "list"])])]);
    for page in ["/-/status", "/-/metrics"] {
        unauthorized(cluster.ask(&Request::get(page)));
        for n in [ADMIN, 20] {
            cluster.ask(&with(n, Request::get(page))).expect_problem(403, "forbidden");
        }
        cluster.ask(&with(crate::OWNER, Request::get(page))).expect(200);
        assert_eq!(cluster.ask(&Request::new("HEAD", page)).status, 401);
    }
    for page in ["/-/health/live", "/-/health/ready"] {
        cluster.ask(&Request::get(page)).expect(200);
    }
    // Neither a name of its own nor a way of writing it leads around the question.
    for page in ["/-/status/", "/-/Status", "/-%2Fstatus", "//-/status", "/-/./status"] {
        let answer = cluster.ask(&Request::get(page));
        assert!(matches!(answer.status, 400 | 401) && !answer.text().contains("volumes"), "{page}: {answer}");
    }
    for call in ["/-/operator/order", "/-/operator/export", "/-/operator/status", "/-/operator/records"] {
        cluster.ask(&with(crate::OWNER, Request::post(call, "{}"))).expect_problem(401, "unauthorized");
    }
}

#[test]
fn what_is_sent_as_a_token_must_be_one() {
    let (cluster, _file) = cluster(1, &[]);
    let good = token(crate::OWNER);
    let unknown = token(99);
    let ask = |value: &str| cluster.ask(&Request::get("/k").header("Authorization", value));
    for bad in ["", "Bearer", "Bearer ", "Basic YTpi", &good, &format!("Bearer {unknown}"), &format!("Bearer {good}x"), "Bearer \u{fc}"] {
        unauthorized(ask(bad));
    }
    for good in [format!("Bearer {good}"), format!("bearer  {good} "), format!("BEARER {good}")] {
        ask(&good).expect(404);
    }
    // A token in a URL is none: URLs are kept in logs and histories.
    unauthorized(cluster.ask(&Request::get(&format!("/k?token={good}&access_token={good}"))));
}

#[test]
fn without_a_file_of_tokens_everybody_may_do_everything() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    let url = cluster.read_url("/k");
    assert!(url.parameter("ticket").is_none() && url.parameter("signed").is_none(), "{url:?}");
    assert_eq!(cluster.follow(&Request::get("/k").header("Authorization", "Bearer nonsense")).expect(200).text(), "v");
    assert_eq!(cluster.get("/k?signed=nonsense").expect(200).text(), "v");
    cluster.ask(&Request::get("/-/metrics")).expect(200);
    let sign = cluster.ask(&Request::post("/-/sign", r#"{"key":"k","for":"1h"}"#));
    assert!(sign.expect_problem(400, "bad_request").text().contains("no tokens"));
}
