//! Whether what clients saw of a key could have come from one register that does one thing at a time (linearizability).
//!
//! | module | what |
//! |---|---|
//! | [`history`] | what was asked and answered, when; kept as lines of text |
//! | [`checker`] | the search for an order |
//! | [`witness`] | the few operations that show why there is none |

pub mod checker;
pub mod history;
pub mod witness;

#[cfg(test)]
mod tests;

pub use checker::{Violation, check};
pub use history::{Answer, Call, Condition, History, Operation, Value};
