//! Operators' orders: volumes come, are emptied, and go, while the master runs.

use crate::catalog::{CatalogError, Duty};
use crate::node::Node;
use crate::operator::asked;
use http::StatusCode;
use kvdb_protocol::message::path;
use kvdb_protocol::operator::Order;
use kvdb_protocol::{ErrorCode, Problem, VolumeId};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::Request;
use kvdb_server::peer::Destination;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a new address may take to turn out good or bad before the order is answered.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Records looked at together.
const PAGE: usize = 1000;

/// Carries out an order.
pub(crate) async fn order(node: &Arc<Node>, request: Request) -> Result<Response, Problem> {
    let order: Order = asked(node, request).await?;
    tracing::info!(?order, "an operator's order");
    let done = match order {
        Order::Add { address } => add(node, &address).await?,
        Order::Drain { volume } => duty(node, volume, Some(Duty::Drain)).await?,
        Order::Resume { volume } => duty(node, volume, None).await?,
        Order::Remove { volume, lost } => remove(node, volume, lost).await?,
        Order::Scrub { volume } => scrub(node, volume).await?,
    };
    Ok(body::json(StatusCode::OK, &done))
}

async fn add(node: &Arc<Node>, address: &str) -> Result<Value, Problem> {
    crate::config::address(address).map_err(|why| Problem::new(ErrorCode::BadRequest, why))?;
    node.catalog.set_listed(address, true).await.map_err(problem)?;
    node.members.list(node, address);
    let give_up = Instant::now() + FIRST_CONTACT;
    loop {
        let listed = node.members.listed().into_iter().find(|l| l.address == address);
        match listed {
            Some(l) if !l.up && Instant::now() < give_up => tokio::time::sleep(POLL).await,
            other => return Ok(json!({ "listed": other })),
        }
    }
}

fn known(node: &Node, volume: VolumeId) -> Result<(), Problem> {
    if node.members.known().contains(&volume) {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::NotFound, format!("volume {volume} is not of this cluster; see /-/status for those that are")))
}

async fn duty(node: &Arc<Node>, volume: VolumeId, duty: Option<Duty>) -> Result<Value, Problem> {
    known(node, volume)?;
    if node.members.duties().get(&volume) == Some(&Duty::Removed) {
        return Err(Problem::new(ErrorCode::Conflict, format!("volume {volume} was removed from the cluster")));
    }
    node.catalog.set_duty(volume, duty).await.map_err(problem)?;
    node.members.set_duty(volume, duty);
    node.repair.kick();
    Ok(json!({ "volume": volume, "draining": duty.is_some() }))
}

/// Takes a volume out: one that no record names, or that is lost.
async fn remove(node: &Arc<Node>, volume: VolumeId, lost: bool) -> Result<Value, Problem> {
    known(node, volume)?;
    let draining = node.members.duties().get(&volume).is_some();
    if !lost {
        if !draining {
            return Err(Problem::new(ErrorCode::Conflict, "drain the volume first; one whose disk is gone is removed with --lost"));
        }
        if let Some(key) = first_named(node, volume).await? {
            let detail = format!("values are on the volume still, {key} among them; wait for the drain to end, or remove it with --lost");
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
    }
    node.catalog.set_duty(volume, Some(Duty::Removed)).await.map_err(problem)?;
    node.members.set_duty(volume, Some(Duty::Removed));
    let addresses = node.members.unlist(volume);
    for address in &addresses {
        node.catalog.set_listed(address, false).await.map_err(problem)?;
    }
    node.catalog.forget_reclaim(volume).await.map_err(problem)?;
    node.repair.kick();
    Ok(json!({ "volume": volume, "removed": true, "addresses": addresses }))
}

/// The first key whose record names the volume.
async fn first_named(node: &Node, volume: VolumeId) -> Result<Option<kvdb_protocol::Key>, Problem> {
    let mut after = None;
    loop {
        let page = node.catalog.records(after, PAGE).await.map_err(problem)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after = Some(last.clone());
        if let Some((key, _)) = page.into_iter().find(|(_, r)| r.replicas.contains(&volume)) {
            return Ok(Some(key));
        }
    }
}

async fn scrub(node: &Node, volume: Option<VolumeId>) -> Result<Value, Problem> {
    let live = node.members.live();
    let wanted: Vec<_> = live.iter().filter(|(id, _)| volume.is_none_or(|v| v == **id)).collect();
    if wanted.is_empty() {
        return Err(Problem::new(ErrorCode::NotFound, "no such volume is up"));
    }
    let mut begun = Vec::new();
    for (id, live) in wanted {
        let to = Destination { address: &live.address, volume: *id, target: path::SCRUB };
        node.peers.post::<()>(&node.credentials, to, &(), CALL_TIMEOUT).await.map_err(|e| e.to_problem())?;
        begun.push(*id);
    }
    Ok(json!({ "scrubbing": begun }))
}

fn problem(e: CatalogError) -> Problem {
    e.problem()
}
