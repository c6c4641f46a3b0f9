//! Front ends: the wire forms of other stores, over the same keys, each on a listener of its own (`docs/front-ends.md`).
//!
//! They answer by themselves: values come from the volumes, checked; what they write is a batch.

mod browser;
mod flatdb;
#[doc(hidden)]
pub mod form;

use crate::batch::{self, Action, Operation};
use crate::config::Config;
use crate::node::Node;
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use kvdb_protocol::{Condition, Key, Problem};
use kvdb_server::args::StartError;
use kvdb_server::{RequestContext, ServeOptions, ServerArgs, serve};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The content type of text that a front end stores.
const TEXT: &str = "text/plain; charset=utf-8";

/// Where front ends listen; none by default.
#[derive(Args, Clone, Debug, Default)]
pub struct FrontArgs {
    /// Serve FlatDB's clients, too, at this address, such as 127.0.0.1:7532.
    #[arg(long, env = "KVDB_FLATDB", value_name = "IP:PORT")]
    pub flatdb: Option<SocketAddr>,
}

impl FrontArgs {
    /// Refuses to listen beyond loopback with neither a secret among the flags nor `--insecure`.
    pub fn check_exposure(&self, server: &ServerArgs) -> Result<(), StartError> {
        self.flatdb.iter().try_for_each(|address| server.check_exposure_at(address.ip()))
    }
}

/// Which front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontKind {
    /// FlatDB: `/get`, `/getrange`, `/put`, `/delete`.
    FlatDb,
}

impl FrontKind {
    /// Its name in flags, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlatDb => "flatdb",
        }
    }
}

/// A front end that listens already.
#[derive(Debug)]
pub struct Front {
    /// Which.
    pub kind: FrontKind,
    /// Where.
    pub listener: TcpListener,
}

/// The front ends that are configured. To be called inside a runtime.
pub(crate) fn listen(config: &Config) -> anyhow::Result<Vec<Front>> {
    config.fronts.flatdb.iter().map(|address| Front::listen(FrontKind::FlatDb, *address)).collect()
}

impl Front {
    fn listen(kind: FrontKind, address: SocketAddr) -> anyhow::Result<Self> {
        let listener = kvdb_server::args::listen(address).map_err(|error| match error {
            StartError::PortInUse(_) => io::Error::from(io::ErrorKind::AddrInUse),
            StartError::Listen { source, .. } => source,
            other => io::Error::other(other),
        });
        let listener = listener.with_context(|| format!("cannot listen on {address}; give --{} another IP:PORT", kind.name()))?;
        Ok(Self { kind, listener })
    }
}

/// Serves one until `shutdown`, under the bounds of the main listener, counted for itself.
pub(crate) async fn run(front: Front, node: Arc<Node>, shutdown: CancellationToken) -> io::Result<()> {
    // Their queries carry values.
    let options = ServeOptions { name: front.kind.name(), connection_threads: 0, log_queries: false, ..node.config.serve.clone() };
    match front.kind {
        FrontKind::FlatDb => serve(front.listener, options, Arc::new(flatdb::FlatDb { node }), shutdown).await,
    }
}

/// A key and what becomes of it, whatever it was.
fn operation(key: Key, action: Action) -> Operation {
    Operation { key, condition: Condition::default(), action }
}

/// A text that replaces what a key has.
fn text(value: Bytes) -> Action {
    Action::Put { value, content_type: Some(TEXT.into()), expires: None, create: false }
}

/// Does all of it or nothing, durably.
async fn write(kind: FrontKind, node: &Arc<Node>, operations: Vec<Operation>, bytes: usize, cx: &RequestContext) -> Result<(), Problem> {
    if operations.is_empty() {
        return Ok(());
    }
    let keys = operations.len();
    let memory = node.batches.room(bytes as u64).await?;
    batch::run(node, operations, None, memory, cx).await?;
    // The access log does not tell a GET that writes from one that reads.
    tracing::info!(server = kind.name(), keys, "written");
    Ok(())
}
