//! Arguments of `kvdb token`.

use clap::{Args as ClapArgs, Subcommand};
use kvdb_master::tokens::Right;
use kvdb_protocol::key::query_escape;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

const TOKEN_HELP: &str = "\
A right is read, write, delete, list, or admin, which is all of them; for all keys admin also permits the master's own pages.
`--right read,list:photos/` permits both for keys that begin with photos/; without a prefix they are for all keys.

The file has names, rights and hashes, but no token: keep the line that `kvdb token new` prints. A master that was
started with `--tokens FILE` takes a change within a second. To replace a token, make another under a new name, hand it
out, and remove the old one.

Example:
  kvdb token new camera --right write:photos/ --right read,list:photos/public/ --file tokens.json";

/// The tokens of a file.
#[derive(ClapArgs)]
#[command(after_long_help = TOKEN_HELP)]
pub struct Token {
    #[command(subcommand)]
    pub order: TokenOrder,
    /// The file of tokens, which the master has as --tokens
    #[arg(long, global = true, env = "KVDB_TOKENS", value_name = "FILE", default_value = "tokens.json")]
    pub file: PathBuf,
}

/// What to do with the file.
#[derive(Subcommand)]
pub enum TokenOrder {
    /// Make a token, print it this once, and add its hash to the file
    New {
        /// What it is called in the file, in errors and by `remove`
        name: String,
        /// What it permits, such as read,list:PREFIX; more than once: all of them
        #[arg(long = "right", value_name = "RIGHTS[:PREFIX]", required = true, value_parser = RightsParser)]
        rights: Vec<Rights>,
    },
    /// Take tokens out of the file: they permit nothing any more
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Show names and rights
    List,
}

/// Rights for the keys that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub allow: Vec<Right>,
    /// As files of tokens have it.
    pub prefix: String,
}

impl Rights {
    fn parse(given: &OsStr) -> Result<Self, String> {
        let bytes = given.as_bytes();
        let (rights, prefix) = match bytes.iter().position(|b| *b == b':') {
            Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default()),
            None => (bytes, &[][..]),
        };
        let mut allow = Vec::new();
        for name in String::from_utf8_lossy(rights).split(',') {
            let right: Right = name.trim().parse()?;
            if !allow.contains(&right) {
                allow.push(right);
            }
        }
        Ok(Self { allow, prefix: written(prefix) })
    }
}

/// A prefix as lists write keys: percent-decoding gives its bytes.
fn written(prefix: &[u8]) -> String {
    match std::str::from_utf8(prefix) {
        Ok(text) if !text.contains(|c: char| c.is_control() || c == '%') => text.to_string(),
        _ => query_escape(prefix),
    }
}

/// Takes any bytes as a prefix that the system lets pass.
#[derive(Clone)]
struct RightsParser;

impl clap::builder::TypedValueParser for RightsParser {
    type Value = Rights;

    fn parse_ref(&self, command: &clap::Command, _: Option<&clap::Arg>, value: &OsStr) -> Result<Rights, clap::Error> {
        let wrong = |why| clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{why}\n")).with_cmd(command);
        Rights::parse(value).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rights, String> {
        Rights::parse(OsStr::new(text))
    }

    #[test]
    fn rights_are_named_before_a_prefix_that_may_be_anything() {
        let of = |allow: &[Right], prefix: &str| Rights { allow: allow.to_vec(), prefix: prefix.into() };
        assert_eq!(parse("read,list:a/b").unwrap(), of(&[Right::Read, Right::List], "a/b"));
        assert_eq!(parse("admin").unwrap(), of(&[Right::Admin], ""));
        assert_eq!(parse("read,read:").unwrap(), of(&[Right::Read], ""));
        assert_eq!(parse("delete:a:b,c").unwrap(), of(&[Right::Delete], "a:b,c"));
        assert_eq!(parse("write:50%").unwrap(), of(&[Right::Write], "50%25"));
        assert_eq!(Rights::parse(OsStr::from_bytes(b"write:\xff")).unwrap(), of(&[Right::Write], "%FF"));
    }

    #[test]
    fn a_right_that_there_is_not_is_named() {
        for bad in ["", "reed", "read,", ":a", "READ:a"] {
            assert!(parse(bad).unwrap_err().contains("there are read, write"), "{bad}");
        }
    }
}
