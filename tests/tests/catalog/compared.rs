//! `kvdb fsck`: what it finds, what it does about it, and that writes under way are no false alarms.

use super::{done, kvdb};
use kvdb_protocol::message::{Reclaim, ReclaimItem, path};
use kvdb_protocol::secret::{PEER_HEADER, PeerCall};
use kvdb_protocol::{ClusterSecret, Key, UnixMillis, VersionId, VolumeId};
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::Value;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code, the findings and the summary.
#[track_caller]
fn fsck(cluster: &Cluster, args: &[&str]) -> (i32, Vec<Value>, Value) {
    let output = kvdb(cluster, &[&["fsck", "--json"], args].concat());
    let mut lines: Vec<Value> = String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let last = lines.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), lines, last["summary"].clone())
}

/// Findings as kind, why and key, in order.
fn kinds(findings: &[Value]) -> Vec<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_string();
    findings.iter().map(|f| (text(&f["finding"]), text(&f["why"]), text(&f["key"]))).collect()
}

fn said(all: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    all.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
}

#[track_caller]
fn clean(cluster: &Cluster) -> Value {
    let (code, findings, summary) = fsck(cluster, &[]);
    assert_eq!((code, findings, &summary["clean"], &summary["complete"]), (0, vec![], &true.into(), &true.into()), "{summary}");
    summary
}

/// Has a volume lose a version, as if the master had said so.
fn lose(cluster: &Cluster, volume: usize, key: &str) {
    let list = super::listed(cluster);
    let listed = list["keys"].as_array().unwrap().iter().find(|k| k["key"] == key).unwrap();
    let version: VersionId = serde_json::from_value(listed["version"].clone()).unwrap();
    let item = ReclaimItem { key: Key::new(key).unwrap(), version, deleted: None };
    let status = cluster.status();
    let id = status["volumes"].as_array().unwrap().iter().find(|v| v["address"] == cluster.volume_addr(volume)).unwrap()["id"].clone();
    let id: VolumeId = serde_json::from_value(id).unwrap();
    let now: UnixMillis = serde_json::from_value(status["time"].clone()).unwrap();
    let body = serde_json::to_vec(&Reclaim { sent: now, versions: vec![item] }).unwrap();
    let secret = ClusterSecret::new(&fs::read_to_string(cluster.volume_dir(volume).join("secret")).unwrap()).unwrap();
    let of = serde_json::from_value(status["cluster"].clone()).unwrap();
    let call = PeerCall { cluster: of, volume: id, method: "POST", target: path::RECLAIM, body: Some(&body) };
    let signature = secret.peer_key().sign(&call);
    Request::post(path::RECLAIM, body).header(PEER_HEADER, &signature).send(&cluster.volume_addr(volume)).expect(200);
}

#[test]
fn a_cluster_is_clean_whatever_its_clients_do_meanwhile() {
    let cluster = Cluster::start(3);
    for i in 0..1_200 {
        cluster.put(&format!("/{:03}/{i}", i % 300), &value(20, i));
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|s| {
        for client in 0..3u64 {
            let (cluster, ended) = (&cluster, &ended);
            s.spawn(move || {
                for i in (0u64..).take_while(|_| !ended.load(Ordering::SeqCst)) {
                    let target = format!("/{:03}/{client}-{}", i * 37 % 300, i % 50);
                    match i % 3 {
                        0 => drop(cluster.follow(&Request::delete(&target))),
                        _ => drop(cluster.put(&target, &value(if i % 20 == 0 { 70_000 } else { 30 }, i))),
                    }
                }
            });
        }
        let (mut again, mut keys) = (0, 0);
        for _ in 0..5 {
            let (code, findings, summary) = fsck(&cluster, &[]);
            again += summary["to_be_reclaimed"].as_u64().unwrap() + summary["in_doubt"].as_u64().unwrap();
            keys += summary["keys"].as_u64().unwrap();
            assert_eq!((code, findings), (0, vec![]), "{summary}");
        }
        ended.store(true, Ordering::SeqCst);
        assert!(keys > 5 * 1_200);
        println!("{keys} keys compared, {again} copies in doubt or to be reclaimed");
    });
}

