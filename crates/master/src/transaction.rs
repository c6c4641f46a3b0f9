//! `/?txn`: transactions begun, shown, committed and given up; their members are put and deleted as keys always are, with `?txn=ID`.
//!
//! A value goes to its volumes by the ordinary way, under a ticket that names the transaction. When all copies are durable the volume
//! asks for the commit, and the catalog stages it. The commit of all is one step of the catalog, like that of a batch.

use crate::access;
use crate::batch::{self, Answer, Applied};
use crate::batch_copies::{self, Held};
use crate::catalog::{Changed, Duty, MAX_OPEN_TXNS, Member, Transaction, TxnAnswer, TxnState};
use crate::node::Node;
use crate::{expire, preconditions, write};
use http::{HeaderValue, Method, StatusCode};
use kvdb_protocol::message::{CommitAnswer, Prepared};
use kvdb_protocol::{ErrorCode, Key, Problem, TicketTxn, TicketVolume, TxnId, ttl};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::Request;
use kvdb_server::query::Query;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The query parameter that names a transaction.
pub(crate) const NAME: &str = "txn";
/// How long a transaction is open where nothing else is asked for.
const DEFAULT_TTL: Duration = Duration::from_secs(3_600);
/// Shortest and longest time; the longest keeps within what a version may wait for its commit.
const TTLS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);

/// Whether a request for a key may name a transaction.
pub(crate) fn may_name(method: &Method, query: &Query) -> bool {
    matches!(*method, Method::PUT | Method::POST | Method::DELETE) && !query.has("delete-all")
}

/// A request that is about a transaction as a whole.
pub(crate) async fn call(node: &Arc<Node>, request: Request, query: &Query) -> Result<Response, Problem> {
    let bad = |what| Problem::new(ErrorCode::BadRequest, what);
    if request.uri().path() != "/" {
        return Err(bad("only PUT, POST and DELETE of a key can be part of a transaction; what is read is what was committed"));
    }
    let named = id(query)?;
    // Whoever ends it or looks at it must be allowed what is in it.
    if let Some(id) = named.filter(|_| node.tokens.is_some()) {
        access::members(node, request.headers(), &transaction(node, id).await?.members)?;
    }
    match (request.method(), named, query.has("commit"), query.has("abort")) {
        (&Method::POST, None, false, false) => begin(node, query).await,
        (&Method::POST, Some(id), true, false) => commit(node, id).await,
        (&Method::POST, Some(id), false, true) => abort(node, id).await,
        (&Method::GET, Some(id), false, false) => show(node, id).await,
        _ => Err(bad("POST /?txn begins a transaction, POST /?txn=ID&commit or &abort ends it, GET /?txn=ID shows it")),
    }
}

/// The transaction that a write names, with its end; none: it names none. Refused where it is not open.
pub(crate) fn named(node: &Node, query: &Query) -> Result<Option<TicketTxn>, Problem> {
    if !query.has(NAME) {
        return Ok(None);
    }
    let id = id(query)?.ok_or_else(|| Problem::new(ErrorCode::BadRequest, "name the transaction, as in ?txn=ID; POST /?txn begins one"))?;
    let ends = node.catalog.open_txn(id).map_err(|e| e.problem())?.ok_or_else(unknown)?;
    Ok(Some(TicketTxn { id, ends }))
}

/// The id that a query names; none: it is empty.
fn id(query: &Query) -> Result<Option<TxnId>, Problem> {
    match query.get_str(NAME) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| unknown()),
    }
}

fn unknown() -> Problem {
    Problem::new(ErrorCode::NoSuchTransaction, "no transaction of this id is open; begin one with POST /?txn")
}

async fn begin(node: &Node, query: &Query) -> Result<Response, Problem> {
    let asked =
        query.get_str("ttl").map(|text| ttl::parse(text).map_err(|e| Problem::new(ErrorCode::BadRequest, e.to_string()))).transpose()?;
    let ttl = asked.unwrap_or(DEFAULT_TTL);
    if !TTLS.contains(&ttl) {
        return Err(Problem::new(ErrorCode::BadRequest, "a transaction may be open for 1s to 24h"));
    }
    write::takes_writes(node)?;
    let expires = node.catalog.now().plus(ttl);
    let id = node.catalog.begin_txn(expires).await.map_err(|e| e.problem())?.ok_or_else(|| {
        Problem::new(ErrorCode::Busy, format!("{MAX_OPEN_TXNS} transactions are open, and no more may be; try again when one has ended"))
    })?;
    tracing::debug!(expires = expires.0, "transaction begun");
    Ok(body::json(StatusCode::CREATED, &json!({"txn": id, "expires": expires})))
}

/// `DELETE /key?txn=ID`: no volume is needed for it.
pub(crate) async fn stage_delete(node: &Arc<Node>, request: Request, key: Key, query: &Query) -> Result<Response, Problem> {
    let Some(TicketTxn { id, .. }) = named(node, query)? else { return Err(unknown()) };
    let condition = preconditions::from_headers(request.headers())?;
    let record = node.catalog.lookup(&key).await.map_err(|e| e.problem())?;
    write::holds(&condition, record.as_ref())?;
    write::takes_writes(node)?;
    match node.catalog.stage(id, Member::Delete { key, condition }).await.map_err(|e| e.problem())? {
        CommitAnswer::Refused(problem) => Err(problem),
        CommitAnswer::Committed(_) => {
            kick(node);
            Ok(body::status(StatusCode::ACCEPTED))
        }
    }
}

