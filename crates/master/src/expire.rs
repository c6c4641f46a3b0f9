//! Removes values that have expired, soon after: readers do not see them from their very millisecond on, and this gives the
//! space back. So it does with transactions that are over.

use crate::catalog::CatalogError;
use crate::node::Node;
use crate::reclaim;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked for what has expired.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause between two steps, so that commits of clients are not held up by many that expire at once.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) async fn sweep_forever(node: Arc<Node>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        let swept = sweep(&node).await;
        if let Err(error) = &swept
            && !failing
        {
            tracing::warn!(%error, "expired values are removed later");
        }
        failing = swept.is_err();
    }
}

async fn sweep(node: &Arc<Node>) -> Result<(), CatalogError> {
    let mut removed = 0;
    loop {
        let swept = node.catalog.sweep_expired().await?;
        removed += swept.removed;
        if swept.removed > 0 {
            // Whichever hold copies: what one has to remove is on its list.
            node.members.live().keys().for_each(|volume| reclaim::kick(node, *volume));
        }
        if !swept.more {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if removed > 0 {
        tracing::debug!(removed, "expired values removed");
    }
    sweep_transactions(node).await
}

/// Removes what is left of transactions that were given up or have expired.
pub(crate) async fn sweep_transactions(node: &Arc<Node>) -> Result<(), CatalogError> {
    loop {
        let swept = node.catalog.sweep_txns().await?;
        if swept.removed > 0 {
            node.members.live().keys().for_each(|volume| reclaim::kick(node, *volume));
        }
        if !swept.more {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
