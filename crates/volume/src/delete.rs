//! A `DELETE` with a ticket.

use crate::commit::commit;
use crate::node::Node;
use http::{HeaderValue, StatusCode};
use kvdb_protocol::message::{Deleted, ReclaimItem};
use kvdb_protocol::{ErrorCode, Key, Problem, TicketOp};
use kvdb_server::body::{self, Response};
use kvdb_server::to_end::to_end;
use std::sync::Arc;

/// Has the master commit the removal, then removes the copy here at once; the others follow.
pub(crate) async fn delete(node: &Arc<Node>, key: &Key, encoded: &str) -> Result<Response, Problem> {
    let (ticket, _) = node.ticket_for(key, encoded)?;
    if ticket.op != TicketOp::Delete {
        return Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit a delete"));
    }
    let (node, encoded) = (node.clone(), encoded.to_string());
    let removal = to_end(async move {
        let committed = commit(&node, &ticket, &encoded, None).await?;
        let version = committed.removed.unwrap_or(ticket.version);
        let deleted = Deleted { seq: committed.seq, time: committed.modified };
        let item = ReclaimItem { key: ticket.key.clone(), version, deleted: Some(deleted) };
        if let Err(e) = node.remove(vec![item]).await {
            // The key is gone for good; the master has the copy removed later.
            tracing::warn!(key = %ticket.key, %version, error = %e, "the copy is not removed yet");
        }
        Ok::<_, Problem>(version)
    });
    let version = removal
        .await
        .map_err(|e| Problem::new(ErrorCode::OutcomeUnknown, format!("the delete failed: {e}; ask for the key in a while")))??;
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::OK;
    if let Ok(value) = HeaderValue::from_str(&version.to_string()) {
        response.headers_mut().insert("kvdb-version", value);
    }
    Ok(response)
}