/// Copies of what was replaced in a transaction are to be removed.
fn kick(node: &Arc<Node>) {
    node.members.live().keys().for_each(|volume| crate::reclaim::kick(node, *volume));
}

async fn show(node: &Node, id: TxnId) -> Result<Response, Problem> {
    let Transaction { state, expires, members } = transaction(node, id).await?;
    let members: Vec<Value> = members.iter().map(shown).collect();
    Ok(body::json(StatusCode::OK, &json!({"txn": id, "state": state, "expires": expires, "members": members})))
}

async fn transaction(node: &Node, id: TxnId) -> Result<Transaction, Problem> {
    node.catalog.transaction(id).await.map_err(|e| e.problem())?.ok_or_else(unknown)
}

fn shown(member: &Member) -> Value {
    match member {
        Member::Put(put) => json!({
            "key": put.key.display(),
            "operation": if put.create { "create" } else { "put" },
            "version": put.version,
            "etag": put.hash,
            "length": put.len,
            "content_type": put.content_type,
            "expires": put.expires,
        }),
        Member::Delete { key, .. } => json!({"key": key.display(), "operation": "delete"}),
    }
}

/// Runs to its end whether or not the client waits, so that the volumes are told.
async fn commit(node: &Arc<Node>, id: TxnId) -> Result<Response, Problem> {
    write::takes_writes(node)?;
    let node = node.clone();
    let task = tokio::spawn(async move {
        refuse_lost(&node, id).await?;
        match node.catalog.commit_txn(id).await.map_err(|e| e.problem())? {
            TxnAnswer::Refused(problem) => Err(problem),
            TxnAnswer::Committed(members, changed) => {
                batch::after_commit(&node, &changed);
                let held: Vec<Held> = members.iter().filter_map(|m| held(&node, m)).collect();
                batch_copies::note_strays(&node, held.iter());
                let reachable: Vec<Held> = held.into_iter().map(reached).collect();
                batch_copies::keep(&node, reachable.iter(), &batch::changed_seqs(&changed)).await;
                tracing::debug!(members = members.len(), "transaction committed");
                Ok(members.iter().zip(changed).map(|(member, changed)| applied(member, changed)).collect::<Vec<_>>())
            }
        }
    });
    let lost = |e| Problem::new(ErrorCode::OutcomeUnknown, format!("the commit's task failed: {e}; ask for the commit again"));
    let results = task.await.map_err(lost)??;
    Ok(body::json(StatusCode::OK, &Answer { results }))
}

fn applied(member: &Member, changed: Changed) -> Applied {
    let etag = match member {
        Member::Put(put) => Some(put.hash),
        Member::Delete { .. } => None,
    };
    batch::applied(member.key(), etag, changed)
}

/// A value all of whose volumes were removed from the cluster since it was staged would be committed and lost.
async fn refuse_lost(node: &Node, id: TxnId) -> Result<(), Problem> {
    let duties = node.members.duties();
    if !duties.values().any(|duty| *duty == Duty::Removed) {
        return Ok(());
    }
    let Transaction { state, members, .. } = transaction(node, id).await?;
    let is_lost = |member: &&Member| match member {
        Member::Put(put) => put.replicas.iter().all(|v| duties.get(v) == Some(&Duty::Removed)),
        Member::Delete { .. } => false,
    };
    let lost: Vec<&Key> = members.iter().filter(is_lost).map(Member::key).collect();
    if lost.is_empty() || state != TxnState::Open {
        return Ok(());
    }
    let detail = "all volumes that hold these values were removed from the cluster; put them again";
    Err(Problem::new(ErrorCode::Conflict, detail).of_keys(lost))
}

/// The copies of a member's value; the address of a volume that is down is empty.
fn held(node: &Node, member: &Member) -> Option<Held> {
    let Member::Put(put) = member else { return None };
    let live = node.members.live();
    let volume = |id| TicketVolume { id, address: live.get(&id).map(|l| l.address.clone()).unwrap_or_default() };
    Some(Held {
        key: put.key.clone(),
        version: put.version,
        volumes: put.replicas.iter().map(|id| volume(*id)).collect(),
        commit_by: put.commit_by,
        prepared: Prepared { len: put.len, hash: put.hash },
    })
}

/// Only volumes that are up can be told; the others ask when they are back.
fn reached(mut held: Held) -> Held {
    held.volumes.retain(|v| !v.address.is_empty());
    held
}

async fn abort(node: &Arc<Node>, id: TxnId) -> Result<Response, Problem> {
    let node = node.clone();
    // It must not be left half-way if the client goes away, so that the space comes back at once.
    let task = tokio::spawn(async move {
        node.catalog.abort_txn(id).await.map_err(|e| e.problem())??;
        if let Err(error) = expire::sweep_transactions(&node).await {
            tracing::warn!(%error, "the copies of a transaction that was given up are removed later");
        }
        Ok::<_, Problem>(())
    });
    task.await.map_err(|e| Problem::new(ErrorCode::Internal, format!("the task that gives it up failed: {e}; ask again")))??;
    let mut response = body::status(StatusCode::OK);
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
