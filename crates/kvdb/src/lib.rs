//! The programs `kvdb`, a whole small cluster in one process and the client on the command line, and `flatdb`, a store for
//! FlatDB's clients.

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

/// The program `kvdb`.
pub fn kvdb() -> ExitCode {
    let args = args::Args::parse();
    let quiet = args.common.quiet;
    match &args.command {
        args::Command::Flatdb(flatdb) if flatdb.debug => kvdb_server::logs::init_debug(),
        _ => kvdb_server::logs::init(),
    }
    exit::report("kvdb", run(commands::run(args)), quiet)
}

/// The program `flatdb`.
pub fn flatdb() -> ExitCode {
    let args = args::FlatdbArgs::parse().flatdb;
    if args.debug {
        kvdb_server::logs::init_debug()
    } else {
        kvdb_server::logs::init()
    }
    exit::report("flatdb", run(commands::flatdb(args)), false)
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WORK);
    result
}
