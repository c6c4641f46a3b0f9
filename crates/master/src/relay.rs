//! A body, large or of unannounced length, that is on its way although nobody asked for it: passed on to the volumes as it comes, in
//! bounded memory, so that every HTTP client works.

use crate::node::Node;
use crate::write::{Granted, Write, grant};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use kvdb_protocol::message::{Committed, Prepared, Standing};
use kvdb_protocol::{Problem, Ticket, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::duplex::{ChainOpen, ChainSender};
use kvdb_server::guard::GuardedBody;
use std::sync::Arc;

/// Other choices of volumes, if those chosen first cannot take the value.
const MAX_TRIES: usize = 4;
/// What the first volume checks.
const PASSED_ON: [&str; 3] = ["content-md5", "repr-digest", "content-digest"];

/// Sends the body through the chain, and gives the volume's answer.
pub(crate) async fn relay(
    node: &Arc<Node>,
    write: &Write,
    headers: &HeaderMap,
    avoid: Vec<VolumeId>,
    mut body: GuardedBody,
) -> Result<Response, Problem> {
    let mut passed_on = HeaderMap::new();
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            passed_on.insert(name, value.clone());
        }
    }
    let (granted, mut chain) = open(node, write, passed_on, avoid, false).await?;
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(Problem::from)?.into_data() else { continue };
        len += bytes.len() as u64;
        chain.data(bytes).await.map_err(|e| e.to_problem())?;
    }
    // From here on the volume commits without being asked again.
    chain.end(len).await.map_err(|e| e.to_outcome())?;
    let prepared = chain.prepared().await.map_err(|e| e.to_outcome())?;
    let committed = chain.done().await.map_err(|e| e.to_outcome())?;
    Ok(stored(&granted.ticket, prepared, committed))
}

/// Opens a chain for a value, with other volumes if those chosen first cannot take it. `hold`: the copies stay prepared.
pub(crate) async fn open(
    node: &Node,
    write: &Write,
    passed_on: HeaderMap,
    mut avoid: Vec<VolumeId>,
    hold: bool,
) -> Result<(Granted, ChainSender), Problem> {
    let mut last = None;
    for _ in 0..MAX_TRIES {
        let granted = match grant(node, write, &avoid) {
            Ok(granted) => granted,
            // What a volume said is more to the point than that there are no others.
            Err(problem) => return Err(last.unwrap_or(problem)),
        };
        let Some(volume) = granted.ticket.volumes.first() else { break };
        let call = ChainOpen { ticket: &granted.encoded, at: 0, len: write.len, hold, headers: passed_on.clone() };
        match ChainSender::open(&node.peers, &node.credentials, volume, call).await {
            Ok(chain) => return Ok((granted, chain)),
            Err(error) => {
                let problem = error.to_problem();
                if !problem.retry {
                    return Err(problem);
                }
                tracing::warn!(key = %write.key, volume = %problem.volume.unwrap_or(volume.id), error = %problem, "a volume cannot take the value; trying others");
                avoid.push(problem.volume.unwrap_or(volume.id));
                last = Some(problem);
            }
        }
    }
    Err(last.unwrap_or_else(|| Problem::new(kvdb_protocol::ErrorCode::NoVolumes, "no volume could take the value")))
}

fn stored(ticket: &Ticket, prepared: Prepared, committed: Committed) -> Response {
    let mut response = body::status(match committed.standing {
        Standing::Staged => StatusCode::ACCEPTED,
        _ if committed.created => StatusCode::CREATED,
        _ => StatusCode::OK,
    });
    for (name, text) in [("etag", prepared.hash.etag()), ("kvdb-version", ticket.version.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
