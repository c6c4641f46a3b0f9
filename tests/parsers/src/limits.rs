//! A file of limits, and values that must be JSON objects: the first byte says which.

use crate::input::{Input, chosen};
use kvdb_master::limits::{Limits, MAX_RULES};
use kvdb_protocol::content::{ContentRule, MAX_CHECKED_BYTES};
use kvdb_protocol::limits::MAX_KEY_BYTES;
use kvdb_protocol::{ErrorCode, Key};
use serde_json::Value;

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    if input.byte() & 1 == 0 { file(input.rest()) } else { object(input.rest()) }
}

fn file(text: &[u8]) -> bool {
    let Ok(limits) = Limits::parse(text) else { return false };
    assert!(limits.rules().len() <= MAX_RULES);
    for (at, rule) in limits.rules().iter().enumerate() {
        assert!(rule.prefix.len() <= MAX_KEY_BYTES);
        assert!(rule.content.is_none() || rule.max_value_bytes.is_none_or(|max| max <= MAX_CHECKED_BYTES));
        let twice = limits.rules().iter().skip(at + 1).any(|r| r.is_quota() && r.prefix == rule.prefix);
        assert!(!(twice && rule.is_quota()), "a prefix has two quotas");
        let Ok(key) = Key::new(rule.prefix.clone()) else { continue };
        assert!(rule.covers(&key));
        if let Err(problem) = limits.check(&key, Some(u64::MAX), None) {
            assert!(matches!(problem.status, 413..=415), "{problem}");
        }
    }
    true
}

fn object(value: &[u8]) -> bool {
    let found = ContentRule::JsonObject.check(value);
    assert!(found.as_ref().err().is_none_or(|p| p.code == ErrorCode::ContentInvalid));
    // A full reading bounds depth and numbers, which the check does not.
    match serde_json::from_slice::<Value>(value) {
        Ok(read) => assert_eq!(found.is_ok(), read.is_object(), "{read}"),
        Err(e) if e.to_string().contains("recursion limit") || e.to_string().contains("out of range") => {}
        // Halves of surrogate pairs are within the grammar.
        Err(e) if e.to_string().contains("surrogate") || e.to_string().contains("hex escape") => {}
        Err(e) => assert!(found.is_err(), "{e}"),
    }
    found.is_ok()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let files = [
        r#"{"limits":[{"prefix":"a%2F","max_key_bytes":32,"max_value_bytes":9,"content_types":["image/*","a/b"],"content":"json_object","max_keys":1,"max_bytes":2}]}"#,
        r#"{"limits":[{"prefix":"","max_keys":1},{"prefix":"","max_key_bytes":1},{"prefix":"a","max_bytes":0}]}"#,
    ];
    let objects = [r#" {"a":[1,-2.5e3,null,{"b":"\u00e9\n"}],"a":true} "#, "{}"];
    files.map(|f| chosen(&[0], f)).into_iter().chain(objects.map(|o| chosen(&[1], o))).collect()
}
