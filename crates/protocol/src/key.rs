//! Keys: opaque bytes, and their form in a URL path.

use crate::limits::MAX_KEY_BYTES;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use thiserror::Error;

/// Bytes that stand for themselves in a path (a part of RFC 3986 pchar).
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b',')
    .remove(b'=');

/// Bytes that stand for themselves in a query value.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No bytes.
    #[error("the key is empty; put it in the path, as in /mykey")]
    Empty,
    /// More than 1024 bytes.
    #[error("the key is {0} bytes long; at most 1024 are allowed")]
    TooLong(usize),
    /// A `%` without two hex digits.
    #[error("the path has a '%' that is not followed by two hex digits; write a literal '%' as %25")]
    BadEscape,
    /// Begins with `-/`, which is the server's own.
    #[error("keys beginning with '-/' are reserved for the server's own pages")]
    Reserved,
}

/// A key: 1 to 1024 opaque bytes. Nothing is normalised, and a key is never a path on disk.
///
/// In JSON a key is its [`Key::to_query`] form, in binary formats its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            n if n > MAX_KEY_BYTES => Err(KeyError::TooLong(n)),
            _ if bytes.starts_with(b"-/") => Err(KeyError::Reserved),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// From a request's path as it was sent: one leading `/` is dropped, then percent-decoded once.
    pub fn from_path(path: &str) -> Result<Self, KeyError> {
        Self::new(decode(path.strip_prefix('/').unwrap_or(path))?)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a URL path, leading `/` included. `from_path` reads it back, but see [`Key::survives_clients`].
    /// Dot segments are written `%2E`, which clients that look at the raw path leave alone.
    pub fn to_path(&self) -> String {
        let mut path = String::with_capacity(self.0.len() + 8);
        self.push_path(&mut path);
        path
    }

    /// Appends [`Key::to_path`] to a URL.
    pub fn push_path(&self, path: &mut String) {
        for segment in self.0.split(|b| *b == b'/') {
            path.push('/');
            match segment {
                b"." => path.push_str("%2E"),
                b".." => path.push_str("%2E%2E"),
                _ => path.extend(percent_encode(segment, IN_PATH)),
            }
        }
    }

    /// As a query value.
    pub fn to_query(&self) -> String {
        query_escape(&self.0)
    }

    /// Whether common clients pass the path on unchanged: they remove `.` and `..` segments.
    pub fn survives_clients(&self) -> bool {
        !self.0.split(|b| *b == b'/').any(|s| s == b"." || s == b"..")
    }

    /// For people, logs and JSON: UTF-8 as it is, anything else (and `%`) percent-encoded.
    pub fn display(&self) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(s) if !s.contains(|c: char| c.is_control() || c == '%') => s.to_string(),
            _ => self.to_query(),
        }
    }
}

/// Percent-encodes bytes for use as a query value.
pub fn query_escape(bytes: &[u8]) -> String {
    percent_encode(bytes, IN_QUERY).to_string()
}

/// Percent-decodes once, strictly: every `%` must be followed by two hex digits.
pub fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        if b != b'%' {
            out.push(b);
            rest = tail;
            continue;
        }
        let digit = |i: usize| tail.get(i).and_then(|c| char::from(*c).to_digit(16));
        let (Some(hi), Some(lo)) = (digit(0), digit(1)) else { return Err(KeyError::BadEscape) };
        out.push(u8::try_from(hi * 16 + lo).map_err(|_| KeyError::BadEscape)?);
        rest = tail.get(2..).unwrap_or_default();
    }
    Ok(out)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.serialize_str(&self.to_query()) } else { s.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = if d.is_human_readable() {
            decode(&std::borrow::Cow::<str>::deserialize(d)?).map_err(de::Error::custom)?
        } else {
            Vec::<u8>::deserialize(d)?
        };
        Self::new(bytes).map_err(de::Error::custom)
    }
}

impl From<Key> for Vec<u8> {
    fn from(k: Key) -> Self {
        k.0.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(path: &str) -> Result<Vec<u8>, KeyError> {
        Key::from_path(path).map(Vec::from)
    }

    #[test]
    fn a_path_is_decoded_once_and_nothing_is_normalised() {
        assert_eq!(key("/a%2Fb").unwrap(), b"a/b");
        assert_eq!(key("//a").unwrap(), b"/a");
        assert_eq!(key("/a/").unwrap(), b"a/");
        assert_eq!(key("/%2e%2e/x").unwrap(), b"../x");
        assert_eq!(key("/%2541").unwrap(), b"%41");
        assert_eq!(key("/a+b").unwrap(), b"a+b");
        assert_eq!(key("/%00%ff").unwrap(), [0, 255]);
    }

    #[test]
    fn what_is_not_a_key_is_refused_by_name() {
        assert_eq!(key("/"), Err(KeyError::Empty));
        assert_eq!(key("/%zz"), Err(KeyError::BadEscape));
        assert_eq!(key("/a%2"), Err(KeyError::BadEscape));
        assert_eq!(key("/%+1"), Err(KeyError::BadEscape));
        assert_eq!(key("/-/x"), Err(KeyError::Reserved));
        assert_eq!(key("/%2d/x"), Err(KeyError::Reserved));
        assert!(Key::new(vec![b'k'; 1024]).is_ok());
        assert_eq!(Key::new(vec![b'k'; 1025]), Err(KeyError::TooLong(1025)));
    }

    #[test]
    fn dot_segments_are_known_not_to_survive_clients() {
        for k in ["..", ".", "a/..", "../a", "a/./b"] {
            assert!(!Key::new(k).unwrap().survives_clients(), "{k}");
        }
        for k in ["a", "...", "a..", ".a/b", "/a", "a/"] {
            assert!(Key::new(k).unwrap().survives_clients(), "{k}");
        }
    }

    proptest! {
        #[test]
        fn every_key_round_trips_through_path_and_query(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            prop_assume!(!bytes.starts_with(b"-/"));
            let k = Key::new(bytes).unwrap();
            prop_assert!(k.to_path().bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#'));
            prop_assert_eq!(&Key::from_path(&k.to_path()).unwrap(), &k);
            prop_assert_eq!(decode(&k.to_query()).unwrap(), k.as_bytes());
        }
    }
}
