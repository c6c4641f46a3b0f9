//! `master [VOLUMES] [DB]`: the kvDB master.

use clap::Parser as _;
use kvdb_master::{Args, Config, DEFAULT_PORT, run};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    kvdb_server::logs::init();
    kvdb_server::program::finish("master", serve(args).await)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    args.server.check_exposure()?;
    args.fronts.check_exposure(&args.server)?;
    let config = Config::from_args(&args)?;
    let listener = args.server.listen(DEFAULT_PORT).await?;
    run(listener, config, kvdb_server::signals::on_terminate()).await
}
