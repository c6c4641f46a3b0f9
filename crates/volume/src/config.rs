//! What a volume is told at its start.

use clap::{Parser, ValueEnum};
use kvdb_protocol::ClusterSecret;
use kvdb_protocol::limits::MAX_INLINE_VALUE_BYTES;
use kvdb_server::{ServeOptions, ServerArgs};
use std::path::PathBuf;

/// Port where none is given.
pub const DEFAULT_PORT: u16 = 3001;
/// Uploads at a time at one place of a chain. Each holds about 3 MiB.
pub const DEFAULT_MAX_UPLOADS: usize = 16;
/// Memory for values on their way to clients, in MiB.
pub const DEFAULT_READ_MEMORY_MIB: usize = 24;

/// How long a scrub of everything takes, in seconds.
pub const DEFAULT_SCRUB_EVERY: u64 = 7 * 24 * 3600;
/// What the scrub reads at most, in MiB a second.
pub const DEFAULT_SCRUB_RATE: u64 = 64;

/// Which reads are checked against the value's hash before they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VerifyReads {
    /// Whatever comes from the disk, and what others brought into the page cache; what was checked and is in the page cache
    /// still is sent by the kernel as it is.
    #[default]
    Cold,
    /// Every byte of every read.
    Always,
    /// None: for file systems that check by themselves.
    Never,
}

/// A kvDB volume server: stores values in a directory and serves them.
#[derive(Parser)]
#[command(name = "volume", version)]
pub struct Args {
    /// Directory of the volume; made if it does not exist.
    #[arg(value_name = "DIR", env = "KVDB_VOLUME_DIR", default_value = "/tmp/volume")]
    pub dir: PathBuf,
    /// What all servers take.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Where clients reach this volume, as http://host:port [default: the address on the master's list].
    #[arg(long, env = "KVDB_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Bytes of the disk that new values leave free, so that index and deletes always have room.
    #[arg(long, env = "KVDB_KEEP_FREE", value_name = "BYTES")]
    pub keep_free: Option<u64>,
    /// Bytes of values that it takes at most; K, M and G are 1024s [default: what the file system holds].
    #[arg(long, env = "KVDB_CAPACITY", value_name = "BYTES", value_parser = kvdb_server::args::size)]
    pub capacity: Option<u64>,
    /// In how many seconds everything is read and checked once; 0: only when asked.
    #[arg(long, env = "KVDB_SCRUB_EVERY", value_name = "SECONDS", default_value_t = DEFAULT_SCRUB_EVERY)]
    pub scrub_every: u64,
    /// What is read for that at most, in MiB a second.
    #[arg(long, env = "KVDB_SCRUB_RATE", value_name = "MIB", default_value_t = DEFAULT_SCRUB_RATE, value_parser = clap::value_parser!(u64).range(1..))]
    pub scrub_rate: u64,
    /// Uploads at a time; more wait, then get 503.
    #[arg(long, env = "KVDB_MAX_UPLOADS", default_value_t = DEFAULT_MAX_UPLOADS)]
    pub max_uploads: usize,
    /// Memory for values on their way to clients, in MiB; more readers wait, then get 503.
    #[arg(long, env = "KVDB_READ_MEMORY", value_name = "MIB", default_value_t = DEFAULT_READ_MEMORY_MIB)]
    pub read_memory: usize,
    /// Which reads are checked before they are sent.
    #[arg(long, env = "KVDB_VERIFY_READS", value_enum, default_value_t)]
    pub verify_reads: VerifyReads,
    /// Write through the page cache instead of directly to the disk.
    #[arg(long, env = "KVDB_BUFFERED_WRITES")]
    pub buffered_writes: bool,
}

/// A connection stays with a thread, one for each core: values of 1 MiB and 64 MiB from memory went a quarter faster than
/// from the workers of one runtime, which hand connections to each other.
fn serve_options(options: ServeOptions) -> ServeOptions {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ServeOptions { connection_threads: cores, ..options }
}

/// Configuration of a volume.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the volume.
    pub dir: PathBuf,
    /// The cluster secret, where one was configured.
    pub secret: Option<ClusterSecret>,
    /// Where clients reach this volume, as `http://host:port`.
    pub public_url: Option<String>,
    /// Bytes of the disk that new values leave free; none: the store's default.
    pub keep_free: Option<u64>,
    /// Bytes of values that it takes at most; none: what the file system holds.
    pub capacity: Option<u64>,
    /// In how many seconds everything is read and checked once; 0: only when asked.
    pub scrub_every: u64,
    /// What is read for that at most, in MiB a second.
    pub scrub_rate_mib: u64,
    /// Uploads at a time.
    pub max_uploads: usize,
    /// Memory for values on their way to clients, in MiB.
    pub read_memory_mib: usize,
    /// Which reads are checked before they are sent.
    pub verify_reads: VerifyReads,
    /// Write through the page cache.
    pub buffered_writes: bool,
    /// Largest value that lives in the index, in bytes.
    pub max_inline_bytes: u64,
    /// How the server treats its connections.
    pub serve: ServeOptions,
}

impl Config {
    /// The defaults, for a directory.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            secret: None,
            public_url: None,
            keep_free: None,
            capacity: None,
            scrub_every: DEFAULT_SCRUB_EVERY,
            scrub_rate_mib: DEFAULT_SCRUB_RATE,
            max_uploads: DEFAULT_MAX_UPLOADS,
            read_memory_mib: DEFAULT_READ_MEMORY_MIB,
            verify_reads: VerifyReads::default(),
            buffered_writes: false,
            max_inline_bytes: MAX_INLINE_VALUE_BYTES,
            serve: serve_options(ServeOptions { name: "volume", ..ServeOptions::default() }),
        }
    }

    /// The configuration that the command line asks for.
    pub fn from_args(args: &Args) -> anyhow::Result<Self> {
        let mut config = Self::new(args.dir.clone());
        config.secret = args.server.secret()?;
        config.serve = serve_options(args.server.serve_options("volume"));
        config.public_url = args.public_url.clone();
        config.keep_free = args.keep_free;
        config.capacity = args.capacity;
        config.scrub_every = args.scrub_every;
        config.scrub_rate_mib = args.scrub_rate;
        config.max_uploads = args.max_uploads.max(1);
        config.read_memory_mib = args.read_memory;
        config.verify_reads = args.verify_reads;
        config.buffered_writes = args.buffered_writes;
        Ok(config)
    }

    pub(crate) fn read_memory_kib(&self) -> usize {
        // A portion must fit, or no value could ever be read.
        (self.read_memory_mib << 10).max(2 << 10)
    }
}
