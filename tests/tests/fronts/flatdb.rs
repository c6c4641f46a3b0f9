//! FlatDB: what its clients ask for, and what they get.

use crate::Fronts;
use kvdb_tests::outside::{curl, curl_is_here, run};
use kvdb_tests::values::value;
use kvdb_tests::{Answer, Request};
use serde_json::json;

#[test]
fn a_client_in_python_puts_gets_and_deletes_several_keys_at_once() {
    let fronts = Fronts::start();
    fronts.python(
        r#"
status(requests.get(flatdb + "/put", params={"foo": "bar", "baz": "qux", "sn\u00f6": "\u2603 & = +"}), 201)
answer = status(requests.get(flatdb + "/get", params={"key": ["foo", "sn\u00f6", "other"]}), 200)
assert answer.headers["Content-Type"] == "application/json"
assert answer.json() == {"foo": "bar", "sn\u00f6": "\u2603 & = +"}, answer.text
status(requests.get(flatdb + "/put", params={"foo": "new"}), 201)
assert requests.get(flatdb + "/get", params={"key": "foo"}).json() == {"foo": "new"}
assert requests.get(flatdb + "/getrange", params={"from": "c"}).json() == {"foo": "new", "sn\u00f6": "\u2603 & = +"}
status(requests.get(flatdb + "/delete", params={"key": ["foo", "never", "baz"]}), 200)
assert status(requests.get(flatdb + "/get", params={"key": ["foo", "baz"]}), 404).json() == {}
assert requests.get(flatdb + "/getrange?from=").json() == {"sn\u00f6": "\u2603 & = +"}
"#,
    );
}

