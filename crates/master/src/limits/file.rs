//! The file of limits: JSON, `{"limits":[{"prefix":"a/","max_keys":1000}]}`. What is not known in it is refused by name.

use super::{ContentType, Rule};
use kvdb_protocol::content::{ContentRule, MAX_CHECKED_BYTES};
use kvdb_protocol::key::decode;
use kvdb_protocol::limits::MAX_KEY_BYTES;
use serde::Deserialize;
use std::collections::HashSet;
use thiserror::Error;

/// Most rules: each write is compared with all of them.
pub const MAX_RULES: usize = 1_000;
/// Longest file, in bytes (1 MiB).
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file of limits is not taken.
#[derive(Debug, Error)]
pub enum LimitsError {
    /// It is not JSON of the form described, or has members that are not known.
    #[error("the limits are not as expected: {0}")]
    Form(#[from] serde_json::Error),
    /// Too many rules.
    #[error("there are {0} limits, and there may be {MAX_RULES}")]
    Many(usize),
    /// One rule is wrong.
    #[error("limit {at} (from 0): {what}")]
    Rule {
        /// Its place in the file.
        at: usize,
        /// What is wrong, and what to do.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    limits: Vec<Wire>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    prefix: String,
    max_key_bytes: Option<usize>,
    max_value_bytes: Option<u64>,
    content_types: Option<Vec<String>>,
    content: Option<ContentRule>,
    max_keys: Option<u64>,
    max_bytes: Option<u64>,
}

pub(super) fn parse(text: &[u8]) -> Result<Vec<Rule>, LimitsError> {
    let document: Document = serde_json::from_slice(text)?;
    if document.limits.len() > MAX_RULES {
        return Err(LimitsError::Many(document.limits.len()));
    }
    let mut quotas = HashSet::new();
    let rules = document.limits.into_iter().enumerate();
    rules
        .map(|(at, wire)| {
            let wrong = |what: String| LimitsError::Rule { at, what };
            let rule = rule(wire).map_err(wrong)?;
            // Two would be one quota that is counted twice.
            if rule.is_quota() && !quotas.insert(rule.prefix.clone()) {
                return Err(wrong(format!(
                    "another limit has max_keys or max_bytes for the prefix {:?}, too; put them into one",
                    rule.shown()
                )));
            }
            Ok(rule)
        })
        .collect()
}

fn rule(wire: Wire) -> Result<Rule, String> {
    let prefix = decode(&wire.prefix).map_err(|_| "the prefix has a '%' without two hex digits; write a literal '%' as %25".to_string())?;
    if prefix.len() > MAX_KEY_BYTES {
        return Err(format!("the prefix is longer than a key may be, {MAX_KEY_BYTES} bytes"));
    }
    if wire.content.is_some() && wire.max_value_bytes.is_some_and(|max| max > MAX_CHECKED_BYTES) {
        return Err(format!(
            "max_value_bytes is at most {MAX_CHECKED_BYTES} where the content is checked: a volume holds such a value in memory"
        ));
    }
    let content_types = wire.content_types.map(|types| {
        let parsed =
            types.iter().map(|t| ContentType::parse(t).ok_or_else(|| format!("{t:?} is not a content type, such as image/png or image/*")));
        parsed.collect::<Result<Vec<_>, _>>()
    });
    let rule = Rule {
        prefix,
        max_key_bytes: wire.max_key_bytes,
        max_value_bytes: wire.max_value_bytes,
        content_types: content_types.transpose()?,
        content: wire.content,
        max_keys: wire.max_keys,
        max_bytes: wire.max_bytes,
    };
    if rule == (Rule { prefix: rule.prefix.clone(), ..Rule::default() }) {
        return Err("it limits nothing; give max_key_bytes, max_value_bytes, content_types, content, max_keys or max_bytes".into());
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_all_its_members() {
        let text =
            br#"{"limits":[{"prefix":"a%FF%2f","max_key_bytes":32,"max_value_bytes":16384,"content_types":["application/json","image/*"],
            "content":"json_object","max_keys":0,"max_bytes":18446744073709551615}]}"#;
        let rules = parse(text).unwrap();
        assert_eq!((rules[0].prefix.as_slice(), rules[0].max_key_bytes, rules[0].max_value_bytes), (&b"a\xff/"[..], Some(32), Some(16384)));
        assert_eq!((rules[0].max_keys, rules[0].max_bytes, rules[0].content), (Some(0), Some(u64::MAX), Some(ContentRule::JsonObject)));
        assert_eq!(rules[0].content_types.as_ref().map(Vec::len), Some(2));
        assert!(parse(br#"{"limits":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (text, why) in [
            ("", "EOF"),
            ("{}", "limits"),
            (r#"{"limits":[{"max_keys":1}]}"#, "prefix"),
            (r#"{"limits":[{"prefix":"a","max_key":1}]}"#, "max_key"),
            (r#"{"limit":[]}"#, "limit"),
            (r#"{"limits":[{"prefix":"a","max_keys":-1}]}"#, "-1"),
            (r#"{"limits":[{"prefix":"a","max_keys":1},{"prefix":"%zz","max_keys":1}]}"#, "limit 1"),
            (r#"{"limits":[{"prefix":"a"}]}"#, "limits nothing"),
            (r#"{"limits":[{"prefix":"a","content":"xml"}]}"#, "xml"),
            (r#"{"limits":[{"prefix":"a","content":"json_object","max_value_bytes":4194305}]}"#, "4194304"),
            (r#"{"limits":[{"prefix":"a","content_types":["png"]}]}"#, "png"),
            (r#"{"limits":[{"prefix":"a","content_types":["*/png"]}]}"#, "*/png"),
            (r#"{"limits":[{"prefix":"a","max_keys":1},{"prefix":"%61","max_bytes":1}]}"#, "limit 1"),
            (r#"{"limits":[]} x"#, "trailing"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!(r#"{{"limits":[{{"prefix":"{}","max_keys":1}}]}}"#, "a".repeat(1025));
        assert!(parse(long.as_bytes()).unwrap_err().to_string().contains("longer"));
        let many = vec![r#"{"prefix":"a","max_key_bytes":1}"#; MAX_RULES + 1].join(",");
        assert!(matches!(parse(format!(r#"{{"limits":[{many}]}}"#).as_bytes()), Err(LimitsError::Many(_))));
    }
}
