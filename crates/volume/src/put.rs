//! A value from a client: the hot path of a write, from the ticket to the answer.

use crate::commit::commit_upload;
use crate::digest::DigestCheck;
use crate::node::Node;
use crate::upload::{Leg, OpenFailure, Upload};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use kvdb_protocol::message::{Committed, Prepared, Standing};
use kvdb_protocol::{ErrorCode, Key, Problem, Ticket, TicketOp};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::Request;
use kvdb_server::to_end::to_end;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for a place before it is told that the volume is busy.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// `PUT` or `POST` with a ticket, at the first volume of its chain.
pub(crate) async fn put(node: &Arc<Node>, request: Request, key: &Key, encoded: &str) -> Result<Response, Problem> {
    let (ticket, at) = node.ticket_for(key, encoded)?;
    if !matches!(ticket.op, TicketOp::Create | TicketOp::Replace) {
        return Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit a write"));
    }
    if at != 0 {
        return Err(Problem::new(ErrorCode::Misdirected, "the ticket names another volume as the first of its chain"));
    }
    let len = content_length(request.headers());
    let mut digests = DigestCheck::from_headers(request.headers())?;
    let claim = node.claim(ticket.version)?;
    refuse_used(node, &ticket)?;
    let _place = place(node, at).await?;
    let mut upload = match Upload::open(node, &ticket, encoded, Leg { at, len, hold: false }, HeaderMap::new()).await {
        Ok(upload) => upload,
        Err(failure) => return elsewhere(&ticket, failure),
    };

    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(Problem::from)?.into_data() else { continue };
        digests.update(&bytes);
        upload.write(bytes).await?;
    }
    digests.finish()?;

    // From here on the write runs to its end, whether or not the client waits for it.
    let (node, encoded, op) = (node.clone(), encoded.to_string(), ticket.op);
    let write = to_end(async move {
        let _claim = claim;
        let durable = upload.finish().await?;
        node.note_used(&ticket);
        let prepared = durable.prepared;
        commit_upload(&node, &ticket, &encoded, durable).await.map(|c| (ticket, prepared, c))
    });
    let (ticket, prepared, committed) = write
        .await
        .map_err(|e| Problem::new(ErrorCode::OutcomeUnknown, format!("the write failed: {e}; ask for the key in a while")))??;
    Ok(stored(&ticket, op, prepared, committed))
}

/// The length that the client announced; none for a chunked body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    // With neither header a request has no body (RFC 9112 §6.3).
    Some(headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()).unwrap_or(0))
}

/// A ticket is good for one upload: its version is either not here, or was made with it.
pub(crate) fn refuse_used(node: &Node, ticket: &Ticket) -> Result<(), Problem> {
    match node.store.has(&ticket.key, ticket.version).map_err(|e| e.to_problem())? {
        false => Ok(()),
        true => Err(Problem::new(ErrorCode::BadTicket, "the ticket has been used; ask the master again")),
    }
}

/// A place for an upload at this place of a chain.
pub(crate) async fn place(node: &Node, at: usize) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
    let places = node.uploads.get(at).ok_or_else(|| Problem::new(ErrorCode::BadTicket, "the chain is too long"))?;
    match tokio::time::timeout(PLACE_WAIT, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(Problem::new(ErrorCode::Unavailable, "the volume is stopping")),
        Err(_) => Err(Problem::new(ErrorCode::Busy, "all places for uploads are taken; try again, or raise --max-uploads")),
    }
}

/// Sends the client back to the master, which chooses other volumes.
fn elsewhere(ticket: &Ticket, failure: OpenFailure) -> Result<Response, Problem> {
    let OpenFailure { problem, volume } = failure;
    let fault_of_volume = matches!(
        problem.code,
        ErrorCode::NoSpace | ErrorCode::ReadOnly | ErrorCode::Unavailable | ErrorCode::Busy | ErrorCode::Misdirected | ErrorCode::Internal
    );
    if !fault_of_volume {
        return Err(problem);
    }
    tracing::warn!(key = %ticket.key, version = %ticket.version, %volume, error = %problem, "sent back to the master: a volume cannot take the value");
    let joint = if ticket.return_to.contains('?') { '&' } else { '?' };
    // The master says why if there are no other volumes, and a client carries nothing but the URL.
    let why = if problem.code == ErrorCode::NoSpace { "full" } else { "avoid" };
    redirect(StatusCode::TEMPORARY_REDIRECT, &format!("{}{joint}{why}={volume}", ticket.return_to))
}

/// A redirect that is not to be kept.
pub(crate) fn redirect(status: StatusCode, location: &str) -> Result<Response, Problem> {
    let value = HeaderValue::from_str(location).map_err(|_| Problem::new(ErrorCode::Internal, "a redirect's URL is malformed"))?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn stored(ticket: &Ticket, op: TicketOp, prepared: Prepared, committed: Committed) -> Response {
    let mut response = Response::new(body::empty());
    *response.status_mut() = match committed.standing {
        Standing::Staged => StatusCode::ACCEPTED,
        _ if committed.created || op == TicketOp::Create => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let headers = response.headers_mut();
    for (name, text) in [
        ("etag", prepared.hash.etag()),
        ("kvdb-version", ticket.version.to_string()),
        ("last-modified", httpdate::fmt_http_date(committed.modified.to_system_time())),
    ] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    response
}
