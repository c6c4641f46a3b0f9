//! `volume [DIR]`: a kvDB volume server.

use clap::Parser as _;
use kvdb_volume::{Args, Config, DEFAULT_PORT, run};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    kvdb_server::logs::init();
    kvdb_server::program::finish("volume", serve(args).await)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    // A secret that was handed over at adoption counts.
    let kept = args.dir.join(kvdb_volume::store::SECRET_FILE).exists();
    args.server.check_exposure_with(kept || args.server.secret()?.is_some())?;
    let config = Config::from_args(&args)?;
    let listener = args.server.listen(DEFAULT_PORT).await?;
    run(listener, config, kvdb_server::signals::on_terminate()).await
}
