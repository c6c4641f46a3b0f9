//! Batches: over keys that only batches write, all of them at once, which together are one register; and over two of the keys
//! that everybody writes.
//!
//! Most name themselves by an `Idempotency-Key`: one whose answer was lost is sent again until there is an answer, and has then taken
//! effect once, or never.

use crate::client::{Client, Shared, target};
use crate::content::{bytes, write_of};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::linear::{Answer, Call, Condition, Value};
use kvdb_tests::{Answer as Http, Connection, PATIENCE, Request};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// Keys of the group.
const MEMBERS: usize = 3;
/// Their numbers in contents begin here.
const FIRST: usize = 100;
pub const PAUSE: Duration = Duration::from_millis(50);

fn member(i: usize) -> String {
    format!("linear/group-{i}")
}

/// What became of a batch.
pub enum Outcome {
    /// What the answer says of each key.
    Done(Vec<Json>),
    /// Nothing was changed: these keys' preconditions did not hold.
    Refused(Vec<String>),
    /// Nothing was changed, for another reason.
    Failed(Option<Http>),
    /// There was no answer, and the batch had no name to ask again by.
    Unknown,
}

/// One key's part.
pub struct Part {
    call: Call,
    pub operation: Json,
}

impl Client {
    /// Nothing is as of different moments: `/?get`, a list, or one of the keys, which stands for all.
    pub fn read_group(&mut self, master: &str, shared: &Shared) -> bool {
        let from = shared.group.now();
        if self.random.below(3) == 0 {
            let i = usize::try_from(self.random.below(MEMBERS as u64)).unwrap();
            let Some(answer) = self.read("GET", &format!("/{}", member(i)), master) else { return false };
            let found = (answer.status == 200).then(|| {
                write_of(&answer.body, FIRST + i).unwrap_or_else(|| panic!("member {i}: {} bytes that nobody sent", answer.body.len()))
            });
            shared.group.note(self.number, from, Call::Read, Answer::Found(found));
            return true;
        }
        let keys: String = (0..MEMBERS).map(|i| format!("&key={}", member(i))).collect();
        let Some(answer) = self.read("GET", &format!("/?get{keys}"), master) else { return false };
        self.note_group(from, answer.json()["values"].as_array().expect("an answer has values"), shared);
        true
    }

    /// Notes what was there of the group at one moment, among other keys: all of a batch, or nothing of it.
    pub fn note_group(&mut self, from: u64, keys: &[Json], shared: &Shared) {
        let tags: Vec<Option<&str>> = (0..MEMBERS)
            .map(|i| keys.iter().find(|k| k["key"] == member(i)).map(|k| k["etag"].as_str().expect("a key has a tag")))
            .collect();
        let values: Vec<Option<Value>> = tags.iter().map(|tag| tag.map(|t| shared.of_tag(t))).collect();
        assert!(values.iter().all(|v| *v == values[0]), "a part of a batch was seen: {values:?}");
        for (i, tag) in tags.iter().enumerate() {
            match (tag, values[i]) {
                (Some(tag), Some(value)) => drop(self.seen.insert(FIRST + i, (value, tag.to_string()))),
                _ => drop(self.seen.remove(&(FIRST + i))),
            }
        }
        shared.group.note(self.number, from, Call::Read, Answer::Found(values[0]));
    }

    pub fn write_group(&mut self, master: &str, shared: &Shared) -> bool {
        self.last_write += 1;
        let value = self.last_write;
        // All members were seen at one moment.
        let seen = self.seen.get(&FIRST).map(|(v, _)| *v);
        let (deletes, condition) = match self.random.below(10) {
            0..4 => (false, Condition::Always),
            4 | 5 => (false, Condition::Absent),
            6 | 7 => (false, seen.map_or(Condition::Always, Condition::Is)),
            8 => (true, Condition::Always),
            _ => (true, seen.map_or(Condition::Always, Condition::Is)),
        };
        let parts: Vec<Part> = (0..MEMBERS).map(|i| self.part(FIRST + i, &member(i), value, deletes, condition, shared)).collect();
        let call = parts[0].call;
        let from = shared.group.now();
        let outcome = self.send_all(&parts, value, master);
        let told = match &outcome {
            Outcome::Done(results) => {
                let statuses: Vec<u64> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
                assert!(statuses.iter().all(|s| *s == statuses[0]), "members of one batch met different things: {statuses:?}");
                Some(said(call, statuses[0]))
            }
            Outcome::Refused(keys) => {
                assert_eq!(keys.len(), MEMBERS, "a batch's condition holds of some of its keys: {keys:?}");
                Some(Answer::Refused)
            }
            Outcome::Unknown => Some(Answer::Unknown),
            Outcome::Failed(_) => None,
        };
        if let Some(told) = told {
            shared.group.note(self.number, from, call, told);
        }
        self.count(&outcome)
    }

