//! The catalog's part of a request, without HTTP: record, commit, lookup, list. See `docs/benchmarks.md`.

// A setup that fails fails its benchmark.
#![allow(clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use futures_util::future::join_all;
use kvdb_master::catalog::outside::recoded;
use kvdb_master::catalog::{Catalog, CatalogOptions, CommitPut, ListQuery, Record};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};
use std::hint::black_box;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Keys of the catalog that is listed, in directories of a hundred.
const KEYS: u64 = 10_000;
const KEYS_PER_DIRECTORY: u64 = 100;
/// Kind of a record among the values that the catalog stores.
const RECORD_KIND: u8 = 0;
/// Format byte of a stored value.
const VALUE_FORMAT: u8 = 1;

fn key(n: u64) -> Key {
    Key::new(format!("photos/{:08}/image-{n:010}.jpg", n / KEYS_PER_DIRECTORY)).unwrap()
}

fn replicas() -> Vec<VolumeId> {
    vec![VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16])]
}

fn commit(catalog: &Catalog, n: u64) -> CommitPut {
    CommitPut {
        key: key(n),
        version: catalog.next_version(),
        create: false,
        condition: Condition::default(),
        commit_by: UnixMillis(u64::MAX),
        len: 1 << 20,
        hash: ContentHash::of(&n.to_le_bytes()),
        content_type: Some("image/jpeg".into()),
        expires: None,
        replicas: replicas(),
    }
}

/// Commits so many keys at once and waits for all.
async fn commit_together(catalog: &Catalog, keys: impl Iterator<Item = u64>) {
    for answer in join_all(keys.map(|n| catalog.commit(commit(catalog, n)))).await {
        assert!(matches!(answer, Ok(CommitAnswer::Committed(_))), "{answer:?}");
    }
}

fn records(c: &mut Criterion) {
    let record = Record {
        version: VersionId::from_parts(1_750_000_000_000, 8),
        len: 1 << 20,
        hash: ContentHash::of(b"value"),
        content_type: Some("image/jpeg".into()),
        modified: UnixMillis(1_750_000_000_000),
        expires: None,
        replicas: replicas(),
        seq: 1_000_000,
        created: true,
    };
    let bytes = postcard::to_extend(&record, vec![VALUE_FORMAT]).unwrap();
    assert_eq!(recoded(RECORD_KIND, &bytes).unwrap(), bytes, "what is measured is a record that is read right");
    c.bench_function("record, decode and encode", |b| b.iter(|| recoded(RECORD_KIND, black_box(&bytes))));
}

/// Until durable. Writers that wait together share one sync. Keys are replaced, so that the catalog keeps its size.
fn committer(c: &mut Criterion, runtime: &Runtime, catalog: &Catalog) {
    let mut group = c.benchmark_group("commit");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    for writers in [1, 16] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::new("waiting writers", writers), |b| {
            b.iter_custom(|rounds| {
                let began = Instant::now();
                runtime.block_on(async {
                    for round in 0..rounds {
                        commit_together(catalog, (0..writers).map(|w| (round * writers + w) % KEYS)).await;
                    }
                });
                began.elapsed()
            });
        });
    }
    group.finish();
}

fn lookups_and_lists(c: &mut Criterion, runtime: &Runtime, catalog: &Catalog) {
    let mut n = 0;
    c.bench_function("lookup", |b| {
        b.iter(|| {
            n = (n + 7_919) % KEYS;
            runtime.block_on(catalog.lookup(&key(n)))
        });
    });
    let plain = ListQuery { limit: 1000, ..ListQuery::default() };
    let queries = [
        ("1000 keys", plain.clone()),
        ("1000 keys with detail", ListQuery { detail: true, ..plain.clone() }),
        ("100 keys of a prefix", ListQuery { prefix: b"photos/00000050/".to_vec(), ..plain.clone() }),
        ("100 prefixes by delimiter", ListQuery { prefix: b"photos/".to_vec(), delimiter: Some(b"/".to_vec()), ..plain }),
    ];
    let mut group = c.benchmark_group("list page");
    for (name, query) in queries {
        group.bench_function(name, |b| b.iter(|| runtime.block_on(catalog.list(&query))));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    records(&mut criterion);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let catalog = Catalog::open(CatalogOptions::new(dir.path())).unwrap();
    runtime.block_on(async {
        for first in (0..KEYS).step_by(500) {
            commit_together(&catalog, first..first + 500).await;
        }
    });
    lookups_and_lists(&mut criterion, &runtime, &catalog);
    committer(&mut criterion, &runtime, &catalog);
    runtime.block_on(catalog.close()).unwrap();
    criterion.final_summary();
}
