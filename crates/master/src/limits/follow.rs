//! Limits out of a file: read at the start, and again when it changes.

use super::Limits;
use crate::catalog::Catalog;
use crate::node::Node;
use kvdb_server::watched::{Watched, WatchedError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the start waits for quotas to be counted. Later, what they are for is refused until they are.
const COUNTING_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether they are.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often the numbers of quotas are told to the metrics.
const METRICS_PERIOD: Duration = Duration::from_secs(1);

/// Reads the file for the first time.
pub(crate) fn open(path: &Path) -> Result<Arc<Watched<Limits>>, WatchedError> {
    Watched::open(path, "limits", |text| Limits::parse(text).map_err(|e| e.to_string()))
}

/// Holds the catalog to its first limits, before anything is served.
pub(crate) async fn begin(catalog: &Catalog, limits: Arc<Limits>) -> Result<(), crate::catalog::CatalogError> {
    catalog.set_limits(limits).await?;
    let began = Instant::now();
    while catalog.ledger().usage().iter().any(|u| !u.counted) {
        if began.elapsed() > COUNTING_WAIT {
            tracing::warn!("the keys of quotas are still being counted; writes under their prefixes get 503 until that is done");
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Takes each change of the file.
pub(crate) async fn changes(node: Arc<Node>, watched: Arc<Watched<Limits>>) {
    let mut told = watched.subscribe();
    // It ends when the file is no longer followed, that is, with the server.
    while told.changed().await.is_ok() {
        let limits = told.borrow_and_update().clone();
        if let Err(error) = node.catalog.set_limits(limits).await {
            tracing::error!(%error, "new limits are not taken");
        }
    }
}

/// Tells the metrics what is used of the quotas.
pub(crate) async fn metrics_forever(node: Arc<Node>) {
    let server = node.config.serve.name;
    metrics::describe_gauge!("kvdb_quota_keys", "Keys under a prefix that has a quota.");
    metrics::describe_gauge!("kvdb_quota_bytes", "Bytes of the values under a prefix that has a quota.");
    let mut tick = tokio::time::interval(METRICS_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for usage in node.catalog.ledger().usage() {
            // A double is exact up to 2^53.
            metrics::gauge!("kvdb_quota_keys", "server" => server, "prefix" => usage.prefix.clone()).set(usage.keys as f64);
            metrics::gauge!("kvdb_quota_bytes", "server" => server, "prefix" => usage.prefix).set(usage.bytes as f64);
        }
    }
}
