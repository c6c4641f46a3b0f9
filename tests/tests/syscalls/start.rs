//! A server that is killed at a call of its start, with something to make good, starts the next time.

use crate::strace::{Strace, Tracing};
use crate::{rounds, seed, shuffle};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request, eventually};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Kills where no number is given.
const ROUNDS: usize = 10;
/// Of some calls there are many, all alike.
const MOST_OF_A_KIND: u64 = 60;
const SMALL: usize = 2_000;
const LARGE: usize = 100_000;

struct World {
    cluster: Cluster,
    scratch: tempfile::TempDir,
    puts: u64,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
        Self { cluster, scratch: tempfile::tempdir().unwrap(), puts: 0 }
    }

    /// Leaves a stopped server with what a crash may leave: a value that was replaced and whose file is back, a temporary file.
    fn prepare(&mut self, victim: usize) {
        self.puts += 1;
        self.cluster.put("/small", &value(SMALL, self.puts));
        self.cluster.put("/large", &value(LARGE, 2 * self.puts));
        // Alone: what an earlier round replaced is gone.
        let file = eventually("one file is left", || <[PathBuf; 1]>::try_from(self.cluster.blob_files(0)).ok());
        let replaced = file.map(|f| (f, self.scratch.path().join("kept")));
        for (file, kept) in &replaced {
            std::fs::copy(file, kept).unwrap();
        }
        self.cluster.put("/large", &value(LARGE, 2 * self.puts + 1));
        eventually("the old file is gone", || replaced.iter().all(|(file, _)| !file.exists()).then_some(()));
        if victim == VOLUME {
            self.cluster.kill_volume(0);
            for (file, kept) in &replaced {
                std::fs::copy(kept, file).unwrap();
            }
            std::fs::write(self.cluster.volume_dir(0).join("tmp/left-over"), b"half a value").unwrap();
        } else {
            self.cluster.kill_master();
        }
    }

    /// Starts the victim under strace, to its end.
    fn start_traced(&mut self, victim: usize, tracing: Tracing<'_>) -> Strace {
        let scratch = self.scratch.path().to_path_buf();
        let server = if victim == VOLUME { self.cluster.volume(0) } else { self.cluster.master() };
        Strace::run_until_started(&server.command(), tracing, &scratch)
    }

    fn start_and_check(&mut self, victim: usize, case: &str) {
        println!("{case}");
        if victim == VOLUME {
            self.cluster.start_volume(0)
        } else {
            self.cluster.start_master()
        }
        self.cluster.wait_all_up();
        let expected = [("/small", value(SMALL, self.puts)), ("/large", value(LARGE, 2 * self.puts + 1))];
        for (target, bytes) in expected {
            assert_same(&self.cluster.value(target), &bytes, target);
            self.cluster.copies(target).into_iter().for_each(|copy| assert_same(&copy.expect(200).body, &bytes, target));
        }
        let set_aside = |dir: &Path| dir.join("index.damaged-1").exists();
        assert!(!set_aside(&self.cluster.volume_dir(0)), "the index was taken for damaged");
    }
}

const MASTER: usize = 0;
const VOLUME: usize = 1;

#[test]
fn a_server_killed_at_any_system_call_of_its_start_starts_the_next_time() {
    let (seed, rounds) = (seed(), rounds(ROUNDS));
    println!("KVDB_SYSCALL_SEED={seed} KVDB_SYSCALL_ROUNDS={rounds:?}");
    if let Err(why) = crate::strace::usable() {
        return eprintln!("\n*** SKIPPED: nothing was killed at a system call, as this needs strace and the right to trace: {why}\n");
    }
    let (since, mut world, mut cases) = (Instant::now(), World::new(), Vec::new());
    for victim in [MASTER, VOLUME] {
        world.prepare(victim);
        let counts = world.start_traced(victim, Tracing::Count).counts();
        world.start_and_check(victim, "counting");
        cases.extend(counts.into_iter().flat_map(|((_, call), n)| (1..=n.min(MOST_OF_A_KIND)).map(move |n| (victim, call.clone(), n))));
    }
    let all = cases.len();
    shuffle(&mut cases, seed);
    cases.truncate(rounds.unwrap_or(usize::MAX));
    let mut killed = 0;
    for (victim, call, n) in &cases {
        world.prepare(*victim);
        let strace = world.start_traced(*victim, Tracing::Kill { threads: &crate::case::Threads::All, call, n: *n });
        killed += usize::from(!strace.reached_its_end());
        drop(strace);
        world.start_and_check(*victim, &format!("victim {victim} {call} {n}"));
    }
    let settled = until_settled(&world.cluster);
    assert_eq!(world.cluster.ask(&Request::get("/?list")).expect(200).json()["keys"].as_array().unwrap().len(), 2);
    println!("{all} calls found, {} tried, {killed} killed, in {:?}, settled {settled:?} after the last", cases.len(), since.elapsed());
    assert!(killed * 2 > cases.len(), "hardly anything was killed");
}
