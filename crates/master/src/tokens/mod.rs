//! Tokens: who may read, write, delete, list and administer which keys.
//!
//! The master is given a file of them ([`file`]), which it reads again when it changes, and asks [`Tokens`] about each request of a
//! client. Without a file all clients may do everything.

mod check;
pub mod file;

pub use check::{Holder, Tokens};
pub use file::Right;

use kvdb_server::watched::{Watched, WatchedError};
use std::path::Path;
use std::sync::Arc;

/// The tokens of a file, as they were read last.
pub(crate) type TokenTable = Arc<Watched<Tokens>>;

/// Reads a file of tokens.
pub(crate) fn open(path: &Path) -> Result<TokenTable, WatchedError> {
    Watched::open(path, "tokens", Tokens::parse)
}
