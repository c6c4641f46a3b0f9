//! The kvDB master: keeps the metadata of all keys and redirects clients.
//!
//! The hot path of a lookup is `read` and [`catalog`]; of a write, `write`, and then `peer_calls` and [`catalog`].

pub mod catalog;
pub mod config;
pub mod export;
pub mod limits;
pub mod placement;
pub mod rebuild;
pub mod tokens;

pub mod front;

// Parsers of outside bytes, for the fuzzers.
#[doc(hidden)]
pub mod batch_request;
#[doc(hidden)]
pub mod list;
mod locate;
#[doc(hidden)]
pub mod preconditions;

mod access;
mod batch;
mod batch_copies;
mod delete_all;
mod expire;
mod members;
mod node;
mod operator;
mod orders;
mod outcome;

mod peer_calls;
mod read;
mod reclaim;
mod redirect;
mod relay;
mod repair;
mod server;
mod service;
mod several;
mod status;
mod transaction;
mod values;
mod write;

pub use config::{Args, Config, DEFAULT_PORT};
pub use server::{run, run_with_fronts};
