//! The command line.

mod batch;
mod bench;
mod catalog;
mod flatdb;
mod publish;
mod rebuild;
mod sign;
mod token;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Parser, Subcommand};
use kvdb_client::{Client, ContentHash, DEFAULT_PARALLEL, Key};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

pub use batch::Batch;
pub use bench::{Bench, Expect, Operation};
pub use catalog::{Catalog, CatalogOrder, Export, Fsck, Import};
pub use flatdb::{Flatdb, FlatdbArgs};
pub use publish::Publish;
pub use rebuild::Rebuild;
pub use sign::Sign;
pub use token::{Rights, Token, TokenOrder};

/// Most connections of one `kvdb get`.
const MAX_PARALLEL: usize = 64;

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 error, 2 usage, 4 no such key, 5 failed but worth another try, 6 the directory is in use, 130 interrupted.";

/// kvDB: a distributed key-value store for large values.
#[derive(Parser)]
#[command(name = "kvdb", version, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands take.
#[derive(ClapArgs)]
pub struct Common {
    /// The master
    #[arg(long, global = true, env = "KVDB_MASTER", default_value = "http://localhost:3000", value_name = "URL")]
    pub master: String,
    /// A token for the master
    #[arg(long, global = true, env = "KVDB_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds a token for the master, where --token is not given
    #[arg(long, global = true, env = "KVDB_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Further tries of what can pass by itself
    #[arg(long, global = true, env = "KVDB_RETRIES", default_value_t = 5, value_name = "N")]
    pub retries: u32,
    /// Print results as JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Common {
    /// The token that was given, if one was.
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        let file = match (&self.token, &self.token_file) {
            (Some(token), _) => return Ok(Some(token.clone())),
            (None, Some(file)) => file,
            (None, None) => return Ok(None),
        };
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read a token from {}", file.display()))?;
        Ok(Some(text.trim().to_string()))
    }

    /// The client that was asked for.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.client_at(&self.master, Duration::from_secs(120))
    }

    /// A client of another server, with another patience.
    pub fn client_at(&self, url: &str, answer_timeout: Duration) -> anyhow::Result<Client> {
        let builder = Client::builder(url).retries(self.retries).answer_timeout(answer_timeout);
        Ok(match self.token()? {
            Some(token) => builder.token(token).build()?,
            None => builder.build()?,
        })
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a whole small cluster, a master and its volumes, until Ctrl-C
    Up(Up),
    /// Serve FlatDB's clients from a whole store on one directory, until Ctrl-C
    Flatdb(Flatdb),
    /// Store a value
    Put(Put),
    /// Read a value; it is checked against its BLAKE3
    Get(Get),
    /// Show the small values of several keys
    Mget(Keys),
    /// Show which of several keys was written last, and write its value to standard output
    Newest(Keys),
    /// Delete keys
    Rm(Rm),
    /// Put and delete several keys together, all or none
    Batch(Batch),
    /// Store several files that become visible together, all or none
    Publish(Publish),
    /// List keys in order of their bytes
    Ls(Ls),
    /// Show what is known of a value
    Stat(Stat),
    /// Make a new catalog for a master from what the volumes hold, when its directory is lost
    Rebuild(Rebuild),
    /// Save the catalog of a running master to a file, or make a new one of such a file
    Catalog(Catalog),
    /// Compare the catalog with what the volumes hold
    Fsck(Fsck),
    /// Show the cluster; add, drain and remove volumes; have copies checked
    Cluster(Cluster),
    /// Print a URL by which a key can be read, or stored, without a token for a while
    Sign(Sign),
    /// Make, remove and list the tokens by which clients are permitted things
    Token(Token),
    /// Measure a server: puts, gets, ranges, lookups, deletes
    Bench(Bench),
    /// Check that a server is ready: exit code 0, else 1
    Health(Health),
}

