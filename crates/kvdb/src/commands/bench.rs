//! `kvdb bench`: how fast the cluster is through this client, which hashes and checks every byte.

use crate::args::{Bench, Common};
use crate::output;
use anyhow::Context as _;
use bytes::Bytes;
use kvdb_client::{Client, Key, PutOptions, Source};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Portions in which a value is sent.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Clone, Copy)]
enum Work {
    Put,
    Get,
    Delete,
}

/// Puts, gets and deletes `count` values, and says how fast that was.
pub async fn run(common: &Common, args: Bench) -> anyhow::Result<()> {
    let client = common.client()?;
    let prefix = format!("kvdb-bench-{}", std::process::id());
    for (name, work) in [("put", Work::Put), ("get", Work::Get), ("delete", Work::Delete)] {
        let started = Instant::now();
        let mut times = at_once(&client, &prefix, work, &args).await.with_context(|| format!("{name} of keys {prefix}-…"))?;
        report(common, name, &args, started.elapsed(), &mut times)?;
    }
    Ok(())
}

/// Has `clients` tasks do the work on `count` keys; gives the time of each.
async fn at_once(client: &Client, prefix: &str, work: Work, args: &Bench) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..args.clients {
        let (client, prefix, next, size, count) = (client.clone(), prefix.to_string(), next.clone(), args.size, args.count);
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok::<_, anyhow::Error>(times);
                }
                let key = Key::new(format!("{prefix}-{i}"))?;
                let started = Instant::now();
                one(&client, &key, work, size, i).await?;
                times.push(started.elapsed());
            }
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

async fn one(client: &Client, key: &Key, work: Work, size: u64, i: u64) -> anyhow::Result<()> {
    match work {
        Work::Put => drop(client.put(key, value(size, i), PutOptions::default()).await?),
        Work::Get => {
            let mut reader = client.get(key).await?;
            while reader.chunk().await?.is_some() {}
        }
        Work::Delete => drop(client.delete(key).await?),
    }
    Ok(())
}

/// `size` bytes that no two values share and no compressor shrinks, made of one portion.
fn value(size: u64, i: u64) -> Source {
    let mut portion = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().update(&i.to_le_bytes()).finalize_xof().fill(&mut portion);
    let portion = Bytes::from(portion);
    let left = std::iter::successors(Some(size), |left| left.checked_sub(CHUNK_BYTES as u64)).take_while(|left| *left > 0);
    let chunks = left.map(move |left| Ok(portion.slice(..usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES))));
    Source::stream(futures_util::stream::iter(chunks), Some(size))
}

fn report(common: &Common, name: &str, args: &Bench, took: Duration, times: &mut [Duration]) -> anyhow::Result<()> {
    times.sort();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    // Figures for people: the last digits of a float do not matter.
    #[allow(clippy::cast_precision_loss)]
    let (ops, mb) = (args.count as f64 / seconds, (args.count * args.size) as f64 / 1e6 / seconds);
    if common.json {
        let o = json!({
            "op": name, "size": args.size, "clients": args.clients, "count": args.count, "ops_per_second": ops,
            "mb_per_second": mb, "p50_ms": at(50), "p99_ms": at(99),
        });
        return Ok(output::line(&o.to_string())?);
    }
    let rate = if matches!(name, "delete") { String::new() } else { format!("{mb:9.1} MB/s") };
    Ok(output::line(&format!("{name:7} {ops:9.1} /s {rate:14}  p50 {:9.2} ms  p99 {:9.2} ms", at(50), at(99)))?)
}
