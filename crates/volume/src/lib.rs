//! A kvDB volume server: streams values to disk and serves them.
//!
//! The hot path of a write is `put`, `upload` and `store`; of a read, `read`, `stream` and `store`.

pub mod config;
pub mod format;
pub mod store;

// Parsers of outside bytes, for the fuzzers.
#[doc(hidden)]
pub mod conditions;
#[doc(hidden)]
pub mod digest;
#[doc(hidden)]
pub mod range;

mod bad;
mod chain;
mod checked;
mod clock;
mod commit;
mod commit_calls;
mod content;
mod delete;
mod disk;
mod fetch;
mod fetch_log;
mod index;
mod node;
mod outgoing;
mod peer_calls;
mod put;
mod read;
mod scrub;
mod send;
mod service;
mod stream;
mod tree_page;
mod upload;
mod used;

pub use config::{Args, Config, DEFAULT_PORT};

use crate::node::Node;
use crate::store::{Store, StoreOptions};
use anyhow::Context as _;
use kvdb_server::peer::Peers;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a stop waits for the scrub to keep where it is.
const SCRUB_STOP: Duration = Duration::from_secs(3);

/// Runs a volume on `listener` until `shutdown` is cancelled and the requests in flight have ended.
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut options = StoreOptions::new(config.dir.clone());
    options.direct_io = !config.buffered_writes;
    options.max_inline_bytes = config.max_inline_bytes;
    if let Some(bytes) = config.keep_free {
        options.keep_free_bytes = bytes;
    }
    options.capacity_bytes = config.capacity.unwrap_or(u64::MAX);
    let store = tokio::task::spawn_blocking(move || Store::open(options)).await.context("the store could not be opened")??;
    let address = listener.local_addr().context("the listener has no address")?;
    tracing::info!(volume = %store.volume(), dir = %config.dir.display(), %address, "volume started");
    let serve_options = config.serve.clone();
    let peers = Peers::new().context("the HTTP client could not be made")?;
    let node = Arc::new(Node::new(store, config, peers, shutdown.clone()));
    let settling = tokio::spawn(commit::settle_forever(node.clone()));
    let scrubbing = tokio::spawn(scrub::scrub_forever(node.clone()));
    let telling = tokio::spawn(bad::tell_forever(node.clone()));
    kvdb_server::notify::ready();
    let served = kvdb_server::serve::serve(listener, serve_options, Arc::new(service::VolumeService { node }), shutdown.clone()).await;
    settling.abort();
    telling.abort();
    // It keeps where it is before it ends; a disk that hangs must not hold up the stop.
    shutdown.cancel();
    tokio::time::timeout(SCRUB_STOP, scrubbing).await.ok();
    served.context("the server stopped")
}
