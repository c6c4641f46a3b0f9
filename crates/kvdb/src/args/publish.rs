//! Arguments of `kvdb publish`.

use super::KeyParser;
use clap::Args as ClapArgs;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use kvdb_client::Key;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

const PUBLISH_HELP: &str = "\
Each file is uploaded while nobody sees it; when all are durable, they become visible together, in one step. If one cannot be
uploaded, or a precondition does not hold, nothing is changed. Interrupted, what was uploaded vanishes by itself after --open-for.

A key ends at the first =; a key that contains one is stored with `kvdb put` or `kvdb batch`, or by the protocol (docs/protocol.md,
A transaction).";

/// Files that become visible together.
#[derive(ClapArgs)]
#[command(after_long_help = PUBLISH_HELP)]
pub struct Publish {
    /// Keys, as they are (not percent-encoded), each with the file to store
    #[arg(required_unless_present = "delete", value_name = "KEY=FILE", value_parser = PairParser)]
    pub values: Vec<(Key, PathBuf)>,
    /// A key that is to be absent from then on
    #[arg(long, value_name = "KEY", value_parser = KeyParser)]
    pub delete: Vec<Key>,
    /// Only if none of the keys of files exists
    #[arg(long)]
    pub create: bool,
    /// Content type of all files
    #[arg(long)]
    pub content_type: Option<String>,
    /// How long the values are to live, from their upload, such as 90s, 30m, 7d
    #[arg(long, value_parser = kvdb_client::ttl::parse)]
    pub ttl: Option<Duration>,
    /// How long the uploads may take, 1s to 24h
    #[arg(long, value_parser = kvdb_client::ttl::parse, default_value = "1h", value_name = "TIME")]
    pub open_for: Duration,
}

/// A key and a file.
#[derive(Clone)]
struct PairParser;

impl TypedValueParser for PairParser {
    type Value = (Key, PathBuf);

    fn parse_ref(&self, cmd: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<Self::Value, clap::Error> {
        let bytes = value.as_bytes();
        let Some((key, file)) = bytes.iter().position(|b| *b == b'=').map(|at| bytes.split_at(at)).filter(|(_, file)| file.len() > 1)
        else {
            let what = format!("{} is not a key and a file, as KEY=FILE\n", value.to_string_lossy());
            return Err(clap::Error::raw(ErrorKind::ValueValidation, what).with_cmd(cmd));
        };
        let key = KeyParser.parse_ref(cmd, arg, OsStr::from_bytes(key))?;
        Ok((key, PathBuf::from(OsString::from(OsStr::from_bytes(file.get(1..).unwrap_or_default())))))
    }
}
