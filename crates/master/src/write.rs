//! `PUT`, `POST` and `DELETE` of a key: tickets, and the redirect or the relay that follows.

use crate::access::Leave;
use crate::catalog::{CatalogError, CommitDelete, Record};
use crate::config::{LONGEST_COMMIT_WITHIN, SLOWEST_BYTES_PER_SECOND};
use crate::members::Live;
use crate::node::Node;
use crate::read::{absent, replica};
use crate::{placement, preconditions, reclaim, redirect, relay, transaction};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use kvdb_protocol::limits::{MAX_CONTENT_TYPE_BYTES, MAX_DROPPED_BODY_BYTES};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::signed_url::UrlRight;
use kvdb_protocol::{Condition, ErrorCode, Key, Problem, Ticket, TicketOp, TicketTxn, TicketVolume, UnixMillis, VersionId, VolumeId, ttl};
use kvdb_server::RequestContext;
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{GuardedBody, Request};
use kvdb_server::query::Query;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A client that asks first, without a body, announces the value's length here.
const LENGTH_HEADER: &str = "kvdb-content-length";

/// What a write asks for, checked.
pub(crate) struct Write {
    pub key: Key,
    pub op: TicketOp,
    pub len: Option<u64>,
    pub condition: Condition,
    /// When the value is to expire.
    pub expires: Option<UnixMillis>,
    pub content_type: Option<String>,
    pub return_to: String,
    pub request_id: String,
    /// The transaction that it is put into, and when that ends.
    pub txn: Option<TicketTxn>,
}

/// `PUT` (replace) or `POST` (create).
pub(crate) async fn write(
    node: &Arc<Node>,
    request: Request,
    key: Key,
    op: TicketOp,
    query: &Query,
    leave: &Leave,
    cx: &RequestContext,
) -> Result<Response, Problem> {
    let avoid = redirect::avoided(query)?;
    let txn = transaction::named(node, query)?;
    let (head, body) = request.into_parts();
    let way_back = leave.way_back(node, UrlRight::Write, std::slice::from_ref(&key));
    let write = Write {
        op,
        len: announced_length(&head.headers)?,
        condition: preconditions::from_headers(&head.headers)?,
        expires: time_to_live(&head.headers, query)?.map(|t| node.catalog.expiry_now().plus(t)),
        content_type: content_type(&head.headers)?,
        return_to: redirect::return_to(node, &head.headers, &head.uri, &key, way_back)?,
        request_id: cx.request_id.to_string(),
        key,
        txn,
    };
    let max = node.config.max_value_bytes;
    if write.len.is_some_and(|n| n > max) {
        return Err(Problem::new(ErrorCode::ValueTooLarge, format!("a value may have at most {max} bytes")));
    }
    let current = node.catalog.lookup(&write.key).await.map_err(|e| e.problem())?;
    check(&write, current.as_ref())?;
    let present = current.as_ref().map(|r| r.len);
    node.catalog.ledger().check(&write.key, write.len, write.content_type.as_deref(), present)?;
    takes_writes(node)?;

    let asks_first = body.expects_continue() || body.remaining() == Some(0);
    if !asks_first {
        if !is_small(&body) {
            return relay::relay(node, &write, &head.headers, avoid, body).await;
        }
        drop_body(body).await?;
    }
    // A volume that sent the client back may have less room than it told of last.
    let full = query.all("full").next().is_some();
    redirected(node, &write, &avoid)
        .map_err(|p| if full && p.code == ErrorCode::NoVolumes { Problem::new(ErrorCode::NoSpace, p.detail) } else { p })
}

fn redirected(node: &Node, write: &Write, avoid: &[VolumeId]) -> Result<Response, Problem> {
    let granted = grant(node, write, avoid)?;
    redirect::to_write(&granted.first, &write.key, granted.ticket.version, &granted.encoded)
}

/// A small body is read and dropped, since the client sends it again to the volume. One of unannounced length is not:
/// it comes from a pipe or a generator, which many clients cannot send twice, and some then send nothing and call it a value.
fn is_small(body: &GuardedBody) -> bool {
    body.remaining().is_some_and(|n| n <= MAX_DROPPED_BODY_BYTES)
}

async fn drop_body(mut body: GuardedBody) -> Result<(), Problem> {
    while let Some(frame) = body.frame().await {
        drop(frame.map_err(Problem::from)?);
    }
    Ok(())
}

/// A catalog that is stopped refuses every commit: nobody should send a value for that.
pub(crate) fn takes_writes(node: &Node) -> Result<(), Problem> {
    if node.catalog.stats().writable { Ok(()) } else { Err(CatalogError::Stopped.problem()) }
}

