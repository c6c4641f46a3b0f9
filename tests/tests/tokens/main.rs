//! Tokens: who may do what, against real clusters.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod reload;
mod returns;
mod rights;
mod signed;
mod silence;
mod transactions;
mod volumes;

use kvdb_protocol::{ClusterSecret, Token};
use kvdb_tests::cluster::Builder;
use kvdb_tests::{Answer, Cluster, Request};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// May do everything.
const OWNER: u8 = 1;

/// The token of this number.
fn token(n: u8) -> String {
    Token::of_random([n; 32]).expose().into()
}

/// An entry of a file, by which this token may do this with keys that begin so.
fn entry(n: u8, rights: &[(&str, &[&str])]) -> Value {
    let rights: Vec<Value> = rights.iter().map(|(prefix, allow)| json!({ "prefix": prefix, "allow": allow })).collect();
    json!({ "name": format!("t{n}"), "hash": Token::of_random([n; 32]).hash().to_hex().to_string(), "rights": rights })
}

fn owner() -> Value {
    entry(OWNER, &[("", &["admin"])])
}

/// A request of whoever has this token.
fn with(n: u8, request: Request) -> Request {
    request.header("Authorization", &format!("Bearer {}", token(n)))
}

/// A file of tokens, which a master is given.
struct TokensFile {
    path: PathBuf,
    _dir: TempDir,
}

impl TokensFile {
    fn new(tokens: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = Self { path: dir.path().join("tokens.json"), _dir: dir };
        file.set(tokens);
        file
    }

    fn set(&self, tokens: &[Value]) {
        self.write(&json!({ "tokens": tokens }).to_string());
    }

    /// Replaces it, as an editor does: never half of it is there.
    fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &self.path).unwrap();
    }

    fn args(&self) -> [&str; 2] {
        ["--tokens", self.path.to_str().unwrap()]
    }

    /// A cluster to be, of which the owner's token sees the state.
    fn cluster(&self, volumes: usize) -> Builder {
        Cluster::builder(volumes).master_args(self.args()).token(&token(OWNER))
    }
}

/// A cluster with the owner's token and these, ready.
#[track_caller]
fn cluster(volumes: usize, tokens: &[Value]) -> (Cluster, TokensFile) {
    let file = TokensFile::new(&[&[owner()], tokens].concat());
    (file.cluster(volumes).start(), file)
}

/// Stores a value as the owner.
#[track_caller]
fn put(cluster: &Cluster, target: &str, value: &[u8]) {
    let answer = cluster.follow(&with(OWNER, Request::put(target, value).expect_continue()));
    assert!(matches!(answer.status, 200 | 201), "PUT {target}: {answer}");
}

/// Reads as the owner.
#[track_caller]
fn get(cluster: &Cluster, target: &str) -> Answer {
    cluster.follow(&with(OWNER, Request::get(target)))
}

/// The secret that the master made.
fn secret(cluster: &Cluster) -> ClusterSecret {
    ClusterSecret::new(&std::fs::read_to_string(cluster.db_dir().join("secret")).unwrap()).unwrap()
}

/// What has no token is told how to send one.
#[track_caller]
fn unauthorized(answer: Answer) {
    let answer = answer.expect_problem(401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"kvdb\""), "{answer}");
}
