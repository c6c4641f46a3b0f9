//! Batches among power cuts of all machines: each is there with all its keys or with none, acknowledged ones are there, and what is
//! sent again under its `Idempotency-Key` is not done twice.

use crate::world::{Random, World};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::settled;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Answer, Cluster, Request};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CUTS: u64 = 6;
const WRITERS: u64 = 4;
/// Keys that a writer's batches are about.
const KEYS: usize = 4;
/// In the index, and in a file.
const SIZES: [usize; 2] = [100, 70_000];

/// A value by what makes it: length and seed; none: the key does not exist.
type State = [Option<(usize, u64)>; KEYS];

/// A batch, and what it leads to.
#[derive(Clone)]
struct Batch {
    request: Request,
    next: State,
}

/// A writer: what its keys hold, and the batch whose outcome is not known, if any.
struct Writer {
    number: u64,
    random: Random,
    batches: u64,
    state: State,
    doubt: Option<Batch>,
    /// The last one that was acknowledged, and how.
    last: Option<(Batch, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    in_doubt: u64,
    of_these_done: u64,
}

impl Writer {
    fn new(number: u64, seed: u64) -> Self {
        let random = Random::new(seed ^ (number + 1) << 32);
        Self { number, random, batches: 0, state: [None; KEYS], doubt: None, last: None }
    }

    fn key(&self, i: usize) -> String {
        format!("batches/{}/{i}", self.number)
    }

    /// Writes batches until one has no good answer, which no server may cause before the power goes.
    fn work(&mut self, master: &str, cutting: &AtomicBool) -> u64 {
        for acknowledged in 0.. {
            let batch = self.next_batch();
            match batch.request.try_send(master) {
                Ok(answer) if answer.status == 200 => {
                    self.state = batch.next;
                    self.last = Some((batch, answer.body));
                }
                other => {
                    assert!(cutting.load(Ordering::SeqCst), "with all servers up: {other:?}");
                    self.doubt = Some(batch);
                    return acknowledged;
                }
            }
        }
        unreachable!("the power is cut")
    }

    fn next_batch(&mut self) -> Batch {
        self.batches += 1;
        let (mut next, mut operations) = (self.state, Vec::new());
        let always = usize::try_from(self.random.below(KEYS as u64)).unwrap();
        for (i, slot) in next.iter_mut().enumerate() {
            let (seed, before) = ((self.number << 32 | self.batches) << 8 | i as u64, *slot);
            match self.random.below(6) {
                n @ 0..4 => *slot = Some((SIZES[usize::from(n == 3)], seed)),
                4 => *slot = None,
                _ if i == always => *slot = Some((SIZES[0], seed)),
                _ => continue,
            }
            operations.push(match *slot {
                // A precondition that holds: it is judged at the commit.
                Some(new) if before.is_none() => json!({"create": self.key(i), "base64": BASE64_STANDARD.encode(bytes(new))}),
                Some(new) => json!({"put": self.key(i), "base64": BASE64_STANDARD.encode(bytes(new)), "if_match": "*"}),
                None => json!({ "delete": self.key(i) }),
            });
        }
        let name = format!("{}.{}", self.number, self.batches);
        let request = Request::post("/?batch", json!({ "operations": operations }).to_string()).header("Idempotency-Key", &name);
        Batch { request, next }
    }

    /// Everything is up again.
    fn check(&mut self, cluster: &Cluster, tally: &mut Tally) {
        let (found, versions) = self.found(cluster);
        let done = self.doubt.as_ref().is_some_and(|doubt| found == doubt.next);
        assert!(done || found == self.state, "writer {}: {found:?} is neither {:?} nor {:?}", self.number, self.state, self.next());
        if let Some((last, answer)) = &self.last {
            assert_same(&cluster.ask(&last.request).expect(200).body, answer, "what was acknowledged is told again");
            assert_eq!(self.found(cluster), (found, versions.clone()), "it was done twice");
        }
        self.state = found;
        let Some(doubt) = self.doubt.take() else { return };
        tally.in_doubt += 1;
        tally.of_these_done += u64::from(done);
        let answer = cluster.ask(&doubt.request).expect(200);
        self.state = doubt.next;
        let (now, versions_now) = self.found(cluster);
        assert_eq!(now, self.state);
        assert!(!done || versions_now == versions, "what had been done was done again");
        self.check_told(&answer, &versions_now);
        self.last = Some((doubt, answer.body));
    }

