//! The command line: `kvdb batch`.

use kvdb_tests::Cluster;
use kvdb_tests::process::program;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs the command with a document on its standard input.
fn batch(cluster: &Cluster, options: &[&str], operations: &Value) -> Output {
    let mut command = Command::new(program("kvdb"));
    command.args(["--master", &cluster.url(), "batch", "-"]).args(options);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!({ "operations": operations }).to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn kvdb_batch_shows_what_became_of_each_key_or_names_those_that_stood_in_the_way() {
    let cluster = Cluster::start(2);
    cluster.put("/b", b"old");
    let operations = json!([{"create": "a", "value": "1"}, {"put": "b", "base64": "AP8="}, {"delete": "c"}]);
    let done = batch(&cluster, &[], &operations);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "created\ta\nreplaced\tb\nabsent\tc\n");
    assert_eq!(cluster.value("/b"), [0, 255]);

    let refused = batch(&cluster, &["--json"], &json!([{"create": "a", "value": "2"}, {"put": "d", "value": "2"}]));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{told}");
    assert!(told.contains(": a\n") && !told.contains(": d\n") && told.contains("nothing was changed"), "{told}");
    cluster.get("/d").expect(404);

    let file = cluster.dir().join("document");
    std::fs::write(&file, json!({"operations": [{"delete": "a"}]}).to_string()).unwrap();
    let output = Command::new(program("kvdb")).args(["--master", &cluster.url(), "--json", "batch"]).arg(&file).output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((line["key"].as_str(), line["change"].as_str(), line["etag"].is_null()), (Some("a"), Some("deleted"), true));
    cluster.get("/a").expect(404);
}
