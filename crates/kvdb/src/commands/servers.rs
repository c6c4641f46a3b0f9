//! A whole store in this process: a master and volumes on one directory.

use anyhow::Context as _;
use kvdb_client::Client;
use kvdb_master::front::Front;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time in which the store should take requests; after it there is a word of warning.
const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);

/// What listens already, so that a port in use leaves nothing half started.
pub struct Servers {
    /// `master`, `volume1`, … are directories below it.
    pub dir: PathBuf,
    pub master: TcpListener,
    pub volumes: Vec<TcpListener>,
    pub fronts: Vec<Front>,
}

/// Makes a directory where there is none, and gives its full path.
pub fn made(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("cannot use the directory {}", dir.display()))
}

/// Listens on a port of this machine alone; 0: any that is free.
pub fn listen(port: u16) -> anyhow::Result<TcpListener> {
    Ok(kvdb_server::args::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?)
}

impl Servers {
    /// Runs them until `stop`, or until one ends; `configure` may change what the master is told, and once they take requests,
    /// `greet` is called.
    pub async fn run(
        self,
        configure: impl FnOnce(&mut kvdb_master::Config),
        stop: CancellationToken,
        greet: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<()> {
        let port = self.master.local_addr()?.port();
        let addresses: Vec<String> =
            self.volumes.iter().map(|l| Ok(format!("localhost:{}", l.local_addr()?.port()))).collect::<anyhow::Result<_>>()?;
        let mut config = kvdb_master::Config::new(addresses, self.dir.join("master"));
        configure(&mut config);

        // Volumes stop before the master: what they have taken in must still be committed.
        let (stop_volumes, stop_master) = (stop.child_token(), CancellationToken::new());
        let mut volumes = JoinSet::new();
        for (i, listener) in (1..).zip(self.volumes) {
            let config = kvdb_volume::Config::new(self.dir.join(format!("volume{i}")));
            volumes.spawn(named(format!("volume {i}"), kvdb_volume::run(listener, config, stop_volumes.clone())));
        }
        let mut masters = JoinSet::new();
        let master = kvdb_master::run_with_fronts(self.master, self.fronts, config, stop_master.clone());
        masters.spawn(named("the master".into(), master));
        let greeting = tokio::spawn(greet_when_ready(port, greet, stop.clone()));

        // Until the first server ends, of itself or because it was told to.
        let first = tokio::select! {
            ended = volumes.join_next() => ended,
            ended = masters.join_next() => ended,
        };
        greeting.abort();
        stop_volumes.cancel();
        let mut result = outcome(first);
        while let Some(ended) = volumes.join_next().await {
            result = result.and(outcome(Some(ended)));
        }
        stop_master.cancel();
        while let Some(ended) = masters.join_next().await {
            result = result.and(outcome(Some(ended)));
        }
        result
    }
}

async fn named(name: String, server: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    server.await.with_context(|| format!("{name} failed"))
}

fn outcome(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(anyhow::Error::from(e).context("a server ended by a fault of its own")),
        None => Ok(()),
    }
}

/// Waits until the store takes requests, then says what to try.
async fn greet_when_ready(port: u16, greet: impl FnOnce(), stop: CancellationToken) {
    let ready = async {
        // The servers are in this process: no proxy stands between.
        let Ok(client) = Client::builder(format!("http://localhost:{port}")).no_proxy().build() else { return };
        while client.health().await.is_err() {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return,
        done = tokio::time::timeout(READY_WITHIN, ready) => if done.is_err() {
            tracing::warn!("the store is not ready after {} s; the lines above may say why", READY_WITHIN.as_secs());
        },
    }
    kvdb_server::notify::ready();
    greet();
}
