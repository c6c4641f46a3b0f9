//! Asking the master: commits, and what became of versions in doubt.

use crate::commit_calls;
use crate::node::Node;
use crate::upload::Durable;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::message::{Commit, CommitAnswer, Committed, Outcome, Prepared, ReclaimItem, Settle, SettleAnswer, SettleItem, path};
use kvdb_protocol::{ErrorCode, Problem, Ticket, UnixMillis, VersionId};
use kvdb_server::peer::{Destination, PeerError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long a commit is tried before the client is told that its outcome is unknown.
const COMMIT_TRY: Duration = Duration::from_secs(10);
/// Pause between two tries.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);
/// How long one call to the master may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Versions in doubt that are looked at in one round.
const MAX_IN_DOUBT: usize = 16_384;
/// How often versions in doubt are asked for.
const SETTLE_PERIOD: Duration = Duration::from_secs(2);

/// Has the master commit `value` (none: a delete) under the ticket; tries again while the outcome is unknown.
pub(crate) async fn commit(node: &Arc<Node>, ticket: &Ticket, encoded: &str, value: Option<Prepared>) -> Result<Committed, Problem> {
    let give_up = Instant::now() + COMMIT_TRY;
    // Whether an earlier try may have been carried out without our hearing of it.
    let mut uncertain = false;
    loop {
        let commit = Commit { ticket: encoded.to_string(), value };
        let error = match commit_calls::ask(node, &ticket.commit_to, commit).await {
            Ok(CommitAnswer::Committed(c)) => return Ok(c),
            Ok(CommitAnswer::Refused(problem)) => return Err(problem),
            Err(e) => e,
        };
        let problem = error.to_problem();
        uncertain |= match &*error {
            PeerError::Unreachable { .. } => false,
            PeerError::Broken { .. } => true,
            PeerError::Refused { .. } => matches!(problem.code, ErrorCode::OutcomeUnknown | ErrorCode::Internal),
        };
        if !uncertain && (!problem.retry || problem.code == ErrorCode::NoSpace) {
            return Err(problem);
        }
        // Looked at once more after the pause: a process that was halted in it must not ask long after the others have gone on.
        if Instant::now() >= give_up || pause_passes(give_up).await {
            let detail = format!("the value is durable, but the master did not confirm it ({error}); ask for the key again in a while");
            return Err(if uncertain { Problem::new(ErrorCode::OutcomeUnknown, detail) } else { problem });
        }
    }
}

/// Pauses between two tries; whether it is too late for another by then.
async fn pause_passes(give_up: Instant) -> bool {
    tokio::time::sleep(COMMIT_PAUSE).await;
    Instant::now() >= give_up
}

/// Commits a durable upload and tells the rest of the chain. To be run to its end ([`kvdb_server::to_end`]), so that it
/// is done even if the client has gone away.
pub(crate) async fn commit_upload(node: &Arc<Node>, ticket: &Ticket, encoded: &str, durable: Durable) -> Result<Committed, Problem> {
    match commit(node, ticket, encoded, Some(durable.prepared)).await {
        Ok(committed) => {
            durable.committed(committed).await;
            Ok(committed)
        }
        Err(problem) if problem.code == ErrorCode::OutcomeUnknown => {
            durable.leave_in_doubt();
            Err(problem)
        }
        Err(problem) => Err(durable.abandon(problem).await),
    }
}

/// Asks for versions in doubt until stopped.
pub(crate) async fn settle_forever(node: Arc<Node>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SETTLE_PERIOD) => {}
            () = node.settle_soon.notified() => tokio::time::sleep(COMMIT_PAUSE).await,
        }
        let all = node.ask_for_all.swap(false, Ordering::SeqCst);
        if let Err(problem) = settle_once(&node, all).await {
            node.ask_for_all.fetch_or(all, Ordering::SeqCst);
            tracing::debug!(error = %problem, "versions in doubt are not settled yet");
        }
    }
}

/// `all`: also those that may still be committed.
async fn settle_once(node: &Node, all: bool) -> Result<(), Problem> {
    let Some(master) = node.master() else {
        node.ask_for_all.fetch_or(all, Ordering::SeqCst);
        return Ok(());
    };
    let credentials = node.membership()?.credentials;
    let now = node.clock.now();
    let mut waiting = node.with_store(|s| s.prepared(MAX_IN_DOUBT)).await?;
    let ordered: HashMap<VersionId, UnixMillis> = {
        let log = node.fetch_log.read().await;
        waiting.retain(|i| (all || i.commit_by < now) && !node.is_in_flight(i.version) && !log.is_open(i.version, now));
        waiting.iter().filter_map(|i| Some((i.version, log.last_ordered(i.version)?))).collect()
    };
    if lab::has(Bug::DroppedUnasked) {
        let lost: Vec<ReclaimItem> = waiting.into_iter().map(|i| ReclaimItem { key: i.key, version: i.version, deleted: None }).collect();
        return node.with_store(move |s| s.remove(&lost)).await;
    }
    for items in waiting.chunks(MAX_PEER_BATCH) {
        let message = Settle { volume: node.volume(), versions: items.to_vec() };
        let to = Destination { address: &master, volume: node.volume(), target: path::SETTLE };
        let answer: SettleAnswer = node.peers.post(&credentials, to, &message, CALL_TIMEOUT).await.map_err(|e| e.to_problem())?;
        apply(node, items, answer, &ordered).await?;
    }
    Ok(())
}

/// `ordered` is when copies were last ordered as the question was made up. One that was ordered since is another copy, of which
/// the answer says nothing; the time that it has may be over as well by now, so no clock can tell.
async fn apply(node: &Node, items: &[SettleItem], answer: SettleAnswer, ordered: &HashMap<VersionId, UnixMillis>) -> Result<(), Problem> {
    if answer.outcomes.len() != items.len() {
        return Err(Problem::new(ErrorCode::Internal, "the master answered for another number of versions than it was asked"));
    }
    // Held until all is done: no fetch begins in between.
    let log = node.fetch_log.read().await;
    let mut lost = Vec::new();
    for (item, outcome) in items.iter().zip(answer.outcomes) {
        if log.last_ordered(item.version) != ordered.get(&item.version).copied() {
            continue;
        }
        match outcome {
            Outcome::Keep { seq } => {
                let (key, version) = (item.key.clone(), item.version);
                node.with_store(move |s| s.mark_committed(&key, version, seq)).await?;
                tracing::info!(key = %item.key, version = %item.version, seq, "settled: committed");
            }
            Outcome::Pending => {}
            Outcome::Drop => {
                tracing::info!(key = %item.key, version = %item.version, "settled: dropped");
                lost.push(ReclaimItem { key: item.key.clone(), version: item.version, deleted: None });
            }
        }
    }
    node.with_store(move |s| s.remove(&lost)).await
}
