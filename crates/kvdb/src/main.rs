//! `kvdb`: a whole small cluster in one process, and the client on the command line.

mod args;
mod bar;
mod commands;
mod exit;
mod operator;
mod output;

use clap::Parser as _;
use std::process::ExitCode;
use std::time::Duration;

/// A thread that still waits for standard input must not keep the process.
const LAST_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = args::Args::parse();
    let quiet = args.common.quiet;
    kvdb_server::logs::init();
    let result = run(args);
    exit::report(result, quiet)
}

fn run(args: args::Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(commands::run(args));
    runtime.shutdown_timeout(LAST_WORK);
    result
}
