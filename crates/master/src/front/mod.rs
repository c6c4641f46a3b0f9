//! Front ends: the wire forms of other stores, over the same keys, each on a listener of its own (`docs/front-ends.md`).
//!
//! They answer by themselves: values come from the volumes, checked; what they write is a batch.

mod browser;
mod flatdb;
#[doc(hidden)]
pub mod form;
mod kvs;
#[doc(hidden)]
pub mod multipart;
mod page;

use crate::access;
use crate::batch::{self, Action, Operation};
use crate::config::Config;
use crate::node::Node;
use crate::tokens::Right;
use anyhow::Context as _;
use clap::Args;
use http::{HeaderMap, HeaderValue, header};
use kvdb_protocol::{Condition, ErrorCode, Key, Problem};
use kvdb_server::args::StartError;
use kvdb_server::body::Response;
use kvdb_server::{RequestContext, ServeOptions, ServerArgs, problem_response, serve};
use std::collections::HashMap;
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
    /// Serve kvs' clients, too, at this address. Needs --tokens: their passcode is a token.
    #[arg(long, env = "KVDB_KVS", value_name = "IP:PORT")]
    pub kvs: Option<SocketAddr>,
    /// Keys that begin so may be read there by anybody; empty: all keys [default: readers need a token].
    #[arg(long, env = "KVDB_KVS_PUBLIC", value_name = "PREFIX", requires = "kvs")]
    pub kvs_public: Option<String>,
}

impl FrontArgs {
    /// Refuses to listen beyond loopback with neither a secret among the flags nor `--insecure`.
    pub fn check_exposure(&self, server: &ServerArgs) -> Result<(), StartError> {
        self.addresses().try_for_each(|(_, address)| server.check_exposure_at(address.ip()))
    }

    /// Listens where they say. To be called inside a runtime.
    pub fn listen(&self) -> anyhow::Result<Vec<Front>> {
        self.addresses().map(|(kind, address)| Front::listen(kind, address)).collect()
    }

    /// Which front ends are wanted, and where.
    pub fn addresses(&self) -> impl Iterator<Item = (FrontKind, SocketAddr)> {
        let all = [(FrontKind::FlatDb, self.flatdb), (FrontKind::Kvs, self.kvs)];
        all.into_iter().filter_map(|(kind, address)| Some((kind, address?)))
    }
}

/// Which front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontKind {
    /// FlatDB: `/get`, `/getrange`, `/put`, `/delete`.
    FlatDb,
    /// kvs: `/?k=KEY`, and forms.
    Kvs,
}

impl FrontKind {
    /// Its name in flags, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlatDb => "flatdb",
            Self::Kvs => "kvs",
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
        FrontKind::Kvs => serve(front.listener, options, Arc::new(kvs::Kvs::new(node)), shutdown).await,
    }
}

/// Refuses what cannot be served, before anything is made.
pub(crate) fn check(fronts: &[Front], config: &Config) -> anyhow::Result<()> {
    if config.tokens.is_none() && fronts.iter().any(|front| front.kind == FrontKind::Kvs) {
        anyhow::bail!("--kvs needs --tokens FILE (KVDB_TOKENS): the passcode of its clients is a token");
    }
    Ok(())
}

/// Whether the bearer of a request may do this with all of these keys: 401 or 403 if not.
fn authorise<'a>(node: &Node, headers: &HeaderMap, right: Right, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Problem> {
    let rights: Vec<_> = keys.into_iter().map(|key| (right, key)).collect();
    // No key, no right that is needed.
    if rights.is_empty() { Ok(()) } else { access::by_token(node, headers, &rights).map(drop) }
}

fn not_allowed(allowed: &'static str, cx: &RequestContext) -> Response {
    let mut response = problem_response(&Problem::new(ErrorCode::MethodNotAllowed, format!("use {allowed}")), cx);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A key and what becomes of it, whatever it was.
fn operation(key: Key, action: Action) -> Operation {
    Operation { key, condition: Condition::default(), action }
}

/// A value that replaces what a key has.
fn put(value: Vec<u8>) -> Action {
    let content_type = std::str::from_utf8(&value).is_ok().then(|| TEXT.to_string());
    Action::Put { value: value.into(), content_type, expires: None, create: false }
}

/// All pairs; of a key that is there twice the last value counts.
fn puts(pairs: Vec<form::Pair>) -> Result<Vec<Operation>, Problem> {
    let (mut operations, mut places) = (Vec::new(), HashMap::new());
    for (name, value) in pairs {
        let key = Key::new(name)?;
        let at = *places.entry(key.clone()).or_insert(operations.len());
        let one = operation(key, put(value));
        match operations.get_mut(at) {
            Some(earlier) => *earlier = one,
            None => operations.push(one),
        }
    }
    Ok(operations)
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
