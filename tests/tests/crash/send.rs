//! Requests to servers that may die at any moment, and what their answers, or none, allow a client to believe.

use kvdb_tests::{Answer, Connection, Request, Url};
use std::io;

/// How often a volume may send a write back to the master.
const MAX_SENT_BACK: usize = 4;

pub enum Outcome {
    Acknowledged,
    /// 504: the server does not know either.
    Unknown,
    /// The connection broke after the request was on its way.
    Cut,
    /// Nothing was changed: by the answer, or because no server was reached.
    Refused(Option<Answer>),
}

/// A write: of a value, or, without one, a delete.
pub struct Write<'a> {
    pub method: &'static str,
    pub target: &'a str,
    pub value: Option<Vec<u8>>,
    /// Sent to the master, which relays it, as clients do that know no `Expect`.
    pub relayed: bool,
}

enum Failure {
    NotReached,
    Cut,
}

impl Write<'_> {
    pub fn send(&self, master: &str) -> Outcome {
        if self.relayed {
            return meaning(exchange(&self.request(self.target), master));
        }
        let mut target = self.target.to_string();
        for _ in 0..MAX_SENT_BACK {
            let url = match exchange(&self.question(&target), master) {
                Ok(answer) if answer.status == 307 => Url::of(&answer),
                // The master itself stores no value, but may complete a delete.
                Err(_) if self.value.is_some() => return Outcome::Refused(None),
                other => return meaning(other),
            };
            match exchange(&self.request(&url.target), &url.address) {
                Ok(answer) if answer.status == 307 => target = Url::of(&answer).target,
                other => return meaning(other),
            }
        }
        Outcome::Refused(None)
    }

    fn request(&self, target: &str) -> Request {
        let request = Request::new(self.method, target);
        self.value.as_ref().map_or(request.clone(), |v| request.body(v.clone()))
    }

    /// The same without the value, for the master.
    fn question(&self, target: &str) -> Request {
        let request = Request::new(self.method, target);
        match &self.value {
            Some(v) => request.body("").header("Kvdb-Content-Length", &v.len().to_string()),
            None => request,
        }
    }
}

fn exchange(request: &Request, address: &str) -> Result<Answer, Failure> {
    let mut connection = Connection::try_open(address).map_err(|_: io::Error| Failure::NotReached)?;
    request.send_on(&mut connection, address).map_err(|_: io::Error| Failure::Cut)
}

fn meaning(result: Result<Answer, Failure>) -> Outcome {
    match result {
        Ok(answer) => match answer.status {
            200 | 201 => Outcome::Acknowledged,
            504 => Outcome::Unknown,
            _ => Outcome::Refused(Some(answer)),
        },
        Err(Failure::Cut) => Outcome::Cut,
        Err(Failure::NotReached) => Outcome::Refused(None),
    }
}
