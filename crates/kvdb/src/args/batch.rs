//! Arguments of `kvdb batch`.

use clap::Args as ClapArgs;
use std::path::PathBuf;

const BATCH_HELP: &str = "\
The document, whose keys are percent-encoded where they contain %:
  {\"operations\":[{\"put\":\"a\",\"value\":\"text\",\"content_type\":\"text/plain\",\"ttl\":\"10s\"},
                 {\"put\":\"b\",\"base64\":\"AP8=\",\"if_match\":\"<BLAKE3>\"},{\"create\":\"c\",\"value\":\"\"},{\"delete\":\"d\"}]}

At most 1,000 operations, and 64 MiB of values in all (the master's --max-batch-bytes). A batch whose answer is lost is
sent again and done once. If a precondition does not hold nothing is changed, and the keys are named.";

/// Several keys changed together.
#[derive(ClapArgs)]
#[command(after_long_help = BATCH_HELP)]
pub struct Batch {
    /// The file with the operations, in JSON (see --help); - is standard input
    pub file: PathBuf,
}
