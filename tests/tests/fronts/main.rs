//! The front ends of a master, through curl, Python's requests and plain sockets.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod flatdb;
mod flatdb_crash;
mod kvs;
mod linear;
mod listening;

use kvdb_protocol::Token;
use kvdb_tests::outside::{self, requests_is_here};
use kvdb_tests::{Answer, Cluster, Request};
use serde_json::json;

/// Ports at the cluster's own address, so that a master that is started again has the same.
const FLATDB: u16 = 7532;
const KVS: u16 = 7533;

/// A cluster whose master has front ends.
struct Fronts {
    cluster: Cluster,
    ip: String,
    /// May do everything; of no meaning without a file of tokens.
    token: String,
    /// May do everything with keys that begin with `narrow/`.
    narrow: String,
}

impl Fronts {
    /// FlatDB, open to all.
    fn start() -> Self {
        Self::started(false)
    }

    /// FlatDB and kvs, for those with a token; kvs lets everybody read what begins with `open/`.
    fn with_tokens() -> Self {
        Self::started(true)
    }

    fn started(with_tokens: bool) -> Self {
        let mut cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start_volumes();
        let ip = cluster.volume_addr(0).rsplit_once(':').unwrap().0.to_string();
        cluster.add_master_args(&["--flatdb", &format!("{ip}:{FLATDB}")]);
        let (token, narrow) = (Token::of_random([1; 32]), Token::of_random([2; 32]));
        if with_tokens {
            let entry = |name: &str, token: &Token, prefix: &str| {
                let rights = json!([{"prefix": prefix, "allow": ["admin"]}]);
                json!({"name": name, "hash": token.hash().to_hex().to_string(), "rights": rights})
            };
            let file = cluster.dir().join("tokens.json");
            std::fs::write(&file, json!({"tokens": [entry("all", &token, ""), entry("narrow", &narrow, "narrow/")]}).to_string()).unwrap();
            let kvs = format!("{ip}:{KVS}");
            cluster.add_master_args(&["--tokens", file.to_str().unwrap(), "--kvs", &kvs, "--kvs-public", "open/"]);
        }
        cluster.start_master();
        // Ready is with both volumes; to ask for their state would need a token.
        cluster.wait_ready();
        Self { cluster, ip, token: token.expose().into(), narrow: narrow.expose().into() }
    }

    fn kvs(&self) -> String {
        format!("{}:{KVS}", self.ip)
    }

    /// The request of who may do everything.
    fn as_owner(&self, request: Request) -> Request {
        request.header("Authorization", &format!("Bearer {}", self.token))
    }

    fn flatdb(&self) -> String {
        format!("{}:{FLATDB}", self.ip)
    }

    /// A GET of FlatDB.
    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        Request::get(target).send(&self.flatdb())
    }

    /// Runs lines of Python, in which `flatdb` and `kvs` are the URLs of these front ends and `token` is the owner's, unless it cannot be run and need not.
    #[track_caller]
    fn python(&self, lines: &str) {
        if requests_is_here() {
            let (flatdb, kvs) = (format!("http://{}", self.flatdb()), format!("http://{}/", self.kvs()));
            outside::python(self.cluster.dir(), &format!("{PRELUDE}\n{lines}"), &[&flatdb, &kvs, &self.token]);
        }
    }
}

const PRELUDE: &str = r#"
import requests, sys
flatdb, kvs, token = sys.argv[1:]

def status(answer, expected):
    assert answer.status_code == expected, (answer.status_code, answer.url, answer.text[:500])
    return answer
"#;
