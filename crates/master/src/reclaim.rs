//! Has volumes remove what was replaced or deleted, until each has said yes.

use crate::node::Node;
use kvdb_protocol::VolumeId;
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::message::{Reclaim, path};
use kvdb_server::peer::Destination;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Also without a kick, the lists are looked at this often.
const PERIOD: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long more is let come together after a kick: each round costs a call, and a sync at either end. What was deleted has
/// been removed by the volume that took the delete.
const GATHER: Duration = Duration::from_millis(20);
/// Pause after a failed call.
const PAUSE: Duration = Duration::from_secs(1);

/// Has the list of this volume worked off soon; starts its task the first time.
pub(crate) fn kick(node: &Arc<Node>, volume: VolumeId) {
    let mut tasks = node.reclaims.lock().unwrap_or_else(PoisonError::into_inner);
    let notify = tasks.entry(volume).or_insert_with(|| {
        let notify = Arc::new(Notify::new());
        tokio::spawn(work_forever(Arc::downgrade(node), volume, notify.clone()));
        notify
    });
    notify.notify_one();
}

async fn work_forever(node: std::sync::Weak<Node>, volume: VolumeId, kicked: Arc<Notify>) {
    loop {
        if tokio::time::timeout(PERIOD, kicked.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
        // The master has stopped.
        let Some(node) = node.upgrade() else { return };
        if let Err(error) = work_off(&node, volume).await {
            tracing::warn!(%volume, %error, "reclaim goes on later");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn work_off(node: &Node, volume: VolumeId) -> Result<(), String> {
    loop {
        let Some(live) = node.members.live().get(&volume).cloned() else { return Ok(()) };
        let items = node.catalog.reclaim_list(volume, MAX_PEER_BATCH).await.map_err(|e| e.to_string())?;
        if items.is_empty() {
            return Ok(());
        }
        let more = items.len() >= MAX_PEER_BATCH;
        let message = Reclaim { sent: node.catalog.now(), versions: items };
        let to = Destination { address: &live.address, volume, target: path::RECLAIM };
        node.peers.post::<()>(&node.credentials, to, &message, CALL_TIMEOUT).await.map_err(|e| e.to_string())?;
        node.catalog.reclaim_done(volume, &message.versions).await.map_err(|e| e.to_string())?;
        tracing::debug!(%volume, versions = message.versions.len(), "reclaimed");
        // What has come in the meantime has kicked.
        if !more {
            return Ok(());
        }
    }
}
