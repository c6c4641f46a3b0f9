//! The front ends of a master, through curl, Python's requests and plain sockets.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod flatdb;
mod flatdb_crash;
mod listening;

use kvdb_tests::outside::{self, requests_is_here};
use kvdb_tests::{Answer, Cluster, Request};

/// Ports at the cluster's own address, so that a master that is started again has the same.
const FLATDB: u16 = 7532;

/// A cluster whose master has front ends.
struct Fronts {
    cluster: Cluster,
    ip: String,
}

impl Fronts {
    fn start() -> Self {
        let mut cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start_volumes();
        let ip = cluster.volume_addr(0).rsplit_once(':').unwrap().0.to_string();
        cluster.add_master_args(&["--flatdb", &format!("{ip}:{FLATDB}")]);
        cluster.start_master();
        cluster.wait_all_up();
        Self { cluster, ip }
    }

    fn flatdb(&self) -> String {
        format!("{}:{FLATDB}", self.ip)
    }

    /// A GET of FlatDB.
    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        Request::get(target).send(&self.flatdb())
    }

    /// Runs lines of Python, in which `flatdb` is the URL of that front end and `master` the master's, unless it cannot be run and need not.
    #[track_caller]
    fn python(&self, lines: &str) {
        if requests_is_here() {
            let flatdb = format!("http://{}", self.flatdb());
            outside::python(self.cluster.dir(), &format!("{PRELUDE}\n{lines}"), &[&self.cluster.url(), &flatdb]);
        }
    }
}

const PRELUDE: &str = r#"
import requests, sys
master, flatdb = sys.argv[1:]

def status(answer, expected):
    assert answer.status_code == expected, (answer.status_code, answer.url, answer.text[:500])
    return answer
"#;
