//! `GET /key?locate` and `GET /key?v=…&tree`: what a client needs to read from several replicas at once.

use kvdb_protocol::ContentHash;
use kvdb_protocol::tree::{chaining_value_count, root_of};
use kvdb_tests::values::{SIZES, value};
use kvdb_tests::{Answer, Cluster, Request, Url, eventually};
use std::os::unix::fs::FileExt;

fn locate(cluster: &Cluster, target: &str) -> Answer {
    cluster.ask(&Request::get(&format!("{target}?locate")))
}

#[track_caller]
fn locations(answer: &Answer) -> Vec<Url> {
    let json = answer.json();
    json["locations"].as_array().unwrap().iter().map(|l| Url::parse(l.as_str().unwrap()).unwrap()).collect()
}

fn tree(url: &Url) -> Answer {
    Request::get(&format!("{}&tree", url.target)).send(&url.address)
}

#[test]
fn all_live_replicas_of_a_value_are_named_with_what_a_list_tells() {
    let mut cluster = Cluster::builder(3).master_args(["--replicas", "3"]).start();
    let bytes = value(300_000, 1);
    cluster.put("/k", &bytes);
    let answer = locate(&cluster, "/k").expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let listed = cluster.ask(&Request::get("/?list&detail")).json()["keys"][0].clone();
    let mut told = answer.json();
    told.as_object_mut().unwrap().remove("locations");
    assert_eq!(told, listed);
    let mut at: Vec<String> = locations(&answer).into_iter().map(|u| u.address).collect();
    at.sort();
    let mut all: Vec<String> = (0..3).map(|i| cluster.volume_addr(i)).collect();
    all.sort();
    assert_eq!(at, all);
    for url in locations(&answer) {
        assert!(Request::get(&url.target).send(&url.address).expect(200).body == bytes);
    }
    cluster.kill_volume(1);
    let gone = cluster.volume_addr(1);
    let found = eventually("two are named", || Some(locations(&locate(&cluster, "/k"))).filter(|l| l.len() == 2));
    assert!(found.iter().all(|u| u.address != gone));
    let version = listed["version"].as_str().unwrap();
    let missed = found[0].address.clone();
    let id = cluster.status()["volumes"].as_array().unwrap().iter().find(|v| v["address"] == missed.as_str()).unwrap()["id"].clone();
    let rest = cluster.ask(&Request::get(&format!("/k?locate&missed={version}.{}", id.as_str().unwrap())));
    assert_eq!(locations(&rest.expect(200)), [found[1].clone()]);
    cluster.kill_volume(0);
    cluster.kill_volume(2);
    eventually("none is named", || (locate(&cluster, "/k").status == 503).then_some(()));
    locate(&cluster, "/k").expect_problem(503, "no_replica");
    locate(&cluster, "/absent").expect_problem(404, "not_found");
}

#[test]
fn keys_that_clients_would_change_are_located_too() {
    let cluster = Cluster::start(1);
    for target in ["/a/%2E%2E/b", "/%FF%00", "/a%2Fb", "/tree"] {
        cluster.put(target, b"v");
        let url = locations(&locate(&cluster, target).expect(200)).remove(0);
        assert_eq!(Request::get(&url.target).send(&url.address).expect(200).body, b"v", "{target}");
    }
    cluster.put("/t", b"v");
    let head = cluster.ask(&Request::new("HEAD", "/t?locate"));
    assert_eq!(head.status, 302, "only GET asks for it");
}

#[test]
fn the_tree_of_a_value_adds_up_to_its_etag() {
    let cluster = Cluster::start(1);
    for len in SIZES {
        let bytes = value(len, 3);
        cluster.put("/k", &bytes);
        let answer = tree(&locations(&locate(&cluster, "/k"))[0]).expect(200);
        assert_eq!(answer.body.len() as u64, 32 * chaining_value_count(len as u64), "{len}");
        let (values, _) = answer.body.as_chunks::<32>();
        if !values.is_empty() {
            assert_eq!(root_of(len as u64, values), Some(ContentHash::of(&bytes)), "{len}");
        }
    }
}

#[test]
fn the_tree_of_a_version_that_is_gone_leads_back_to_the_master() {
    let cluster = Cluster::start(1);
    cluster.put("/k", &value(1 << 20, 1));
    let url = locations(&locate(&cluster, "/k")).remove(0);
    cluster.put("/k", &value(1 << 20, 2));
    eventually("the old version is removed", || (tree(&url).status == 302).then_some(()));
    cluster.follow(&Request::delete("/k")).expect(200);
    eventually("all is removed", || (tree(&url).status == 302).then_some(()));
}

#[test]
fn a_damaged_tree_is_never_sent_and_its_copy_is_put_aside() {
    let cluster = Cluster::start(2);
    let bytes = value(3 << 20, 1);
    cluster.put("/k", &bytes);
    let file = std::fs::OpenOptions::new().write(true).open(cluster.blob_files(0).pop().unwrap()).unwrap();
    // All that follows the content: whatever is where in the footer, the chaining values are hit.
    file.write_all_at(&[0x55; 200], bytes.len() as u64).unwrap();
    let bad = cluster.volume_addr(0);
    let url = locations(&locate(&cluster, "/k")).into_iter().find(|u| u.address == bad).unwrap();
    tree(&url).expect(302);
    for url in locations(&locate(&cluster, "/k")) {
        let answer = tree(&url);
        assert!(answer.status != 200 || root_of(bytes.len() as u64, answer.body.as_chunks::<32>().0) == Some(ContentHash::of(&bytes)));
    }
    assert!(cluster.value("/k") == bytes);
}
