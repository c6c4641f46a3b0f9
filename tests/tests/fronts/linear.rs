//! Clients of all front ends and of the master's own port write, read and delete one key while servers are killed: what they
//! saw of it must be linearizable.

use crate::Fronts;
use kvdb_tests::linear::{self, Answer, Call, Condition, History, witness};
use kvdb_tests::{Answer as Http, Connection, Request};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Each door has this many clients.
const CLIENTS: usize = 2;
const OPERATIONS: u64 = 120;
const KILLS: u64 = 6;
/// Pause between kills, and of a client after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(10));

/// Through which a client goes.
#[derive(Clone, Copy)]
enum Door {
    Native,
    FlatDb,
    Kvs,
}

const DOORS: [Door; 3] = [Door::Native, Door::FlatDb, Door::Kvs];

struct Client<'a> {
    door: Door,
    number: u32,
    address: String,
    token: &'a str,
    history: &'a History,
}

impl Client<'_> {
    fn work(&self) {
        for n in 0..OPERATIONS {
            let done = match n % 6 {
                1 | 3 => self.write(u64::from(self.number) << 32 | n),
                5 if n % 4 == 1 => self.delete(),
                _ => self.read(),
            };
            if !done {
                std::thread::sleep(PAUSES.1);
            }
        }
    }

    /// Outer none: no server was reached. Inner none: there was no answer.
    fn ask(&self, request: Request) -> Option<Option<Http>> {
        Connection::try_open(&self.address).ok()?;
        Some(request.header("Authorization", &format!("Bearer {}", self.token)).try_follow(&self.address).ok())
    }

    fn read(&self) -> bool {
        let target = match self.door {
            Door::Native => "/open/k",
            Door::FlatDb => "/get?key=open/k",
            Door::Kvs => "/?k=open/k",
        };
        let from = self.history.now();
        let Some(Some(answer)) = self.ask(Request::get(target)) else { return false };
        let found = match (answer.status, self.door) {
            (404, _) => None,
            (200, Door::FlatDb) => Some(answer.json()["open/k"].as_str().unwrap().parse().unwrap()),
            (200, _) => Some(answer.text().parse().unwrap()),
            _ => return false,
        };
        self.history.note(self.number, from, Call::Read, Answer::Found(found));
        true
    }

    fn write(&self, value: u64) -> bool {
        let request = match self.door {
            Door::Native => Request::put("/open/k", value.to_string()),
            Door::FlatDb => Request::get(&format!("/put?open/k={value}")),
            Door::Kvs => Request::post("/", format!("open/k={value}&auth={}", self.token)),
        };
        let from = self.history.now();
        let told = match self.ask(request) {
            None => return false,
            Some(Some(answer)) => match answer.status {
                200 | 201 => Answer::Written(None),
                504 => Answer::Unknown,
                _ => return false,
            },
            Some(None) => Answer::Unknown,
        };
        self.history.note(self.number, from, Call::Write(value, Condition::Always), told);
        told != Answer::Unknown
    }

    fn delete(&self) -> bool {
        let request = match self.door {
            Door::Native => Request::delete("/open/k"),
            Door::FlatDb => Request::get("/delete?key=open/k"),
            // It cannot delete.
            Door::Kvs => return true,
        };
        let from = self.history.now();
        let told = match self.ask(request) {
            None => return false,
            Some(Some(answer)) => match (answer.status, self.door) {
                (200, Door::Native) => Answer::Deleted(None),
                (404, Door::Native) => Answer::Nothing,
                // It does not tell whether there was one.
                (200, _) => Answer::Gone,
                (504, _) => Answer::Unknown,
                _ => return false,
            },
            Some(None) => Answer::Unknown,
        };
        self.history.note(self.number, from, Call::Delete(Condition::Always), told);
        true
    }
}

#[test]
fn front_ends_and_the_own_port_that_write_one_key_at_once_stay_linearizable() {
    let mut fronts = Fronts::with_tokens();
    let history = History::new(Instant::now());
    let token = fronts.token.clone();
    let finished = AtomicUsize::new(0);
    let clients: Vec<Client> = (0..CLIENTS * DOORS.len())
        .map(|n| {
            let door = DOORS[n % DOORS.len()];
            let address = match door {
                Door::Native => fronts.cluster.master_addr(),
                Door::FlatDb => fronts.flatdb(),
                Door::Kvs => fronts.kvs(),
            };
            Client { door, number: u32::try_from(n).unwrap(), address, token: &token, history: &history }
        })
        .collect();
    std::thread::scope(|scope| {
        for client in &clients {
            let finished = &finished;
            scope.spawn(move || {
                client.work();
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
        for kill in 0..KILLS {
            std::thread::sleep(PAUSES.0);
            if finished.load(Ordering::Relaxed) < clients.len() {
                fronts.cluster.kill_and_start(kill % 3);
            }
        }
    });
    fronts.cluster.wait_ready();
    // Whatever still waited in a server is over: each door shows the same.
    for client in &clients {
        assert!(client.read(), "the key cannot be read with all servers up");
    }
    let operations = history.operations();
    for door in DOORS {
        let of_door = |client: u32| clients[client as usize].door as u8 == door as u8;
        let done = |call: fn(&Call) -> bool| {
            operations.iter().filter(|o| of_door(o.client) && call(&o.call) && o.answer != Answer::Unknown).count()
        };
        let (writes, reads) = (done(|c| matches!(c, Call::Write(..))), done(|c| matches!(c, Call::Read)));
        assert!(writes > 10 && reads > 10, "hardly anything was done: {writes} writes, {reads} reads");
    }
    if linear::check(&operations).is_err() {
        panic!("there is no order of these:\n{}", witness::describe(&witness::shrink(&operations)));
    }
}
