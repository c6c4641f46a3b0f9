//! What the master asks of a volume: who it is, adoption, status, reclaim, entries.

use crate::node::{Membership, Node};
use bytes::Bytes;
use http::StatusCode;
use kvdb_protocol::limits::{MAX_PEER_BATCH, MAX_PEER_BODY_BYTES};
use kvdb_protocol::message::{Adopt, Beat, EntriesPage, Identity, Reclaim, VolumeStatus};
use kvdb_protocol::{ClusterSecret, ErrorCode, Problem};
use kvdb_server::body::{self, Response};
use kvdb_server::duplex::{self, LineReader, channel, line};
use kvdb_server::guard::{BodyLimits, Request, read_all};
use kvdb_server::query::Query;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a volume tells its status.
const STATUS_PERIOD: Duration = Duration::from_secs(1);
/// Without a beat for this long the master is taken for gone.
const BEATS_MISSED: Duration = Duration::from_secs(10);
/// Most entries of one page.
const MAX_ENTRIES: usize = 1000;

pub(crate) fn identity(node: &Node) -> Response {
    let identity = Identity {
        volume: node.volume(),
        cluster: node.membership().ok().map(|m| m.credentials.cluster).or(node.store.cluster()),
        public_url: node.config.public_url.clone(),
        format: crate::format::FORMAT,
        in_touch: node.in_touch(),
    };
    body::json(StatusCode::OK, &identity)
}

/// Belongs to `cluster` from now on. A volume with a configured secret obeys only who knows it.
pub(crate) async fn adopt(node: &Arc<Node>, mut request: Request) -> Result<Response, Problem> {
    let bytes = read_all(request.body_mut(), MAX_PEER_BODY_BYTES).await?;
    let (head, _) = request.into_parts();
    let message: Adopt = parse(&bytes)?;
    let handed = message.secret.as_deref().map(ClusterSecret::new).transpose();
    let handed = handed.map_err(|e| Problem::new(ErrorCode::BadRequest, e.to_string()))?;
    let own = node.config.secret.clone().or_else(|| node.store.secret());
    let Some(secret) = own.clone().or(handed) else {
        return Err(Problem::new(ErrorCode::BadRequest, "neither this volume nor the master has a cluster secret"));
    };
    let membership = Membership::new(message.cluster, &secret);
    if own.is_some() {
        membership.credentials.verify(&head, node.volume(), Some(&bytes))?;
    }
    let keep = node.config.secret.is_none().then_some(secret);
    let cluster = message.cluster;
    node.with_store(move |s| s.adopt(cluster, keep.as_ref())).await?;
    node.set_membership(membership);
    tracing::info!(%cluster, volume = %node.volume(), "belongs to a cluster");
    Ok(identity(node))
}

/// Beats of the master in, status lines out, for as long as both sides live.
pub(crate) async fn status(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let (head, mut body) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), None)?;
    body.set_limits(BodyLimits::quiet(BEATS_MISSED));
    let (out, lines) = channel();
    // A stream that has no end of its own would hold up a stop until its time is over.
    let ended = node.stopping.child_token();
    let contact = node.contact_guard();
    let node = node.clone();
    tokio::spawn(async move {
        let mut beats = LineReader::new(body);
        let mut out = Some(out);
        let end = loop {
            match ended.run_until_cancelled(beats.next::<Beat>()).await {
                Some(Ok(Some(beat))) => {
                    node.clock.set(beat.time);
                    node.expiry_clock.set(beat.expiry);
                    node.set_master(&beat.master);
                    if let Err(problem) = node.set_reads_need_tickets(beat.reads_need_tickets).await {
                        break format!("it cannot be kept whether reads need tickets: {problem}");
                    }
                    // Not before a beat was heeded: the master sends readers here as soon as this volume speaks.
                    if let Some(out) = out.take() {
                        tokio::spawn(tell(node.clone(), out, ended.clone()));
                    }
                }
                Some(Ok(None)) => break "the master ended it".to_string(),
                Some(Err(e)) => break e.to_string(),
                None => break "this volume stops".to_string(),
            }
        };
        tracing::info!(reason = %end, "status stream ended");
        ended.cancel();
        drop(contact);
    });
    Ok(Response::new(duplex::body(lines)))
}

