//! The commands, one a file.

mod get;
mod health;
mod ls;
mod put;
mod rm;
mod stat;
mod up;

use crate::args::{Args, Command};
use crate::exit::Interrupted;
use crate::output;

/// Does what was asked for, unless the user interrupts it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let common = &args.common;
    let work = async {
        match args.command {
            Command::Up(a) => up::run(a).await,
            Command::Put(a) => put::run(common, a).await,
            Command::Get(a) => get::run(common, a).await,
            Command::Rm(a) => rm::run(common, a).await,
            Command::Ls(a) => ls::run(common, a).await,
            Command::Stat(a) => stat::run(common, &a).await,
            Command::Health(a) => health::run(common, a).await,
        }
    };
    tokio::select! {
        result = work => result?,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            return Err(Interrupted.into());
        }
    }
    Ok(output::flush()?)
}
