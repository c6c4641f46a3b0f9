//! `GET` and `HEAD` of a value: the hot path of a read.

use crate::bad;
use crate::conditions::{Verdict, evaluate, if_range_holds};
use crate::config::VerifyReads;
use crate::node::Node;
use crate::put::redirect;
use crate::range::{self, Ranged};
use crate::send::Reader;
use crate::store::Stored;
use crate::stream::ReadFault;
use crate::tree_page;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use kvdb_protocol::message::ValueEntry;
use kvdb_protocol::signed_url::SIGNED;
use kvdb_protocol::{ErrorCode, Key, Problem, TicketOp, VersionId};
use kvdb_server::body::{self, Response};
use kvdb_server::expiry;
use kvdb_server::guard::Request;
use kvdb_server::problem::unnamed;
use kvdb_server::query::Query;
use kvdb_server::sendfile::FileSender;
use std::sync::Arc;

/// Serves the version that the master named.
pub(crate) async fn read(node: &Arc<Node>, request: Request, key: Key, query: &Query, files: &FileSender) -> Result<Response, Problem> {
    let version: VersionId = query
        .get_str("v")
        .ok_or_else(|| {
            Problem::new(ErrorCode::Misdirected, "this is a volume, which knows values only by version; ask the master for the key")
        })?
        .parse()
        .map_err(|_| Problem::new(ErrorCode::BadRequest, "the version is malformed"))?;
    if node.reads_need_tickets() {
        permitted(node, &key, version, query)?;
    }
    let stored = match open(node, &key, version).await {
        // This clock is at most a message behind the master's, never ahead: what has expired here is absent there. The master sends
        // nobody here for what has expired, but a URL that was kept may be used again.
        Ok(Some(stored)) if !expired(node, &stored.entry) => stored,
        Ok(_) => return back_to_master(node, &key, version, query),
        Err(problem) => return bad_copy(node, &key, version, query, problem).await,
    };
    if request.method() == Method::GET && query.has(tree_page::NAME) {
        return tree_page::tree(node, stored, &key, version, query).await;
    }
    let entry = &stored.entry;
    let etag = entry.hash.etag();
    match evaluate(request.headers(), &etag, entry.modified) {
        Verdict::Proceed => {}
        Verdict::NotModified => return answer(node, StatusCode::NOT_MODIFIED, entry, None, body::empty()),
        Verdict::Failed => return Err(Problem::new(ErrorCode::PreconditionFailed, format!("the value's ETag is {etag}"))),
    }

    let ranged = match header_text(request.headers(), header::RANGE) {
        Some(text) if request.method() == Method::GET && if_range_holds(request.headers(), &etag, entry.modified) => {
            range::parse(text, entry.len)
        }
        _ => Ranged::Whole,
    };
    let (status, first, end) = match ranged {
        Ranged::Whole => (StatusCode::OK, 0, entry.len),
        Ranged::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last + 1),
        Ranged::Unsatisfiable => return Ok(unsatisfiable(entry.len)),
    };
    let part = (status == StatusCode::PARTIAL_CONTENT).then(|| (first, end - 1));
    if request.method() == Method::HEAD {
        let mut response = answer(node, status, entry, part, body::empty())?;
        set(response.headers_mut(), header::CONTENT_LENGTH, &(end - first).to_string())?;
        return Ok(response);
    }
    let entry = entry.clone();
    let mut reader = Reader::new(node, stored, first, end, Some(files));
    // The first bytes are checked before the head goes out, so that a bad copy can still be replaced by another.
    match reader.start().await {
        Ok(()) => {}
        Err(ReadFault::Busy) => return Err(Problem::new(ErrorCode::Busy, "memory for reads is in use by slow readers; try again")),
        Err(ReadFault::BadCopy) => return back_to_master(node, &key, version, query),
    }
    let mut response = answer(node, status, &entry, part, reader.into_body())?;
    set(response.headers_mut(), header::CONTENT_LENGTH, &(end - first).to_string())?;
    Ok(response)
}