async fn tell(node: Arc<Node>, out: mpsc::Sender<Bytes>, ended: tokio_util::sync::CancellationToken) {
    loop {
        if out.send(line(&now(&node).await)).await.is_err() {
            return;
        }
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(STATUS_PERIOD) => {}
        }
    }
}

async fn now(node: &Node) -> VolumeStatus {
    let store = node.store.clone();
    match tokio::task::spawn_blocking(move || store.status()).await {
        Ok(s) => VolumeStatus {
            total_bytes: s.total_bytes,
            free_bytes: s.free_bytes,
            used_bytes: s.used_bytes,
            values: s.values,
            prepared: s.prepared,
            busy: node.busy(),
            writable: s.writable,
            reason: s.reason,
            quarantined: s.quarantined,
            scrub: node.scrub.status(s.used_bytes),
            reads_need_tickets: node.reads_need_tickets(),
        },
        Err(e) => VolumeStatus {
            writable: false,
            reason: Some(format!("the status cannot be read: {e}")),
            reads_need_tickets: node.reads_need_tickets(),
            ..VolumeStatus::default()
        },
    }
}

/// Removes versions for good.
pub(crate) async fn reclaim(node: &Arc<Node>, mut request: Request) -> Result<Response, Problem> {
    let bytes = read_all(request.body_mut(), MAX_PEER_BODY_BYTES).await?;
    let (head, _) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), Some(&bytes))?;
    let message: Reclaim = parse(&bytes)?;
    if message.versions.len() > MAX_PEER_BATCH {
        return Err(Problem::new(ErrorCode::BadRequest, "too many versions at once"));
    }
    let log = node.fetch_log.read().await;
    let mut versions = message.versions;
    versions.retain(|item| !log.outdates(item.version, message.sent));
    node.remove(versions).await?;
    Ok(body::json(StatusCode::OK, &()))
}

/// Begins a scrub of everything now.
pub(crate) async fn scrub(node: &Arc<Node>, mut request: Request) -> Result<Response, Problem> {
    let bytes = read_all(request.body_mut(), MAX_PEER_BODY_BYTES).await?;
    let (head, _) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), Some(&bytes))?;
    node.scrub.ask();
    let asked = node.clone();
    // Kept before it is promised.
    let kept = tokio::task::spawn_blocking(move || asked.scrub.save()).await;
    kept.map_err(|e| Problem::new(ErrorCode::Internal, format!("a storage task failed: {e}")))?;
    Ok(body::json(StatusCode::OK, &()))
}

/// A page of the index.
pub(crate) async fn entries(node: &Arc<Node>, request: Request, query: &Query) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    node.membership()?.credentials.verify(&head, node.volume(), Some(b""))?;
    let after =
        query.get_str("after").map(|t| from_hex(t).ok_or_else(|| Problem::new(ErrorCode::BadRequest, "`after` is not hex"))).transpose()?;
    let limit = query.get_parsed("limit")?.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES);
    let (entries, next) = node.with_store(move |s| s.entries(after.as_deref(), limit)).await?;
    Ok(body::json(StatusCode::OK, &EntriesPage { volume: node.volume(), entries, next: next.map(|n| to_hex(&n)) }))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|e| Problem::new(ErrorCode::BadRequest, format!("the call is malformed: {e}")))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    digits.chunks_exact(2).map(|p| u8::try_from(p.first()? * 16 + p.last()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_what_is_not_hex() {
        assert_eq!(from_hex(&to_hex(&[0, 1, 254, 255])).unwrap(), [0, 1, 254, 255]);
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
