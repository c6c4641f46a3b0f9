//! What volumes ask of the master: commits, and what became of versions in doubt.

use crate::catalog::{CommitDelete, CommitPut, Member};
use crate::node::Node;
use crate::reclaim;
use http::StatusCode;
use kvdb_protocol::limits::{MAX_PEER_BATCH, MAX_PEER_BODY_BYTES};
use kvdb_protocol::message::{Bad, Commit, CommitAnswer, Settle, SettleAnswer};
use kvdb_protocol::{ErrorCode, Problem, Ticket, TicketOp, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{Request, read_all};
use kvdb_server::peer::named_volume;
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

/// Commits what a ticket permits. It is answered once it is durable, and answered alike when asked again.
pub(crate) async fn commit(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let (volume, message) = signed::<Commit>(node, request).await?;
    let ticket = Ticket::decode(&message.ticket, &node.tickets, node.credentials.cluster)?;
    if message.volume != volume || ticket.volumes.first().is_none_or(|v| v.id != volume) {
        return Err(Problem::new(ErrorCode::BadTicket, "the ticket is for another volume"));
    }
    let (key, op) = (ticket.key.clone(), ticket.op);
    // It must not be given up half-way if the volume goes away, so that what it logs and kicks is done.
    let (task_node, version) = (node.clone(), ticket.version);
    let task_key = key.clone();
    let task = tokio::spawn(async move {
        let (node, key) = (task_node, task_key);
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
                let delete = CommitDelete {
                    key: ticket.key,
                    version: Some(ticket.version),
                    condition: ticket.condition,
                    commit_by: ticket.commit_by,
                    removed_at: Some(volume),
                };
                node.catalog.delete(delete).await
            }
            _ => return Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit this commit")),
        }
        .map_err(|e| e.problem())?;
        if matches!(&answer, CommitAnswer::Committed(_)) && leaving {
            node.repair.note_stray(key);
        }
        if matches!(&answer, CommitAnswer::Committed(c) if !c.created) {
            // Something was replaced or removed.
            for volume in node.members.live().keys() {
                reclaim::kick(&node, *volume);
            }
        }
        Ok(answer)
    });
    let answer = task.await.map_err(|e| Problem::new(ErrorCode::Internal, format!("the commit's task failed: {e}")))??;
    match &answer {
        CommitAnswer::Committed(c) => tracing::debug!(%key, %version, seq = c.seq, ?op, %volume, "committed"),
        CommitAnswer::Refused(p) => tracing::info!(%key, %version, ?op, %volume, reason = %p, "commit refused"),
    }
    Ok(body::json(StatusCode::OK, &answer))
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