/// Where reads need it, a ticket of the master for just this version.
fn permitted(node: &Node, key: &Key, version: VersionId, query: &Query) -> Result<(), Problem> {
    let text = query.get_str("ticket").ok_or_else(|| {
        Problem::new(ErrorCode::Forbidden, "reads need a ticket here; ask the master for the key, with a token, and follow its redirect")
    })?;
    let (ticket, _) = node.ticket_for(key, text)?;
    if ticket.op == TicketOp::Read && ticket.version == version {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::BadTicket, "the ticket does not permit to read this version; ask the master again"))
}

async fn open(node: &Node, key: &Key, version: VersionId) -> Result<Option<Arc<Stored>>, Problem> {
    if let Some(stored) = node.store.at_hand(key, version) {
        return Ok(Some(stored));
    }
    // What is in memory was checked when it came there.
    if node.config.verify_reads != VerifyReads::Always
        && let Some(small) = node.store.in_memory(key, version)
    {
        return Ok(Some(Arc::new(small)));
    }
    let key = key.clone();
    node.with_store(move |s| s.open_value(&key, version)).await
}

/// Before the first beat nobody knows the cluster's time.
fn expired(node: &Node, entry: &ValueEntry) -> bool {
    entry.expires.zip(node.expiry_clock.told()).is_some_and(|(at, now)| at <= now)
}

/// The copy is damaged, missing or unreadable: another replica serves the client.
pub(crate) async fn bad_copy(node: &Node, key: &Key, version: VersionId, query: &Query, problem: Problem) -> Result<Response, Problem> {
    bad::found(node, key, version, &problem).await;
    back_to_master(node, key, version, query).map_err(|_| problem)
}

/// The version is not here (any more): the master knows what is current, and is told where it was missed, all tries included.
fn back_to_master(node: &Node, key: &Key, version: VersionId, query: &Query) -> Result<Response, Problem> {
    let absent = || Problem::new(ErrorCode::NotFound, "this version is not here; ask the master for the key");
    let tickets = node.membership()?.tickets;
    let host = query.get_str("back").and_then(|b| tickets.verify_back(b)).ok_or_else(absent)?;
    let earlier = query
        .all("missed")
        .filter_map(|m| std::str::from_utf8(m).ok())
        .filter(|m| m.bytes().all(|b| b.is_ascii_hexdigit() || b"-.".contains(&b)));
    let earlier: String = earlier.map(|m| format!("missed={m}&")).collect();
    // By which the master knows a reader who was permitted this: clients drop their token on the way.
    let signed = query.get_str(SIGNED).filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'.'));
    let signed = signed.map(|s| format!("{SIGNED}={s}&")).unwrap_or_default();
    let missed = format!("{signed}{earlier}missed={version}.{}", node.volume());
    // The question was another than for this key alone, and is asked again.
    if host.contains('/') {
        return redirect(StatusCode::FOUND, &format!("http://{host}&{missed}"));
    }
    redirect(StatusCode::FOUND, &format!("http://{host}{}?{missed}", key.to_path()))
}

fn answer(node: &Node, status: StatusCode, entry: &ValueEntry, part: Option<(u64, u64)>, body: body::Body) -> Result<Response, Problem> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::ETAG, &entry.hash.etag())?;
    set(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(entry.modified.to_system_time()))?;
    set(headers, HeaderName::from_static("kvdb-version"), &entry.version.to_string())?;
    if let Some(at) = entry.expires {
        expiry::tell(headers, at, node.expiry_clock.now());
    }
    if node.reads_need_tickets() {
        // The URL permits to read: neither caches nor the pages of other sites shall pass that on.
        set(headers, header::CACHE_CONTROL, "private")?;
        set(headers, header::REFERRER_POLICY, "no-referrer")?;
    }
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    set(headers, header::ACCEPT_RANGES, "bytes")?;
    set(headers, header::CONTENT_TYPE, entry.content_type.as_deref().unwrap_or("application/octet-stream"))?;
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    if let Some((first, last)) = part {
        set(headers, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", entry.len))?;
    }
    Ok(response)
}

fn unsatisfiable(len: u64) -> Response {
    let mut response = unnamed(Problem::new(ErrorCode::RangeNotSatisfiable, format!("the value has {len} bytes")));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{len}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) -> Result<(), Problem> {
    let value = HeaderValue::from_str(text).map_err(|_| Problem::new(ErrorCode::Internal, format!("the {name} cannot be sent")))?;
    headers.insert(name, value);
    Ok(())
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}
