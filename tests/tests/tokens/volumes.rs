//! What a volume serves to whom while there are tokens.

use crate::{OWNER, TokensFile, cluster, entry, get, put, secret, with};
use kvdb_protocol::{ClusterId, Ticket, TicketOp, UnixMillis};
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request, Url};

/// Where the owner is sent to read.
#[track_caller]
fn read_url(cluster: &Cluster, target: &str) -> Url {
    Url::of(&cluster.ask(&with(OWNER, Request::get(target))).expect(302))
}

/// The URL without a parameter.
fn without(url: &Url, name: &str) -> String {
    let given = format!("&{name}={}", url.parameter(name).unwrap());
    url.target.replace(&given, "")
}

fn at_volumes(cluster: &Cluster) -> Vec<String> {
    (0..cluster.volume_count()).map(|i| cluster.volume_addr(i)).collect()
}

#[test]
fn a_volume_serves_a_value_only_with_a_ticket_in_every_form() {
    let (cluster, _file) = cluster(2, &[]);
    for (target, len) in [("/small", 10), ("/large", 600_000)] {
        put(&cluster, target, &value(len, 1));
        let url = read_url(&cluster, target);
        let bare = without(&url, "ticket");
        for address in at_volumes(&cluster) {
            for request in [
                Request::get(&bare),
                Request::get(&bare).header("Range", "bytes=0-3"),
                Request::get(&format!("{bare}&tree")),
                Request::get(&format!("{bare}&ticket")),
            ] {
                let answer = request.send(&address);
                assert!(answer.status == 403 && answer.text().contains("ticket"), "{answer}");
            }
            let head = Request::new("HEAD", &bare).send(&address);
            assert!(head.status == 403 && head.body.is_empty() && head.header("etag").is_none(), "{head}");
            // The owner's token is nothing to a volume.
            with(OWNER, Request::get(&bare)).send(&address).expect_problem(403, "forbidden");
        }
        let answer = Request::get(&url.target).send(&url.address).expect(200);
        assert_same(&answer.body, &value(len, 1), target);
        assert_eq!((answer.header("cache-control"), answer.header("referrer-policy")), (Some("private"), Some("no-referrer")));
        assert_eq!(Request::get(&url.target).header("Range", "bytes=0-3").send(&url.address).expect(206).body, value(len, 1)[..4]);
        assert_eq!(
            Request::new("HEAD", &url.target).send(&url.address).expect(200).header("content-length"),
            Some(len.to_string().as_str())
        );
        Request::get(&format!("{}&tree", url.target)).send(&url.address).expect(200);
    }
    for page in ["/-/health/live", "/-/peer/identity"] {
        Request::get(page).send(&cluster.volume_addr(0)).expect(200);
    }
}

#[test]
fn a_ticket_opens_its_own_version_of_its_own_key_and_nothing_else() {
    let (cluster, _file) = cluster(1, &[]);
    put(&cluster, "/k", b"old");
    let old = read_url(&cluster, "/k");
    put(&cluster, "/other", b"other");
    let other = read_url(&cluster, "/other");
    put(&cluster, "/k", b"new");
    let new = read_url(&cluster, "/k");
    let at = |url: &Url| Request::get(&url.target).send(&url.address);
    assert_eq!(at(&new).expect(200).text(), "new");
    let ticket = |url: &Url| url.parameter("ticket").unwrap().to_string();
    for wrong in [&other, &old] {
        at(&new.with_parameter("ticket", &ticket(wrong))).expect_problem(403, "bad_ticket");
    }
    // A ticket to write or to delete is none to read, and the other way round.
    let write = with(OWNER, Request::put("/k", "").header("Kvdb-Content-Length", "3"));
    let write = Url::of(&cluster.ask(&write).expect(307));
    let delete = Url::of(&cluster.ask(&with(OWNER, Request::delete("/k"))).expect(307));
    for url in [&write, &delete] {
        at(&new.with_parameter("ticket", &ticket(url))).expect_problem(403, "bad_ticket");
    }
    let to_read = ticket(&new);
    for method in ["PUT", "POST", "DELETE"] {
        Request::new(method, &format!("/k?ticket={to_read}")).body("x").send(&new.address).expect_problem(403, "bad_ticket");
    }
    cluster.ask(&Request::delete(&format!("/k?ticket={to_read}"))).expect_problem(403, "bad_ticket");
    cluster.ask(&Request::post("/-/outcome", to_read.clone())).expect_problem(403, "bad_ticket");
    for text in ["x", &to_read[..40], &format!("{to_read}A"), &to_read.replacen(&to_read[20..24], "AAAA", 1)] {
        at(&new.with_parameter("ticket", text)).expect_problem(403, "bad_ticket");
    }
    assert_eq!(get(&cluster, "/k").expect(200).text(), "new");
}

