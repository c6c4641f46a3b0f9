//! `/-/status`: the cluster at a glance, for operators and their tools.

use crate::catalog::{CatalogError, Duty};
use crate::node::Node;
use crate::operator;
use http::StatusCode;
use kvdb_protocol::Problem;
use kvdb_protocol::operator::Cluster;
use kvdb_server::body::{self, Response};
use kvdb_server::guard::Request;
use serde_json::{Value, json};

/// Whether reads and writes can be served now.
pub(crate) fn ready(node: &Node) -> Result<(), String> {
    if !node.catalog.stats().writable {
        return Err(CatalogError::Stopped.to_string());
    }
    let live = node.members.live();
    let duties = node.members.duties();
    let writable = live.iter().filter(|(id, l)| l.status.writable && !duties.contains_key(id)).count();
    let needed = node.replicas();
    if writable >= needed { Ok(()) } else { Err(format!("{writable} volumes take writes, {needed} are needed")) }
}

/// What operators must know before they can sign anything.
pub(crate) fn cluster(node: &Node) -> Response {
    body::json(StatusCode::OK, &Cluster { cluster: node.credentials.cluster, time: node.catalog.now() })
}

/// The page for who has the cluster's secret and perhaps no token.
pub(crate) async fn signed(node: &Node, request: Request) -> Result<Response, Problem> {
    let () = operator::asked(node, request).await?;
    Ok(page(node))
}

pub(crate) fn page(node: &Node) -> Response {
    let (live, duties) = (node.members.live(), node.members.duties());
    let volumes: Vec<Value> = node
        .members
        .listed()
        .into_iter()
        .map(|l| {
            let found = l.id.and_then(|id| live.get(&id));
            json!({
                "id": l.id,
                "address": l.address,
                "up": l.up,
                "error": l.error,
                "draining": l.id.is_some_and(|id| duties.get(&id) == Some(&Duty::Drain)),
                "public_url": found.map(|f| &f.public_url),
                "status": found.map(|f| &f.status),
            })
        })
        .collect();
    let stats = node.catalog.stats();
    body::json(
        StatusCode::OK,
        &json!({
            "cluster": node.credentials.cluster,
            "replicas": node.replicas(),
            "ready": ready(node).is_ok(),
            "writable": stats.writable,
            "seq": stats.seq,
            "keys": stats.keys,
            "bytes": stats.bytes,
            "transactions": stats.open_txns,
            "time": node.catalog.now(),
            "volumes": volumes,
            "quotas": node.catalog.ledger().usage(),
            "repair": node.repair.report(),
        }),
    )
}
