//! A cluster, and what may be true of each of its keys.

use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Builder, Cluster, Request};
use std::collections::BTreeMap;

/// Statuses that a write may end with when something is broken; all but 504 say that the old state stands.
const TRUE_REFUSALS: [u16; 4] = [500, 503, 504, 507];

/// What a key may be: one state, or two after an answer that leaves it open. None: no value.
type States = Vec<Option<Vec<u8>>>;

/// Keeps the books.
pub struct World {
    pub cluster: Cluster,
    known: BTreeMap<String, States>,
    written: u64,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    Refused(u16),
    /// 504, or the connection broke.
    Open,
}

/// A cluster whose tickets are short, so that what is in doubt is settled soon.
pub fn short_tickets(volumes: usize) -> Builder {
    Cluster::builder(volumes).master_args(["--start-seconds", "2", "--commit-seconds", "3"])
}

impl World {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, known: BTreeMap::new(), written: 0 }
    }

    /// Writes a new value of this length.
    #[track_caller]
    pub fn put(&mut self, target: &str, len: usize) -> Ended {
        self.written += 1;
        let bytes = value(len, self.written);
        self.write(target, &Request::put(target, bytes.clone()).expect_continue(), Some(bytes))
    }

    /// Writes a new value, which must work.
    #[track_caller]
    pub fn must_put(&mut self, target: &str, len: usize) {
        assert_eq!(self.put(target, len), Ended::Done, "PUT {target}");
    }

    /// A key may have this value as well: a write that was not made here was left open.
    pub fn also(&mut self, target: &str, bytes: Vec<u8>) {
        self.known.entry(target.into()).or_insert_with(|| vec![None]).push(Some(bytes));
    }

    #[track_caller]
    pub fn delete(&mut self, target: &str) -> Ended {
        self.write(target, &Request::delete(target), None)
    }

    #[track_caller]
    fn write(&mut self, target: &str, request: &Request, new: Option<Vec<u8>>) -> Ended {
        let known = self.known.entry(target.into()).or_insert_with(|| vec![None]);
        match request.try_follow(&self.cluster.master_addr()) {
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                *known = vec![new];
                Ended::Done
            }
            Ok(answer) if answer.status == 504 => {
                known.push(new);
                Ended::Open
            }
            Ok(answer) => {
                assert!(TRUE_REFUSALS.contains(&answer.status), "a write of {target} ended with {answer}");
                assert!(answer.status != 500 || answer.json()["code"].is_string(), "{answer}");
                Ended::Refused(answer.status)
            }
            Err(_) => {
                known.push(new);
                Ended::Open
            }
        }
    }

    /// Reads every key: right, or not at all where a read may be refused or cut.
    #[track_caller]
    pub fn check(&mut self, may_fail: bool) {
        for (target, states) in &mut self.known {
            match Request::get(target).try_follow(&self.cluster.master_addr()) {
                Ok(answer) if matches!(answer.status, 200 | 404) => {
                    let found = (answer.status == 200).then_some(answer.body);
                    if !states.contains(&found) {
                        let [Some(expected)] = &states[..] else {
                            panic!("{target}: {} bytes, none of {} states", len(&found), states.len())
                        };
                        assert_same(&found.unwrap_or_default(), expected, target);
                    }
                }
                Ok(answer) => assert!(may_fail && matches!(answer.status, 500 | 503 | 504), "a read of {target} ended with {answer}"),
                Err(error) => assert!(may_fail, "a read of {target} was cut: {error}"),
            }
        }
    }

    /// Reads every key; what was found is what stands from now on.
    #[track_caller]
    pub fn check_settled(&mut self) {
        self.check(false);
        for (target, states) in &mut self.known {
            let answer = Request::get(target).follow(&self.cluster.master_addr());
            let found = (answer.status == 200).then_some(answer.body);
            assert!(states.contains(&found), "{target} was settled, and has changed since");
            *states = vec![found];
        }
    }
}

fn len(found: &Option<Vec<u8>>) -> String {
    found.as_ref().map_or("no".into(), |f| f.len().to_string())
}
