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

/// The bytes of a worked example of the document; its hex digits are all that counts.
#[cfg(test)]
fn example(name: &str) -> Vec<u8> {
    let document = include_str!("../../../../docs/format-volume.md");
    let lines = document.split(&format!("<!-- example: {name} -->")).nth(1).unwrap().split("```").nth(1).unwrap();
    let hex: String = lines.lines().filter_map(|l| l.split_once("  ")).filter_map(|(_, rest)| rest.split('|').next()).collect();
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}
