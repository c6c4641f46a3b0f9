//! Arguments of the commands about the catalog.

use super::SecretArgs;
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct Catalog {
    #[command(subcommand)]
    pub order: CatalogOrder,
}

#[derive(Subcommand)]
pub enum CatalogOrder {
    /// Save the catalog of a running master, as of one moment
    Export(Export),
    /// Make a new catalog of a saved one, for a master to start with
    Import(Import),
}

const EXPORT_HELP: &str = "\
Lines of JSON: which cluster and when, volumes, one line for each key, copies to be removed, and a last line with
numbers and a BLAKE3 of all lines before, so that a cut or changed file is noticed. Reads and writes go on
meanwhile; what they change is not in it. FILE appears only when all of it is there, and is replaced if it
exists. One export at a time.

Example:
  kvdb catalog export /backup/catalog-$(date +%F).jsonl --secret-file /tmp/cachedb/secret";

#[derive(ClapArgs)]
#[command(after_long_help = EXPORT_HELP)]
pub struct Export {
    /// The file to write; - is standard output
    pub file: PathBuf,
    #[command(flatten)]
    pub secret: SecretArgs,
}

const IMPORT_HELP: &str = "\
Stop the master first; start it on the new directory afterwards, and run `kvdb fsck`. What was written after the
export is not in it, so where the volumes are all there, `kvdb rebuild` is the better choice: it makes the catalog
as it is now. Writes that were under way are refused (409) and can be sent again.

The clock of this machine must not be behind that of the master's. A failed import can be repeated: the directory
counts as empty until all of the catalog is there.

Example:
  kvdb catalog import /backup/catalog.jsonl /var/lib/kvdb-new --secret-file /tmp/volume1/secret";

#[derive(ClapArgs)]
#[command(after_long_help = IMPORT_HELP)]
pub struct Import {
    /// What `kvdb catalog export` wrote; - is standard input
    pub file: PathBuf,
    /// Directory for the new catalog; empty, or made
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// It is kept in DB, readable for its owner only
    #[command(flatten)]
    pub secret: SecretArgs,
}

const FSCK_HELP: &str = "\
Goes over the catalog and the index of every volume side by side, while the cluster runs, and tells of
  dangling          a record names a volume that has no such version
  wrong             a copy's length, hash, content type, time or expiry differ from the record
  orphan            a volume holds a committed version that no record names: superseded, deleted, surplus (the
                    record names other volumes), or unknown (the catalog is older than the volumes)
  under_replicated, surplus_replicas   a record names fewer or more volumes than --replicas says
  deleted_later     a volume knows of a delete after the record's commit: the catalog is older than the volumes
What differs is looked at again before it is told, so writes that are under way are no false alarms. Copies on a
reclaim list and prepared versions are counted, not findings. It compares what indexes say; --verify has the
contents read, too. It talks to the volumes at the addresses of the master's list.

Exit codes: 0 no differences, 1 differences (also if their repair was asked for), 2 usage, 3 could not be completed.

Example:
  kvdb fsck --secret-file /tmp/cachedb/secret --json";

#[derive(ClapArgs)]
#[command(after_long_help = FSCK_HELP)]
pub struct Fsck {
    /// Have dangling copies made anew and orphans removed, except unknown ones
    #[arg(long)]
    pub repair: bool,
    /// With --repair: remove unknown orphans, too. They may be the only trace of a value that the catalog lost
    #[arg(long, requires = "repair")]
    pub remove_unknown: bool,
    /// Also have all volumes read and check all that they hold, from now on; `kvdb cluster` shows what is found
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub secret: SecretArgs,
}