/// The preconditions, on what is committed now; they are checked again at commit.
fn check(write: &Write, current: Option<&Record>) -> Result<(), Problem> {
    if write.op == TicketOp::Create && current.is_some() {
        return Err(Problem::new(ErrorCode::Exists, format!("the key {} exists; use PUT to replace it", write.key)));
    }
    holds(&write.condition, current)
}

pub(crate) fn holds(condition: &Condition, current: Option<&Record>) -> Result<(), Problem> {
    if condition.holds(current.map(|r| r.hash)) {
        return Ok(());
    }
    let now = current.map_or_else(|| "there is no such key".to_string(), |r| format!("the key's ETag is {}", r.hash.etag()));
    Err(Problem::new(ErrorCode::PreconditionFailed, now))
}

/// A signed ticket and the volume to begin at.
pub(crate) struct Granted {
    pub ticket: Ticket,
    pub encoded: String,
    pub first: Arc<Live>,
}

/// Chooses volumes and signs a ticket for them.
pub(crate) fn grant(node: &Node, write: &Write, avoid: &[VolumeId]) -> Result<Granted, Problem> {
    let live = node.members.live();
    let duties = node.members.duties();
    let candidates: Vec<placement::Candidate> =
        live.iter().filter(|(id, _)| !duties.contains_key(id)).map(|(id, l)| l.candidate(*id)).collect();
    let volumes = placement::choose(&candidates, node.replicas(), write.len, avoid, &mut rand::rng())
        .map_err(|e| too_few(node, &candidates, write.len, &e.to_string()))?;
    let version = node.catalog.next_version();
    signed(node, &live, &volumes, write, version)
}

fn too_few(node: &Node, candidates: &[placement::Candidate], len: Option<u64>, why: &str) -> Problem {
    let writable = candidates.iter().filter(|c| c.writable).count();
    let detail = format!("{} replicas are asked for: {why}", node.replicas());
    // Enough volumes, but none with room: waiting alone will not help.
    let full = writable >= node.replicas()
        && candidates.iter().filter(|c| c.writable && c.free_bytes > len.unwrap_or(0)).count() < node.replicas();
    Problem::new(if full { ErrorCode::NoSpace } else { ErrorCode::NoVolumes }, detail)
}

fn signed(
    node: &Node,
    live: &HashMap<VolumeId, Arc<Live>>,
    volumes: &[VolumeId],
    write: &Write,
    version: VersionId,
) -> Result<Granted, Problem> {
    let gone = || Problem::new(ErrorCode::NoVolumes, "a volume went down; try again");
    let chosen: Option<Vec<(VolumeId, &Arc<Live>)>> = volumes.iter().map(|id| live.get(id).map(|l| (*id, l))).collect();
    let chosen = chosen.ok_or_else(gone)?;
    let (_, first) = chosen.first().ok_or_else(gone)?;
    let volumes = chosen.iter().map(|(id, l)| TicketVolume { id: *id, address: l.address.clone() }).collect();
    let (ticket, encoded) = ticket(node, write, version, volumes, first.master.clone())?;
    Ok(Granted { encoded, first: Arc::clone(first), ticket })
}

fn ticket(
    node: &Node,
    write: &Write,
    version: VersionId,
    volumes: Vec<TicketVolume>,
    commit_to: String,
) -> Result<(Ticket, String), Problem> {
    let (limit, content) = node.catalog.ledger().limits().for_ticket(&write.key);
    let max = node.config.max_value_bytes.min(limit);
    let arrives = Duration::from_secs(write.len.unwrap_or(max) / SLOWEST_BYTES_PER_SECOND);
    let mut start_by = node.catalog.now().plus(node.config.start_within);
    let mut commit_by = start_by.plus((node.config.commit_within + arrives).min(LONGEST_COMMIT_WITHIN));
    if let Some(TicketTxn { ends, .. }) = write.txn {
        (start_by, commit_by) = (start_by.min(ends), commit_by.min(ends));
    }
    let ticket = Ticket {
        cluster: node.credentials.cluster,
        op: write.op,
        key: write.key.clone(),
        version,
        volumes,
        max_bytes: write.len.unwrap_or(max).min(max),
        content_type: write.content_type.clone(),
        content: content.filter(|_| write.op != TicketOp::Delete),
        expires: write.expires,
        condition: write.condition.clone(),
        start_by,
        commit_by: if write.op == TicketOp::Delete { node.deadline_of_delete(commit_by) } else { commit_by },
        commit_to,
        return_to: write.return_to.clone(),
        request_id: write.request_id.clone(),
        txn: write.txn,
    };
    let encoded = ticket.encode(&node.tickets).map_err(|_| Problem::new(ErrorCode::TooLong, "the URL is too long for a ticket"))?;
    Ok((ticket, encoded))
}

