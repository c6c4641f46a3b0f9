//! Reading a large value in parts, from several replicas at once.
//!
//! | module | what |
//! |---|---|
//! | `pinned` | one version: its chaining values, and the replicas that have it |
//! | `fetch` | a part of it, from whichever replica serves it right, each 256 KiB checked before it is used |
//! | `partial` | the file that a download is made in, and what of it is right already |
//! | `download` | a whole value into a file |
//! | `reader` | a whole value in order, in bounded memory |

mod download;
mod fetch;
mod partial;
mod pinned;
mod reader;

pub use download::{DownloadOptions, Downloaded};
pub use partial::part_path;
pub use reader::PartsReader;

/// Values from this length on are read in parts by default, in bytes.
pub const PARTS_FROM_BYTES: u64 = 32 << 20;
/// Connections of one download by default.
pub const DEFAULT_PARALLEL: usize = 4;
/// How often a read begins again because its value was replaced meanwhile.
const MAX_RESTARTS: u32 = 3;
