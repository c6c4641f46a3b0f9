//! Requests for several keys: `/?get`, `/prefix?list&values`, `/?newest`.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod newest;
mod values;
