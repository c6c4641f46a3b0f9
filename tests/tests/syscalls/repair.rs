//! `kill -9` of a server at its Nth system call while a lost copy is made anew: of the master, of the volume that has the value, or
//! of the one that fetches it.

use crate::case::Threads;
use crate::strace::{self, Strace, Tracing};
use crate::{rounds, seed, shuffle};
use kvdb_tests::process::Server;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Kills where no number is given.
const ROUNDS: usize = 9;
const LEN: usize = (1 << 20) + 70_001;
/// The volume whose copy is lost.
const TARGET: usize = 1;
const MASTER: usize = 2;
/// A repair ends, or its server dies, within this; if neither, the call was not reached.
const LONGEST: Duration = Duration::from_secs(4);
/// Of the many calls of one kind of one thread.
const MOST_OF_A_KIND: u64 = 6;

/// Who is killed, and at which call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    victim: usize,
    threads: Threads,
    call: String,
    n: u64,
}

struct Site {
    cluster: Cluster,
    scratch: TempDir,
    keys: u64,
}

impl Site {
    fn server(&mut self, index: usize) -> &mut Server {
        if index == MASTER { self.cluster.master() } else { self.cluster.volume(index) }
    }

    /// Stores a value and removes the file of one copy; gives the key, and the target of a read of that copy.
    fn lose_a_copy(&mut self) -> (String, String) {
        self.keys += 1;
        let target = format!("/key-{}", self.keys);
        let version = self.cluster.put(&target, &value(LEN, self.keys)).header("kvdb-version").unwrap().to_string();
        let blob = self.cluster.blob_files(TARGET).into_iter().find(|f| f.ends_with(&version)).unwrap();
        std::fs::remove_file(blob).unwrap();
        let copy = self.cluster.read_url(&target).target;
        (target, copy)
    }

    /// A read finds that the copy is missing; the answer is the master's business.
    fn notice(&self, copy: &str) {
        let _died = Request::get(copy).try_send(&self.cluster.volume_addr(TARGET));
    }

    fn is_whole(&self, target: &str, seed: u64) -> bool {
        let Ok(answer) = Request::get(target).try_send(&self.cluster.master_addr()) else { return false };
        if answer.status != 302 {
            return false;
        }
        let copy = Request::get(&kvdb_tests::Url::of(&answer).target).try_send(&self.cluster.volume_addr(TARGET));
        copy.is_ok_and(|c| c.status == 200 && c.body == value(LEN, seed))
    }

    /// The calls of a whole repair.
    fn count(&mut self, victim: usize) -> Vec<Case> {
        let (target, copy) = self.lose_a_copy();
        let pid = self.server(victim).pid();
        let strace = Strace::attach_with(pid, Tracing::Count, self.scratch.path());
        self.notice(&copy);
        eventually("the copy is made anew", || self.is_whole(&target, self.keys).then_some(()));
        let counts = strace.counts();
        let of = |(threads, call): (Threads, String), n: u64| {
            (1..=n.min(MOST_OF_A_KIND)).map(move |n| Case { victim, threads: threads.clone(), call: call.clone(), n })
        };
        counts.into_iter().flat_map(|(what, n)| of(what, n)).collect()
    }

    /// Kills there, starts again, and waits until the copy is there. Whether something was killed.
    fn kill(&mut self, case: &Case) -> bool {
        let (target, copy) = self.lose_a_copy();
        let pid = self.server(case.victim).pid();
        let strace = Strace::attach_with(pid, Tracing::Kill { threads: &case.threads, call: &case.call, n: case.n }, self.scratch.path());
        self.notice(&copy);
        let give_up = Instant::now() + LONGEST;
        while self.server(case.victim).exit_status().is_none() && Instant::now() < give_up && !self.is_whole(&target, self.keys) {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(strace);
        let killed = self.server(case.victim).exit_status().is_some();
        if killed {
            self.server(case.victim).kill();
            self.server(case.victim).start();
        }
        self.cluster.wait_all_up();
        // The file may have been missed by nobody yet: a read that was cut found nothing.
        self.notice(&copy);
        eventually(&format!("the copy is there after {case:?}"), || self.is_whole(&target, self.keys).then_some(()));
        assert!(self.cluster.value(&target) == value(LEN, self.keys));
        killed
    }
}

#[test]
fn a_kill_at_any_system_call_of_a_repair_delays_it_and_nothing_else() {
    let (seed, rounds) = (seed(), rounds(ROUNDS));
    println!("KVDB_SYSCALL_SEED={seed} KVDB_SYSCALL_ROUNDS={rounds:?}");
    if let Err(why) = strace::usable() {
        return eprintln!("\n*** SKIPPED: nothing was killed at a system call, as this needs strace and the right to trace: {why}\n");
    }
    let cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    let mut site = Site { cluster, scratch: tempfile::tempdir().unwrap(), keys: 0 };
    let mut cases: Vec<Case> = [0, TARGET, MASTER].into_iter().flat_map(|v| site.count(v)).collect();
    cases.sort();
    let all = cases.len();
    shuffle(&mut cases, seed);
    cases.truncate(rounds.unwrap_or(usize::MAX));
    let killed = cases.iter().filter(|c| site.kill(c)).count();
    until_settled(&site.cluster);
    for key in 1..=site.keys {
        assert!(site.cluster.copies(&format!("/key-{key}")).iter().all(|c| c.status == 200 && c.body == value(LEN, key)), "key {key}");
    }
    println!("{all} calls of a repair, {} tried, {killed} killed", cases.len());
    assert!(killed > 0, "nothing was killed");
}
