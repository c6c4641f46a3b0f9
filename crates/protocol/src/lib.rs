//! Keys, ids, tickets, messages, error codes and limits of kvDB: pure, no I/O.
//!
//! Everything that two programs of a cluster must agree on is here, and nothing else.
//! The wire is described in `docs/protocol.md`.

pub mod chain;
pub mod content;
pub mod error;
pub mod hash;
pub mod id;
pub mod key;
pub mod lab;
pub mod limits;
pub mod message;
pub mod operator;
pub mod secret;
pub mod signed_url;
pub mod ticket;
pub mod time;
pub mod token;
pub mod tree;
pub mod ttl;

pub use content::ContentRule;
pub use error::{ErrorCode, Problem};
pub use hash::ContentHash;
pub use id::{ClusterId, TxnId, VersionId, VolumeId};
pub use key::{Key, KeyError};
pub use secret::{ClusterSecret, PeerKey, TicketKey};
pub use ticket::{Condition, Ticket, TicketError, TicketOp, TicketTxn, TicketVolume};
pub use time::UnixMillis;
pub use token::Token;
