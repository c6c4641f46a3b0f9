//! What every write pays for before and while its bytes move: the ticket, and the hash tree. See `docs/benchmarks.md`.

// A setup that fails fails its benchmark.
#![allow(clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput};
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::tree::{TreeHasher, root_of};
use kvdb_protocol::{ClusterId, ClusterSecret, Key, Ticket, TicketOp, TicketVolume, UnixMillis, VersionId, VolumeId};
use std::hint::black_box;

const MIB: usize = 1 << 20;

/// Of a put with two replicas, as long as tickets usually are.
fn ticket() -> Ticket {
    let volume = |port: u16| TicketVolume { id: VolumeId::random(), address: format!("volume.example:{port}") };
    Ticket {
        cluster: ClusterId::random(),
        op: TicketOp::Replace,
        key: Key::new("photos/2026/00000001/image-0000000001.jpg").unwrap(),
        version: VersionId::from_parts(1_750_000_000_000, 8),
        volumes: vec![volume(3001), volume(3002)],
        max_bytes: 5 << 30,
        content_type: Some("image/jpeg".into()),
        content: None,
        expires: None,
        condition: Condition::default(),
        start_by: UnixMillis(1_750_000_060_000),
        commit_by: UnixMillis(1_750_090_000_000),
        commit_to: "master.example:3000".into(),
        return_to: "http://master.example:3000/photos/2026/00000001/image-0000000001.jpg".into(),
        request_id: "019ac1d47a337c4180000123456789ab".into(),
        txn: None,
    }
}

fn tickets(c: &mut Criterion) {
    let (ticket, key) = (ticket(), ClusterSecret::random().ticket_key());
    let text = ticket.encode(&key).unwrap();
    let mut group = c.benchmark_group("ticket");
    group.bench_function("encode", |b| b.iter(|| black_box(&ticket).encode(&key)));
    group.bench_function("decode", |b| b.iter(|| Ticket::decode(black_box(&text), &key, ticket.cluster)));
    group.finish();
}

/// In the pieces in which a volume hashes: the buffer that it writes.
fn tree_hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree hash");
    for mib in [1, 64] {
        let value: Vec<u8> = (0..mib * MIB).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        group.throughput(Throughput::Bytes(value.len() as u64));
        group.bench_with_input(BenchmarkId::new("MiB", mib), &value, |b, value| {
            b.iter(|| {
                let mut hasher = TreeHasher::new();
                value.chunks(MIB).for_each(|piece| hasher.update(piece));
                hasher.finish()
            });
        });
    }
    group.finish();
    // What a reader pays before it trusts the chaining values of a 1 GiB value.
    let subtrees: Vec<[u8; 32]> = (0..4096_u32).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
    c.bench_function("root of 4096 chaining values", |b| b.iter(|| root_of(1 << 30, black_box(&subtrees))));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    tickets(&mut criterion);
    tree_hash(&mut criterion);
    criterion.final_summary();
}
