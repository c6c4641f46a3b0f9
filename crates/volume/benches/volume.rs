//! A volume's part of a write, without HTTP: hash and write to a file, footer, index. See `docs/benchmarks.md`.

// A setup that fails fails its benchmark.
#![allow(clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use kvdb_protocol::message::ReclaimItem;
use kvdb_protocol::tree::{TreeHash, TreeHasher};
use kvdb_protocol::{Key, UnixMillis, VersionId, VolumeId};
use kvdb_volume::format::blob::{Footer, Layout, TAIL_BYTES};
use kvdb_volume::store::{NewValue, Store, StoreOptions};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What one read of a socket brings, at most.
const PIECE_BYTES: usize = 256 * KIB;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// A store on the disk of the target directory, whose values go when they were measured.
struct Bench {
    store: Store,
    next: AtomicU64,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { store: Store::open(StoreOptions::new(dir.path())).unwrap(), next: AtomicU64::new(0), _dir: dir }
    }

    /// Stores a value until it is durable, as prepared.
    fn put(&self, value: &[u8]) -> ReclaimItem {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Spread over the directories as random versions are.
        let version = VersionId::from_parts(UnixMillis::now().0, u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let key = Key::new(format!("photos/2026/00000001/image-{n:010}.jpg")).unwrap();
        let new = NewValue {
            key: key.clone(),
            version,
            len: Some(value.len() as u64),
            max_len: 5 << 30,
            content_type: Some("image/jpeg".into()),
            expires: None,
            commit_by: UnixMillis(u64::MAX),
            replicas: vec![VolumeId::from_bytes([1; 16])],
        };
        let mut staged = self.store.begin(new).unwrap();
        value.chunks(PIECE_BYTES).for_each(|piece| staged.write(piece).unwrap());
        staged.finish().unwrap();
        ReclaimItem { key, version, deleted: None }
    }

    /// The time of `rounds` puts by each of so many threads.
    fn puts(&self, value: &[u8], threads: usize, rounds: u64) -> Duration {
        let began = Instant::now();
        let put: Vec<ReclaimItem> = thread::scope(|scope| {
            let work = || (0..rounds).map(|_| self.put(value)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let took = began.elapsed();
        self.store.remove(&put).unwrap();
        took
    }
}

/// Until durable and in the index: hash, write around the page cache, syncs, name, entry. A value that lives in the index has only the last.
fn puts(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("store a value");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    for (name, len, threads) in [
        ("1 KiB, in the index", KIB, 1),
        ("1 KiB, in the index", KIB, 16),
        ("1 MiB", MIB, 1),
        ("1 MiB", MIB, 8),
        ("64 MiB", 64 * MIB, 1),
        ("64 MiB", 64 * MIB, 2),
    ] {
        let value = bytes(len);
        group.throughput(Throughput::Bytes((len * threads) as u64));
        let id = BenchmarkId::new(name, format!("{threads} at once"));
        group.bench_function(id, |b| b.iter_custom(|rounds| bench.puts(&value, threads, rounds)));
    }
    group.finish();
}

fn footer(tree: TreeHash) -> Footer {
    Footer {
        key: Key::new("photos/2026/00000001/image-0000000001.jpg").unwrap(),
        version: VersionId::from_parts(1_750_000_000_000, 8),
        len: tree.len,
        hash: tree.root,
        content_type: Some("image/jpeg".into()),
        modified: UnixMillis(1_750_000_000_000),
        expires: None,
        commit_by: UnixMillis(1_750_090_000_000),
        replicas: vec![VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16])],
        subtrees: tree.subtrees,
    }
}

fn footers(c: &mut Criterion) {
    let mut group = c.benchmark_group("footer");
    for mib in [1, 64] {
        let mut hasher = TreeHasher::new();
        hasher.update(&bytes(mib * MIB));
        let footer = footer(hasher.finish());
        group.bench_function(BenchmarkId::new("encode, MiB", mib), |b| b.iter(|| black_box(&footer).encode()));
        let encoded = footer.encode().unwrap();
        let (body, tail) = encoded.split_last_chunk::<TAIL_BYTES>().unwrap();
        let file_len = footer.len + encoded.len() as u64;
        let decode = || Footer::parse(&Layout::parse(file_len, *black_box(tail))?, black_box(body));
        assert_eq!(decode(), Ok(footer.clone()), "what is measured is a footer that is read right");
        group.bench_function(BenchmarkId::new("decode, MiB", mib), |b| b.iter(decode));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    footers(&mut criterion);
    puts(&mut criterion);
    criterion.final_summary();
}
