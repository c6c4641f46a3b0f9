//! The document of a batch.

use crate::sample;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_master::batch_request::{Action, MAX_OPERATIONS, Operation, parse};
use kvdb_protocol::limits::{MAX_CONTENT_TYPE_BYTES, MAX_KEY_BYTES};
use kvdb_protocol::ticket::Tags;
use kvdb_protocol::ttl::MAX_TTL;
use serde_json::{Map, Value, json};

pub(crate) fn check(data: &[u8]) -> bool {
    let operations = match parse(data, sample::NOW) {
        Ok(operations) => operations,
        Err(problem) => {
            assert!(matches!(problem.status, 400 | 413 | 414), "{problem}");
            return false;
        }
    };
    // Whatever was accepted is JSON, and says no more than was read.
    let document: Value = serde_json::from_slice(data).unwrap();
    assert_eq!(document["operations"].as_array().map(Vec::len), Some(operations.len()));
    assert!(operations.len() <= MAX_OPERATIONS);
    for operation in &operations {
        bounded(operation, data.len());
    }
    let again = json!({ "operations": operations.iter().map(written).collect::<Vec<_>>() });
    assert_eq!(parse(again.to_string().as_bytes(), sample::NOW).unwrap(), operations, "{again}");
    true
}

fn bounded(operation: &Operation, most: usize) {
    assert!((1..=MAX_KEY_BYTES).contains(&operation.key.as_bytes().len()));
    let Action::Put { value, content_type, expires, .. } = &operation.action else { return };
    assert!(value.len() <= most, "more is read than was there");
    assert!(content_type.as_ref().is_none_or(|t| t.len() <= MAX_CONTENT_TYPE_BYTES && !t.contains(['\r', '\n', '\0'])));
    assert!(expires.is_none_or(|at| sample::NOW < at && at <= sample::NOW.plus(MAX_TTL)));
}

/// The operation as a client may write it.
fn written(operation: &Operation) -> Value {
    let mut wire = Map::new();
    let key = json!(operation.key.display());
    match &operation.action {
        Action::Delete => drop(wire.insert("delete".into(), key)),
        Action::Put { value, content_type, expires, create } => {
            wire.insert(if *create { "create" } else { "put" }.into(), key);
            wire.insert("base64".into(), json!(BASE64_STANDARD.encode(value)));
            content_type.iter().for_each(|t| drop(wire.insert("content_type".into(), json!(t))));
            expires.iter().for_each(|at| drop(wire.insert("ttl".into(), json!(format!("{}ms", at.0 - sample::NOW.0)))));
        }
    }
    for (name, tags) in [("if_match", &operation.condition.if_match), ("if_none_match", &operation.condition.if_none_match)] {
        let text = match tags {
            None => continue,
            Some(Tags::Any) => "*".into(),
            // A tag that no value has: so is a list of none.
            Some(Tags::Of(hashes)) if hashes.is_empty() => "\"\"".into(),
            Some(Tags::Of(hashes)) => hashes.iter().map(|h| h.etag()).collect::<Vec<_>>().join(", "),
        };
        wire.insert(name.into(), json!(text));
    }
    Value::Object(wire)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let tag = sample::hash().to_hex();
    let document = |operations: Value| json!({ "operations": operations }).to_string().into_bytes();
    vec![
        document(json!([{"put": "a", "value": "x\u{e9}\n", "content_type": "text/plain", "ttl": "10s"}, {"delete": "d", "if_match": "*"}])),
        document(json!([{"create": "c%2F%FF", "base64": "AP8="}, {"put": "b", "value": "", "if_match": tag}])),
        document(json!([{"put": "b", "value": "1", "if_none_match": format!("W/\"{tag}\", \"x\"")}, {"delete": "b"}])),
        document(json!([])),
        br#" {"operations":[{"put":"\u00e9","value":"\ud83d\ude00","ttl":"1ms"}]} "#.to_vec(),
    ]
}
