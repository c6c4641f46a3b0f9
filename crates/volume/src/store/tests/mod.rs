//! What the store promises, each fact a test.

mod at_hand;
mod at_rest;
mod capacity;
mod crash;
mod damage;
mod lifecycle;
mod values;

use super::*;
use crate::disk::blob_path;
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_protocol::message::{Deleted, Prepared};
use std::path::Path;
use tempfile::TempDir;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A directory and how to open it.
struct Volume {
    dir: TempDir,
    options: StoreOptions,
}

impl Volume {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { keep_free_bytes: 0, ..StoreOptions::new(dir.path().join("volume")) };
        Self { dir, options }
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Store, OpenError> {
        Store::open(self.options.clone())
    }

    fn path(&self) -> &Path {
        &self.options.dir
    }

    fn blob(&self, v: &NewValue) -> std::path::PathBuf {
        blob_path(&self.path().join("blobs"), v.version)
    }

    /// All files below `name`, for a look at what is left.
    fn files(&self, name: &str) -> Vec<std::path::PathBuf> {
        fn walk(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
            for e in std::fs::read_dir(dir).unwrap() {
                let path = e.unwrap().path();
                if path.is_dir() { walk(&path, out) } else { out.push(path) }
            }
        }
        let mut out = Vec::new();
        walk(&self.path().join(name), &mut out);
        out.sort();
        out
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// The value's description; `n` makes version and commit-by.
fn new_value(text: &str, n: u64, len: Option<u64>) -> NewValue {
    NewValue {
        key: key(text),
        version: VersionId::from_parts(1_700_000_000_000 + n, u128::from(n) * 0x1_2345_6789),
        len,
        max_len: 1 << 30,
        content_type: Some("text/x-test".into()),
        expires: Some(UnixMillis(9_000_000_000_000)),
        commit_by: UnixMillis(1_000 + n),
        replicas: vec![VolumeId::from_bytes([3; 16]), VolumeId::from_bytes([4; 16])],
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn put_in_pieces(store: &Store, v: &NewValue, bytes: &[u8], piece: usize) -> Result<Prepared, StoreError> {
    let mut staged = store.begin(v.clone())?;
    for part in bytes.chunks(piece) {
        staged.write(part)?;
    }
    assert_eq!(staged.len(), bytes.len() as u64);
    staged.finish()
}

fn put(store: &Store, v: &NewValue, bytes: &[u8]) -> Prepared {
    put_in_pieces(store, v, bytes, 300_007).unwrap()
}

fn read(store: &Store, v: &NewValue) -> Result<Vec<u8>, String> {
    let stored = store.get(&v.key, v.version).map_err(|e| e.to_string())?.ok_or("absent")?;
    let mut out = Vec::new();
    for i in 0..stored.subtree_count() {
        out.extend_from_slice(&stored.read_subtree(i).map_err(|e| e.to_string())?);
    }
    Ok(out)
}

fn reclaim(v: &NewValue, deleted: Option<Deleted>) -> ReclaimItem {
    ReclaimItem { key: v.key.clone(), version: v.version, deleted }
}

const DELETED: Deleted = Deleted { seq: 77, time: UnixMillis(u64::MAX / 2) };