/// `DELETE`.
pub(crate) async fn delete(node: &Arc<Node>, request: Request, key: Key, query: &Query, cx: &RequestContext) -> Result<Response, Problem> {
    if query.has(transaction::NAME) {
        return transaction::stage_delete(node, request, key, query).await;
    }
    let (head, _) = request.into_parts();
    let condition = preconditions::from_headers(&head.headers)?;
    let record = node.catalog.lookup(&key).await.map_err(|e| e.problem())?;
    holds(&condition, record.as_ref())?;
    let record = record.ok_or_else(|| absent(&key))?;
    takes_writes(node)?;
    let avoid = redirect::avoided(query)?;
    let return_to = redirect::return_to(node, &head.headers, &head.uri, &key, None)?;
    let request_id = cx.request_id.to_string();
    let write =
        Write { key, op: TicketOp::Delete, len: Some(0), condition, expires: None, content_type: None, return_to, request_id, txn: None };
    let Some((id, _)) = replica(node, &record, &avoid) else {
        let volumes = record.replicas.iter().map(|id| TicketVolume { id: *id, address: String::new() }).collect();
        let (ticket, encoded) = ticket(node, &write, record.version, volumes, String::new())?;
        if !ticket.key.survives_clients() {
            return remove(node, ticket).await;
        }
        return redirect::to_self(node, &head.headers, &ticket.key, record.version, &encoded);
    };
    let granted = signed(node, &node.members.live(), &[id], &write, record.version)?;
    redirect::to_write(&granted.first, &write.key, granted.ticket.version, &granted.encoded)
}

/// With no replica up, the master removes the key itself; the volumes follow when they are back. That needs a ticket too: so a
/// request without one changes nothing, and what became of one with it can be asked for.
pub(crate) async fn delete_here(node: &Arc<Node>, key: &Key, encoded: &str) -> Result<Response, Problem> {
    let ticket = Ticket::decode(encoded, &node.tickets, node.credentials.cluster)?;
    ticket.check_start(node.catalog.now())?;
    if ticket.op != TicketOp::Delete || ticket.key != *key {
        return Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit this delete; ask again without it"));
    }
    remove(node, ticket).await
}

async fn remove(node: &Arc<Node>, ticket: Ticket) -> Result<Response, Problem> {
    let Ticket { key, version, condition, commit_by, volumes, .. } = ticket;
    let request = CommitDelete { key, version: Some(version), condition, commit_by };
    match node.catalog.delete(request).await.map_err(|e| e.problem())? {
        CommitAnswer::Refused(problem) => Err(problem),
        CommitAnswer::Committed(committed) => {
            for volume in &volumes {
                reclaim::kick(node, volume.id);
            }
            let mut response = body::status(StatusCode::OK);
            if let Some(value) = committed.removed.and_then(|v| HeaderValue::from_str(&v.to_string()).ok()) {
                response.headers_mut().insert("kvdb-version", value);
            }
            Ok(response)
        }
    }
}

/// The value's length, as announced; none for a chunked body.
fn announced_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let number = |name: &str| -> Result<Option<u64>, Problem> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let digits = value.to_str().ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        digits
            .and_then(|t| t.parse().ok())
            .map(Some)
            .ok_or_else(|| Problem::new(ErrorCode::BadRequest, format!("{name} is not a number of bytes")))
    };
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(None);
    }
    let announced = number(LENGTH_HEADER)?;
    let sent = number("content-length")?;
    match (announced, sent) {
        (Some(n), _) => Ok(Some(n)),
        // A client that asks first, without a body, and does not know the length: `Kvdb-Content-Length` is absent.
        (None, Some(0) | None) => Ok(None),
        (None, sent) => Ok(sent),
    }
}

/// How long the value is to live: the query's `ttl`, else the header's. Both must be well-formed.
fn time_to_live(headers: &HeaderMap, query: &Query) -> Result<Option<Duration>, Problem> {
    let parse = |text: &str| ttl::parse(text).map_err(|e| Problem::new(ErrorCode::BadRequest, e.to_string()));
    let header = headers.get(ttl::TTL_HEADER).map(|v| parse(v.to_str().unwrap_or_default())).transpose()?;
    let asked = query.get_str("ttl").map(parse).transpose()?;
    Ok(asked.or(header))
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::new(ErrorCode::BadRequest, "the Content-Type is not ASCII"))?;
    if text.len() > MAX_CONTENT_TYPE_BYTES {
        return Err(Problem::new(ErrorCode::BadRequest, format!("the Content-Type is longer than {MAX_CONTENT_TYPE_BYTES} bytes")));
    }
    Ok(Some(text.to_string()))
}
