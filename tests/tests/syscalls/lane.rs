//! One cluster, in which one case after the other is tried.

use crate::case::{Case, Threads, Victim};
use crate::operation::{Operation, State, bytes};
use crate::send::Outcome;
use crate::strace::{Strace, Tracing};
use kvdb_tests::process::Server;
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Answer, Cluster, Request, Url};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const VOLUMES: usize = 2;
/// After its answer an operation may go on for so long: reclaim, the commit's mark in the index.
const AFTERMATH: Duration = Duration::from_millis(800);
/// A ticket's whole life, and more: what is settled and then stays so for this long, stays.
const LONG_AFTER: Duration = Duration::from_secs(7);
/// Calls of a kind, of one thread, that are tried: of some there are very many, all alike.
const MOST_OF_A_KIND: u64 = 12;

#[derive(Debug, Default)]
pub struct Tally {
    pub killed: u64,
    /// The operation had no such call this time.
    not_reached: u64,
    acknowledged: u64,
    refused: u64,
    in_doubt: u64,
    of_these_done: u64,
    seconds_to_settle: Vec<f64>,
}

/// A key, and what it may hold.
struct Slot {
    target: String,
    case: String,
    may_be: Vec<State>,
}

pub struct Lane {
    cluster: Cluster,
    scratch: TempDir,
    number: u64,
    last_key: u64,
    slots: Vec<Slot>,
    tally: Tally,
}

impl Lane {
    pub fn new(number: usize) -> Self {
        let cluster = Cluster::builder(VOLUMES).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
        let scratch = tempfile::tempdir().unwrap();
        Self { cluster, scratch, number: number as u64, last_key: 0, slots: Vec::new(), tally: Tally::default() }
    }

    /// A key with what the operation needs before it.
    fn prepare(&mut self, operation: Operation, case: &str) -> (u64, String) {
        self.last_key += 1;
        let (seed, target) = ((self.number << 32) + self.last_key, format!("/key-{}", self.last_key));
        let before = operation.before(seed);
        if let Some(value) = bytes(before) {
            self.cluster.put(&target, &value);
        }
        self.slots.push(Slot { target: target.clone(), case: case.into(), may_be: vec![before] });
        (seed, target)
    }

    /// Which volume the master will choose is known only when it has: so the victim's role is found first.
    fn begin(&mut self, victim: Victim, operation: Operation, target: &str) -> (usize, Option<Url>) {
        if victim == Victim::Master {
            return (VOLUMES, None);
        }
        let request = Request::new(operation.method(), target);
        let request =
            if operation.method() == "PUT" { request.body("").header("Kvdb-Content-Length", &operation.len.to_string()) } else { request };
        let url = Url::of(&self.cluster.ask(&request).expect(307));
        let first = (0..VOLUMES).find(|i| self.cluster.volume_addr(*i) == url.address).unwrap();
        (if victim == Victim::First { first } else { VOLUMES - 1 - first }, Some(url))
    }

    fn server(&mut self, index: usize) -> &mut Server {
        if index == VOLUMES { self.cluster.master() } else { self.cluster.volume(index) }
    }

    /// All cases of an operation: its calls, counted.
    pub fn count(&mut self, victim: Victim, operation: Operation) -> Vec<Case> {
        let (seed, target) = self.prepare(operation, "counting");
        let (index, url) = self.begin(victim, operation, &target);
        let pid = self.server(index).pid();
        let strace = Strace::attach_with(pid, Tracing::Count, self.scratch.path());
        let outcome = send(operation, &target, seed, &self.cluster.master_addr(), url);
        assert!(matches!(outcome, Outcome::Acknowledged), "{operation:?} {target}");
        std::thread::sleep(AFTERMATH);
        self.slots.last_mut().unwrap().may_be = vec![operation.after(seed)];
        let counts = strace.counts();
        let of = |(threads, call): (Threads, String), n: u64| {
            (1..=n.min(MOST_OF_A_KIND)).map(move |n| Case { victim, operation, threads: threads.clone(), call: call.clone(), n })
        };
        counts.into_iter().flat_map(|(what, n)| of(what, n)).collect()
    }