#[test]
fn copies_that_move_from_volume_to_volume_are_no_false_alarms() {
    // Slow enough that the moves outlast several comparisons on any machine: nearly 14 MB have to move.
    let cluster = Cluster::builder(3).master_args(["--repair-rate", "2"]).start();
    for i in 0..300 {
        cluster.put(&format!("/{i}"), &value(if i % 3 == 0 { 200_000 } else { 2_000 }, i));
    }
    done(&kvdb(&cluster, &["cluster", "drain", &cluster.volume_addr(0)]));
    let (mut looks, mut moving) = (0, 0);
    eventually("the volume is empty", || {
        let before = cluster.status();
        let (code, findings, summary) = fsck(&cluster, &[]);
        assert_eq!((code, findings), (0, vec![]), "{summary}");
        let left = |status: &Value| status["volumes"][0]["status"]["values"].as_u64().unwrap();
        (looks, moving) = (looks + 1, moving + u64::from(left(&before) > 0));
        (left(&before) == 0).then_some(())
    });
    assert!(moving > 1, "the drain was over before it was looked at");
    println!("{looks} comparisons, {moving} of them while copies moved");
}

#[test]
fn a_lost_copy_dangles_and_is_made_anew() {
    let cluster = Cluster::start(2);
    for i in 0..20 {
        cluster.put(&format!("/{i}"), &value(100_000, i));
    }
    assert_eq!(clean(&cluster)["copies"], 40);
    lose(&cluster, 1, "3");
    let (code, findings, summary) = fsck(&cluster, &[]);
    assert_eq!((code, kinds(&findings), &summary["dangling"]), (1, said(&[("dangling", "-", "3")]), &1.into()));
    assert_eq!(findings[0]["repair_asked"], false);
    let (code, findings, summary) = fsck(&cluster, &["--repair"]);
    assert_eq!((code, &findings[0]["repair_asked"], &summary["repair_asked"]), (1, &true.into(), &1.into()));
    eventually("the copy is made anew", || (fsck(&cluster, &[]).0 == 0).then_some(()));
    assert!(cluster.copies("/3").iter().all(|c| c.status == 200));
}

/// The catalog is exported, more is written, and the catalog of the export put back.
fn put_back(cluster: &mut Cluster, meanwhile: impl FnOnce(&Cluster)) {
    let file = cluster.dir().join("saved");
    let (file, db) = (file.to_str().unwrap().to_string(), cluster.db_dir());
    done(&kvdb(cluster, &["catalog", "export", &file]));
    meanwhile(cluster);
    kvdb_tests::settled::until_settled(cluster);
    cluster.stop_master();
    fs::remove_dir_all(&db).unwrap();
    done(&kvdb(cluster, &["catalog", "import", &file, db.to_str().unwrap()]));
    cluster.start_master();
    cluster.wait_all_up();
}

