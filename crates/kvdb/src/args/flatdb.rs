//! What `kvdb flatdb` and `flatdb` take: FlatDB's own command line.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args as ClapArgs, Parser};
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct Flatdb {
    /// Port to listen on; 0: one that is free
    #[arg(short, long, env = "KVDB_FLATDB_PORT", default_value_t = 7532)]
    pub port: u16,
    /// Directory of the store; made if it does not exist
    #[arg(short = 'b', long, env = "KVDB_FLATDB_DATABASE", value_name = "DIR", default_value = "flatdb-data")]
    pub database: PathBuf,
    /// Host to listen on
    #[arg(short = 'H', long, env = "KVDB_FLATDB_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Log more
    #[arg(short, long, env = "KVDB_FLATDB_DEBUG", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub debug: bool,
    /// Listen beyond loopback: whoever reaches the port can read and write
    #[arg(long, env = "KVDB_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub insecure: bool,
}

/// Serves FlatDB's clients from a whole durable store on one directory, until Ctrl-C.
#[derive(Parser)]
#[command(name = "flatdb", version)]
pub struct FlatdbArgs {
    #[command(flatten)]
    pub flatdb: Flatdb,
}