    fn next(&self) -> Option<State> {
        self.doubt.as_ref().map(|d| d.next)
    }

    /// The answer names the versions that are there.
    fn check_told(&self, answer: &Answer, versions: &[Option<String>; KEYS]) {
        for result in answer.json()["results"].as_array().unwrap() {
            let i = (0..KEYS).find(|i| result["key"] == self.key(*i)).expect("a key of the batch");
            if result["etag"].is_string() {
                assert_eq!(versions[i].as_deref(), result["version"].as_str(), "{answer}");
            }
        }
    }

    /// What the keys hold, and which versions; one after the other, and all at once.
    fn found(&self, cluster: &Cluster) -> (State, [Option<String>; KEYS]) {
        let (mut found, mut versions) = ([None; KEYS], [const { None }; KEYS]);
        let known: Vec<State> = std::iter::once(self.state).chain(self.next()).collect();
        for i in 0..KEYS {
            let answer = cluster.get(&format!("/{}", self.key(i)));
            if answer.status == 404 {
                continue;
            }
            let of = known.iter().find(|state| state[i].is_some_and(|s| bytes(s) == answer.body));
            let of = of.unwrap_or_else(|| panic!("{}: {} bytes that nobody left there", self.key(i), answer.body.len()));
            (found[i], versions[i]) = (of[i], answer.header("kvdb-version").map(String::from));
            answer.expect(200);
        }
        let keys: String = (0..KEYS).map(|i| format!("&key={}", self.key(i))).collect();
        let page = cluster.ask(&Request::get(&format!("/?get{keys}"))).expect(200).json();
        let at_once = |i: usize| page["values"].as_array().unwrap().iter().find(|v| v["key"] == self.key(i));
        for (i, version) in versions.iter().enumerate() {
            assert_eq!(at_once(i).map(|v| &v["version"]), version.clone().map(Value::from).as_ref(), "{}", self.key(i));
        }
        (found, versions)
    }

    /// Long after: both volumes have all of it.
    fn check_copies(&self, cluster: &Cluster) {
        for (i, expected) in self.state.iter().enumerate() {
            let target = format!("/{}", self.key(i));
            let Some(expected) = expected else {
                cluster.get(&target).expect(404);
                continue;
            };
            let copies = cluster.copies(&target);
            assert_eq!(copies.len(), cluster.volume_count());
            copies.into_iter().for_each(|copy| assert_same(&copy.expect(200).body, &bytes(*expected), &target));
        }
    }
}

fn bytes((len, seed): (usize, u64)) -> Vec<u8> {
    value(len, seed)
}

#[test]
fn a_batch_is_there_with_all_its_keys_or_none_whenever_the_power_is_cut_and_is_done_once() {
    let seed = std::env::var("KVDB_POWER_SEED").map_or(u64::from(std::process::id()), |t| t.parse().expect("a number"));
    let cuts = std::env::var("KVDB_POWER_BATCH_CUTS").map_or(CUTS, |t| t.parse().expect("a number"));
    println!("KVDB_POWER_SEED={seed} KVDB_POWER_BATCH_CUTS={cuts}");
    let Some(mut world) = World::new() else { return };
    let (mut random, mut tally) = (Random::new(seed), Tally::default());
    let mut writers: Vec<Writer> = (0..WRITERS).map(|n| Writer::new(n, seed)).collect();
    for _ in 0..cuts {
        let (cutting, master) = (AtomicBool::new(false), world.cluster.master_addr());
        std::thread::scope(|scope| {
            let running: Vec<_> = writers.iter_mut().map(|w| scope.spawn(|| w.work(&master, &cutting))).collect();
            std::thread::sleep(Duration::from_millis(50 + random.below(400)));
            cutting.store(true, Ordering::SeqCst);
            world.cut(&mut random);
            tally.acknowledged += running.into_iter().map(|r| r.join().unwrap()).sum::<u64>();
        });
        world.restart();
        writers.iter_mut().for_each(|w| w.check(&world.cluster, &mut tally));
    }
    let settled = settled::until_settled(&world.cluster);
    writers.iter().for_each(|w| w.check_copies(&world.cluster));
    println!("{cuts} power cuts, settled {settled:?} after the last: {tally:?}");
    assert!(tally.acknowledged >= cuts && tally.in_doubt >= cuts, "hardly anything was done: {tally:?}");
}
