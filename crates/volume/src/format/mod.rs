//! The bytes on disk, pure: `docs/format-volume.md` is the law, and a test holds this code to its example.

pub mod blob;
pub mod record;

use thiserror::Error;

/// Format of a volume's directory, its blob files and its index.
pub const FORMAT: u32 = 1;

/// Why bytes are not what the format says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Fewer bytes than the fixed part needs.
    #[error("{what} is {found} bytes long, which is too short")]
    TooShort {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: u64,
    },
    /// The magic is not there: not a file of ours, or its end is gone.
    #[error("the magic at the end is missing")]
    Magic,
    /// Written by a newer program.
    #[error("format {found} is newer than {known}, the newest that this program knows")]
    Newer {
        /// What was found.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// The checksum does not match.
    #[error("the footer's checksum does not match")]
    Checksum,
    /// A field holds what it cannot hold.
    #[error("{0} is not plausible")]
    Field(&'static str),
}
