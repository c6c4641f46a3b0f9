//! Removes values that have expired, soon after: readers do not see them from their very millisecond on, and this gives the
//! space back.

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

async fn sweep(node: &Arc<Node>) -> Result<(), crate::catalog::CatalogError> {
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
    Ok(())
}
