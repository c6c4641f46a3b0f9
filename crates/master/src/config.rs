//! What a master is told at its start.

use clap::Parser;
use kvdb_protocol::ClusterSecret;
use kvdb_protocol::limits::{DEFAULT_MAX_VALUE_BYTES, MAX_REPLICAS};
use kvdb_server::ServerArgs;
use std::path::PathBuf;
use std::time::Duration;

/// Port where none is given.
pub const DEFAULT_PORT: u16 = 3000;
/// Replicas where none are asked for, if there are that many volumes.
pub const DEFAULT_REPLICAS: usize = 2;
/// Time in which a write must begin at its volume.
pub const DEFAULT_START_WITHIN: Duration = Duration::from_secs(60);
/// Time for a commit, beyond what the value takes to arrive at [`SLOWEST_BYTES_PER_SECOND`].
pub const DEFAULT_COMMIT_WITHIN: Duration = Duration::from_secs(300);
/// A write slower than this may find its ticket expired at commit, in bytes a second.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;
/// Longest life of a ticket.
pub const LONGEST_COMMIT_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// The kvDB master: keeps the metadata of all keys and redirects clients to the volumes.
#[derive(Parser)]
#[command(name = "master", version)]
pub struct Args {
    /// Addresses of the volumes, as host:port, separated by commas.
    #[arg(
        value_name = "VOLUMES",
        env = "KVDB_VOLUMES",
        num_args = 1,
        action = clap::ArgAction::Set,
        value_delimiter = ',',
        value_parser = address,
        default_value = "localhost:3001"
    )]
    pub volumes: Vec<String>,
    /// Directory of the database; made if it does not exist.
    #[arg(value_name = "DB", env = "KVDB_DB", default_value = "/tmp/cachedb")]
    pub db: PathBuf,
    /// What all servers take.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Replicas of a value [default: 2, or 1 with a single volume].
    #[arg(long, env = "KVDB_REPLICAS")]
    pub replicas: Option<usize>,
    /// Where clients reach the master, as http://host:port [default: as the client's request named it].
    #[arg(long, env = "KVDB_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Where volumes reach the master, as host:port [default: the address from which it reaches them].
    #[arg(long, env = "KVDB_ADDRESS")]
    pub address: Option<String>,
    /// Largest value, in bytes.
    #[arg(long, env = "KVDB_MAX_VALUE_SIZE", value_name = "BYTES", default_value_t = DEFAULT_MAX_VALUE_BYTES)]
    pub max_value_size: u64,
    /// Memory for the database's cache, in MiB.
    #[arg(long, env = "KVDB_CACHE", value_name = "MIB", default_value_t = 64)]
    pub cache: u64,
    /// Seconds in which a write must begin at its volume.
    #[arg(long, env = "KVDB_START_SECONDS", value_name = "S", default_value_t = DEFAULT_START_WITHIN.as_secs())]
    pub start_seconds: u64,
    /// Seconds for a commit, beyond those that the value takes to arrive at 64 KiB/s. Until they are over, volumes keep what a crash left.
    #[arg(long, env = "KVDB_COMMIT_SECONDS", value_name = "S", default_value_t = DEFAULT_COMMIT_WITHIN.as_secs())]
    pub commit_seconds: u64,
}

fn address(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("give each volume as host:port, separated by commas, as in localhost:3001,localhost:3002");
    }
    Ok(text.into())
}

/// Configuration of a master.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of the volumes, as `host:port`.
    pub volumes: Vec<String>,
    /// Directory of the database.
    pub db: PathBuf,
    /// The cluster secret, where one was configured.
    pub secret: Option<ClusterSecret>,
    /// Replicas of a value, 1 to [`MAX_REPLICAS`]; none: [`DEFAULT_REPLICAS`] or as many as there are volumes.
    pub replicas: Option<usize>,
    /// Where clients reach the master, as `http://host:port`.
    pub public_url: Option<String>,
    /// Where volumes reach the master, as `host:port`.
    pub address: Option<String>,
    /// Largest value, in bytes.
    pub max_value_bytes: u64,
    /// Memory for the database's cache, in bytes.
    pub cache_bytes: u64,
    /// Time in which a write must begin.
    pub start_within: Duration,
    /// Time for a commit.
    pub commit_within: Duration,
    /// How the server treats its connections.
    pub serve: kvdb_server::serve::ServeOptions,
}

impl Config {
    /// The defaults, for volumes and a directory.
    pub fn new(volumes: Vec<String>, db: PathBuf) -> Self {
        Self {
            volumes,
            db,
            secret: None,
            replicas: None,
            public_url: None,
            address: None,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            cache_bytes: 64 << 20,
            start_within: DEFAULT_START_WITHIN,
            commit_within: DEFAULT_COMMIT_WITHIN,
            serve: kvdb_server::serve::ServeOptions { name: "master", ..Default::default() },
        }
    }

    /// The configuration that the command line asks for.
    pub fn from_args(args: &Args) -> anyhow::Result<Self> {
        let mut config = Self::new(args.volumes.clone(), args.db.clone());
        config.secret = args.server.secret()?;
        config.serve = args.server.serve_options("master");
        config.replicas = args.replicas;
        config.public_url = args.public_url.clone();
        config.address = args.address.clone();
        config.max_value_bytes = args.max_value_size;
        config.cache_bytes = args.cache << 20;
        config.start_within = Duration::from_secs(args.start_seconds);
        config.commit_within = Duration::from_secs(args.commit_seconds);
        Ok(config)
    }

    /// Replicas of a value. Says so where they are fewer than the default.
    pub(crate) fn replicas(&self) -> anyhow::Result<usize> {
        let volumes = self.volumes.len();
        match self.replicas {
            Some(n) if n == 0 || n > MAX_REPLICAS => anyhow::bail!("--replicas must be 1 to {MAX_REPLICAS}"),
            Some(n) if n > volumes => anyhow::bail!("--replicas {n} needs at least {n} volumes, but {volumes} are listed"),
            Some(n) => Ok(n),
            None if volumes >= DEFAULT_REPLICAS => Ok(DEFAULT_REPLICAS),
            None => {
                tracing::warn!(replicas = volumes, "values have a single replica, since one volume is listed: a lost disk is lost data");
                Ok(volumes.max(1))
            }
        }
    }
}
