//! What a master is told at its start.

use crate::front::FrontArgs;
use crate::limits::Limits;
use clap::Parser;
use kvdb_protocol::ClusterSecret;
use kvdb_protocol::limits::{DEFAULT_MAX_VALUE_BYTES, MAX_REPLICAS};
use kvdb_server::{ServeOptions, ServerArgs};
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
/// How long a volume may be down before its values get new replicas.
pub const DEFAULT_REPAIR_AFTER: Duration = Duration::from_secs(600);
/// What repair, drain and rebalance may copy, in MiB a second.
pub const DEFAULT_REPAIR_MIB: u64 = 100;
/// Bytes of the values of one batch, where nothing else is said: 64 MiB.
pub const DEFAULT_MAX_BATCH_BYTES: u64 = 64 << 20;
/// Difference in how full volumes are at which values are moved, in percentage points.
pub const DEFAULT_REBALANCE_PERCENT: u8 = 10;
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
    /// Where other stores' clients are served.
    #[command(flatten)]
    pub fronts: FrontArgs,
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
    /// Most bytes of the values of one batch, in all. Batches take up to three times this memory, all together.
    #[arg(long, env = "KVDB_MAX_BATCH_BYTES", value_name = "BYTES", default_value_t = DEFAULT_MAX_BATCH_BYTES)]
    pub max_batch_bytes: u64,
    /// File of tokens, as `kvdb token` makes it: then clients need one for whatever they do (docs/operations.md); read again when it
    /// changes [default: everybody may do everything].
    #[arg(long, env = "KVDB_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// File of limits by prefix of the key, JSON; read again when it changes.
    #[arg(long, env = "KVDB_LIMITS", value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// Memory for the database's cache, in MiB.
    #[arg(long, env = "KVDB_CACHE", value_name = "MIB", default_value_t = 64)]
    pub cache: u64,
    /// Seconds in which a write must begin at its volume.
    #[arg(long, env = "KVDB_START_SECONDS", value_name = "S", default_value_t = DEFAULT_START_WITHIN.as_secs())]
    pub start_seconds: u64,
    /// Seconds for a commit, beyond those that the value takes to arrive at 64 KiB/s. Until they are over, volumes keep what a crash left.
    #[arg(long, env = "KVDB_COMMIT_SECONDS", value_name = "S", default_value_t = DEFAULT_COMMIT_WITHIN.as_secs())]
    pub commit_seconds: u64,
    /// Seconds for which a volume may be down before its values get new replicas elsewhere.
    #[arg(long, env = "KVDB_REPAIR_AFTER", value_name = "S", default_value_t = DEFAULT_REPAIR_AFTER.as_secs())]
    pub repair_after: u64,
    /// MiB a second that repair, drain and rebalance may copy, in all.
    #[arg(long, env = "KVDB_REPAIR_RATE", value_name = "MIB", default_value_t = DEFAULT_REPAIR_MIB)]
    pub repair_rate: u64,
    /// Percentage points by which volumes may differ in how full they are before values are moved; 0: never move.
    #[arg(long, env = "KVDB_REBALANCE_AT", value_name = "PERCENT", default_value_t = DEFAULT_REBALANCE_PERCENT)]
    pub rebalance_at: u8,
}

pub(crate) fn address(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("give each volume as host:port, separated by commas, as in localhost:3001,localhost:3002");
    }
    Ok(text.into())
}

/// A master gives many small answers, so its connections stay with a thread each. One thread more than there are cores
/// was the best of two to four on two cores, in two runs of much noise; why is not known.
fn serve_options(options: ServeOptions) -> ServeOptions {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ServeOptions { name: "master", connection_threads: cores + 1, ..options }
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
    /// Most bytes of the values of one batch, in all.
    pub max_batch_bytes: u64,
    /// File of tokens; none: clients need none.
    pub tokens: Option<PathBuf>,
    /// File of limits by prefix of the key.
    pub limits_file: Option<PathBuf>,
    /// The limits, where there is no file.
    pub limits: Limits,
    /// Memory for the database's cache, in bytes.
    pub cache_bytes: u64,
    /// Time in which a write must begin.
    pub start_within: Duration,
    /// Time for a commit.
    pub commit_within: Duration,
    /// How long a volume may be down before its values get new replicas.
    pub repair_after: Duration,
    /// What repair, drain and rebalance may copy, in bytes a second.
    pub repair_bytes_per_second: u64,
    /// Difference in how full volumes are at which values are moved, in percentage points; 0: never.
    pub rebalance_percent: u8,
    /// How the server treats its connections.
    pub serve: ServeOptions,
    /// Where other stores' clients are served.
    pub fronts: FrontArgs,
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
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
            tokens: None,
            limits_file: None,
            limits: Limits::default(),
            cache_bytes: 64 << 20,
            start_within: DEFAULT_START_WITHIN,
            commit_within: DEFAULT_COMMIT_WITHIN,
            repair_after: DEFAULT_REPAIR_AFTER,
            repair_bytes_per_second: DEFAULT_REPAIR_MIB << 20,
            rebalance_percent: DEFAULT_REBALANCE_PERCENT,
            serve: serve_options(Default::default()),
            fronts: FrontArgs::default(),
        }
    }

    /// The configuration that the command line asks for.
    pub fn from_args(args: &Args) -> anyhow::Result<Self> {
        let mut config = Self::new(args.volumes.clone(), args.db.clone());
        config.secret = args.server.secret()?;
        config.serve = serve_options(args.server.serve_options("master"));
        config.fronts = args.fronts.clone();
        config.replicas = args.replicas;
        config.public_url = args.public_url.clone();
        config.address = args.address.clone();
        config.max_value_bytes = args.max_value_size;
        config.max_batch_bytes = args.max_batch_bytes;
        config.tokens = args.tokens.clone();
        config.limits_file = args.limits.clone();
        config.cache_bytes = args.cache << 20;
        config.start_within = Duration::from_secs(args.start_seconds);
        config.commit_within = Duration::from_secs(args.commit_seconds);
        config.repair_after = Duration::from_secs(args.repair_after);
        config.repair_bytes_per_second = args.repair_rate.max(1) << 20;
        config.rebalance_percent = args.rebalance_at.min(100);
        Ok(config)
    }

    /// Checks the replicas asked for against the volumes that are listed. Says so where they are fewer than the default.
    pub(crate) fn check_replicas(&self, volumes: usize) -> anyhow::Result<()> {
        match self.replicas {
            Some(n) if n == 0 || n > MAX_REPLICAS => anyhow::bail!("--replicas must be 1 to {MAX_REPLICAS}"),
            Some(n) if n > volumes => anyhow::bail!("--replicas {n} needs at least {n} volumes, but {volumes} are listed"),
            None if volumes < DEFAULT_REPLICAS => {
                tracing::warn!("values have a single replica, since one volume is listed: a lost disk is lost data");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
