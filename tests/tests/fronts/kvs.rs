//! kvs: what its clients and people ask for, and what they get.

use crate::Fronts;
use crate::listening::refusal;
use kvdb_tests::outside::{curl, curl_is_here, run};
use kvdb_tests::values::{etag, value};
use kvdb_tests::{Answer, Request, Url, eventually};

fn get(fronts: &Fronts, target: &str) -> Answer {
    Request::get(target).send(&fronts.kvs())
}

fn post(fronts: &Fronts, form: &str) -> Answer {
    Request::post("/", form).header("Content-Type", "application/x-www-form-urlencoded").send(&fronts.kvs())
}

#[test]
fn a_client_in_python_stores_forms_and_reads_the_newest() {
    let fronts = Fronts::with_tokens();
    fronts.python(
        r#"
answer = status(requests.post(kvs, data={"open/a": "1", "open/b": "sn\u00f6 & = +", "auth": token}), 200)
assert answer.text == "stored 2 keys\n", answer.text
answer = status(requests.get(kvs, params={"k": "open/b"}), 200)
assert answer.text == "sn\u00f6 & = +" and answer.headers["Content-Type"] == "text/plain; charset=utf-8"
status(requests.post(kvs, data={"open/a": "2", "auth": token}), 200)
for keys in ["open/a,open/b,open/c", "open/c,open/b,open/a"]:
    answer = status(requests.get(kvs, params={"k": keys}), 200)
    assert answer.text == "2" and answer.headers["Kvdb-Key"] == "open/a", answer.text
status(requests.post(kvs, data={"open/b": "3", "auth": token}), 200)
assert requests.get(kvs, params={"k": "open/a,open/b"}).text == "3"
status(requests.get(kvs, params={"k": "open/c"}), 404)
for wrong in ["", "wrong", token[:-1], token + "x"]:
    status(requests.post(kvs, data={"open/a": "4", "open/c": "4", "auth": wrong}), 403)
status(requests.post(kvs, data={"open/a": "4", "open/c": "4"}), 403)
assert requests.get(kvs, params={"k": "open/a"}).text == "2"
status(requests.get(kvs, params={"k": "open/c"}), 404)
"#,
    );
}

#[test]
fn the_lines_of_the_readme_work_in_curl() {
    if !curl_is_here() {
        return;
    }
    let fronts = Fronts::with_tokens();
    let url = format!("http://{}/", fronts.kvs());
    let ask = |args: &[&str]| String::from_utf8(run(curl(fronts.cluster.dir()).args(args)).stdout).unwrap();
    let auth = format!("auth={}", fronts.token);
    assert_eq!(ask(&[&url, "-d", "open/door=shut", "-d", "open/gate=wide", "-d", &auth]), "stored 2 keys\n");
    assert_eq!(ask(&[&format!("{url}?k=open/door")]), "shut");
    assert_eq!(ask(&[&url, "-d", "open/door=ajar", "-d", &auth]), "stored 1 key\n");
    assert_eq!(ask(&[&format!("{url}?k=open/gate,open/door,open/none")]), "ajar");
    std::fs::write(fronts.cluster.dir().join("file"), b"\xff\0").unwrap();
    assert_eq!(ask(&[&url, "-F", "open/door=sealed", "-F", "open/raw=@file;type=image/png", "-F", &auth]), "stored 2 keys\n");
    assert_eq!(get(&fronts, "/?k=open/door").expect(200).text(), "sealed");
    assert_eq!(get(&fronts, "/?k=open/raw").expect(200).body, b"\xff\0");
    assert!(ask(&[&url, "-F", "open/door=open", "-F", "auth=wrong"]).contains("forbidden"));
    assert_eq!(ask(&["-o", "-", "-w", "%{http_code}", "-d", "open/door=shut", &url]).rsplit('}').next(), Some("403"));
}

#[test]
fn a_form_is_stored_whole_or_not_at_all_and_stays_over_kills() {
    let mut fronts = Fronts::with_tokens();
    let (all, narrow) = (fronts.token.clone(), fronts.narrow.clone());
    post(&fronts, &format!("narrow/a=1&open/a=1&auth={narrow}")).expect_problem(403, "forbidden");
    post(&fronts, &format!("narrow/a=1&auth={narrow}&=x")).expect_problem(400, "bad_key");
    post(&fronts, &format!("auth={narrow}")).expect_problem(400, "bad_request");
    post(&fronts, "auth=wrong").expect_problem(403, "forbidden");
    let many: Vec<String> = (0..1001).map(|i| format!("open/{i}=1")).collect();
    post(&fronts, &format!("auth={all}&{}", many.join("&"))).expect_problem(413, "value_too_large");
    for key in ["narrow/a", "open/a", "open/0"] {
        fronts.as_owner(Request::get(&format!("/?k={key}"))).send(&fronts.kvs()).expect_problem(404, "not_found");
    }
    post(&fronts, &format!("narrow/a=1&narrow/b=&narrow/a=2&auth={narrow}")).expect(200);
    post(&fronts, &format!("auth={all}&open/a=1&open/raw=%FF%00")).expect(200);
    for server in [2, 1, 0] {
        fronts.cluster.kill_and_start(server);
        fronts.cluster.wait_ready();
        for (key, value) in [("narrow/a", &b"2"[..]), ("narrow/b", b""), ("open/a", b"1"), ("open/raw", b"\xff\0")] {
            let answer = fronts.as_owner(Request::get(&format!("/?k={key}"))).send(&fronts.kvs()).expect(200);
            assert_eq!(answer.body, value, "{key}");
        }
    }
    assert_eq!(get(&fronts, "/?k=open/raw").header("content-type"), Some("application/octet-stream"));
}

