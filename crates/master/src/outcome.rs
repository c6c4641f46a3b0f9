//! What became of a write, for the client that lost the answer to it.

use crate::catalog::Doubt;
use crate::node::Node;
use http::StatusCode;
use kvdb_protocol::limits::MAX_TICKET_CHARS;
use kvdb_protocol::message::{CommitAnswer, Resolved, Standing};
use kvdb_protocol::{ErrorCode, Problem, Ticket, TicketOp, UnixMillis};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{Request, read_all};
use std::sync::Arc;

/// The body is the ticket, which only the one has who was sent to a volume with it; so nobody else can have a write refused.
pub(crate) async fn outcome(node: &Arc<Node>, mut request: Request) -> Result<Response, Problem> {
    let bytes = read_all(request.body_mut(), MAX_TICKET_CHARS).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Problem::new(ErrorCode::BadTicket, "the ticket is not text"))?;
    let ticket = Ticket::decode(text.trim(), &node.tickets, node.credentials.cluster)?;
    let version = ticket.version;
    let (replicas, issued) = match ticket.op {
        TicketOp::Create | TicketOp::Replace => (Some(ticket.volumes.iter().map(|v| v.id).collect()), UnixMillis(version.unix_millis())),
        TicketOp::Delete => {
            (None, UnixMillis(ticket.start_by.0.saturating_sub(u64::try_from(node.config.start_within.as_millis()).unwrap_or(u64::MAX))))
        }
        TicketOp::Read => return Err(Problem::new(ErrorCode::BadTicket, "the ticket is not for a write")),
    };
    let doubt = Doubt { key: ticket.key, version, replicas, txn: ticket.txn.map(|t| t.id), issued, commit_by: ticket.commit_by };
    let answer = node.catalog.resolve(doubt).await.map_err(|e| e.problem())?;
    let resolved = match answer {
        Some(CommitAnswer::Committed(c)) if c.standing == Standing::Staged => Resolved::Staged { version },
        Some(CommitAnswer::Committed(c)) => Resolved::Committed { version: c.removed.unwrap_or(version), created: c.created },
        Some(CommitAnswer::Refused(problem)) => Resolved::Refused { problem },
        None => {
            return Err(Problem::new(ErrorCode::OutcomeUnknown, "it is too long ago to tell what became of this write; look at the key"));
        }
    };
    tracing::info!(%version, op = ?ticket.op, outcome = ?resolved, "told what became of a write");
    Ok(body::json(StatusCode::OK, &resolved))
}
