//! A client: chooses operations by a seed and notes what it asked and was told.

use crate::content::{Random, bytes, write_of};
use crate::tally::Tally;
use crate::write::{self, Outcome};
use kvdb_tests::linear::{Answer, Call, Condition, History, Value};
use kvdb_tests::{Answer as Http, Request};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pause after a failure: servers are down, and there is no need to spin.
const PAUSE: Duration = Duration::from_millis(5);
const PREFIX: &str = "/linear/key-";

pub fn target(key: usize) -> String {
    format!("{PREFIX}{key}")
}

/// What all clients have in common.
pub struct Shared {
    /// By key.
    pub histories: Vec<History>,
    /// Of the keys that only batches write, all of them at once: together they are one register.
    pub group: History,
    /// Which write a version is of, where that is known: of a batch's only from its answer.
    versions: Mutex<HashMap<String, Value>>,
    /// Which write the bytes are of that have this tag, without its quotes.
    tags: Mutex<HashMap<String, Value>>,
}

impl Shared {
    pub fn new(keys: usize) -> Self {
        let start = Instant::now();
        let history = || History::new(start);
        Self { histories: (0..keys).map(|_| history()).collect(), group: history(), versions: Mutex::default(), tags: Mutex::default() }
    }

    pub fn of_version(&self, version: &str) -> Option<Value> {
        self.versions.lock().unwrap().get(version).copied()
    }

    pub fn of_tag(&self, tag: &str) -> Value {
        let tag = tag.trim_matches('"');
        *self.tags.lock().unwrap().get(tag).unwrap_or_else(|| panic!("bytes with the tag {tag} were never sent"))
    }

    /// Before the bytes are on their way.
    pub fn will_send(&self, bytes: &[u8], value: Value) {
        self.tags.lock().unwrap().insert(kvdb_tests::values::etag(bytes).trim_matches('"').into(), value);
    }

    pub fn is_version(&self, version: &str, value: Value) {
        self.versions.lock().unwrap().insert(version.into(), value);
    }
}

pub struct Client {
    pub number: u32,
    pub random: Random,
    pub last_write: u64,
    /// Entity tags of what was last seen of each key.
    pub seen: HashMap<usize, (Value, String)>,
    pub tally: Tally,
}

impl Client {
    pub fn new(number: u32, seed: u64) -> Self {
        let random = Random::new(seed ^ (u64::from(number + 1) << 32));
        Self { number, random, last_write: u64::from(number + 1) << 40, seen: HashMap::new(), tally: Tally::default() }
    }

