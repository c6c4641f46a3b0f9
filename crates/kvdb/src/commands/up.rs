//! `kvdb up`: a master and two volumes in one process.

use crate::args::Up;
use crate::output;
use anyhow::Context;
use kvdb_client::Client;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const VOLUMES: u16 = 2;
/// Time in which the cluster should take requests; after it there is a word of warning.
const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);

pub async fn run(args: Up) -> anyhow::Result<()> {
    let stop = kvdb_server::signals::on_terminate();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make the directory {}", args.dir.display()))?;
    let dir = args.dir.canonicalize().with_context(|| format!("cannot use the directory {}", args.dir.display()))?;
    // All ports before the first server, so that a port in use leaves nothing half started.
    let listeners = (0..=VOLUMES).map(|i| listen(args.port + i)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut listeners = listeners.into_iter();

    let master_listener = listeners.next().context("no port for the master")?;
    let mut master = kvdb_master::Config::new((1..=VOLUMES).map(|i| format!("localhost:{}", args.port + i)).collect(), dir.join("master"));
    master.replicas = Some(args.replicas);
    master.limits_file = args.limits;

    // Volumes stop before the master: what they have taken in must still be committed.
    let (stop_volumes, stop_master) = (stop.child_token(), CancellationToken::new());
    let mut volumes = JoinSet::new();
    for (i, listener) in (1..).zip(listeners) {
        let config = kvdb_volume::Config::new(dir.join(format!("volume{i}")));
        volumes.spawn(named(format!("volume {i}"), kvdb_volume::run(listener, config, stop_volumes.clone())));
    }
    let mut masters = JoinSet::new();
    masters.spawn(named("the master".into(), kvdb_master::run(master_listener, master, stop_master.clone())));
    let greeting = tokio::spawn(greet_when_ready(args.port, dir, stop.clone()));

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

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    Ok(kvdb_server::args::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?)
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

/// Waits until the cluster takes requests, then says what to try.
async fn greet_when_ready(port: u16, dir: std::path::PathBuf, stop: CancellationToken) {
    let at = format!("http://localhost:{port}");
    let ready = async {
        // The servers are in this process: no proxy stands between.
        let Ok(client) = Client::builder(&at).no_proxy().build() else { return };
        while client.health().await.is_err() {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return,
        done = tokio::time::timeout(READY_WITHIN, ready) => if done.is_err() {
            tracing::warn!("the cluster is not ready after {} s; the lines above may say why", READY_WITHIN.as_secs());
        },
    }
    kvdb_server::notify::ready();
    if let Err(error) = output::line(&greeting(port, &dir)).and_then(|()| output::flush()) {
        // Whoever started us does not read it; the cluster runs all the same.
        tracing::debug!(%error, "the greeting could not be printed");
    }
}

fn greeting(port: u16, dir: &Path) -> String {
    let at = format!("localhost:{port}");
    let (first, last) = (port + 1, port + VOLUMES);
    format!(
        "kvDB is up: the master at http://{at}, volumes at ports {first} and {last}, data in {}. Ctrl-C stops it.

Try:
  curl -L -X POST -d examplevalue {at}/examplekey       store a value under a new key
  curl -L {at}/examplekey                               read it
  curl -L -T FILE {at}/big                              store a file, replacing what was there
  curl -L -r 0-99 {at}/big                              read a part of it
  curl '{at}/?list'                                     list the keys
  curl -L -X DELETE {at}/examplekey                     delete it",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_the_ports_and_the_directory_that_are_used() {
        let text = greeting(4000, Path::new("/srv/x"));
        for part in ["http://localhost:4000", "4001 and 4002", "/srv/x", "-X POST", "?list", "-X DELETE"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("3000"));
    }
}