#[derive(ClapArgs)]
pub struct Up {
    #[command(flatten)]
    pub fronts: kvdb_master::front::FrontArgs,
    /// Directory for the data of all servers; made if it does not exist
    #[arg(default_value = "kvdb-data", env = "KVDB_DATA")]
    pub dir: PathBuf,
    /// Port of the master; the volumes take those that follow. 0: ports that are free
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,
    /// File of limits by prefix of the key (docs/operations.md); read again when it changes
    #[arg(long, env = "KVDB_LIMITS", value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// File of tokens, without which clients may do nothing then (docs/operations.md; `kvdb token`); read again when it changes
    #[arg(long, env = "KVDB_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Volumes, 1 to 8; without it as many as the directory has, or 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=8))]
    pub volumes: Option<u16>,
    /// Replicas of each value; without it 2, or 1 with one volume
    #[arg(long, env = "KVDB_REPLICAS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=8))]
    pub replicas: Option<u16>,
    /// Stop when standard input ends, as it does when the program that started this one ends
    #[arg(long)]
    pub stop_at_eof: bool,
}

#[derive(ClapArgs)]
pub struct Put {
    /// The key, as it is (not percent-encoded)
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// The file to store; - is standard input
    pub file: PathBuf,
    /// Only if the key does not exist
    #[arg(long)]
    pub create: bool,
    /// Only if the present value has this BLAKE3
    #[arg(long, value_name = "BLAKE3", value_parser = hash)]
    pub if_match: Option<ContentHash>,
    /// Content type to store with it
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// How long it is to live, such as 30s, 250ms or 7d; without it, it never expires
    #[arg(long, value_name = "TIME", value_parser = kvdb_client::ttl::parse)]
    pub ttl: Option<Duration>,
}

#[derive(ClapArgs)]
pub struct Get {
    /// The key, as it is (not percent-encoded)
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// The file to write, which appears only when all of it is right; - is standard output: heed the exit code. What
    /// was received of a value of 32 MiB or more stays in FILE.kvdb-part, and the same command goes on from there
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Connections at a time for a value of 32 MiB or more, over all replicas; 1: in one piece, from one replica
    #[arg(long, env = "KVDB_PARALLEL", default_value_t = DEFAULT_PARALLEL, value_name = "N", value_parser = parallel)]
    pub parallel: usize,
}

#[derive(ClapArgs)]
pub struct Rm {
    /// The keys
    #[arg(required_unless_present_any = ["prefix", "all"], value_parser = KeyParser)]
    pub keys: Vec<Key>,
    /// All keys that begin with this; interrupted, the same command goes on
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["keys", "all"])]
    pub prefix: Option<OsString>,
    /// All keys of the cluster
    #[arg(long, conflicts_with = "keys")]
    pub all: bool,
    /// Do not ask whether --prefix or --all is meant
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(ClapArgs)]
pub struct Keys {
    /// The keys
    #[arg(required = true, value_parser = KeyParser)]
    pub keys: Vec<Key>,
}

#[derive(ClapArgs)]
pub struct Ls {
    /// What the keys begin with
    #[arg(default_value = "")]
    pub prefix: OsString,
    /// Show keys with this after the prefix as one common prefix, as directories with /
    #[arg(long, short, value_name = "TEXT")]
    pub delimiter: Option<OsString>,
    /// With length, time and BLAKE3
    #[arg(long, short)]
    pub long: bool,
    /// With the values of at most 64 KiB, as of one moment for each page
    #[arg(long, conflicts_with = "long")]
    pub values: bool,
    /// Most lines to show
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(ClapArgs)]
pub struct Stat {
    /// The key
    #[arg(value_parser = KeyParser)]
    pub key: Key,
}