#[test]
fn the_lines_of_the_readme_work_in_curl() {
    if !curl_is_here() {
        return;
    }
    let fronts = Fronts::start();
    let get = |target: &str| {
        let output = run(curl(fronts.cluster.dir()).args(["-w", " %{http_code}", &format!("http://{}{target}", fronts.flatdb())]));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(get("/put?foo=bar&baz=qux"), " 201");
    assert_eq!(get("/get?key=foo&key=bar"), r#"{"foo":"bar"} 200"#);
    assert_eq!(get("/getrange?from=a&to=c&limit=10"), r#"{"baz":"qux"} 200"#);
    assert_eq!(get("/delete?key=foo&key=baz"), " 200");
}

#[test]
fn parameters_are_read_as_web_frameworks_read_them() {
    let fronts = Fronts::start();
    fronts.get("/put?a+b=c%20d%2B&twice=1&twice=2&empty=&bare&&pct=100%&eq=x=y").expect(201);
    let all = json!({"a b": "c d+", "bare": "", "empty": "", "eq": "x=y", "pct": "100%", "twice": "2"});
    assert_eq!(fronts.get("/getrange?from=").expect(200).json(), all);
    assert_eq!(fronts.get("/getrange?from=&to=&limit=").expect(200).json(), all);
    assert_eq!(fronts.get("/get?key=a+b&key=a%20b&kez=twice&key=bare").expect(200).text(), r#"{"a b":"c d+","bare":""}"#);
    // It is the same store: the master's own port has the same keys.
    let answer = fronts.cluster.get("/a%20b").expect(200);
    assert_eq!((answer.text().as_str(), answer.header("content-type")), ("c d+", Some("text/plain; charset=utf-8")));
    fronts.get("/get").expect(204);
    fronts.get("/put").expect(201);
    fronts.get("/delete").expect(200);
}

#[test]
fn a_range_has_both_ends_and_is_followed_page_by_page() {
    let fronts = Fronts::start();
    let names: Vec<String> = (0..25).map(|i| format!("p/{i:02}")).collect();
    let pairs: Vec<String> = names.iter().map(|n| format!("{n}=v{n}")).collect();
    fronts.get(&format!("/put?other=1&{}", pairs.join("&"))).expect(201);
    let within = fronts.get("/getrange?from=p/03&to=p/05").expect(200);
    assert_eq!((within.text().as_str(), within.header("link")), (r#"{"p/03":"vp/03","p/04":"vp/04","p/05":"vp/05"}"#, None));
    assert_eq!(fronts.get("/getrange?from=p/05&to=p/03").expect(404).text(), "{}");
    fronts.python(
        r#"
found, url = [], flatdb + "/getrange?from=p/&to=p/99&limit=10"
while url:
    answer = status(requests.get(url), 200)
    found += list(answer.json().items())
    link = answer.links.get("next")
    url = link and requests.compat.urljoin(url, link["url"])
assert found == [("p/%02d" % i, "vp/%02d" % i) for i in range(25)], found
"#,
    );
    for bad in ["/getrange", "/getrange?from=a&limit=0", "/getrange?from=a&limit=1001", "/getrange?from=a&limit=x", "/getrange?from=%ff"] {
        fronts.get(bad).expect_problem(400, "bad_request");
    }
}

#[test]
fn pages_end_at_8_mib_and_longer_values_are_named() {
    let fronts = Fronts::start();
    for name in ["a", "b", "c"] {
        fronts.cluster.put(&format!("/{name}"), &vec![b'x'; 3 << 20]);
    }
    let first = fronts.get("/getrange?from=").expect(200);
    assert_eq!(first.json().as_object().unwrap().len(), 2);
    assert_eq!(first.header("link"), Some("</getrange?from=b%00&limit=1000>; rel=\"next\""));
    assert_eq!(fronts.get("/getrange?from=b%00&limit=1000").expect(200).json().as_object().unwrap().len(), 1);
    assert_eq!(fronts.get("/get?key=a").expect(200).json()["a"].as_str().unwrap().len(), 3 << 20);
    fronts.get("/get?key=a&key=b&key=c").expect_problem(413, "value_too_large");
    fronts.cluster.put("/d", &vec![b'x'; (8 << 20) + 1]);
    assert_eq!(fronts.get("/get?key=d").expect_problem(413, "value_too_large").json()["keys"], json!(["d"]));
    // Six times as long in JSON.
    fronts.cluster.put("/e", &vec![1; 6 << 20]);
    fronts.get("/get?key=e").expect_problem(413, "value_too_large");
    let many: Vec<String> = (0..1001).map(|i| format!("k{i}=")).collect();
    fronts.get(&format!("/put?{}", many.join("&"))).expect_problem(413, "value_too_large");
    fronts.get("/get?key=k0").expect(404);
}

#[test]
fn what_json_cannot_carry_and_what_is_no_key_is_a_clear_error_that_changes_nothing() {
    let fronts = Fronts::start();
    fronts.cluster.put("/bytes", &value(100, 1));
    fronts.cluster.put("/%FF", b"text");
    fronts.cluster.put("/text", b"\0\x1b\"");
    assert_eq!(fronts.get("/get?key=bytes&key=text").expect_problem(422, "not_text").json()["keys"], json!(["bytes"]));
    assert_eq!(fronts.get("/getrange?from=").expect_problem(422, "not_text").json()["keys"], json!(["bytes", "%FF"]));
    assert_eq!(fronts.get("/get?key=text").expect(200).json(), json!({"text": "\0\x1b\""}));
    for (query, code) in [("a=%FF", "bad_request"), ("%FF=a", "bad_request"), ("=a", "bad_key"), ("-/x=a", "bad_key")] {
        fronts.get(&format!("/put?ok=1&{query}")).expect_problem(400, code);
    }
    fronts.get(&format!("/put?ok=1&{}=a", "k".repeat(1025))).expect_problem(414, "too_long");
    fronts.get("/delete?key=text&key=").expect_problem(400, "bad_key");
    fronts.get("/get?key=ok").expect(404);
    fronts.get("/get?key=text").expect(200);
}

#[test]
fn only_gets_that_are_meant_are_answered() {
    let fronts = Fronts::start();
    fronts.get("/put?a=1").expect(201);
    let ask = |request: Request| -> Answer { request.send(&fronts.flatdb()) };
    for (method, target, allow) in
        [("POST", "/get?key=a", "GET, HEAD"), ("PUT", "/put?a=2", "GET"), ("HEAD", "/put?a=2", "GET"), ("HEAD", "/delete?key=a", "GET")]
    {
        let answer = ask(Request::new(method, target)).expect(405);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}");
    }
    let head = ask(Request::new("HEAD", "/get?key=a")).expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), (Some("9"), 0));
    for target in ["/", "/a", "/get/", "/-/status"] {
        fronts.get(target).expect_problem(404, "not_found");
    }
    // Pages of other sites, also those whose name was made to point here.
    ask(Request::get("/put?a=2").header("Sec-Fetch-Site", "cross-site")).expect_problem(403, "forbidden");
    Request::get("/put?a=2").send_as(&fronts.flatdb(), "evil.example").expect_problem(403, "forbidden");
    Request::get("/get?key=a").send_as(&fronts.flatdb(), "localhost:7532").expect(200);
    assert_eq!(fronts.get("/get?key=a").expect(200).json(), json!({"a": "1"}));
    let log = fronts.cluster.master_log();
    assert!(log.contains("written") && !log.contains("a=1") && !log.contains("a=2"), "values stand in the log");
}
