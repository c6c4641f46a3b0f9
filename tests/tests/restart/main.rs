//! Processes that are stopped, killed, moved or doubled: nothing that was acknowledged is lost, nothing foreign is touched.
// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod identity;
mod in_flight;
mod lost_commit;
mod order;

use kvdb_tests::Cluster;
use kvdb_tests::values::{assert_same, value};

/// Values that were acknowledged: some inside an index, some in files.
#[derive(Default)]
struct Acknowledged(Vec<(String, Vec<u8>)>);

impl Acknowledged {
    fn write(&mut self, cluster: &Cluster) {
        for len in [0, 100, 65_536, 65_537, 400_000] {
            let (target, bytes) = (format!("/{:03}-{len}", self.0.len()), value(len, self.0.len() as u64));
            cluster.put(&target, &bytes);
            self.0.push((target, bytes));
        }
    }

    #[track_caller]
    fn check(&self, cluster: &Cluster) {
        for (target, bytes) in &self.0 {
            assert_same(&cluster.value(target), bytes, target);
            for copy in cluster.copies(target).iter().filter(|c| c.status == 200) {
                assert_same(&copy.body, bytes, &format!("a copy of {target}"));
            }
        }
        let list = cluster.ask(&kvdb_tests::Request::get("/?list&limit=10000")).json();
        assert_eq!(list["keys"].as_array().unwrap().len(), self.0.len());
    }
}
