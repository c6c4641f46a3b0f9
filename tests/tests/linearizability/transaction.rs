//! What a batch does, done by a transaction: its values go to their volumes as plain writes do, and one commit makes them visible.

use crate::batch::{Outcome, PAUSE, Part, blamed};
use crate::client::Client;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::{Answer as Http, PATIENCE, Request};
use serde_json::Value as Json;
use std::time::Instant;

/// Abandoned ones are over before the run's end is looked at.
const OPEN_FOR: &str = "20s";

impl Client {
    pub fn send_transaction(&mut self, parts: &[Part], master: &str) -> Outcome {
        let begun = Request::post(&format!("/?txn&ttl={OPEN_FOR}"), "").try_send(master).ok().filter(|a| a.status == 201);
        let Some(txn) = begun.map(|a| a.json()["txn"].as_str().expect("it has an id").to_string()) else { return Outcome::Failed(None) };
        let abort = Request::post(&format!("/?txn={txn}&abort"), "");
        for part in parts {
            if staged(&part.operation, &txn, master).is_none() {
                // Without a commit it is never seen, whether or not this arrives.
                drop(abort.try_send(master));
                return Outcome::Failed(None);
            }
        }
        let commit = Request::post(&format!("/?txn={txn}&commit"), "");
        let (deadline, mut lost) = (Instant::now() + PATIENCE, false);
        while Instant::now() < deadline {
            match commit.try_send(master).ok() {
                Some(answer) if answer.status == 200 => return self.committed(parts, &commit, &answer, master),
                // It ended before it was committed.
                Some(answer) if answer.status == 404 => return Outcome::Failed(None),
                Some(answer) if answer.status == 412 => match abort.try_send(master).ok() {
                    Some(aborted) if matches!(aborted.status, 200 | 404) => return Outcome::Refused(blamed(&answer)),
                    // An earlier try was done after all, or nobody knows yet.
                    _ => lost = true,
                },
                Some(answer) if answer.status != 504 && !lost => {
                    drop(abort.try_send(master));
                    return Outcome::Failed(Some(answer));
                }
                _ => lost = true,
            }
            std::thread::sleep(PAUSE);
        }
        Outcome::Unknown
    }

    /// Now and then it is asked for once more, and must be answered alike. The results are in the order of the parts.
    fn committed(&mut self, parts: &[Part], commit: &Request, answer: &Http, master: &str) -> Outcome {
        if self.random.below(4) == 0
            && let Ok(again) = commit.try_send(master)
        {
            assert!(again.status >= 500 || again.body == answer.body, "it was {answer}\nand then {again}");
            self.tally.repeated += u64::from(again.status == 200);
        }
        self.tally.transactions += 1;
        let results = answer.json()["results"].as_array().expect("an answer has results").clone();
        let of = |part: &Part| results.iter().find(|r| r["key"] == key(&part.operation)).expect("each key has a result").clone();
        Outcome::Done(parts.iter().map(of).collect())
    }
}

fn key(operation: &Json) -> &str {
    ["put", "create", "delete"].iter().find_map(|way| operation[*way].as_str()).expect("an operation has a key")
}

/// Puts a part into the transaction; none: it was refused, or nobody knows.
fn staged(operation: &Json, txn: &str, master: &str) -> Option<()> {
    let method = if operation["delete"].is_string() {
        "DELETE"
    } else if operation["create"].is_string() {
        "POST"
    } else {
        "PUT"
    };
    let mut request = Request::new(method, &format!("/{}?txn={txn}", key(operation)));
    if let Some(value) = operation["base64"].as_str() {
        request = request.body(BASE64_STANDARD.decode(value).expect("it was encoded here"));
    }
    if let Some(tag) = operation["if_match"].as_str() {
        request = request.header("If-Match", tag);
    }
    request.try_follow(master).ok().filter(|a| a.status == 202).map(drop)
}
