//! What clients notice when a volume is killed under load.

use super::{builder, id, until_on};
use kvdb_client::{Client, Key, PutOptions};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const READERS: usize = 8;
const WRITERS: usize = 4;
const KEYS: u64 = 40;
const LEN: usize = 200_000;

#[derive(Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
    longest_ms: AtomicU64,
}

impl Tally {
    fn note(&self, done: bool, took: Duration) {
        let count = if done { &self.done } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.longest_ms.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
    }

    fn told(&self) -> (u64, u64, u64) {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (of(&self.done), of(&self.failed), of(&self.longest_ms))
    }
}

/// Kills each volume in turn while clients read and write; `KVDB_AVAILABILITY_SECONDS` of load for each (default 3).
/// The waits are printed, and decide nothing: the machine may be busy.
#[test]
fn while_any_one_of_three_volumes_is_killed_retrying_clients_read_and_write_on_and_repair_ends() {
    let seconds = std::env::var("KVDB_AVAILABILITY_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    for victim in 0..3 {
        let mut cluster = builder(3).start();
        let ids: Vec<String> = (0..3).map(|i| id(&cluster, i)).collect();
        for k in 0..KEYS {
            cluster.put(&format!("/read-{k}"), &value(LEN, k));
        }
        let (gets, puts, stop) = (Arc::new(Tally::default()), Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let load = {
            let (url, gets, puts, stop) = (cluster.url(), gets.clone(), puts.clone(), stop.clone());
            std::thread::spawn(move || run_load(&url, &gets, &puts, &stop))
        };
        std::thread::sleep(Duration::from_secs(1));
        cluster.kill_volume(victim);
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
        let rest: Vec<String> = ids.iter().enumerate().filter(|(i, _)| *i != victim).map(|(_, id)| id.clone()).collect();
        until_on(&cluster, &rest, 2);
        until_settled(&cluster);
        let ((got, get_failed, get_ms), (put, put_failed, put_ms)) = (gets.told(), puts.told());
        println!(
            "volume {victim} killed: {got} gets, {get_failed} failed, longest {get_ms} ms; {put} puts, {put_failed} failed, longest {put_ms} ms"
        );
        assert!(got > 0 && put > 0);
        assert!(get_failed * 1000 <= got + get_failed, "{get_failed} of {got} reads failed");
        assert_eq!(put_failed, 0, "writes through a retrying client succeed");
    }
}

fn run_load(url: &str, gets: &Arc<Tally>, puts: &Arc<Tally>, stop: &Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = Client::builder(url).retries(8).no_proxy().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..READERS as u64 {
            let (client, tally, stop) = (client.clone(), gets.clone(), stop.clone());
            tasks.spawn(async move {
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let k = (n * 7 + i) % KEYS;
                    let since = Instant::now();
                    let got = read(&client, &format!("read-{k}")).await;
                    tally.note(got.as_deref() == Ok(&value(LEN, k)), since.elapsed());
                    if let Ok(bytes) = got {
                        assert!(bytes == value(LEN, k), "a wrong byte in a complete answer");
                    }
                }
            });
        }
        for n in 0..WRITERS as u64 {
            let (client, tally, stop) = (client.clone(), puts.clone(), stop.clone());
            tasks.spawn(async move {
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let since = Instant::now();
                    let key = Key::new(format!("write-{n}-{}", i % 10)).unwrap();
                    let done = client.put(&key, value(LEN, i), PutOptions::default()).await;
                    tally.note(done.is_ok(), since.elapsed());
                    if let Err(e) = done {
                        println!("a put failed: {e}");
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
}

async fn read(client: &Client, key: &str) -> Result<Vec<u8>, String> {
    let reader = client.get(&Key::new(key).unwrap()).await.map_err(|e| e.to_string())?;
    reader.read_all(1 << 20).await.map(|b| b.to_vec()).map_err(|e| e.to_string())
}
