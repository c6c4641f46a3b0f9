//! Copies that cannot be served: put aside, and told to the master until it knows.
//!
//! What is to be told is in the index, written in the step that takes the copy away: no restart forgets it.

use crate::node::Node;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::message::{Bad, path};
use kvdb_protocol::{ErrorCode, Key, Problem, VersionId};
use kvdb_server::peer::Destination;
use std::sync::Arc;
use std::time::Duration;

/// How often it is tried to tell the master what it does not know yet.
const TELL_PERIOD: Duration = Duration::from_secs(2);
/// How long one call to the master may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A read found that a copy cannot be served.
pub(crate) async fn found(node: &Node, key: &Key, version: VersionId, problem: &Problem) {
    tracing::error!(%key, %version, volume = %node.volume(), error = %problem, "a copy cannot be served");
    if problem.code == ErrorCode::Corrupt {
        put_aside(node, key, version, problem.detail.clone()).await;
    } else if problem.code == ErrorCode::Internal {
        // It may be the disk: that is found out at once, and away from the client who waits.
        node.scrub.suspect(key, version);
    }
}

/// Puts a copy aside and has the master told. False: it was not here any more, or cannot be put aside, which is logged.
pub(crate) async fn put_aside(node: &Node, key: &Key, version: VersionId, why: String) -> bool {
    let copy = key.clone();
    match node.with_store(move |s| s.quarantine(&copy, version, &why)).await {
        Ok(was_here) => {
            node.tell_soon.notify_one();
            was_here
        }
        Err(error) => {
            tracing::error!(%key, %version, %error, "the bad copy is not put aside");
            false
        }
    }
}

/// Tells the master until stopped.
pub(crate) async fn tell_forever(node: Arc<Node>) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TELL_PERIOD) => {}
            () = node.tell_soon.notified(), if !failing => {}
        }
        match tell(&node).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the master cannot be told of bad copies yet");
                }
                failing = true;
            }
        }
    }
}

async fn tell(node: &Node) -> Result<(), Problem> {
    loop {
        let now = node.clock.now();
        let copies = node.with_store(move |s| s.bad_copies(now, MAX_PEER_BATCH)).await?;
        if lab::has(Bug::BadCopyNotTold) {
            return Ok(());
        }
        let Some(master) = node.master().filter(|_| !copies.is_empty()) else { return Ok(()) };
        let credentials = node.membership()?.credentials;
        let message = Bad { volume: node.volume(), copies };
        let to = Destination { address: &master, volume: node.volume(), target: path::BAD };
        node.peers.post::<()>(&credentials, to, &message, CALL_TIMEOUT).await.map_err(|e| e.to_problem())?;
        tracing::info!(copies = message.copies.len(), "the master knows of bad copies");
        node.with_store(move |s| s.told(&message.copies)).await?;
    }
}
