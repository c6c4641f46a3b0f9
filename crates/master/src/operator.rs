//! What operators ask of the master: signed with the cluster's secret, and fresh.

use crate::node::Node;
use kvdb_protocol::limits::MAX_PEER_BODY_BYTES;
use kvdb_protocol::operator::{ASKED_WITHIN, Asked, NO_VOLUME};
use kvdb_protocol::{ErrorCode, Problem};
use kvdb_server::guard::{Request, read_all};
use serde::de::DeserializeOwned;

/// What a signed call asks.
pub(crate) async fn asked<T: DeserializeOwned>(node: &Node, mut request: Request) -> Result<T, Problem> {
    let bytes = read_all(request.body_mut(), MAX_PEER_BODY_BYTES).await?;
    let (head, _) = request.into_parts();
    node.credentials.verify(&head, NO_VOLUME, Some(&bytes))?;
    let asked: Asked<T> =
        serde_json::from_slice(&bytes).map_err(|e| Problem::new(ErrorCode::BadRequest, format!("the call is malformed: {e}")))?;
    let (now, within) = (node.catalog.now().0, u64::try_from(ASKED_WITHIN.as_millis()).unwrap_or(u64::MAX));
    if now.abs_diff(asked.at.0) > within {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            "the call is not of this minute by the cluster's time; ask /-/operator/cluster for it and try again",
        ));
    }
    Ok(asked.ask)
}