    pub fn work(&mut self, master: &str, shared: &Shared, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let key = usize::try_from(self.random.below(shared.histories.len() as u64)).unwrap();
            let done = match self.random.below(100) {
                0..26 => self.get(key, master, shared),
                26..34 => self.head(key, master, shared),
                34..38 => self.list(master, shared),
                38..46 => self.read_group(master, shared),
                46..55 => self.write_group(master, shared),
                55..60 => self.write_two(master, shared),
                60..90 => self.put(key, master, shared),
                _ => self.delete(key, master, shared),
            };
            if !done {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// False where there was no answer that counts; so do the others.
    pub fn get(&mut self, key: usize, master: &str, shared: &Shared) -> bool {
        let from = shared.histories[key].now();
        let Some(answer) = self.read("GET", &target(key), master) else { return false };
        let found = (answer.status == 200).then(|| {
            let of = write_of(&answer.body, key);
            let value = of.unwrap_or_else(|| panic!("key {key}: {} bytes that nobody sent: {answer}", answer.body.len()));
            let version = answer.header("kvdb-version").expect("a value has a version");
            assert!(shared.of_version(version).is_none_or(|v| v == value), "key {key}: the value of another version: {answer}");
            self.seen.insert(key, (value, answer.header("etag").expect("a value has a tag").into()));
            value
        });
        shared.histories[key].note(self.number, from, Call::Read, Answer::Found(found));
        true
    }

    fn head(&mut self, key: usize, master: &str, shared: &Shared) -> bool {
        let from = shared.histories[key].now();
        let Some(answer) = self.read("HEAD", &target(key), master) else { return false };
        let found = (answer.status == 200).then(|| {
            let tag = answer.header("etag").expect("a value has a tag");
            let value = shared.of_tag(tag);
            self.seen.insert(key, (value, tag.into()));
            value
        });
        shared.histories[key].note(self.number, from, Call::Read, Answer::Found(found));
        true
    }

    /// A list is a read of each key.
    fn list(&mut self, master: &str, shared: &Shared) -> bool {
        let from = shared.histories[0].now();
        let Some(answer) = self.read("GET", "/linear/?list&detail", master) else { return false };
        let json = answer.json();
        assert_eq!(json["next"], "", "all keys are on one page");
        let keys = json["keys"].as_array().expect("a list has keys");
        for (key, history) in shared.histories.iter().enumerate() {
            let here = keys.iter().find(|k| k["key"] == target(key)[1..]);
            let found = here.map(|k| shared.of_tag(k["etag"].as_str().expect("detail has tags")));
            history.note(self.number, from, Call::Read, Answer::Found(found));
        }
        self.note_group(from, keys, shared);
        true
    }

    pub fn read(&mut self, method: &str, target: &str, master: &str) -> Option<Http> {
        let answer = Request::new(method, target).try_follow(master).ok();
        match answer.filter(|a| matches!(a.status, 200 | 404)) {
            Some(answer) => {
                self.tally.reads += 1;
                Some(answer)
            }
            None => {
                self.tally.failed_reads += 1;
                None
            }
        }
    }

    fn put(&mut self, key: usize, master: &str, shared: &Shared) -> bool {
        self.last_write += 1;
        let (value, len) = (self.last_write, self.random.size());
        let (method, condition) = match self.random.below(10) {
            0..5 => ("PUT", Condition::Always),
            5 | 6 => ("POST", Condition::Absent),
            7 => ("PUT", Condition::Absent),
            _ => ("PUT", self.seen.get(&key).map_or(Condition::Always, |(v, _)| Condition::Is(*v))),
        };
        let mut request = Request::new(method, &target(key));
        match condition {
            Condition::Absent if method == "PUT" => request = request.header("If-None-Match", "*"),
            Condition::Is(_) => request = request.header("If-Match", &self.seen[&key].1),
            _ => {}
        }
        let bytes = bytes(key, value, len);
        shared.will_send(&bytes, value);
        let from = shared.histories[key].now();
        let outcome = write::send(&request, Some(&bytes), master, &target(key), |version| shared.is_version(version, value));
        let told = match &outcome {
            Outcome::Done { created, version, etag, .. } => {
                assert_eq!(shared.of_version(version), Some(value), "key {key}: the answer names another write");
                if let Some(etag) = etag {
                    assert_eq!(*etag, kvdb_tests::values::etag(&bytes), "key {key}: the answer has the tag of other bytes");
                    self.seen.insert(key, (value, etag.clone()));
                }
                Some(Answer::Written(*created))
            }
            Outcome::Refused { code, .. } if code == "exists" || code == "precondition_failed" => Some(Answer::Refused),
            Outcome::Unknown(_) => Some(Answer::Unknown),
            Outcome::Refused { .. } | Outcome::NotReached => None,
        };
        self.note(key, from, Call::Write(value, condition), told, &outcome, shared)
    }

    fn delete(&mut self, key: usize, master: &str, shared: &Shared) -> bool {
        let mut request = Request::delete(&target(key));
        let mut condition = Condition::Always;
        if let Some((value, etag)) = self.seen.get(&key).filter(|_| self.random.below(3) == 0) {
            request = request.header("If-Match", etag);
            condition = Condition::Is(*value);
        }
        let from = shared.histories[key].now();
        let outcome = write::send(&request, None, master, &target(key), |_| {});
        let told = match &outcome {
            Outcome::Done { version, .. } => Some(Answer::Deleted(shared.of_version(version))),
            Outcome::Refused { code, .. } if code == "not_found" => Some(Answer::Nothing),
            Outcome::Refused { code, .. } if code == "precondition_failed" => Some(Answer::Refused),
            Outcome::Unknown(_) => Some(Answer::Unknown),
            Outcome::Refused { .. } | Outcome::NotReached => None,
        };
        self.note(key, from, Call::Delete(condition), told, &outcome, shared)
    }

    fn note(&mut self, key: usize, from: u64, call: Call, told: Option<Answer>, outcome: &Outcome, shared: &Shared) -> bool {
        let tally = &mut self.tally;
        match outcome {
            Outcome::Done { asked, .. } => {
                tally.acknowledged += 1;
                tally.found_committed += u64::from(*asked);
            }
            Outcome::Refused { answer, asked, .. } => {
                tally.found_refused += u64::from(*asked);
                match (told, answer) {
                    (Some(_), _) => tally.refused += 1,
                    (None, Some(answer)) => tally.problem(answer),
                    (None, None) => {}
                }
            }
            Outcome::NotReached => tally.unreached += 1,
            Outcome::Unknown(why) => *tally.unknown.entry(why).or_default() += 1,
        }
        if let Some(answer) = told {
            shared.histories[key].note(self.number, from, call, answer);
        }
        told.is_some()
    }
}
