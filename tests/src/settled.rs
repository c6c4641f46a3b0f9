//! When the volumes hold exactly what the catalog says, and nothing is in doubt.

use crate::cluster::files_below;
use crate::{Cluster, Request};
use kvdb_protocol::limits::MAX_INLINE_VALUE_BYTES;
use kvdb_protocol::message::{EntriesPage, Entry, ValueEntry, path};
use kvdb_protocol::secret::{PEER_HEADER, PeerCall};
use kvdb_protocol::{ClusterSecret, VersionId, VolumeId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Until a version in doubt must be settled: start and commit seconds, what the largest value takes at 64 KiB/s, and some.
const BOUNDED: Duration = Duration::from_secs(60);

/// A version at one volume.
type Copies = BTreeSet<(VersionId, u64)>;

/// Waits until it is so; gives how long that took. Volumes that are not started are left out.
#[track_caller]
pub fn until_settled(cluster: &Cluster) -> Duration {
    let since = Instant::now();
    while let Some(what) = difference(cluster) {
        assert!(since.elapsed() < BOUNDED, "after {BOUNDED:?} still: {what}\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(200));
    }
    since.elapsed()
}

/// What is not so.
pub fn difference(cluster: &Cluster) -> Option<String> {
    let status = cluster.status();
    let listed = cluster.ask(&Request::get("/?list&detail&limit=10000")).expect(200).json();
    assert_eq!(listed["next"], "", "all keys are on one page");
    for i in (0..cluster.volume_count()).filter(|i| cluster.is_started(*i)) {
        let Some(volume) = status["volumes"].as_array().unwrap().iter().find(|v| v["address"] == cluster.volume_addr(i)) else { continue };
        if volume["up"] != true {
            return Some(format!("volume {i} is not up"));
        }
        let id: VolumeId = serde_json::from_value(volume["id"].clone()).unwrap();
        let wanted = wanted(&listed, id);
        let (held, prepared): (Vec<ValueEntry>, Vec<ValueEntry>) =
            values(cluster, i, id, &status).into_iter().partition(|e| e.seq.is_some());
        if !prepared.is_empty() || volume["status"]["prepared"] != 0 {
            return Some(format!("volume {i} has versions in doubt: {prepared:?}, {}", volume["status"]));
        }
        let held: Copies = held.iter().map(|e| (e.version, e.len)).collect();
        if held != wanted {
            let (more, less): (Copies, Copies) = (&held - &wanted, &wanted - &held);
            return Some(format!("volume {i} has in its index {more:?} too much and {less:?} not"));
        }
        let files: BTreeSet<String> = cluster.blob_files(i).iter().map(|f| f.file_name().unwrap().to_str().unwrap().into()).collect();
        let large = wanted.iter().filter(|(_, len)| *len > MAX_INLINE_VALUE_BYTES).map(|(version, _)| version.to_string()).collect();
        if files != large {
            return Some(format!("volume {i} has the blobs {:?} too much and {:?} not", &files - &large, &large - &files));
        }
        let temporary = files_below(&cluster.volume_dir(i).join("tmp"));
        if !temporary.is_empty() {
            return Some(format!("volume {i} has temporary files: {temporary:?}"));
        }
    }
    None
}

/// What the catalog says that a volume holds.
fn wanted(listed: &Value, id: VolumeId) -> Copies {
    let id = serde_json::to_value(id).unwrap();
    let here = listed["keys"].as_array().unwrap().iter().filter(|k| k["replicas"].as_array().unwrap().contains(&id));
    here.map(|k| (serde_json::from_value(k["version"].clone()).unwrap(), k["len"].as_u64().unwrap())).collect()
}

/// All values in a volume's index, committed or not, asked for as a server of the cluster does.
fn values(cluster: &Cluster, i: usize, id: VolumeId, status: &Value) -> Vec<ValueEntry> {
    let secret = ClusterSecret::new(&std::fs::read_to_string(cluster.volume_dir(i).join("secret")).unwrap()).unwrap();
    let of_cluster = serde_json::from_value(status["cluster"].clone()).unwrap();
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let target = if after.is_empty() { path::ENTRIES.to_string() } else { format!("{}?after={after}", path::ENTRIES) };
        let call = PeerCall { cluster: of_cluster, volume: id, method: "GET", target: &target, body: Some(b"") };
        let request = Request::get(&target).header(PEER_HEADER, &secret.peer_key().sign(&call));
        let page: EntriesPage = serde_json::from_slice(&request.send(&cluster.volume_addr(i)).expect(200).body).unwrap();
        found.extend(page.entries.into_iter().filter_map(|e| match e {
            Entry::Value(value) => Some(value),
            Entry::Tombstone { .. } => None,
        }));
        match page.next {
            Some(next) => after = next,
            None => return found,
        }
    }
}
