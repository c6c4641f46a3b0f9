//! How a catalog does with many keys: `scale KEYS [DIR]` makes one of so many keys by an import, then opens it in a process
//! of its own and measures it. What is printed is described in `docs/benchmarks.md`.

// It prints what it is for.
#![allow(clippy::print_stdout)]

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use kvdb_master::catalog::exported::{EXPORT_FORMAT, End, Header, KeyRecord, Line};
use kvdb_master::catalog::{Catalog, CatalogOptions, ListQuery, Record};
use kvdb_protocol::{ClusterId, ClusterSecret, ContentHash, Key, UnixMillis, VersionId, VolumeId};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Set for the process that measures.
const MEASURE: &str = "KVDB_SCALE_MEASURE";
const KEYS_PER_DIRECTORY: u64 = 1_000;
const LOOKUP_TIME: Duration = Duration::from_secs(3);
const PAGES: u32 = 20;

fn key(n: u64) -> anyhow::Result<Key> {
    Ok(Key::new(format!("photos/{:08}/image-{n:010}.jpg", n / KEYS_PER_DIRECTORY))?)
}

fn record(n: u64, replicas: &[VolumeId]) -> Record {
    Record {
        version: VersionId::from_parts(1_750_000_000_000 + n / 100, u128::from(n)),
        len: 1 << 20,
        hash: ContentHash::of(&n.to_le_bytes()),
        content_type: Some("image/jpeg".into()),
        modified: UnixMillis(1_750_000_000_000 + n / 100),
        expires: None,
        replicas: replicas.to_vec(),
        seq: n + 1,
        created: true,
    }
}

/// An export of so many keys, made as it is read.
struct Exported {
    keys: u64,
    /// 0: the header; then the records; then the end.
    line: u64,
    replicas: Vec<VolumeId>,
    hasher: blake3::Hasher,
    rest: Bytes,
}

impl Exported {
    fn new(keys: u64) -> Self {
        let replicas = vec![VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16])];
        Self { keys, line: 0, replicas, hasher: blake3::Hasher::new(), rest: Bytes::new() }
    }

    fn next_line(&mut self) -> anyhow::Result<Option<Line>> {
        let (keys, line) = (self.keys, self.line);
        self.line += 1;
        Ok(match line {
            0 => Some(Line::Catalog(Header {
                format: EXPORT_FORMAT,
                cluster: ClusterId::random(),
                time: UnixMillis::now(),
                seq: keys,
                lease: UnixMillis::now().0,
                keys,
                bytes: keys << 20,
            })),
            n if n <= keys => Some(Line::Record(KeyRecord { key: key(n - 1)?, record: record(n - 1, &self.replicas) })),
            n if n == keys + 1 => {
                let blake3 = ContentHash(*self.hasher.finalize().as_bytes());
                Some(Line::End(End { records: keys, reclaim: 0, blake3 }))
            }
            _ => None,
        })
    }
}

impl Read for Exported {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let Some(line) = self.next_line().map_err(io::Error::other)? else { return Ok(0) };
            self.rest = kvdb_server::duplex::line(&line);
            self.hasher.update(&self.rest);
        }
        let n = into.len().min(self.rest.len());
        into[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

fn make(options: &CatalogOptions, keys: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let from = BufReader::with_capacity(1 << 20, Exported::new(keys));
    Catalog::import(options, &ClusterSecret::random(), from)?;
    println!("import: {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn resident_mib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("the kernel does not tell the resident memory")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? >> 10)
}

/// Lookups of random keys, by a thread for each core.
fn lookups(catalog: &Catalog, keys: u64) -> anyhow::Result<u64> {
    let threads = std::thread::available_parallelism()?.get();
    let began = Instant::now();
    let work = |seed: usize| {
        let catalog = catalog.clone();
        std::thread::spawn(move || -> anyhow::Result<u64> {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let mut random = u64::try_from(seed)? + 0x9E37_79B9_7F4A_7C15;
            let mut done = 0;
            while began.elapsed() < LOOKUP_TIME {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let found = runtime.block_on(catalog.lookup(&key(random % keys.max(1))?))?;
                ensure!(found.is_some() == (keys > 0), "a key that should be there is not");
                done += 1;
            }
            Ok(done)
        })
    };
    let threads: Vec<_> = (0..threads).map(work).collect();
    let mut done = 0;
    for thread in threads {
        done += thread.join().map_err(|_| anyhow::anyhow!("a thread of lookups panicked"))??;
    }
    Ok(done / began.elapsed().as_secs().max(1))
}

async fn page(catalog: &Catalog, name: &str, query: ListQuery) -> anyhow::Result<()> {
    let began = Instant::now();
    for _ in 0..PAGES {
        catalog.list(&query).await?;
    }
    println!("list page of {}, {name}: {:.2} ms", query.limit, began.elapsed().as_secs_f64() * 1e3 / f64::from(PAGES));
    Ok(())
}

async fn measure(options: CatalogOptions, keys: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let catalog = Catalog::open(options)?;
    println!("open: {:.2} s, {} MiB resident", began.elapsed().as_secs_f64(), resident_mib()?);
    let bytes = catalog.size_on_disk()?;
    println!("on disk: {} MiB, {} bytes a key", bytes >> 20, bytes / keys.max(1));
    println!("lookups, all cores: {} a second, {} MiB resident", lookups(&catalog, keys)?, resident_mib()?);
    let first = ListQuery { limit: 1000, ..ListQuery::default() };
    let middle = ListQuery { start: Some(key(keys / 2)?.as_bytes().to_vec()), ..first.clone() };
    let prefix = ListQuery { prefix: format!("photos/{:08}/", keys / 2 / KEYS_PER_DIRECTORY).into(), ..first.clone() };
    let delimited = ListQuery { prefix: b"photos/".to_vec(), delimiter: Some(b"/".to_vec()), ..first.clone() };
    for (name, query) in [("first", first), ("in the middle", middle), ("with a prefix", prefix), ("of prefixes by delimiter", delimited)] {
        page(&catalog, name, query).await?;
    }
    println!("at the end: {} MiB resident", resident_mib()?);
    let began = Instant::now();
    catalog.close().await?;
    println!("close: {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn run_itself(keys: u64, dir: &Path) -> anyhow::Result<()> {
    let status = Command::new(std::env::current_exe()?).arg(keys.to_string()).arg(dir).env(MEASURE, "1").status()?;
    ensure!(status.success(), "measuring failed");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().context("give the number of keys")?.parse()?;
    let temporary = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    let options = CatalogOptions::new(dir.join("catalog"));
    if std::env::var_os(MEASURE).is_some() {
        return measure(options, keys).await;
    }
    println!("{keys} keys");
    if !options.dir.exists() {
        let options = options.clone();
        tokio::task::spawn_blocking(move || make(&options, keys)).await??;
    }
    run_itself(keys, &dir)
}
