//! Nothing that permits anything stands in a log, however much is logged.

use crate::{OWNER, TokensFile, entry, owner, token, with};
use kvdb_tests::values::value;
use kvdb_tests::{Request, Url};
use serde_json::json;

#[test]
fn no_token_ticket_or_signature_stands_in_any_log() {
    let file = TokensFile::new(&[owner(), entry(2, &[("a", &["read"])])]);
    let mut cluster = file.cluster(2).env("RUST_LOG", "debug,fjall=info,lsm_tree=info,sled=info").start();
    let mut secrets = vec![token(OWNER), token(2), token(3)];
    let mut noted = |url: &Url| {
        secrets.extend(["ticket", "signed"].iter().filter_map(|name| url.parameter(name)).map(String::from));
        url.clone()
    };
    let ask = |request: Request| cluster.ask(&with(OWNER, request));
    for len in [10, 300_000] {
        let write = noted(&Url::of(&ask(Request::put("/a", "").header("Kvdb-Content-Length", &len.to_string())).expect(307)));
        assert!(matches!(Request::put(&write.target, value(len, 1)).send(&write.address).status, 200 | 201));
        // Used again, at another path, and altered.
        Request::put(&write.target, value(len, 1)).send(&write.address).expect(403);
        Request::put(&write.target.replacen("/a?", "/b?", 1), "x").send(&write.address).expect(403);
        cluster.ask(&Request::post("/-/outcome", write.parameter("ticket").unwrap())).expect(200);
        let read = noted(&Url::of(&ask(Request::get("/a")).expect(302)));
        Request::get(&read.target).send(&read.address).expect(200);
        Request::get(&format!("{}&tree", read.target)).send(&read.address).expect(200);
        Request::delete(&read.target).send(&read.address).expect(403);
        Request::get(&read.target.replacen("/a?", "/%zz?", 1)).send(&read.address).expect(400);
    }
    let signed = ask(Request::post("/-/sign", r#"{"key":"a","for":"1h"}"#)).expect(200).json();
    let signed = noted(&Url::parse(signed["url"].as_str().unwrap()).unwrap());
    Request::get(&signed.target).follow(&signed.address).expect(200);
    Request::put(&signed.target, "x").send(&signed.address).expect(403);
    Request::delete(&signed.target).send(&signed.address).expect(401);
    noted(&Url::of(&ask(Request::get("/?newest&key=a")).expect(302)));
    let located = ask(Request::get("/a?locate")).expect(200).json();
    located["locations"].as_array().unwrap().iter().for_each(|l| drop(noted(&Url::parse(l.as_str().unwrap()).unwrap())));
    // A token that is unknown, that may not, that is sent as something else or in the wrong place.
    cluster.ask(&with(3, Request::get("/a"))).expect(401);
    cluster.ask(&with(2, Request::put("/a", "x"))).expect(403);
    cluster.ask(&Request::get("/a").header("Authorization", &token(OWNER))).expect(401);
    for name in ["token", "access_token", "auth"] {
        cluster.ask(&Request::get(&format!("/a?{name}={}", token(OWNER)))).expect(401);
        cluster.ask(&Request::get(&format!("/a?{name}=x%2F{}", token(OWNER).replace('_', "%5f")))).expect(401);
    }
    with(OWNER, Request::put("/large", value(200_000, 1))).send(&cluster.master_addr()).expect(201);
    ask(Request::post("/?batch", json!({"operations": [{"put": "b", "value": "1"}]}).to_string())).expect(200);
    noted(&Url::of(&ask(Request::delete("/a")).expect(307)));
    cluster.kill_volume(0);
    cluster.kill_volume(1);
    cluster.wait_up(0);
    let here = noted(&Url::of(&cluster.ask(&with(OWNER, Request::delete("/a"))).expect(307)));
    Request::delete(&here.target).send(&here.address).expect(200);

    let logs = [cluster.master_log(), cluster.volume_log(0), cluster.volume_log(1)];
    assert!(secrets.len() > 12 && logs.iter().all(|log| log.contains("kvdb::access")));
    for secret in secrets {
        for log in &logs {
            let line = log.lines().find(|line| line.contains(&secret) || line.contains(&secret.replace('_', "%5f")));
            assert_eq!(line, None, "{secret} stands in a log");
        }
    }
    cluster.stop_master();
}
