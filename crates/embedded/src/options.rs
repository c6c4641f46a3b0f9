//! How a store is opened, and what it takes.

use crate::error::{Error, OpenError};
use kvdb_protocol::Key;
use kvdb_protocol::limits::MAX_KEY_BYTES;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Largest value of any store, in bytes (64 MiB): values are handled in memory.
pub const MAX_VALUE_BYTES: u64 = 64 << 20;
/// Longest key of [`Options::key_value_ds`], in characters.
pub const KEY_VALUE_DS_KEY_CHARACTERS: usize = 32;
/// Largest value of [`Options::key_value_ds`], in bytes (16 KiB).
pub const KEY_VALUE_DS_VALUE_BYTES: u64 = 16 << 10;
/// Default of [`Options::catalog_cache_bytes`]: 16 MiB.
const DEFAULT_CATALOG_CACHE_BYTES: u64 = 16 << 20;
/// What a directory is called that nobody has named.
const DEFAULT_NAME: &str = "kvdb-";

/// How long a key may be. Beyond it every key has 1 to 1024 bytes and does not begin with `-/`, as everywhere in kvDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLimit {
    /// So many bytes.
    Bytes(usize),
    /// UTF-8 text of so many characters.
    Characters(usize),
}

/// What values may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Any bytes.
    Any,
    /// A JSON object, in UTF-8.
    JsonObject,
}

/// How to open a store. The limits hold for what is written from now on, and may differ from one opening to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its directory, made where there is none. None: a new one is made in the working directory, called `kvdb-` and a UUID;
    /// [`crate::Store::dir`] tells it.
    pub dir: Option<PathBuf>,
    /// Longest key.
    pub max_key: KeyLimit,
    /// What values may be.
    pub content: Content,
    /// Largest value, in bytes; at most [`MAX_VALUE_BYTES`].
    pub max_value_bytes: u64,
    /// Bytes of values that the store takes in all.
    pub capacity_bytes: u64,
    /// Memory for the cache of the catalog, in bytes.
    pub catalog_cache_bytes: u64,
}

impl Default for Options {
    /// [`Options::key_value_ds`].
    fn default() -> Self {
        Self::key_value_ds()
    }
}

impl Options {
    /// As key-value-ds has it: keys of at most 32 characters, values that are JSON objects of at most 16 KiB.
    pub fn key_value_ds() -> Self {
        Self {
            max_key: KeyLimit::Characters(KEY_VALUE_DS_KEY_CHARACTERS),
            content: Content::JsonObject,
            max_value_bytes: KEY_VALUE_DS_VALUE_BYTES,
            ..Self::plain()
        }
    }

    /// All that a store can take: keys of at most 1024 bytes, values of any bytes, at most [`MAX_VALUE_BYTES`].
    pub fn plain() -> Self {
        Self {
            dir: None,
            max_key: KeyLimit::Bytes(MAX_KEY_BYTES),
            content: Content::Any,
            max_value_bytes: MAX_VALUE_BYTES,
            capacity_bytes: u64::MAX,
            catalog_cache_bytes: DEFAULT_CATALOG_CACHE_BYTES,
        }
    }

    /// In this directory.
    #[must_use]
    pub fn at(self, dir: impl Into<PathBuf>) -> Self {
        Self { dir: Some(dir.into()), ..self }
    }

