//! Commits that are asked for at about the same time go to the master in one call.
//!
//! What became durable in one step of the index asks for its commits together, and more come together while a call is under way.
//! Each is decided by itself, and may be asked for again by itself.

use crate::node::Node;
use kvdb_protocol::limits::MAX_PEER_COMMITS;
use kvdb_protocol::message::{Commit, CommitAnswer, CommitResult, Commits, path};
use kvdb_server::peer::{Destination, PeerError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long one call to the master may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A call that takes longer holds up those after it no more.
const CALL_PATIENCE: Duration = Duration::from_millis(20);

/// The master's word on a commit, or why there is none: of a whole call, where that failed.
pub(crate) type Answer = Result<CommitAnswer, Arc<PeerError>>;

struct Asked {
    commit: Commit,
    answer: oneshot::Sender<Answer>,
}

/// What waits for the next call, by the master's address; there is an entry while a task sees to it.
#[derive(Default)]
pub(crate) struct CommitCalls(Mutex<HashMap<String, Vec<Asked>>>);

impl CommitCalls {
    fn lines(&self) -> MutexGuard<'_, HashMap<String, Vec<Asked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the line; whether it is the first, for which a task must be begun.
    fn queue(&self, master: &str, asked: Asked) -> bool {
        let mut lines = self.lines();
        match lines.get_mut(master) {
            Some(line) => {
                line.push(asked);
                false
            }
            None => {
                lines.insert(master.to_string(), vec![asked]);
                true
            }
        }
    }

    /// What goes into the next call; nothing: the line has ended.
    fn next(&self, master: &str) -> Vec<Asked> {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(master).filter(|line| !line.is_empty()) else {
            lines.remove(master);
            return Vec::new();
        };
        line.drain(..line.len().min(MAX_PEER_COMMITS)).collect()
    }
}

/// Asks the master once. Once it has a place in the line it is asked, whether or not the caller waits.
pub(crate) async fn ask(node: &Arc<Node>, master: &str, commit: Commit) -> Answer {
    let (answer, result) = oneshot::channel();
    if node.commit_calls.queue(master, Asked { commit, answer }) {
        tokio::spawn(work_off(node.clone(), master.to_string()));
    }
    result.await.unwrap_or_else(|_| Err(Arc::new(broken(master, "the call's task failed"))))
}

/// One call after the other until nothing waits.
async fn work_off(node: Arc<Node>, master: String) {
    // Those that were made durable by the same step are about to ask.
    tokio::task::yield_now().await;
    loop {
        let group = node.commit_calls.next(&master);
        if group.is_empty() {
            return;
        }
        let call = tokio::spawn(call(node.clone(), master.clone(), group));
        let _slow = tokio::time::timeout(CALL_PATIENCE, call).await;
    }
}

/// Makes one call, and gives everybody the answer.
async fn call(node: Arc<Node>, master: String, group: Vec<Asked>) {
    let (commits, waiting): (Vec<_>, Vec<_>) = group.into_iter().map(|asked| (asked.commit, asked.answer)).unzip();
    let results = match post(&node, &master, commits).await {
        Ok(results) if results.len() == waiting.len() => results,
        Ok(_) => return fail(waiting, broken(&master, "it answered for another number of commits than it was asked")),
        Err(error) => return fail(waiting, error),
    };
    for (answer, result) in waiting.into_iter().zip(results) {
        let refused = |problem| Arc::new(PeerError::Refused { address: master.clone(), problem });
        let _caller_gone = answer.send(result.map_err(refused));
    }
}

fn fail(waiting: Vec<oneshot::Sender<Answer>>, error: PeerError) {
    let error = Arc::new(error);
    for answer in waiting {
        let _caller_gone = answer.send(Err(Arc::clone(&error)));
    }
}

async fn post(node: &Node, master: &str, commits: Vec<Commit>) -> Result<Vec<CommitResult>, PeerError> {
    let refused = |problem| PeerError::Refused { address: master.into(), problem };
    let credentials = node.membership().map_err(refused)?.credentials;
    let to = Destination { address: master, volume: node.volume(), target: path::COMMITS };
    node.peers.post(&credentials, to, &Commits { volume: node.volume(), commits }, CALL_TIMEOUT).await
}

fn broken(master: &str, detail: &str) -> PeerError {
    PeerError::Broken { address: master.into(), detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(n: usize) -> Asked {
        Asked { commit: Commit { ticket: n.to_string(), value: None }, answer: oneshot::channel().0 }
    }

    #[test]
    fn what_waits_for_one_master_goes_into_one_call_in_its_order_up_to_the_bound_and_the_line_ends_when_none_waits() {
        let calls = CommitCalls::default();
        let first: Vec<bool> = (0..MAX_PEER_COMMITS + 3).map(|n| calls.queue("a:1", asked(n))).collect();
        assert!(first[0] && !first[1..].contains(&true));
        assert!(calls.queue("b:1", asked(500)), "another master has a line of its own");
        let tickets = |group: Vec<Asked>| group.into_iter().map(|a| a.commit.ticket.parse().unwrap()).collect::<Vec<usize>>();
        assert_eq!(tickets(calls.next("a:1")), (0..MAX_PEER_COMMITS).collect::<Vec<_>>());
        assert!(!calls.queue("a:1", asked(99)), "a task sees to the line still");
        assert_eq!(tickets(calls.next("a:1")), [MAX_PEER_COMMITS, MAX_PEER_COMMITS + 1, MAX_PEER_COMMITS + 2, 99]);
        assert!(calls.next("a:1").is_empty());
        assert!(calls.queue("a:1", asked(100)), "the next one begins the line anew");
        assert_eq!(tickets(calls.next("b:1")), [500]);
    }
}