#[test]
fn readers_need_a_token_but_for_keys_that_are_public() {
    let fronts = Fronts::with_tokens();
    post(&fronts, &format!("open/a=1&closed/a=2&auth={}", fronts.token)).expect(200);
    get(&fronts, "/?k=open/a").expect(200);
    for target in ["/?k=closed/a", "/?k=closed/none", "/?k=open/a,closed/a"] {
        let answer = get(&fronts, target).expect_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"kvdb\""));
        let narrow = Request::get(target).header("Authorization", &format!("Bearer {}", fronts.narrow));
        narrow.send(&fronts.kvs()).expect_problem(403, "forbidden");
    }
    assert_eq!(fronts.as_owner(Request::get("/?k=open/a,closed/a")).send(&fronts.kvs()).expect(200).text(), "2");
    // FlatDB's clients, too, need one.
    for target in ["/get?key=open/a", "/getrange?from=open/", "/put?open/a=3", "/delete?key=open/a"] {
        fronts.get(target).expect_problem(401, "unauthorized");
        let narrow = Request::get(target).header("Authorization", &format!("Bearer {}", fronts.narrow));
        narrow.send(&fronts.flatdb()).expect_problem(403, "forbidden");
    }
    let narrow = |target: &str| Request::get(target).header("Authorization", &format!("Bearer {}", fronts.narrow)).send(&fronts.flatdb());
    narrow("/put?narrow/x=1").expect(201);
    assert_eq!(narrow("/getrange?from=narrow/&to=narrow/z").expect(200).text(), r#"{"narrow/x":"1"}"#);
    narrow("/getrange?from=narrow/").expect_problem(403, "forbidden");
    assert!(!fronts.cluster.master_log().contains(&fronts.token), "a passcode stands in the log");
}

#[test]
fn large_values_are_read_at_their_volume() {
    let fronts = Fronts::with_tokens();
    let large = value((8 << 20) + 5, 1);
    let put = fronts.as_owner(Request::put("/open/large", large.clone()).expect_continue());
    assert_eq!(put.follow(&fronts.cluster.master_addr()).status, 201);
    let answer = get(&fronts, "/?k=open/none,open/large").expect(302);
    assert_eq!(answer.header("kvdb-key"), Some("open/large"));
    let followed = Request::get("/?k=open/none,open/large").follow(&fronts.kvs()).expect(200);
    assert!(followed.body == large);
    post(&fronts, &format!("open/small=1&auth={}", fronts.token)).expect(200);
    let answer = get(&fronts, "/?k=open/large,open/small").expect(200);
    assert_eq!((answer.text().as_str(), answer.header("etag")), ("1", Some(etag(b"1").as_str())));
}

#[test]
fn a_reader_of_a_large_value_who_comes_late_is_sent_on_without_a_token() {
    let fronts = Fronts::with_tokens();
    let put = |len: usize| {
        let put = fronts.as_owner(Request::put("/open/large", value(len, 1)).expect_continue());
        assert!(matches!(put.follow(&fronts.cluster.master_addr()).status, 200 | 201));
    };
    put((8 << 20) + 1);
    let sent = Url::of(&get(&fronts, "/?k=open/large,open/none").expect(302));
    put((8 << 20) + 2);
    let back = eventually("the version is gone", || Some(Request::get(&sent.target).send(&sent.address)).filter(|a| a.status == 302));
    let back = Url::of(&back);
    assert_eq!(back.address, fronts.cluster.master_addr());
    assert!(Request::get(&back.target).follow(&back.address).expect(200).body == value((8 << 20) + 2, 1));
    // It permits this question only.
    let other = back.target.replace("open/none", "closed/none");
    Request::get(&other).send(&back.address).expect_problem(403, "forbidden");
}

#[test]
fn the_index_page_is_for_people_and_values_are_no_pages() {
    let fronts = Fronts::with_tokens();
    let page = Request::get("/").send_as(&fronts.kvs(), "kvs.example:81").expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("http://kvs.example:81/?k=KEY"), "{page}");
    for policy in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"] {
        assert!(page.header("content-security-policy").unwrap().contains(policy), "{page}");
    }
    let html = fronts.as_owner(Request::put("/open/page", "<script>").header("Content-Type", "text/html").expect_continue());
    html.follow(&fronts.cluster.master_addr()).expect(201);
    let answer = get(&fronts, "/?k=open/page").expect(200);
    assert_eq!((answer.header("content-type"), answer.header("x-content-type-options")), (Some("text/html"), Some("nosniff")));
    assert!(answer.header("content-security-policy").unwrap().contains("sandbox"));
}

#[test]
fn what_is_not_kvs_is_refused() {
    let fronts = Fronts::with_tokens();
    get(&fronts, "/open/a").expect_problem(404, "not_found");
    get(&fronts, "/?k=").expect_problem(400, "bad_request");
    get(&fronts, "/?k=-/x").expect_problem(400, "bad_key");
    assert_eq!(Request::delete("/").send(&fronts.kvs()).expect(405).header("allow"), Some("GET, HEAD, POST"));
    let json = Request::post("/", "{}").header("Content-Type", "application/json");
    json.send(&fronts.kvs()).expect_problem(400, "bad_request");
    let long = Request::post("/", vec![b'x'; (4 << 20) + 1]).expect_continue();
    long.send(&fronts.kvs()).expect_problem(413, "value_too_large");
    let said = refusal(&["--kvs", "127.0.0.1:0"]);
    assert!(said.contains("--tokens"), "{said}");
}
