//! Tokens: who may read, write, delete, list and administer which keys.
//!
//! The master is given a file of them ([`file`]), which it reads again when it changes, and asks [`Tokens`] about each request of a
//! client. Without a file all clients may do everything.

mod check;
pub mod file;

pub use check::{Holder, TokenId, Tokens};
pub use file::Right;

use crate::node::Node;
use kvdb_protocol::Problem;
use kvdb_server::watched::{Watched, WatchedError};
use std::path::Path;
use std::sync::Arc;

/// The tokens of a file, as they were read last.
pub(crate) type TokenTable = Arc<Watched<Tokens>>;

/// Reads a file of tokens.
pub(crate) fn open(path: &Path) -> Result<TokenTable, WatchedError> {
    Watched::open(path, "tokens", Tokens::parse)
}

impl Node {
    /// Whether this token may do this with this key, or list what begins so; without a file of tokens everybody may.
    pub fn may(&self, token: Option<&str>, right: Right, key_or_prefix: &[u8]) -> Result<(), Problem> {
        self.tokens.as_ref().map_or(Ok(()), |t| t.get().may(token, right, key_or_prefix))
    }
}
