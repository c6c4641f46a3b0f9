//! Transactions: a right for each part, and for all of them at the end.

use crate::{OWNER, cluster, entry, get, put, unauthorized, with};
use kvdb_tests::{Answer, Cluster, Request, Url};
use serde_json::json;

const WRITER: u8 = 2;
const OTHER: u8 = 3;
const READER: u8 = 4;

fn ask(cluster: &Cluster, n: u8, method: &str, target: &str) -> Answer {
    cluster.follow(&with(n, Request::new(method, target).body(if method == "PUT" { "v" } else { "" })))
}

#[track_caller]
fn begin(cluster: &Cluster, n: u8) -> String {
    ask(cluster, n, "POST", "/?txn").expect(201).json()["txn"].as_str().unwrap().to_string()
}

#[test]
fn each_part_of_a_transaction_needs_its_right_and_its_end_those_of_all_parts() {
    let (cluster, _file) = cluster(
        2,
        &[entry(WRITER, &[("a/", &["write"])]), entry(OTHER, &[("b/", &["write", "delete"])]), entry(READER, &[("", &["read", "list"])])],
    );
    put(&cluster, "/b/k", b"old");
    unauthorized(cluster.ask(&Request::post("/?txn", "")));
    ask(&cluster, READER, "POST", "/?txn").expect_problem(403, "forbidden");
    let id = begin(&cluster, WRITER);
    ask(&cluster, WRITER, "PUT", &format!("/a/k?txn={id}")).expect(202);
    for (n, method, target) in [(WRITER, "PUT", "/b/k"), (WRITER, "DELETE", "/a/k"), (OTHER, "PUT", "/a/k"), (READER, "DELETE", "/b/k")] {
        ask(&cluster, n, method, &format!("{target}?txn={id}")).expect_problem(403, "forbidden");
    }
    // Whoever knows its id may put into it what he may put anywhere.
    ask(&cluster, OTHER, "DELETE", &format!("/b/k?txn={id}")).expect(202);
    for (method, what) in [("GET", ""), ("POST", "&commit"), ("POST", "&abort")] {
        let target = format!("/?txn={id}{what}");
        let refused = ask(&cluster, WRITER, method, &target).expect_problem(403, "forbidden");
        assert_eq!(refused.json()["keys"], json!(["b/k"]), "{what}");
        assert_eq!(ask(&cluster, OTHER, method, &target).expect_problem(403, "forbidden").json()["keys"], json!(["a/k"]), "{what}");
        ask(&cluster, READER, method, &target).expect_problem(403, "forbidden");
        unauthorized(cluster.ask(&Request::new(method, &target).body("")));
    }
    get(&cluster, "/a/k").expect(404);
    assert_eq!(get(&cluster, "/b/k").expect(200).text(), "old");
    assert_eq!(ask(&cluster, OWNER, "GET", &format!("/?txn={id}")).expect(200).json()["members"].as_array().unwrap().len(), 2);
    ask(&cluster, OWNER, "POST", &format!("/?txn={id}&commit")).expect(200);
    assert_eq!(get(&cluster, "/a/k").expect(200).text(), "v");
    get(&cluster, "/b/k").expect(404);
}

#[test]
fn one_who_may_do_all_that_is_in_it_ends_it_and_a_signed_url_puts_into_it() {
    let (cluster, _file) = cluster(2, &[entry(WRITER, &[("a/", &["write"])])]);
    let asked = json!({"key": "a/signed", "method": "PUT", "for": "1h"}).to_string();
    let signed = cluster.ask(&with(WRITER, Request::post("/-/sign", asked))).expect(200).json();
    let signed = Url::parse(signed["url"].as_str().unwrap()).unwrap();
    for (end, status) in [("abort", 404), ("commit", 200)] {
        let id = begin(&cluster, WRITER);
        ask(&cluster, WRITER, "PUT", &format!("/a/k?txn={id}")).expect(202);
        Request::put(&format!("{}&txn={id}", signed.target), "s").follow(&signed.address).expect(202);
        ask(&cluster, WRITER, "POST", &format!("/?txn={id}&{end}")).expect(200);
        assert_eq!((get(&cluster, "/a/k").status, get(&cluster, "/a/signed").status), (status, status), "{end}");
    }
    ask(&cluster, WRITER, "POST", "/?txn=01a21be6-0000-4000-8000-000000000000&commit").expect(404);
}
