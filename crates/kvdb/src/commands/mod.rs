//! The commands, one a file.

mod batch;
mod bench;
mod catalog;
mod cluster;
mod flatdb;
mod fsck;
mod get;
mod health;
mod ls;
mod publish;
mod put;
mod rebuild;
mod rm;
mod servers;
mod several;
mod sign;
mod stat;
mod token;
mod up;

use crate::args::{Args, Command, Common};
use crate::exit::Interrupted;
use crate::output;

pub use flatdb::run as flatdb;

/// Does what was asked for, unless the user interrupts it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        // Signals stop it gracefully, within it.
        Command::Up(up) => up::run(&args.common, up).await,
        Command::Flatdb(a) => flatdb::run(a).await,
        Command::Rm(rm) => {
            rm::confirm(&rm)?;
            client_command(&args.common, Command::Rm(rm)).await
        }
        command => client_command(&args.common, command).await,
    }
}

async fn client_command(common: &Common, command: Command) -> anyhow::Result<()> {
    let work = async {
        match command {
            Command::Put(a) => put::run(common, a).await,
            Command::Get(a) => get::run(common, a).await,
            Command::Mget(a) => several::mget(common, a).await,
            Command::Newest(a) => several::newest(common, a).await,
            Command::Rm(a) => rm::run(common, a).await,
            Command::Batch(a) => batch::run(common, a).await,
            Command::Publish(a) => publish::run(common, a).await,
            Command::Ls(a) => ls::run(common, a).await,
            Command::Stat(a) => stat::run(common, &a).await,
            Command::Rebuild(a) => rebuild::run(common, a).await,
            Command::Catalog(a) => catalog::run(common, a).await,
            Command::Fsck(a) => fsck::run(common, a).await,
            Command::Cluster(a) => cluster::run(common, a).await,
            Command::Sign(a) => sign::run(common, &a).await,
            Command::Token(a) => token::run(common, a),
            Command::Bench(a) => bench::run(common, a).await,
            Command::Health(a) => health::run(common, a).await,
            Command::Up(a) => up::run(common, a).await,
            Command::Flatdb(a) => flatdb::run(a).await,
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
