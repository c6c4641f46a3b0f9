//! The Rust client behind a wire that loses the answers of a volume: it asks the master what became of its write.

use kvdb_client::{Client, Error, Key, PutOptions, PutOutcome};
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Cluster, Proxy, Request, Way, eventually};

/// A cluster whose clients reach the volume through a proxy; the master does not.
fn behind_a_proxy() -> (Cluster, Proxy) {
    let mut cluster = Cluster::builder(1).master_args(["--start-seconds", "5", "--commit-seconds", "5"]).start_volumes();
    let proxy = Proxy::start("127.0.0.1", &cluster.volume_addr(0));
    cluster.kill_volume(0);
    let dir = cluster.volume_dir(0).to_str().unwrap().to_string();
    cluster.volume(0).set_args(vec![dir, "--public-url".into(), format!("http://{}", proxy.address())]);
    cluster.start_volume(0);
    cluster.start_master();
    cluster.wait_all_up();
    (cluster, proxy)
}

/// Stores a value in the background.
fn put(cluster: &Cluster, create_only: bool) -> std::thread::JoinHandle<Result<PutOutcome, Error>> {
    let url = cluster.url();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::builder(&url).no_proxy().build()?;
            client.put(&Key::new("k").unwrap(), b"value".to_vec(), PutOptions { create_only, ..PutOptions::default() }).await
        })
    })
}

#[test]
fn a_write_whose_answer_is_lost_after_its_commit_is_known_to_be_stored() {
    for create_only in [true, false] {
        let (cluster, proxy) = behind_a_proxy();
        proxy.stall(Way::Back);
        let storing = put(&cluster, create_only);
        eventually("it is committed", || (cluster.ask(&Request::new("HEAD", "/k")).status == 302).then_some(()));
        let version = cluster.ask(&Request::get("/?list&detail")).expect(200).json()["keys"][0]["version"].clone();
        proxy.cut();
        proxy.heal();
        let outcome = storing.join().unwrap().unwrap();
        assert_eq!((outcome.created, outcome.version.map(|v| v.to_string()).as_deref()), (Some(true), version.as_str()));
        assert_eq!((cluster.status()["seq"].as_u64(), cluster.value("/k").as_slice()), (Some(1), &b"value"[..]), "it was stored once");
        assert!(cluster.master_log().contains("told what became of a write"));
        until_settled(&cluster);
    }
}

#[test]
fn a_write_that_is_lost_on_its_way_is_sent_again_and_stored_once() {
    let (cluster, proxy) = behind_a_proxy();
    proxy.stall(Way::Forth);
    let storing = put(&cluster, true);
    eventually("the client has connected", || (proxy.accepted() > 0).then_some(()));
    // Whether all of the value has left the client by then: either way it is sent again.
    std::thread::sleep(std::time::Duration::from_millis(200));
    proxy.cut();
    proxy.heal();
    assert_eq!(storing.join().unwrap().unwrap().created, Some(true));
    assert_eq!((cluster.status()["seq"].as_u64(), cluster.value("/k").as_slice()), (Some(1), &b"value"[..]));
    until_settled(&cluster);
}

#[test]
fn a_create_that_was_refused_and_whose_answer_is_lost_ends_with_the_reason() {
    let (cluster, proxy) = behind_a_proxy();
    proxy.stall(Way::Forth);
    let storing = put(&cluster, true);
    eventually("the client has connected", || (proxy.accepted() > 0).then_some(()));
    let document = r#"{"operations":[{"put":"k","value":"another"}]}"#;
    cluster.ask(&Request::post("/?batch", document)).expect(200);
    proxy.cut();
    proxy.heal();
    let error = storing.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
    assert_eq!((cluster.status()["seq"].as_u64(), cluster.value("/k").as_slice()), (Some(1), &b"another"[..]));
}

#[test]
fn a_delete_whose_answer_is_lost_is_known_to_be_done() {
    let (cluster, proxy) = behind_a_proxy();
    proxy.heal();
    let stored = cluster.put("/k", b"value");
    proxy.stall(Way::Back);
    let url = cluster.url();
    let deleting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Client::builder(&url).no_proxy().build()?.delete(&Key::new("k").unwrap()).await })
    });
    eventually("it is committed", || (cluster.ask(&Request::new("HEAD", "/k")).status == 404).then_some(()));
    proxy.cut();
    proxy.heal();
    let removed = deleting.join().unwrap().unwrap().removed.map(|v| v.to_string());
    assert_eq!(removed.as_deref(), stored.header("kvdb-version"), "which version it removed is known");
    until_settled(&cluster);
}
