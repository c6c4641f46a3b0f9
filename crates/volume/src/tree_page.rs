//! `GET /key?v=…&tree`: the chaining values of a value's subtrees, by which a client checks each 256 KiB as it arrives.

use crate::node::Node;
use crate::read::bad_copy;
use crate::store::Stored;
use crate::stream::MEMORY_WAIT;
use bytes::Bytes;
use http::{HeaderValue, header};
use kvdb_protocol::tree::chaining_value_count;
use kvdb_protocol::{ErrorCode, Key, Problem, VersionId};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// The query parameter that asks for it.
pub(crate) const NAME: &str = "tree";

/// 32 bytes for each subtree, in order; none where the value is a single one. They were checked: they add up to the hash.
pub(crate) async fn tree(node: &Arc<Node>, stored: Arc<Stored>, key: &Key, version: VersionId, query: &Query) -> Result<Response, Problem> {
    // Twice: as the values that the footer holds, and as bytes to send.
    let kib = chaining_value_count(stored.entry.len).div_ceil(16).min(node.config.read_memory_kib() as u64);
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    let memory = tokio::time::timeout(MEMORY_WAIT, node.read_memory.clone().acquire_many_owned(kib)).await;
    let memory = memory.ok().and_then(Result::ok);
    let memory = memory.ok_or_else(|| Problem::new(ErrorCode::Busy, "memory for reads is in use by slow readers; try again"))?;
    let read = tokio::task::spawn_blocking(move || match stored.chaining_values() {
        Ok(values) => Ok(Counted { bytes: values.concat(), _memory: memory }),
        Err(error) => Err(error.to_problem()),
    });
    let counted = match read.await {
        Ok(Ok(counted)) => counted,
        Ok(Err(problem)) => return bad_copy(node, key, version, query, problem).await,
        Err(error) => {
            tracing::error!(%key, %error, "a task that reads chaining values died");
            return Err(Problem::new(ErrorCode::Internal, "the value's tree cannot be read"));
        }
    };
    let mut response = Response::new(body::full(Bytes::from_owner(counted)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(value) = HeaderValue::from_str(&version.to_string()) {
        response.headers_mut().insert("kvdb-version", value);
    }
    Ok(response)
}

/// Bytes that give their memory back to the bound when the socket has taken them.
struct Counted {
    bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
