//! A kvDB store inside a program: it opens a directory, and there is no server.
//!
//! ```no_run
//! use kvdb_embedded::{Options, Store};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::open(Options::plain().at("my-store"))?;
//! store.create("greeting", b"hello", None)?;
//! store.create("session", b"token", Some(Duration::from_secs(1800)))?;
//! assert_eq!(store.get("greeting")?.as_deref(), Some(&b"hello"[..]));
//! store.delete("greeting")?;
//! store.delete_all()?;
//! # Ok(()) }
//! ```
//!
//! # What is promised
//! As by a cluster: a write that has returned `Ok` is on stable storage, and survives `kill -9` and a power cut; of one that
//! was cut off, all is there or nothing. Every byte that is read is checked against its BLAKE3. A value that has expired is absent from that millisecond on,
//! and the space of what was deleted, replaced or has expired comes back within seconds.
//! There is one copy of each value: one that the disk has damaged is an error, and is never returned.
//!
//! # How it is made
//! It is a master's catalog and a volume's store in one process, without the network between them. So the directory is
//! that of a small cluster, `master/` and `volume1/`: `kvdb up DIR --volumes 1` serves the same
//! directory, one after the other, never both at once. A second opener gets [`OpenError::AlreadyOpen`] at once.
//!
//! A [`Store`] may be shared by any number of threads; writes that come together share their syncs. Calls block; they may be made inside of an
//! asynchronous runtime, too, but there belong on a thread that may block.

mod error;
mod housekeeping;
mod keys;
mod open;
mod options;
mod store;

pub use error::{Error, OpenError};
pub use keys::Keys;
pub use kvdb_protocol::Key;
pub use options::{Content, KEY_VALUE_DS_KEY_CHARACTERS, KEY_VALUE_DS_VALUE_BYTES, KeyLimit, MAX_VALUE_BYTES, Options};
pub use store::Store;
