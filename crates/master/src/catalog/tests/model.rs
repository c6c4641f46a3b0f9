//! Any sequence of operations, crashes and repeats, against a model simple enough to be seen to be right.

use super::support::{Fixture, delete, gone, key, put, volume};
use crate::catalog::CommitPut;
use kvdb_protocol::message::{CommitAnswer, Outcome, SettleItem};
use kvdb_protocol::{UnixMillis, VersionId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const KEYS: [&str; 3] = ["a", "b", "c"];
/// Life of the model's tickets, in milliseconds.
const LIFE: u64 = 5_000;

#[derive(Clone, Debug)]
enum Step {
    /// A new version is given out for a key.
    Ticket {
        key: usize,
        create: bool,
    },
    /// Some ticket is committed: for the first time, or again.
    Commit {
        ticket: usize,
    },
    /// A key is deleted.
    Delete {
        key: usize,
    },
    /// Volume 1 asks about some ticket.
    Settle {
        ticket: usize,
    },
    /// A volume removes what it is told to.
    Reclaim {
        volume: u8,
    },
    Pass {
        ms: u64,
    },
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ticket = any::<usize>();
    let step = prop_oneof![
        4 => (0..KEYS.len(), any::<bool>()).prop_map(|(key, create)| Step::Ticket { key, create }),
        6 => ticket.prop_map(|ticket| Step::Commit { ticket }),
        2 => (0..KEYS.len()).prop_map(|key| Step::Delete { key }),
        3 => any::<usize>().prop_map(|ticket| Step::Settle { ticket }),
        2 => (1..=2u8).prop_map(|volume| Step::Reclaim { volume }),
        1 => (0..4_000u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..60)
}

#[derive(Default)]
struct Model {
    current: BTreeMap<&'static str, VersionId>,
    tickets: Vec<(usize, CommitPut)>,
    /// Final answers, which must never change.
    answers: BTreeMap<VersionId, CommitAnswer>,
    dropped: BTreeSet<VersionId>,
    /// Copies at volumes that the catalog must have removed, until it has.
    to_remove: BTreeSet<(u8, VersionId)>,
    commits: u64,
}

impl Model {
    fn retire(&mut self, old: Option<VersionId>) {
        self.to_remove.extend(old.into_iter().flat_map(|v| [(1, v), (2, v)]));
    }

    fn commit(&mut self, now: UnixMillis, request: &CommitPut, k: &'static str, answer: CommitAnswer) {
        if let Some(before) = self.answers.get(&request.version) {
            let current = self.current.get(k) == Some(&request.version);
            let expected = if current { before.clone() } else { gone(before) };
            return assert_eq!(answer, expected, "a repeat got another answer");
        }
        let in_time = now <= request.commit_by;
        let free = !request.create || !self.current.contains_key(k);
        let CommitAnswer::Committed(c) = &answer else {
            assert!(!in_time || !free, "refused without a reason");
            self.answers.insert(request.version, answer);
            return;
        };
        assert!(in_time && free && !self.dropped.contains(&request.version));
        self.commits += 1;
        assert_eq!((c.seq, c.created), (self.commits, !self.current.contains_key(k)));
        self.answers.insert(request.version, answer);
        let old = self.current.insert(k, request.version);
        self.retire(old);
    }

    fn settle(&mut self, now: UnixMillis, request: &CommitPut, k: &'static str, outcome: Outcome) {
        let committed = matches!(self.answers.get(&request.version), Some(CommitAnswer::Committed(_)));
        match outcome {
            Outcome::Keep { .. } => assert_eq!(self.current.get(k), Some(&request.version)),
            Outcome::Pending => {
                assert!(!committed && now <= request.commit_by && !self.dropped.contains(&request.version));
            }
            Outcome::Drop => {
                assert_ne!(self.current.get(k), Some(&request.version));
                assert!(self.answers.contains_key(&request.version) || now > request.commit_by);
                self.dropped.insert(request.version);
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let (mut f, mut m) = (Fixture::new(), Model::default());
    for step in steps {
        match step {
            Step::Ticket { key, create } => {
                let request = put(KEYS[key], f.catalog.next_version(), u64::try_from(m.tickets.len()).unwrap());
                let commit_by = UnixMillis(f.catalog.now().0 + LIFE);
                m.tickets.push((key, CommitPut { create, commit_by, ..request }));
            }
            Step::Commit { ticket } if !m.tickets.is_empty() => {
                let (k, request) = m.tickets[ticket % m.tickets.len()].clone();
                let answer = f.catalog.commit(request.clone()).await.unwrap();
                m.commit(f.catalog.now(), &request, KEYS[k], answer);
            }
            Step::Delete { key: k } => {
                let answer = f.catalog.delete(delete(KEYS[k], None)).await.unwrap();
                let removed = m.current.remove(KEYS[k]);
                match answer {
                    CommitAnswer::Committed(c) => {
                        m.commits += 1;
                        assert_eq!((c.removed, c.seq), (removed, m.commits));
                    }
                    CommitAnswer::Refused(_) => assert_eq!(removed, None),
                }
                m.retire(removed);
            }
            Step::Settle { ticket } if !m.tickets.is_empty() => {
                let (k, request) = m.tickets[ticket % m.tickets.len()].clone();
                let item = SettleItem { key: key(KEYS[k]), version: request.version, commit_by: request.commit_by };
                let outcome = f.catalog.settle(volume(1), vec![item]).await.unwrap()[0];
                m.settle(f.catalog.now(), &request, KEYS[k], outcome);
            }
            Step::Reclaim { volume: v } => {
                let items = f.catalog.reclaim_list(volume(v), 1_000).await.unwrap();
                let told: BTreeSet<_> = items.iter().map(|i| (v, i.version)).collect();
                let want: BTreeSet<_> = m.to_remove.iter().copied().filter(|(at, _)| *at == v).collect();
                assert_eq!(told, want);
                f.catalog.reclaim_done(volume(v), &items).await.unwrap();
                m.to_remove.retain(|(at, _)| *at != v);
            }
            Step::Pass { ms } => f.pass(ms).await,
            Step::Crash => f = f.crashed(),
            Step::Commit { .. } | Step::Settle { .. } => {}
        }
        for k in KEYS {
            assert_eq!(f.version(k).await, m.current.get(k).copied(), "key {k}");
        }
        assert_eq!(f.catalog.stats().keys, u64::try_from(m.current.len()).unwrap());
        assert_eq!(f.catalog.reclaim_pending().await.values().sum::<u64>(), u64::try_from(m.to_remove.len()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_catalog_does_what_the_model_does(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}
