//! Keys that all writers write: which of them was last is open, but not that it was one of them, whole.

use crate::content::{Content, State, described};
use crate::send::Outcome;
use kvdb_tests::{Cluster, Request};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const KEYS: u64 = 4;

/// A write that may have taken effect, between two moments of a clock that only orders.
struct Effect {
    from: u64,
    /// None: in doubt, it may take effect until all is settled.
    until: Option<u64>,
    state: State,
}

pub struct Shared {
    clock: AtomicU64,
    effects: Vec<Mutex<Vec<Effect>>>,
}

impl Shared {
    pub fn new() -> Self {
        let effects = (0..KEYS).map(|_| Mutex::new(vec![Effect { from: 0, until: Some(0), state: None }])).collect();
        Self { clock: AtomicU64::new(1), effects }
    }

    pub fn keys(&self) -> u64 {
        KEYS
    }

    pub fn target(key: u64) -> String {
        format!("/shared/key-{key}")
    }

    /// The present moment.
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes a write that began at `from` and has just ended.
    pub fn note(&self, key: u64, from: u64, state: State, outcome: &Outcome) {
        let until = match outcome {
            Outcome::Acknowledged => Some(self.now()),
            Outcome::Unknown | Outcome::Cut => None,
            Outcome::Refused(_) => return,
        };
        self.effects[usize::try_from(key).unwrap()].lock().unwrap().push(Effect { from, until, state });
    }

    /// With all servers up each key holds what one of the writes left that may have been the last; once all is settled, on both
    /// volumes.
    pub fn check(&self, cluster: &Cluster, settled: bool) {
        for (key, effects) in (0..).zip(&self.effects) {
            let (target, effects) = (Self::target(key), effects.lock().unwrap());
            let answer = cluster.follow(&Request::get(&target));
            assert!([200, 404].contains(&answer.status), "{target}: {answer}");
            let body = (answer.status == 200).then_some(answer.body);
            let last_begun = effects.iter().filter(|e| e.until.is_some()).map(|e| e.from).max().unwrap();
            let may_be = |e: &&Effect| e.until.is_none_or(|until| until >= last_begun);
            let found = body.as_ref().map(|b| Content::of(b, &target).unwrap_or_else(|| panic!("{target}: {}", described(Some(b)))));
            // Empty values do not tell which write they are.
            let same = |e: &&Effect| e.state == found || matches!((e.state, found), (Some(e), Some(f)) if e.len == 0 && f.len == 0);
            let fits = effects.iter().filter(may_be).any(|e| same(&e));
            let may_have_been: Vec<State> = effects.iter().filter(may_be).map(|e| e.state).collect();
            assert!(fits, "{target} holds {found:?}, but the last write was one of {may_have_been:?}");
            if let Some(body) = body.filter(|_| settled) {
                for copy in cluster.copies(&target) {
                    assert!(copy.expect(200).body == body, "{target}: a copy differs");
                }
            }
        }
    }
}
