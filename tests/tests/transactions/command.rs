//! The command line and the client library.

use crate::{keys, prepared};
use kvdb_client::{BatchOperation, Change, Client, Condition, Error, ErrorCode, Key, PutOptions};
use kvdb_tests::process::program;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, eventually};
use serde_json::json;
use std::process::{Command, Output};
use std::time::Duration;

fn publish(cluster: &Cluster, args: &[&str]) -> Output {
    Command::new(program("kvdb")).args(["--master", &cluster.url(), "publish"]).args(args).current_dir(cluster.dir()).output().unwrap()
}

#[test]
fn kvdb_publish_stores_all_files_or_none() {
    let cluster = Cluster::start(2);
    let large = value(3 << 20, 1);
    std::fs::write(cluster.dir().join("large"), &large).unwrap();
    std::fs::write(cluster.dir().join("small"), b"small").unwrap();
    cluster.put("/old", b"old");
    let done = publish(&cluster, &["a/large=large", "old=small", "--delete", "gone"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "created\ta/large\nabsent\tgone\nreplaced\told\n");
    assert_same(&cluster.value("/a/large"), &large, "a/large");
    assert_eq!(cluster.value("/old"), b"small");

    let refused = publish(&cluster, &["--create", "new=large", "old=large"]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    let missing = publish(&cluster, &["new=large", "other=no-such-file"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("no-such-file"));
    assert_eq!(publish(&cluster, &["new"]).status.code(), Some(2), "a key without a file");
    assert_eq!(publish(&cluster, &[]).status.code(), Some(2));
    assert_eq!(keys(&cluster), json!(["a/large", "old"]));
    eventually("what was given up is removed", || (prepared(&cluster) == 0 && cluster.blob_files(0).len() == 1).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_library_begins_fills_and_ends_transactions() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(2)).await.unwrap();
    let client = Client::builder(cluster.url()).no_proxy().build().unwrap();
    let key = |name: &str| Key::new(name).unwrap();
    client.batch(&[BatchOperation::put(key("old"), "old"), BatchOperation::put(key("gone"), "old")]).await.unwrap();
    let (txn, _) = client.begin(Some(Duration::from_secs(60))).await.unwrap();
    let put = txn.put(&key("a/é"), value(200_000, 1), PutOptions::default()).await.unwrap();
    assert_eq!(put.created, None);
    txn.put(&key("old"), b"new".to_vec(), PutOptions::default()).await.unwrap();
    // Whoever knows the id goes on with it.
    client.transaction(txn.id()).delete(&key("gone"), &Condition::default()).await.unwrap();
    assert!(matches!(client.stat(&key("a/é")).await, Err(Error::NotFound(_))));
    let applied = txn.commit().await.unwrap();
    assert_eq!(applied.iter().map(|a| a.change).collect::<Vec<_>>(), [Change::Created, Change::Deleted, Change::Replaced]);
    assert_eq!((applied[0].version, applied[0].etag), (put.version, Some(put.etag)));
    assert_eq!(txn.commit().await.unwrap(), applied, "asked again, it says the same");

    let (other, _) = client.begin(None).await.unwrap();
    let create = PutOptions { create_only: true, ..PutOptions::default() };
    assert!(matches!(other.put(&key("old"), b"x".to_vec(), create.clone()).await, Err(Error::Exists(_))));
    other.put(&key("late"), b"x".to_vec(), create).await.unwrap();
    client.put(&key("late"), b"first".to_vec(), PutOptions::default()).await.unwrap();
    let Err(Error::Problem { problem, .. }) = other.commit().await else { panic!("it was committed") };
    assert_eq!((problem.code, problem.keys.unwrap().0), (ErrorCode::PreconditionFailed, vec!["late".to_string()]));
    other.abort().await.unwrap();
    let Err(Error::Problem { problem, .. }) = other.put(&key("later"), b"x".to_vec(), PutOptions::default()).await else {
        panic!("it was taken")
    };
    assert_eq!(problem.code, ErrorCode::NoSuchTransaction);
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
}