    /// Kills there, starts again, and looks.
    pub fn kill(&mut self, case: Case) {
        let Case { victim, operation, threads, call, n } = &case;
        let (seed, target) = self.prepare(*operation, &format!("{case:?}"));
        let (index, url) = self.begin(*victim, *operation, &target);
        let pid = self.server(index).pid();
        let strace = Strace::attach_with(pid, Tracing::Kill { threads, call, n: *n }, self.scratch.path());
        let master = self.cluster.master_addr();
        let (outcome, killed) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send(*operation, &target, seed, &master, url));
            let mut deadline = None;
            let killed = loop {
                if self.server(index).exit_status().is_some() {
                    break true;
                }
                if sending.is_finished() && Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + AFTERMATH) {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            drop(strace);
            // It may have died in the last moment.
            let killed = killed || self.server(index).exit_status().is_some();
            if killed {
                self.server(index).kill();
                self.server(index).start();
            }
            (sending.join().unwrap(), killed)
        });
        self.cluster.wait_all_up();
        self.tally.killed += u64::from(killed);
        self.tally.not_reached += u64::from(!killed);
        self.note(&outcome, operation.after(seed));
    }

    fn note(&mut self, outcome: &Outcome, after: State) {
        let slot = self.slots.last_mut().unwrap();
        match outcome {
            Outcome::Acknowledged => {
                slot.may_be = vec![after];
                self.tally.acknowledged += 1;
            }
            Outcome::Refused(Some(answer)) if answer.status < 500 && answer.status != 409 => panic!("{}: {answer}", slot.case),
            Outcome::Refused(_) => self.tally.refused += 1,
            Outcome::Unknown | Outcome::Cut => {
                slot.may_be.push(after);
                self.tally.in_doubt += 1;
            }
        }
        slot.check(&self.cluster);
        if matches!(outcome, Outcome::Acknowledged) {
            slot.check_copies(&self.cluster);
        }
    }

    /// When all is settled, and long after.
    pub fn end(&mut self, tally: &mut Tally) {
        let settled = until_settled(&self.cluster);
        for slot in &mut self.slots {
            let found = slot.check(&self.cluster);
            self.tally.of_these_done += u64::from(slot.may_be.len() > 1 && found == slot.may_be[1]);
            slot.may_be = vec![found];
            slot.check_copies(&self.cluster);
        }
        std::thread::sleep(LONG_AFTER);
        for slot in &self.slots {
            slot.check(&self.cluster);
        }
        for volume in self.cluster.status()["volumes"].as_array().unwrap() {
            assert_eq!(volume["status"]["quarantined"], 0, "nothing was damaged: {volume}");
        }
        tally.killed += self.tally.killed;
        tally.not_reached += self.tally.not_reached;
        tally.acknowledged += self.tally.acknowledged;
        tally.refused += self.tally.refused;
        tally.in_doubt += self.tally.in_doubt;
        tally.of_these_done += self.tally.of_these_done;
        tally.seconds_to_settle.push(settled.as_secs_f64());
    }
}

/// To the volume that the master named, or to the master first.
fn send(operation: Operation, target: &str, seed: u64, master: &str, url: Option<Url>) -> Outcome {
    let Some(url) = url else { return operation.send(target, seed, master) };
    let request = Request::new(operation.method(), &url.target);
    let request = bytes(operation.after(seed)).map_or(request.clone(), |v| request.body(v));
    match request.try_send(&url.address) {
        Ok(answer) => meaning(answer, operation, seed, master),
        Err(_) => Outcome::Cut,
    }
}

fn meaning(answer: Answer, operation: Operation, seed: u64, master: &str) -> Outcome {
    match answer.status {
        200 | 201 => Outcome::Acknowledged,
        504 => Outcome::Unknown,
        307 => operation.send(&Url::of(&answer).target, seed, master),
        _ => Outcome::Refused(Some(answer)),
    }
}

impl Slot {
    /// It holds what it may, whole; says what that is.
    fn check(&self, cluster: &Cluster) -> State {
        let answer = cluster.get(&self.target);
        assert!([200, 404].contains(&answer.status), "{} {}: {answer}", self.target, self.case);
        let body = (answer.status == 200).then_some(answer.body);
        let found = self.may_be.iter().find(|s| bytes(**s) == body);
        *found.unwrap_or_else(|| {
            let len = body.map(|b| b.len());
            panic!("{} holds {len:?} bytes, where {:?} may be, after {}", self.target, self.may_be, self.case)
        })
    }

    /// Every volume has it.
    fn check_copies(&self, cluster: &Cluster) {
        let Some(expected) = bytes(self.may_be[0]) else { return };
        let copies = cluster.copies(&self.target);
        assert_eq!(copies.len(), VOLUMES);
        copies
            .into_iter()
            .for_each(|copy| assert!(copy.expect(200).body == expected, "{}: a copy differs after {}", self.target, self.case));
    }
}
