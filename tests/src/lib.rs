//! Whole clusters of real processes, for tests: started on port 0, restarted, killed, and spoken to through plain sockets.
//!
//! | module | what |
//! |---|---|
//! | [`cluster`] | a master and its volumes in a temporary directory |
//! | [`power`] | disks whose power can be cut |
//! | [`process`] | one server process: start, address, stop, kill, log |
//! | [`request`] | requests and answers, with and without following redirects |
//! | [`connection`] | HTTP/1.1 on a socket, byte for byte |
//! | [`linear`] | histories of keys, and whether they are linearizable |
//! | [`outside`] | curl and Python's requests |
//! | [`proxy`] | a TCP proxy that cuts, delays, stalls and flips |
//! | [`settled`] | when the volumes hold exactly what the catalog says |
//! | [`values`] | values of any size, and digests of them |

// A helper that fails fails its test, and says why by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cluster;
pub mod connection;
pub mod linear;
pub mod outside;
pub mod power;
pub mod process;
pub mod proxy;
pub mod request;
pub mod settled;
pub mod values;

pub use cluster::{Builder, Cluster};
pub use connection::{Answer, Connection};
pub use proxy::{Proxy, Way};
pub use request::{Request, Url};

use std::time::{Duration, Instant};

/// No test waits longer for one thing. It decides no outcome of a cluster that works.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
