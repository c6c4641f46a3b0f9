//! What volumes ask of the master: commits, and what became of versions in doubt.

use crate::catalog::{CommitDelete, CommitPut, Member};
use crate::node::Node;
use crate::reclaim;
use futures_util::future::join_all;
use http::StatusCode;
use kvdb_protocol::limits::{MAX_PEER_BATCH, MAX_PEER_BODY_BYTES, MAX_PEER_COMMITS};
use kvdb_protocol::message::{Bad, Commit, CommitAnswer, CommitResult, Commits, Settle, SettleAnswer};
use kvdb_protocol::{ErrorCode, Problem, Ticket, TicketOp, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{Request, read_all};
use kvdb_server::peer::named_volume;
use kvdb_server::to_end::to_end;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A signed call of a volume: who, and what it says.
async fn signed<T: DeserializeOwned>(node: &Node, mut request: Request) -> Result<(VolumeId, T), Problem> {
    let bytes = read_all(request.body_mut(), MAX_PEER_BODY_BYTES).await?;
    let (head, _) = request.into_parts();
    let volume = named_volume(&head.headers)?;
    node.credentials.verify(&head, volume, Some(&bytes))?;
    let message = serde_json::from_slice(&bytes).map_err(|e| Problem::new(ErrorCode::BadRequest, format!("the call is malformed: {e}")))?;
    Ok((volume, message))
}

/// Commits what tickets permit. It is answered once all is durable, and answered alike when asked again.
pub(crate) async fn commits(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let (volume, message) = signed::<Commits>(node, request).await?;
    if message.volume != volume || message.commits.len() > MAX_PEER_COMMITS {
        return Err(Problem::new(ErrorCode::BadRequest, "the call names another volume, or too many commits"));
    }
    let task_node = node.clone();
    // It must not be given up half-way if the volume goes away, so that what it logs and kicks is done.
    let commits = to_end(async move {
        let node = &task_node;
        let results = join_all(message.commits.into_iter().map(|c| commit(node, volume, c))).await;
        if results.iter().any(|r| matches!(r, Ok(CommitAnswer::Committed(c)) if !c.created)) {
            // Something was replaced or removed.
            for volume in node.members.live().keys() {
                reclaim::kick(node, *volume);
            }
        }
        results
    });
    let results = commits.await.map_err(|e| Problem::new(ErrorCode::Internal, format!("the commits failed: {e}")))?;
    Ok(body::json(StatusCode::OK, &results))
}

/// One of them.
async fn commit(node: &Node, volume: VolumeId, message: Commit) -> CommitResult {
    let ticket = Ticket::decode(&message.ticket, &node.tickets, node.credentials.cluster)?;
    if ticket.volumes.first().is_none_or(|v| v.id != volume) {
        return Err(Problem::new(ErrorCode::BadTicket, "the ticket is for another volume"));
    }
    let (key, version, op) = (ticket.key.clone(), ticket.version, ticket.op);
    let (live, duties) = (node.members.live(), node.members.duties());
    let leaving = ticket.volumes.iter().any(|v| !live.contains_key(&v.id) || duties.contains_key(&v.id));
    let answer = match (ticket.op, message.value) {
        (TicketOp::Create | TicketOp::Replace, Some(value)) => {
            let replicas = ticket.volumes.iter().map(|v| v.id).collect();
            let put = CommitPut {
                key: ticket.key,
                version: ticket.version,
                create: ticket.op == TicketOp::Create,
                condition: ticket.condition,
                commit_by: ticket.commit_by,
                len: value.len,
                hash: value.hash,
                content_type: ticket.content_type,
                expires: ticket.expires,
                replicas,
            };
            match ticket.txn {
                Some(txn) => node.catalog.stage(txn.id, Member::Put(put)).await,
                None => node.catalog.commit(put).await,
            }
        }
        (TicketOp::Delete, None) => {
            let delete =
                CommitDelete { key: ticket.key, version: Some(ticket.version), condition: ticket.condition, commit_by: ticket.commit_by };
            node.catalog.delete(delete).await
        }
        _ => return Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit this commit")),
    }
    .map_err(|e| e.problem())?;
    match &answer {
        CommitAnswer::Committed(c) => tracing::debug!(%key, %version, seq = c.seq, ?op, %volume, "committed"),
        CommitAnswer::Refused(p) => tracing::info!(%key, %version, ?op, %volume, reason = %p, "commit refused"),
    }
    if matches!(&answer, CommitAnswer::Committed(_)) && leaving {
        node.repair.note_stray(key);
    }
    Ok(answer)
}

/// Takes note of copies that a volume cannot serve.
pub(crate) async fn bad(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let (volume, message) = signed::<Bad>(node, request).await?;
    if message.volume != volume || message.copies.len() > MAX_PEER_BATCH {
        return Err(Problem::new(ErrorCode::BadRequest, "the call names another volume, or too many copies"));
    }
    for copy in message.copies {
        tracing::error!(key = %copy.key, version = %copy.version, %volume, why = copy.why, "a copy is bad; it is made anew");
        node.repair.note_bad(volume, copy.key, copy.version);
    }
    Ok(body::json(StatusCode::OK, &()))
}

/// Says what became of versions.
pub(crate) async fn settle(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let (volume, message) = signed::<Settle>(node, request).await?;
    if message.volume != volume || message.versions.len() > MAX_PEER_BATCH {
        return Err(Problem::new(ErrorCode::BadRequest, "the call names another volume, or too many versions"));
    }
    let outcomes = node.catalog.settle(volume, message.versions).await.map_err(|e| e.problem())?;
    Ok(body::json(StatusCode::OK, &SettleAnswer { outcomes }))
}