#[test]
fn a_ticket_to_read_ends() {
    let (cluster, _file) = cluster(1, &[]);
    put(&cluster, "/k", b"v");
    let url = read_url(&cluster, "/k");
    let key = secret(&cluster).ticket_key();
    let id: ClusterId = cluster.status()["cluster"].as_str().unwrap().parse().unwrap();
    let ticket = Ticket::decode(url.parameter("ticket").unwrap(), &key, id).unwrap();
    assert_eq!((ticket.op, ticket.key.as_bytes()), (TicketOp::Read, &b"k"[..]));
    let now = UnixMillis(cluster.status()["time"].as_u64().unwrap());
    // 60 s to begin, 300 s more, and what the value takes at 64 KiB/s.
    assert!(ticket.start_by > now && ticket.start_by.0 <= now.0 + 360_000, "{ticket:?} at {now:?}");
    // A volume may be a message behind the master.
    let ended = Ticket { start_by: UnixMillis(now.0 - 60_000), ..ticket };
    let answer = Request::get(&url.with_parameter("ticket", &ended.encode(&key).unwrap()).target).send(&url.address);
    assert!(answer.text().contains("expired"), "{answer}");
    answer.expect_problem(403, "bad_ticket");
}

#[test]
fn a_volume_that_was_killed_stays_closed_without_a_master() {
    let (mut cluster, _file) = cluster(2, &[]);
    put(&cluster, "/k", &value(200_000, 1));
    let url = read_url(&cluster, "/k");
    let bare = without(&url, "ticket");
    cluster.kill_master();
    for i in 0..2 {
        cluster.kill_volume(i);
        cluster.start_volume(i);
        let address = cluster.volume_addr(i);
        let answer = Request::get(&bare).send(&address);
        assert!(answer.status == 403 && answer.text().contains("ticket"), "{answer}");
    }
    // Whoever was permitted before may go on.
    assert_same(&Request::get(&url.target).send(&url.address).expect(200).body, &value(200_000, 1), "with its ticket");
    cluster.start_master();
    cluster.wait_all_up();
    for address in at_volumes(&cluster) {
        Request::get(&bare).send(&address).expect(403);
    }
    assert_same(&get(&cluster, "/k").expect(200).body, &value(200_000, 1), "through the master");
}

#[test]
fn volumes_learn_that_tokens_were_turned_on_and_off() {
    let mut cluster = Cluster::builder(2).token(&crate::token(OWNER)).start();
    cluster.put("/k", b"v");
    let open = cluster.read_url("/k");
    assert_eq!(open.parameter("ticket"), None);
    Request::get(&open.target).send(&open.address).expect(200);

    let file = TokensFile::new(&[crate::owner()]);
    cluster.stop_master();
    cluster.add_master_args(&file.args());
    cluster.start_master();
    cluster.wait_all_up();
    // The master uses no volume that has not said that it is closed.
    for address in at_volumes(&cluster) {
        Request::get(&open.target).send(&address).expect(403);
    }
    cluster.kill_volume(0);
    cluster.start_volume(0);
    Request::get(&open.target).send(&cluster.volume_addr(0)).expect(403);
    cluster.wait_all_up();
    assert_eq!(get(&cluster, "/k").expect(200).text(), "v");

    cluster.stop_master();
    let addresses = at_volumes(&cluster).join(",");
    let db = cluster.db_dir().to_str().unwrap().to_string();
    cluster.master().set_args(vec![addresses, db]);
    cluster.start_master();
    cluster.wait_all_up();
    for address in at_volumes(&cluster) {
        Request::get(&open.target).send(&address).expect(200);
    }
    cluster.kill_master();
    cluster.kill_volume(1);
    cluster.start_volume(1);
    Request::get(&open.target).send(&cluster.volume_addr(1)).expect(200);
}

#[test]
fn all_locations_of_a_value_come_with_tickets() {
    let (cluster, _file) = cluster(2, &[entry(2, &[("", &["list"])])]);
    put(&cluster, "/k", &value(600_000, 1));
    cluster.ask(&with(2, Request::get("/k?locate"))).expect_problem(403, "forbidden");
    let located = cluster.ask(&with(OWNER, Request::get("/k?locate"))).expect(200).json();
    let locations = located["locations"].as_array().unwrap();
    assert_eq!(locations.len(), 2);
    for location in locations {
        let url = Url::parse(location.as_str().unwrap()).unwrap();
        assert_same(&Request::get(&url.target).send(&url.address).expect(200).body, &value(600_000, 1), "a location");
        assert_eq!(Request::get(&format!("{}&tree", url.target)).send(&url.address).expect(200).body.len(), 3 * 32);
        Request::get(&without(&url, "ticket")).send(&url.address).expect(403);
    }
}

#[test]
fn a_key_that_would_not_survive_as_a_path_is_read_with_a_ticket_too() {
    let (cluster, _file) = cluster(1, &[entry(2, &[("a/", &["read", "write"])])]);
    for target in ["/a%2F..%2Fb", "/a/%2E/c", &format!("/a/{}", "%FF".repeat(1022))] {
        let stored = cluster.follow(&with(2, Request::put(target, "v")));
        assert_eq!(stored.status, 201, "{target}: {stored}");
        assert_eq!(cluster.follow(&with(2, Request::get(target))).expect(200).text(), "v");
    }
}