/// The cluster's secret, which proves that an operator asks.
#[derive(ClapArgs)]
pub struct SecretArgs {
    /// The cluster's secret
    #[arg(long, env = "KVDB_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// File that holds the cluster's secret: where none was configured, `secret` in the directory of the master or of any volume
    #[arg(long, env = "KVDB_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

const CLUSTER_HELP: &str = "\
To replace a volume: add the new one, drain the old one, wait until `kvdb cluster` shows that nothing is left on
it, remove it, and stop its process. Reads and writes go on meanwhile. A volume whose disk is lost is not
drained but removed with --lost; its values get new replicas from the others as soon as it has been down for
the master's --repair-after, or at once when it is removed.

Orders need the cluster's secret. If none was configured, the master made one: it is the file `secret` in its directory.

Example:
  kvdb cluster add host3:3001 --secret-file /tmp/cachedb/secret
  kvdb cluster drain 0197c3a0-… --secret-file /tmp/cachedb/secret";

/// What to do with the cluster.
#[derive(ClapArgs)]
#[command(after_long_help = CLUSTER_HELP)]
pub struct Cluster {
    #[command(subcommand)]
    pub order: Option<ClusterOrder>,
}

#[derive(Subcommand)]
pub enum ClusterOrder {
    /// Show volumes and the progress of repair (the default); where there are tokens, for one that may do everything or with the secret
    Status {
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Use the volume at an address, from now on and after restarts of the master
    Add {
        /// As host:port
        #[arg(value_parser = address)]
        address: String,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Move all that a volume holds to the others, and give it nothing new
    Drain {
        /// Its id or its address
        volume: String,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Use a volume again that was to be drained
    Resume {
        /// Its id or its address
        volume: String,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Take a volume that is drained out of the cluster for good
    Remove {
        /// Its id or its address
        volume: String,
        /// Also if values are on it: its disk is lost
        #[arg(long)]
        lost: bool,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Have all that a volume holds, or all volumes hold, read and checked now
    Scrub {
        /// Its id or its address [default: all volumes]
        volume: Option<String>,
        #[command(flatten)]
        secret: SecretArgs,
    },
}

#[derive(ClapArgs)]
pub struct Health {
    /// The server, master or volume [default: this machine at PORT, where that is set, else the master]
    pub url: Option<String>,
    /// The server's port on this machine, where no URL is given
    #[arg(long, env = "PORT")]
    pub port: Option<u16>,
}

fn parallel(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=MAX_PARALLEL).contains(n)).ok_or_else(|| format!("1 to {MAX_PARALLEL}"))
}

fn address(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("give each volume as host:port, separated by commas, as in localhost:3001,localhost:3002");
    }
    Ok(text.into())
}

fn hash(text: &str) -> Result<ContentHash, String> {
    ContentHash::from_hex(text.trim_matches('"')).ok_or_else(|| "not 64 hex digits".into())
}

/// Takes any bytes that the system lets pass as an argument.
#[derive(Clone)]
struct KeyParser;

impl clap::builder::TypedValueParser for KeyParser {
    type Value = Key;

    fn parse_ref(&self, command: &clap::Command, _: Option<&clap::Arg>, value: &std::ffi::OsStr) -> Result<Key, clap::Error> {
        Key::new(value.to_os_string().into_vec())
            .map_err(|e| clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{e}\n")).with_cmd(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["kvdb"], line].concat())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_key_is_taken_as_its_bytes() {
        let line = [&b"kvdb"[..], b"stat", b"a%2F\xff/.."].map(|b| OsString::from_vec(b.to_vec()));
        let Command::Stat(stat) = Args::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!(stat.key.as_bytes(), b"a%2F\xff/..");
    }

    #[test]
    fn what_is_not_a_key_is_a_usage_error_that_says_why() {
        for bad in ["", "-/x", &"k".repeat(1025)] {
            let e = parse(&["stat", "--", bad]).err().unwrap();
            assert_eq!(e.exit_code(), 2, "{bad}");
            assert!(e.to_string().contains("key"), "{e}");
        }
    }

    #[test]
    fn a_small_cluster_has_one_to_eight_volumes_and_replicas() {
        for option in ["--volumes", "--replicas"] {
            assert!(parse(&["up", option, "8", "--port", "0"]).is_ok());
            assert!(parse(&["up", option, "9"]).is_err());
            assert!(parse(&["up", option, "0"]).is_err());
        }
    }

    #[test]
    fn volumes_are_one_argument_of_addresses() {
        let Command::Rebuild(r) = parse(&["rebuild", "h:1,[::1]:2", "db"]).unwrap().command else { panic!() };
        assert_eq!((r.volumes, r.db), (vec!["h:1".to_string(), "[::1]:2".to_string()], PathBuf::from("db")));
        for bad in [&["rebuild", "h:1,,h:2", "db"][..], &["rebuild", "h", "db"], &["rebuild", "h:1", "h:2", "db"], &["rebuild", "h:1"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn global_flags_go_anywhere() {
        let a = parse(&["ls", "--json", "--master", "h:1", "p"]).unwrap();
        assert!(a.common.json);
        assert_eq!(a.common.master, "h:1");
        assert!(parse(&["put", "k"]).is_err(), "a value is needed");
    }
}