    pub fn write_two(&mut self, master: &str, shared: &Shared) -> bool {
        self.last_write += 1;
        let (value, keys) = (self.last_write, shared.histories.len() as u64);
        let first = self.random.below(keys);
        let second = (first + 1 + self.random.below(keys - 1)) % keys;
        let both = [first, second].map(|k| usize::try_from(k).unwrap());
        let parts = both.map(|key| {
            let seen = self.seen.get(&key).map(|(v, _)| *v);
            let (deletes, condition) = match self.random.below(10) {
                0..6 => (false, Condition::Always),
                6 => (false, Condition::Absent),
                7 => (false, seen.map_or(Condition::Always, Condition::Is)),
                _ => (true, Condition::Always),
            };
            self.part(key, &target(key)[1..], value, deletes, condition, shared)
        });
        let from = shared.histories[first as usize].now();
        let outcome = self.send_all(&parts, value, master);
        for (i, (part, key)) in parts.iter().zip(both).enumerate() {
            let told = match &outcome {
                Outcome::Done(results) => {
                    let result = &results[i];
                    if let (Call::Write(value, _), Some(version)) = (part.call, result["version"].as_str()) {
                        shared.is_version(version, value);
                    }
                    said(part.call, result["status"].as_u64().unwrap())
                }
                Outcome::Refused(named) if named.iter().any(|k| *k == target(key)[1..]) => Answer::Refused,
                Outcome::Unknown => Answer::Unknown,
                Outcome::Refused(_) | Outcome::Failed(_) => continue,
            };
            shared.histories[key].note(self.number, from, part.call, told);
        }
        self.count(&outcome)
    }

    fn part(&mut self, key: usize, name: &str, value: Value, deletes: bool, condition: Condition, shared: &Shared) -> Part {
        let mut operation = if deletes {
            json!({ "delete": name })
        } else {
            let bytes = bytes(key, value, self.random.size());
            shared.will_send(&bytes, value);
            let way = if condition == Condition::Absent { "create" } else { "put" };
            json!({ way: name, "base64": BASE64_STANDARD.encode(&bytes) })
        };
        if let Condition::Is(_) = condition {
            operation["if_match"] = json!(self.seen[&key].1);
        }
        Part { call: if deletes { Call::Delete(condition) } else { Call::Write(value, condition) }, operation }
    }

    /// As a batch, or now and then as a transaction.
    fn send_all(&mut self, parts: &[Part], number: u64, master: &str) -> Outcome {
        if self.random.below(3) == 0 { self.send_transaction(parts, master) } else { self.send_batch(parts, number, master) }
    }

    fn send_batch(&mut self, parts: &[Part], number: u64, master: &str) -> Outcome {
        let document = json!({ "operations": parts.iter().map(|p| &p.operation).collect::<Vec<_>>() }).to_string();
        let named = self.random.below(16) != 0;
        let mut request = Request::post("/?batch", document);
        if named {
            request = request.header("Idempotency-Key", &number.to_string());
        }
        let (deadline, mut lost) = (Instant::now() + PATIENCE, false);
        while Instant::now() < deadline {
            let answer = match Connection::try_open(master) {
                Ok(mut connection) => request.send_on(&mut connection, master).ok(),
                Err(_) if lost => None,
                Err(_) => return Outcome::Failed(None),
            };
            match answer {
                Some(answer) if answer.status == 200 => return self.done(&request, answer, named, master),
                Some(answer) if answer.status == 412 => return Outcome::Refused(blamed(&answer)),
                Some(answer) if answer.status != 504 && !lost => return Outcome::Failed(Some(answer)),
                _ if !named => return Outcome::Unknown,
                _ => lost = true,
            }
            std::thread::sleep(PAUSE);
        }
        Outcome::Unknown
    }

    /// Now and then it is asked for once more: then it is told of again, and not done again, which its readers would see.
    fn done(&mut self, request: &Request, answer: Http, named: bool, master: &str) -> Outcome {
        if named
            && self.random.below(4) == 0
            && let Ok(again) = request.try_send(master)
        {
            assert!(again.status >= 500 || again.body == answer.body, "it was {answer}\nand then {again}");
            self.tally.repeated += u64::from(again.status == 200);
        }
        Outcome::Done(answer.json()["results"].as_array().expect("an answer has results").clone())
    }

    fn count(&mut self, outcome: &Outcome) -> bool {
        let tally = &mut self.tally;
        match outcome {
            Outcome::Done(_) => {
                tally.acknowledged += 1;
                tally.batches += 1;
            }
            Outcome::Refused(_) => tally.refused += 1,
            Outcome::Failed(Some(answer)) => tally.problem(answer),
            Outcome::Failed(None) => tally.unreached += 1,
            Outcome::Unknown => *tally.unknown.entry("a batch without a name").or_default() += 1,
        }
        matches!(outcome, Outcome::Done(_) | Outcome::Refused(_))
    }
}

/// The keys that a refusal names.
pub fn blamed(answer: &Http) -> Vec<String> {
    let keys = answer.json()["keys"].as_array().expect("a refusal names keys").clone();
    keys.iter().map(|k| k.as_str().unwrap().to_string()).collect()
}

/// What a result of a batch says of a call.
fn said(call: Call, status: u64) -> Answer {
    match (call, status) {
        (Call::Write(..), 201) => Answer::Written(Some(true)),
        (Call::Write(..), 200) => Answer::Written(Some(false)),
        (Call::Delete(_), 200) => Answer::Deleted(None),
        (Call::Delete(_), 404) => Answer::Nothing,
        _ => panic!("{call:?} was answered by {status}"),
    }
}