    /// The directory; a new name where none was given.
    pub(crate) fn dir_or_new(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| format!("{DEFAULT_NAME}{}", uuid::Uuid::new_v4()).into())
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let (KeyLimit::Bytes(longest) | KeyLimit::Characters(longest)) = self.max_key;
        if longest == 0 || longest > MAX_KEY_BYTES {
            return Err(OpenError::Options(format!("a longest key of {longest} is not possible; give 1 to {MAX_KEY_BYTES}")));
        }
        if self.max_value_bytes > MAX_VALUE_BYTES {
            let asked = self.max_value_bytes;
            return Err(OpenError::Options(format!("a largest value of {asked} bytes is not possible; give at most {MAX_VALUE_BYTES}")));
        }
        Ok(())
    }

    pub(crate) fn key(&self, bytes: &[u8]) -> Result<Key, Error> {
        match self.max_key {
            KeyLimit::Bytes(max) if bytes.len() > max => {
                return Err(Error::KeyTooLong { found: bytes.len(), max, unit: "bytes" });
            }
            KeyLimit::Bytes(_) => {}
            KeyLimit::Characters(max) => {
                let found = std::str::from_utf8(bytes).map_err(|_| Error::KeyNotText)?.chars().count();
                if found > max {
                    return Err(Error::KeyTooLong { found, max, unit: "characters" });
                }
            }
        }
        Ok(Key::new(bytes)?)
    }

    pub(crate) fn check_value(&self, value: &[u8]) -> Result<(), Error> {
        let (found, max) = (value.len() as u64, self.max_value_bytes);
        if found > max {
            return Err(Error::ValueTooLarge { found, max });
        }
        if self.content == Content::JsonObject {
            // What is only skipped is not looked at as text.
            let text = std::str::from_utf8(value).map_err(|e| Error::NotAJsonObject(e.to_string()))?;
            serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text).map_err(|e| Error::NotAJsonObject(e.to_string()))?;
        }
        Ok(())
    }

    pub(crate) fn content_type(&self) -> Option<String> {
        (self.content == Content::JsonObject).then(|| "application/json".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_in_characters_or_in_bytes_as_was_asked() {
        let characters = Options::key_value_ds();
        assert!(characters.key("ä".repeat(32).as_bytes()).is_ok());
        assert!(matches!(characters.key("ä".repeat(33).as_bytes()), Err(Error::KeyTooLong { found: 33, max: 32, unit: "characters" })));
        assert!(matches!(characters.key(&[0xFF]), Err(Error::KeyNotText)));
        let bytes = Options { max_key: KeyLimit::Bytes(3), ..Options::plain() };
        assert!(bytes.key(&[0xFF; 3]).is_ok());
        assert!(matches!(bytes.key("ää".as_bytes()), Err(Error::KeyTooLong { found: 4, max: 3, unit: "bytes" })));
        for options in [characters, bytes] {
            assert!(matches!(options.key(b""), Err(Error::Key(_))));
            assert!(matches!(options.key(b"-/a"), Err(Error::Key(_))));
        }
    }

    #[test]
    fn a_json_object_and_nothing_else_is_one() {
        let options = Options::key_value_ds();
        for good in [r"{}", r#" {"a": [1, {"b": null}], "ä": "\u00e4"} "#, r#"{"a":1,"a":2}"#] {
            options.check_value(good.as_bytes()).unwrap();
        }
        for bad in ["", "[]", "1", "null", r#""a""#, "{", "{}{}", "{a:1}", r#"{"a":1,}"#, "{\"a\":\"\u{1}\"}"] {
            assert!(matches!(options.check_value(bad.as_bytes()), Err(Error::NotAJsonObject(_))), "{bad:?}");
        }
        assert!(matches!(options.check_value(b"{\"a\":\"\xFF\"}"), Err(Error::NotAJsonObject(_))));
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = Options { max_value_bytes: MAX_VALUE_BYTES, ..Options::key_value_ds() };
        let value = format!("{{\"a\":{}1{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        deep.check_value(value.as_bytes()).unwrap();
    }

    #[test]
    fn a_value_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
        let options = Options { max_value_bytes: 5, ..Options::plain() };
        options.check_value(b"12345").unwrap();
        assert!(matches!(options.check_value(b"123456"), Err(Error::ValueTooLarge { found: 6, max: 5 })));
    }

    #[test]
    fn limits_that_cannot_be_kept_are_refused_when_the_store_is_opened() {
        for bad in [
            Options { max_key: KeyLimit::Bytes(0), ..Options::plain() },
            Options { max_key: KeyLimit::Characters(1025), ..Options::plain() },
            Options { max_value_bytes: MAX_VALUE_BYTES + 1, ..Options::plain() },
        ] {
            assert!(matches!(bad.check(), Err(OpenError::Options(_))), "{bad:?}");
        }
        Options::default().check().unwrap();
    }
}
