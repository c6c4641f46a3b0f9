//! curl and Python's requests, as a user types them, and the client library where an answer is lost.
// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod curl;
mod lost;
mod requests;
