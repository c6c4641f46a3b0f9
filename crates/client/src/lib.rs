//! The kvDB client library.
//!
//! A [`Client`] asks the master where a value is or may go, and exchanges the bytes with the volume itself.
//! Everything that it receives is checked against the value's BLAKE3, and so is what the volume says it has
//! stored. What a lost answer leaves in doubt is looked up rather than guessed; see [`Client::put`].
//!
//! ```no_run
//! # async fn example() -> Result<(), kvdb_client::Error> {
//! use kvdb_client::{Client, Key, PutOptions};
//!
//! let client = Client::new("http://localhost:3000")?;
//! let key = Key::new("photos/cat.jpg")?;
//! client.put(&key, std::path::PathBuf::from("cat.jpg"), PutOptions::default()).await?;
//! let bytes = client.get(&key).await?.read_all(64 << 20).await?;
//! # drop(bytes);
//! # Ok(())
//! # }
//! ```

mod batch;
mod client;
mod delete_all;
mod error;
mod file;
mod get;
mod info;
mod list;
mod locate;
mod outcome;
mod parts;
mod put;
mod retry;
mod sign;
mod source;
mod transaction;
mod transport;
// For the fuzzers.
#[doc(hidden)]
pub mod url;
mod values;

pub use batch::{Applied, BatchOperation, Change};
pub use client::{Builder, Client, DeleteOutcome};
pub use delete_all::{DeletedPage, Which};
pub use error::Error;
pub use get::Reader;
pub use info::Info;
pub use kvdb_protocol::ticket::{Condition, Tags};
pub use kvdb_protocol::ttl;
pub use kvdb_protocol::{ContentHash, ErrorCode, Key, KeyError, Problem, TxnId, UnixMillis, VersionId};
pub use list::{Detail, ListOptions, Listed, Page};
pub use parts::{DEFAULT_PARALLEL, DownloadOptions, Downloaded, PARTS_FROM_BYTES, PartsReader, part_path};
pub use put::{PutOptions, PutOutcome};
pub use sign::{SignFor, SignedUrl};
pub use source::{Progress, REPLAY_BYTES, Source};
pub use transaction::Transaction;
pub use values::{Valued, ValuesPage};
