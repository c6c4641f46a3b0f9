//! The whole HTTP API, against real clusters.
// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod deletes;
mod lists;
mod locate;
mod pages;
mod preconditions;
mod races;
mod reads;
mod tickets;
mod values;
mod volumes_down;
mod writes;
