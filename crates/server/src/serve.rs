//! The accept loop: bounded, patient with a machine that is short of descriptors, and drained at shutdown.

use crate::body::Response;
use crate::connection;
use crate::context::RequestContext;
use crate::exchange::Shared;
use crate::guard::{BodyLimits, Request};
use crate::threads::Threads;
use kvdb_protocol::Problem;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once, by default.
pub const DEFAULT_MAX_CONNECTIONS: usize = 4096;
/// Requests at once, by default.
pub const DEFAULT_MAX_REQUESTS: usize = 2048;
/// Seconds that requests may take to end at shutdown, by default.
pub const DEFAULT_DRAIN_SECONDS: u64 = 20;
/// Smallest buffer that hyper takes, in bytes.
const MIN_BUF_BYTES: usize = 8 << 10;
/// Pauses after an accept that failed for want of something, doubling from the first to the last.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How often histograms are folded, so that they stay small when nobody asks for them.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. An error becomes `application/problem+json`; a panic becomes a 500.
    ///
    /// It runs to its end even if the client goes away, as long as it does not touch the body; but at the end of the
    /// drain time, or when an answer cannot be sent, it is dropped. What must not be cut belongs into a task of its own.
    fn call(&self, request: Request, cx: RequestContext) -> impl Future<Output = Result<Response, Problem>> + Send;
}

/// The bounds of a server. See the field's documentation for what happens beyond each.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// `master` or `volume`: the label `server` of its metrics and logs.
    pub name: &'static str,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Requests at once, pages below `/-/` not counted; further ones get 503.
    pub max_requests: usize,
    /// Largest head, in bytes; beyond it 431. A target over 64 KiB in a head within the bound is a 414.
    pub max_head_bytes: usize,
    /// Largest read buffer, and bytes that wait to be sent, for each connection; at least `max_head_bytes`.
    pub max_buf_bytes: usize,
    /// For a whole head from its first byte, and for the first head from the accept; then the connection is closed.
    pub head_timeout: Duration,
    /// For the next request on a connection; then it is closed.
    pub idle_timeout: Duration,
    /// For a client that takes nothing of an answer; then the connection is closed.
    pub write_stall_timeout: Duration,
    /// For senders of bodies; beyond it the service's read fails, with 408.
    pub body: BodyLimits,
    /// For requests in flight at shutdown; then their connections are cut.
    pub drain_time: Duration,
    /// For a client to read the last answer of a connection while it is still sending.
    pub linger_time: Duration,
    /// Threads that serve the connections, each with an event loop of its own: best for many small answers. 0: the runtime that
    /// calls [`serve`] does it, whose workers take work from each other: best where one connection may keep a thread busy.
    pub connection_threads: usize,
    /// Whether lines of the access log have the query: not where it carries values.
    pub log_queries: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            name: "server",
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_requests: DEFAULT_MAX_REQUESTS,
            max_head_bytes: 256 << 10,
            max_buf_bytes: 256 << 10,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_stall_timeout: Duration::from_secs(30),
            body: BodyLimits::default(),
            drain_time: Duration::from_secs(DEFAULT_DRAIN_SECONDS),
            linger_time: Duration::from_secs(1),
            connection_threads: 0,
            log_queries: true,
        }
    }
}

impl ServeOptions {
    /// The read buffer, which must hold a head.
    pub(crate) fn buf_bytes(&self) -> usize {
        self.max_buf_bytes.max(self.max_head_bytes).max(MIN_BUF_BYTES)
    }
}

/// Serves until `shutdown`, then lets the requests in flight end within [`ServeOptions::drain_time`].
///
/// Streams that do not end by themselves should watch the same token. Errors of single connections, and accepts that fail,
/// do not end it.
pub async fn serve<S: Service>(
    listener: TcpListener,
    options: ServeOptions,
    service: Arc<S>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    crate::metrics::describe();
    let (name, drain_time) = (options.name, options.drain_time);
    let places = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
    let local = listener.local_addr()?;
    let threads = match options.connection_threads {
        0 => None,
        count => Some(Threads::start(name, count)?),
    };
    let shared = Arc::new(Shared::new(options, service, Handle::current()));
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    let upkeep = cut.clone();
    tokio::spawn(async move { upkeep.run_until_cancelled(keep_metrics_small()).await });
    if let Some(bug) = kvdb_protocol::lab::active() {
        tracing::error!(bug = bug.name(), "A DELIBERATE BUG IS ACTIVE: this server is for tests of tests only");
    }
    tracing::info!(server = name, address = %local, "listening");

    while let Some((stream, remote, place)) = shutdown.run_until_cancelled(accept(&listener, &places)).await {
        let (shared, shutdown, cut) = (Arc::clone(&shared), shutdown.clone(), cut.clone());
        let run = move |stream| async move {
            cut.run_until_cancelled(connection::run(stream, remote, shared, shutdown)).await;
            drop(place);
        };
        match &threads {
            None => drop(tasks.spawn(run(stream))),
            Some(threads) => match stream.into_std() {
                Ok(stream) => threads.run(tasks.track_future(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => run(stream).await,
                        Err(error) => tracing::warn!(%error, %remote, "a connection could not be taken over"),
                    }
                })),
                Err(error) => tracing::warn!(%error, %remote, "a connection could not be handed over"),
            },
        }
    }

    drop(listener);
    tasks.close();
    tracing::info!(server = name, connections = tasks.len(), "stopping");
    if tokio::time::timeout(drain_time, tasks.wait()).await.is_err() {
        tracing::warn!(server = name, connections = tasks.len(), "requests did not end in time and are cut off");
    }
    cut.cancel();
    tasks.wait().await;
    if let Some(threads) = threads {
        // They have nothing left to do.
        tokio::task::spawn_blocking(|| threads.end()).await.map_err(io::Error::other)?;
    }
    tracing::info!(server = name, "stopped");
    Ok(())
}

/// Takes a place first, then a connection for it: beyond the bound clients wait in the kernel's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = loop {
        match Arc::clone(places).acquire_owned().await {
            Ok(place) => break place,
            // Nobody closes the semaphore.
            Err(_) => std::future::pending().await,
        }
    };
    let mut pause = ACCEPT_PAUSES.0;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return (stream, remote, place),
            // The client gave up while it waited: there may be another one.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSES.1);
            }
        }
    }
}

async fn keep_metrics_small() {
    loop {
        tokio::time::sleep(METRICS_UPKEEP).await;
        crate::metrics::upkeep();
    }
}
