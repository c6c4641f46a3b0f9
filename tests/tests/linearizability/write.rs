//! A write through the redirect, and what became of it where the answer was lost.

use kvdb_tests::{Answer, Connection, PATIENCE, Request, Url};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often a volume may send a write back to the master.
const MAX_SENT_BACK: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

pub enum Outcome {
    /// By the answer, or found out later.
    Done { created: Option<bool>, version: String, etag: Option<String>, asked: bool },
    /// Nothing was changed, and this is why. A condition that did not hold was looked at between call and answer.
    Refused { code: String, answer: Option<Answer>, asked: bool },
    /// Nothing was changed: no server was reached.
    NotReached,
    /// Nobody could say; and why not.
    Unknown(&'static str),
}

enum Failure {
    NotReached,
    Cut,
}

fn exchange(request: &Request, address: &str) -> Result<Answer, Failure> {
    let mut connection = Connection::try_open(address).map_err(|_| Failure::NotReached)?;
    request.send_on(&mut connection, address).map_err(|_| Failure::Cut)
}

/// Sends it. `ticket_for` is told the version that it makes, before the value is on its way.
pub fn send(request: &Request, value: Option<&[u8]>, master: &str, target: &str, mut ticket_for: impl FnMut(&str)) -> Outcome {
    let mut target = target.to_string();
    for _ in 0..MAX_SENT_BACK {
        let question = match value {
            Some(v) => request.clone().body("").header("Kvdb-Content-Length", &v.len().to_string()),
            None => request.clone(),
        };
        let url = match exchange(&question.at(&target), master) {
            Ok(answer) if answer.status == 307 => {
                ticket_for(answer.header("kvdb-version").expect("a redirect names the version"));
                Url::of(&answer)
            }
            Ok(answer) => return meaning(answer),
            // Without a ticket nothing is changed.
            Err(_) => return Outcome::NotReached,
        };
        let here = value.map_or(request.clone(), |v| request.clone().body(v)).at(&url.target);
        match exchange(&here, &url.address) {
            Ok(answer) if answer.status == 307 => target = Url::of(&answer).target,
            Ok(answer) if answer.status != 504 => return meaning(answer),
            Err(Failure::NotReached) => return Outcome::NotReached,
            _ => return ask(url.parameter("ticket").expect("it leads to a volume"), master),
        }
    }
    Outcome::NotReached
}

fn meaning(answer: Answer) -> Outcome {
    let header = |name| answer.header(name).map(String::from);
    match answer.status {
        200 | 201 => {
            let version = header("kvdb-version").expect("an answer to a write names the version");
            Outcome::Done { created: Some(answer.status == 201), version, etag: header("etag"), asked: false }
        }
        504 => Outcome::Unknown("the master does not know"),
        _ => {
            let code = answer.json()["code"].as_str().unwrap_or_default().into();
            Outcome::Refused { code, answer: Some(answer), asked: false }
        }
    }
}

/// Asks the master what became of it, until there is an answer.
fn ask(ticket: &str, master: &str) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match Request::post("/-/outcome", ticket).try_send(master) {
            Ok(answer) if answer.status == 200 => return told(&answer.json()),
            Ok(answer) if answer.status == 504 => return Outcome::Unknown("it is too long ago"),
            Ok(answer) => assert_eq!(answer.status, 503, "{answer}"),
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
    Outcome::Unknown("nobody answered")
}

fn told(json: &Value) -> Outcome {
    match json["outcome"].as_str() {
        Some("committed") => Outcome::Done {
            created: json["created"].as_bool(),
            version: json["version"].as_str().expect("it names the version").into(),
            etag: None,
            asked: true,
        },
        Some("refused") => {
            Outcome::Refused { code: json["problem"]["code"].as_str().expect("it says why").into(), answer: None, asked: true }
        }
        _ => panic!("neither committed nor refused: {json}"),
    }
}
