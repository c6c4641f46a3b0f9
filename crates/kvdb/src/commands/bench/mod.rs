//! `kvdb bench`: how fast a server is. Clients are threads with blocking sockets that let the kernel drop what arrives, so
//! that on a small machine the figures are the server's.

mod client;
mod connection;
mod content;
mod loopback;
mod report;
#[cfg(test)]
mod tests;
mod work;

use crate::args::{Bench, Common, Operation};
use crate::exit::Told;
use anyhow::{Context as _, bail};
use client::Base;
use content::Pattern;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use work::{Outcome, Shared};

/// Exit code when an operation failed.
const FAILED: u8 = 1;

/// Ends the threads when nobody waits for them any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the operations, and says how fast each was.
pub async fn run(common: &Common, args: Bench) -> anyhow::Result<()> {
    let base = Base::parse(args.base.as_deref().unwrap_or(&common.master), common.token()?).context("the server to measure")?;
    let operations = match &args.operations[..] {
        [] => vec![Operation::Put, Operation::Get, Operation::Delete],
        some => some.to_vec(),
    };
    if operations.contains(&Operation::Range) && (args.range == 0 || args.range > args.size) {
        bail!("--range must be 1 to --size bytes");
    }
    let (pattern, stop) = (Arc::new(Pattern::new()), StopOnDrop(Arc::new(AtomicBool::new(false))));
    let mut failures = 0;
    for operation in operations {
        let outcome = measure(operation, &args, &base, &pattern, &stop.0).await?;
        failures += outcome.failures;
        report::print(common, operation, &args, &outcome)?;
    }
    if failures > 0 { Err(Told(FAILED).into()) } else { Ok(()) }
}

/// Runs one operation on threads of its own. They are left alone when this is dropped: they see `stop`.
async fn measure(
    operation: Operation,
    args: &Bench,
    base: &Base,
    pattern: &Arc<Pattern>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Outcome> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let (args, base, pattern, stop) = (args.clone(), base.clone(), pattern.clone(), stop.clone());
    let all = move || {
        let result = match operation {
            Operation::LoopbackGet | Operation::LoopbackPut => loopback::run(operation, &args, &pattern),
            _ => work::run(&Arc::new(Shared::new(operation, &args, base, pattern, stop))),
        };
        // Nobody listens after an interrupt.
        let _ = done.send(result);
    };
    std::thread::Builder::new().name("bench".into()).spawn(all)?;
    Ok(outcome.await??)
}
