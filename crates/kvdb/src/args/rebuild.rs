//! Arguments of `kvdb rebuild`.

use super::{SecretArgs, address};
use clap::Args as ClapArgs;
use std::path::PathBuf;

const REBUILD_HELP: &str = "\
When the master's directory is lost: stop the master, leave the volumes running, rebuild, and start the master
on the new directory with the same list of volumes. Keys, values' lengths, hashes, content types, times and
versions come back as they were; what was deleted stays deleted for 30 days.

All volumes must take part. What only a volume that is left out holds is lost, and what only that volume knows
to be deleted comes back. A volume that cannot be reached is therefore an error; list fewer volumes only if
the others are gone for good.

The secret: if none was configured, the master made it, and it is the file `secret` in any volume's directory.

A failed rebuild can be repeated: the directory counts as empty until all of the catalog is there.

Example:
  kvdb rebuild localhost:3001,localhost:3002 /var/lib/kvdb-new --secret-file /tmp/volume1/secret --dry-run";

#[derive(ClapArgs)]
#[command(after_long_help = REBUILD_HELP)]
pub struct Rebuild {
    /// Addresses of the volumes, as on the master's list: host:port, separated by commas
    #[arg(value_name = "VOLUMES", value_delimiter = ',', num_args = 1, action = clap::ArgAction::Set, required = true, value_parser = address)]
    pub volumes: Vec<String>,
    /// Directory for the new catalog; empty, or made
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// It is kept in DB, readable for its owner only
    #[command(flatten)]
    pub secret: SecretArgs,
    /// Only count; write nothing. Does no harm while the master runs
    #[arg(long)]
    pub dry_run: bool,
    /// What to do with writes that no volume knows the outcome of, but that are whole on all their volumes
    #[arg(long, value_enum, default_value = "keep")]
    pub uncertain: UncertainArg,
}

/// What to do with writes of unknown outcome.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum UncertainArg {
    /// Keep them: they may have been acknowledged
    Keep,
    /// Drop them: they may not have been
    Drop,
}

impl From<UncertainArg> for kvdb_master::rebuild::Uncertain {
    fn from(arg: UncertainArg) -> Self {
        match arg {
            UncertainArg::Keep => Self::Keep,
            UncertainArg::Drop => Self::Drop,
        }
    }
}
