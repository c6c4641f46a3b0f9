//! What kvDB's master and volume share around hyper: the accept loop and its bounds, bodies, answers,
//! logs, metrics, and how the programs are started and stopped.
//!
//! A server implements [`Service`] and calls [`serve`]; `docs/http.md` says what happens around it.

pub mod args;
pub mod body;
pub mod context;
pub mod duplex;
pub mod expiry;
pub mod guard;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod pages;
pub mod peer;
pub mod problem;
pub mod program;
pub mod query;
pub mod sendfile;
pub mod serve;
pub mod signals;
pub mod to_end;
pub mod watched;

mod access;
mod checks;
mod connection;
mod deadline;
mod exchange;
mod leftover;
mod socket;
mod threads;

pub use args::ServerArgs;
pub use body::{Body, BoxError, Response};
pub use context::RequestContext;
pub use guard::{BodyError, BodyLimits, GuardedBody, Request};
pub use problem::problem_response;
pub use query::Query;
pub use serve::{ServeOptions, Service, serve};
pub use watched::Watched;
