//! Arguments of `kvdb sign`.

use super::KeyParser;
use clap::Args as ClapArgs;
use kvdb_client::Key;
use std::time::Duration;

const SIGN_HELP: &str = "\
Who has the URL needs no token: it works in a browser and with `curl -L`. It stops working when its time is over, and when the
token by which it was signed is removed or loses the right.

Example:
  curl -L \"$(kvdb sign photos/cat.jpg --for 1h)\" -o cat.jpg
  curl -L -T dog.jpg \"$(kvdb sign photos/dog.jpg --put --for 10m)\"";

/// A URL for somebody who has no token.
#[derive(ClapArgs)]
#[command(after_long_help = SIGN_HELP)]
pub struct Sign {
    /// The key, as it is (not percent-encoded)
    #[arg(value_parser = KeyParser)]
    pub key: Key,
    /// How long it is to be good, such as 30s, 1h or 7d, which is the most
    #[arg(long = "for", value_name = "TIME", value_parser = kvdb_client::ttl::parse)]
    pub life: Duration,
    /// To store a value, instead of reading one
    #[arg(long)]
    pub put: bool,
}
