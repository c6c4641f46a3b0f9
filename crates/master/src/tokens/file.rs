//! The file of tokens: JSON, with names, hashes and rights, but no token.

use kvdb_protocol::key::decode;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Most tokens of a file.
pub const MAX_TOKENS: usize = 10_000;
/// Most grants of one token.
pub const MAX_GRANTS: usize = 100;
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensFile {
    /// Each token once.
    pub tokens: Vec<Entry>,
}

/// A token, as the file knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// For people and logs; unique in the file.
    pub name: String,
    /// 64 hex digits: [`kvdb_protocol::Token::hash`].
    pub hash: String,
    /// What it may do.
    pub rights: Vec<Grant>,
}

/// What may be done with the keys that begin so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What the keys begin with, written as in lists (percent-decoding gives its bytes); empty: all keys.
    pub prefix: String,
    /// The rights.
    pub allow: Vec<Right>,
}

/// What a token can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// `GET` and `HEAD` of a key.
    Read,
    /// `PUT` and `POST` of a key.
    Write,
    /// `DELETE` of a key.
    Delete,
    /// Lists of keys that begin with the prefix.
    List,
    /// All of these; for the empty prefix also the master's own pages.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Delete, Self::List, Self::Admin];

    /// As the file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|r| r.as_str() == text);
        known.ok_or_else(|| format!("there is no right {text:?}; there are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl TokensFile {
    /// Reads and checks a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        file.check()?;
        Ok(file)
    }

    /// Whether all entries can be used, and none is there twice.
    pub fn check(&self) -> Result<(), String> {
        if self.tokens.len() > MAX_TOKENS {
            return Err(format!("it has more than {MAX_TOKENS} tokens"));
        }
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        for entry in &self.tokens {
            let hash = entry.check().map_err(|why| format!("the token {:?}: {why}", entry.name))?;
            if !names.insert(&entry.name) {
                return Err(format!("two tokens have the name {:?}", entry.name));
            }
            if !hashes.insert(*hash.as_bytes()) {
                return Err(format!("the token {:?}: another one has the same hash", entry.name));
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Its hash, if all of it can be used.
    fn check(&self) -> Result<blake3::Hash, String> {
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || self.name.chars().any(char::is_control) {
            return Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes, and no control characters"));
        }
        if self.rights.len() > MAX_GRANTS {
            return Err(format!("it has more than {MAX_GRANTS} grants"));
        }
        for grant in &self.rights {
            grant.prefix_bytes()?;
            if grant.allow.is_empty() {
                return Err(format!("it is allowed nothing for the prefix {:?}", grant.prefix));
            }
        }
        self.hash()
    }

    /// What the hash says.
    pub fn hash(&self) -> Result<blake3::Hash, String> {
        blake3::Hash::from_hex(&self.hash).map_err(|_| "its hash is not 64 hex digits".to_string())
    }
}

impl Grant {
    /// The bytes that keys begin with.
    pub fn prefix_bytes(&self) -> Result<Vec<u8>, String> {
        decode(&self.prefix).map_err(|_| format!("the prefix {:?} has a % without two hex digits; write % as %25", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        TokensFile::parse(text.as_bytes()).unwrap_err()
    }

    fn of(entry: &str) -> String {
        format!(r#"{{"tokens":[{entry}]}}"#)
    }

    #[test]
    fn a_file_round_trips() {
        let hash = "0".repeat(64);
        let grant = Grant { prefix: "a%2Fb".into(), allow: Right::ALL.to_vec() };
        let file = TokensFile { tokens: vec![Entry { name: "ci".into(), hash, rights: vec![grant] }] };
        let text = serde_json::to_vec(&file).unwrap();
        assert!(String::from_utf8_lossy(&text).contains(r#""allow":["read","write","delete","list","admin"]"#));
        assert_eq!(TokensFile::parse(&text).unwrap(), file);
        assert_eq!(file.tokens[0].rights[0].prefix_bytes().unwrap(), b"a/b");
        assert_eq!(TokensFile::parse(br#"{"tokens":[]}"#).unwrap(), TokensFile::default());
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_by_name() {
        let hash = "0".repeat(64);
        let entry = |name: &str, more: &str| format!(r#"{{"name":"{name}","hash":"{hash}","rights":[{more}]}}"#);
        assert!(refused("").contains("EOF"));
        assert!(refused(r#"{"tokens":[],"token":[]}"#).contains("`token`"));
        assert!(refused(&of(&entry("a", r#"{"prefix":"","allow":["reed"]}"#))).contains("`reed`"));
        assert!(refused(&of(&entry("a", r#"{"prefix":"","allow":["read"],"deny":[]}"#))).contains("`deny`"));
        assert!(refused(&of(&entry("a", r#"{"allow":["read"]}"#))).contains("`prefix`"));
        assert!(refused(&of(&entry("a", r#"{"prefix":"","allow":[]}"#))).contains("allowed nothing"));
        assert!(refused(&of(&entry("a", r#"{"prefix":"%z","allow":["read"]}"#))).contains("%25"));
        assert!(refused(&of(&entry("", ""))).contains("name"));
        assert!(refused(&of(r#"{"name":"a","hash":"00","rights":[]}"#)).contains("64 hex"));
        assert!(refused(&of(r#"{"name":"a","token":"kvdb_x","hash":"00","rights":[]}"#)).contains("`token`"));
        assert!(refused(&of(&format!("{},{}", entry("a", ""), entry("a", "")))).contains("two tokens"));
        assert!(refused(&of(&format!("{},{}", entry("a", ""), entry("b", "")))).contains("same hash"));
    }
}
