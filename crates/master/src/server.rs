//! Starting and stopping a master.

use crate::batch::Batches;
use crate::catalog::{Catalog, CatalogOptions};
use crate::config::Config;
use crate::expire;
use crate::front::{self, Front};
use crate::limits;
use crate::members::Members;
use crate::node::Node;
use crate::repair::{self, Repair};
use crate::service::MasterService;
use crate::{tokens, values};
use anyhow::Context as _;
use futures_util::future::join_all;
use kvdb_protocol::ClusterSecret;
use kvdb_server::peer::{Credentials, Peers};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Runs a master on `listener`, with the front ends that are configured, until `shutdown` is cancelled and the requests in flight have ended.
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let fronts = config.fronts.listen()?;
    run_with_fronts(listener, fronts, config, shutdown).await
}

/// The same with front ends that listen already, instead of those that are configured.
pub async fn run_with_fronts(listener: TcpListener, fronts: Vec<Front>, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    front::check(&fronts, &config)?;
    // Before anything is made: a bad file must not leave a directory behind.
    let tokens = config.tokens.as_deref().map(tokens::open).transpose()?;
    let limits = config.limits_file.as_deref().map(limits::follow::open).transpose()?;
    let options = CatalogOptions { dir: config.db.clone(), cache_bytes: config.cache_bytes };
    let catalog = tokio::task::spawn_blocking(move || Catalog::open(options)).await.context("the catalog could not be opened")??;
    let secret = secret(&config, &catalog)?;
    let known = catalog.members().await?.into_iter().map(|(id, _)| id).collect();
    let duties = catalog.duties().await?.into_iter().collect();
    let mut addresses = config.volumes.clone();
    addresses.extend(catalog.listed().await?);
    let mut seen = HashSet::new();
    addresses.retain(|a| seen.insert(a.clone()));
    config.check_replicas(addresses.len())?;
    let listening = listener.local_addr().context("the listener has no address")?;
    let serve_options = config.serve.clone();
    let node = Arc::new(Node {
        members: Members::new(known, duties),
        peers: Peers::new().context("the HTTP client could not be made")?,
        credentials: Credentials { cluster: catalog.cluster(), key: secret.peer_key() },
        tickets: secret.ticket_key(),
        urls: secret.url_key(),
        tokens,
        secret,
        repair: Repair::default(),
        listening,
        catalog: catalog.clone(),
        reclaims: Default::default(),
        last_delete: Default::default(),
        page_memory: values::memory(),
        backs: Default::default(),
        batches: Batches::new(config.max_batch_bytes),
        config,
    });
    limits::follow::begin(&catalog, limits.as_ref().map_or_else(|| Arc::new(node.config.limits.clone()), |l| l.get())).await?;
    tracing::info!(cluster = %node.credentials.cluster, db = %node.config.db.display(), address = %listening, "master started");
    for address in &addresses {
        node.members.list(&node, address);
    }
    let mut background = vec![
        tokio::spawn(repair::repair_forever(node.clone())),
        tokio::spawn(repair::audit_forever(node.clone())),
        tokio::spawn(expire::sweep_forever(node.clone())),
        tokio::spawn(limits::follow::metrics_forever(node.clone())),
    ];
    background.extend(node.tokens.as_ref().map(|t| t.follow()));
    if let Some(limits) = limits {
        background.extend([limits.follow(), tokio::spawn(limits::follow::changes(node.clone(), limits))]);
    }
    kvdb_server::notify::ready();
    let fronts = join_all(fronts.into_iter().map(|front| front::run(front, node.clone(), shutdown.clone())));
    let main = kvdb_server::serve::serve(listener, serve_options, Arc::new(MasterService { node: node.clone() }), shutdown.clone());
    let (main, fronts) = tokio::join!(main, fronts);
    let served = fronts.into_iter().fold(main, io::Result::and);
    background.iter().for_each(tokio::task::JoinHandle::abort);
    node.members.end();
    drop(node);
    catalog.close().await.context("the catalog could not be closed")?;
    served.context("the server stopped")
}

/// The configured secret; else the one that was made at the first start.
fn secret(config: &Config, catalog: &Catalog) -> anyhow::Result<ClusterSecret> {
    if let Some(secret) = &config.secret {
        return Ok(secret.clone());
    }
    if let Some(secret) = catalog.stored_secret()? {
        return Ok(secret);
    }
    let secret = ClusterSecret::random();
    catalog.store_secret(&secret)?;
    Ok(secret)
}
