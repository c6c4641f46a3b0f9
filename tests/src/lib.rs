//! Helpers for whole-cluster tests.