#[test]
fn a_catalog_that_is_older_than_the_volumes_is_told_and_unknown_copies_go_only_if_that_is_asked() {
    let mut cluster = Cluster::start(2);
    for key in ["/deleted", "/kept", "/replaced"] {
        cluster.put(key, &value(80_000, 1));
    }
    put_back(&mut cluster, |cluster| {
        cluster.put("/new", &value(80_000, 2));
        cluster.put("/replaced", &value(90_000, 3));
        cluster.follow(&Request::delete("/deleted")).expect(200);
    });
    let both = |kind: &'static str, why: &'static str, key: &'static str| [(kind, why, key); 2];
    let expected = [
        &both("dangling", "-", "deleted")[..],
        &[("deleted_later", "-", "deleted")],
        &both("orphan", "unknown", "new"),
        &both("dangling", "-", "replaced"),
        &both("orphan", "unknown", "replaced"),
    ]
    .concat();
    let (code, findings, _) = fsck(&cluster, &["--repair"]);
    assert_eq!((code, kinds(&findings)), (1, said(&expected)));
    let (_, again, _) = fsck(&cluster, &[]);
    assert_eq!(kinds(&again), said(&expected), "an unknown copy was removed");
    assert_eq!(cluster.value("/kept"), value(80_000, 1));
    let (_, _, summary) = fsck(&cluster, &["--repair", "--remove-unknown"]);
    assert_eq!(summary["repair_asked"], 4 + 4, "{summary}");
    let left = said(
        &[both("dangling", "-", "deleted").to_vec(), vec![("deleted_later", "-", "deleted")], both("dangling", "-", "replaced").to_vec()]
            .concat(),
    );
    eventually("the unknown copies are gone", || (kinds(&fsck(&cluster, &[]).1) == left).then_some(()));
    // What is written now is newer than all that volumes remember, so that a rebuild finds it.
    cluster.put("/deleted", b"anew");
    cluster.put("/replaced", b"anew");
    clean(&cluster);
    cluster.stop_master();
    fs::remove_dir_all(cluster.db_dir()).unwrap();
    let (volumes, db) = (format!("{},{}", cluster.volume_addr(0), cluster.volume_addr(1)), cluster.db_dir());
    done(&kvdb(&cluster, &["rebuild", &volumes, db.to_str().unwrap()]));
    cluster.start_master();
    cluster.wait_all_up();
    for key in ["/deleted", "/replaced"] {
        assert_eq!(cluster.value(key), b"anew", "{key}");
    }
    clean(&cluster);
}

#[test]
fn copies_of_deleted_and_replaced_values_that_no_list_names_are_removed() {
    let mut cluster = Cluster::start(2);
    for key in ["/deleted", "/kept", "/replaced"] {
        cluster.put(key, &value(80_000, 1));
    }
    // A volume that was away while the others went on, put back as it was: its copies are on no list any more.
    cluster.stop_volume(1);
    let (dir, old) = (cluster.volume_dir(1), cluster.dir().join("old"));
    assert!(std::process::Command::new("cp").arg("-a").args([&dir, &old]).status().unwrap().success());
    cluster.start_volume(1);
    cluster.wait_all_up();
    cluster.put("/replaced", &value(80_000, 2));
    cluster.follow(&Request::delete("/deleted")).expect(200);
    kvdb_tests::settled::until_settled(&cluster);
    cluster.stop_volume(1);
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&old, &dir).unwrap();
    cluster.start_volume(1);
    cluster.wait_all_up();
    // What it lacks is noticed and made anew by the master.
    let orphans = said(&[("orphan", "deleted", "deleted"), ("orphan", "superseded", "replaced")]);
    eventually("the missing copy is made anew", || (kinds(&fsck(&cluster, &[]).1) == orphans).then_some(()));
    let (code, _, summary) = fsck(&cluster, &["--repair"]);
    assert_eq!((code, &summary["repair_asked"]), (1, &2.into()));
    eventually("the copies are removed", || (fsck(&cluster, &[]).0 == 0).then_some(()));
    kvdb_tests::settled::until_settled(&cluster);
    cluster.get("/deleted").expect_problem(404, "not_found");
    assert_eq!(cluster.value("/replaced"), value(80_000, 2));
}

#[test]
fn what_cannot_be_compared_is_told_by_the_exit_code() {
    let mut cluster = Cluster::start(2);
    cluster.put("/key", b"value");
    assert_eq!(kvdb(&cluster, &["fsck", "--remove-unknown"]).status.code(), Some(2));
    let (_, _, summary) = fsck(&cluster, &["--verify"]);
    assert_eq!(summary["scrub_begun"], true);
    cluster.kill_volume(1);
    cluster.wait_up(1);
    let (code, findings, summary) = fsck(&cluster, &[]);
    assert_eq!((code, findings.len(), &summary["complete"]), (3, 0, &false.into()));
    assert_eq!(summary["unreachable"], serde_json::json!([cluster.volume_addr(1)]));
    let wrong = kvdb(&cluster, &["fsck", "--secret", "0123456789abcdef0123"]);
    assert_eq!(wrong.status.code(), Some(3), "two secrets");
    cluster.stop_master();
    assert_eq!(kvdb(&cluster, &["fsck"]).status.code(), Some(3));
}
