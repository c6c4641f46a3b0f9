//! The format document and the code say the same.

use super::support::{key, volume};
use crate::catalog::engine::Batch;
use crate::catalog::record::{ReclaimEntry, Record, State, VALUE_FORMAT, encode};
use crate::catalog::{journal_format, keyspace};
use kvdb_protocol::message::Deleted;
use kvdb_protocol::{ContentHash, UnixMillis, VersionId};

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format-catalog.md"));

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The document's worked example, as it is in the document: lines of `name: hex`, the hex in any portions.
fn documented(name: &str) -> String {
    let lines: Vec<&str> = DOCUMENT.lines().collect();
    let at = lines.iter().position(|l| l.strip_suffix(':') == Some(name)).unwrap_or_else(|| panic!("no example of {name}"));
    let is_hex = |l: &&&str| l.starts_with("    ");
    let text: String = lines[at + 1..].iter().take_while(is_hex).map(|l| l.split('|').next().unwrap_or_default()).collect();
    text.split_whitespace().collect()
}

fn version() -> VersionId {
    VersionId::from_parts(0x0190_0000_0001, 0x2A)
}

fn example() -> Record {
    Record {
        version: version(),
        len: 300,
        hash: ContentHash([0xAB; 32]),
        content_type: Some("a/b".into()),
        modified: UnixMillis(1_000),
        expires: None,
        replicas: vec![volume(0x11), volume(0x22)],
        seq: 5,
        created: true,
    }
}

#[test]
fn the_worked_example_of_the_document_is_what_the_code_writes() {
    let k = key("a/b");
    assert_eq!(documented("key of the record"), hex(&keyspace::record(&k)));
    assert_eq!(documented("value of the record"), hex(&encode(&example(), "record").unwrap()));
    assert_eq!(documented("key of the reclaim entry"), hex(&keyspace::reclaim(volume(0x11), version())));
    assert_eq!(documented("key of the expiry, if it were to expire at 1500 ms"), hex(&keyspace::expiry(UnixMillis(1_500), &k)));
    let deleted = Some(Deleted { seq: 6, time: UnixMillis(2_000) });
    let entry = ReclaimEntry { key: k, deleted, committed: Some(example().committed().into()) };
    assert_eq!(documented("value of the reclaim entry"), hex(&encode(&entry, "reclaim entry").unwrap()));
    assert_eq!(documented("key of the state"), hex(keyspace::META_STATE));
    let state = State { seq: 6, keys: 0, bytes: 0 };
    assert_eq!(documented("value of the state"), hex(&encode(&state, "state").unwrap()));
    assert_eq!(documented("key of the decision on the put"), hex(&keyspace::put_decision(3, version())));
    assert_eq!(documented("key of the decision on the delete"), hex(&keyspace::delete_decision(3, version(), 258)));
}

#[test]
fn the_worked_example_of_the_journal_is_what_the_code_writes() {
    let mut batch = Batch::default();
    batch.delete(keyspace::META_STATE);
    let record = journal_format::record(&[3; 32], 9, 9, &batch).unwrap();
    let head = "record of the journal, up to its hash, if batch 9 begins a run and deletes the key of the state";
    assert_eq!(documented(head), hex(&record[..28]));
    let writes = documented("batch of this record");
    assert_eq!(writes, hex(&record[60..][..writes.len() / 2]));
    assert_eq!((record.len(), record[24]), (journal_format::SECTOR, u8::try_from(writes.len() / 2).unwrap()));
    assert!(DOCUMENT.contains("`kvdbjrn1`") && journal_format::file_head(&[3; 32]).starts_with(b"kvdbjrn1"));
}

#[test]
fn every_prefix_and_name_is_in_the_documents_table() {
    for prefix in [
        keyspace::LISTED,
        keyspace::EXPIRY,
        keyspace::DUTY,
        keyspace::DECISION,
        keyspace::RECORD,
        keyspace::STAGED,
        keyspace::STAGED_IN,
        keyspace::TXN,
        keyspace::TXN_DUE,
        keyspace::VOLUME,
        keyspace::RECLAIM,
    ] {
        assert!(DOCUMENT.contains(&format!("| `{}` |", char::from(prefix))), "{}", char::from(prefix));
    }
    for name in [
        keyspace::META_FORMAT,
        keyspace::META_CLUSTER,
        keyspace::META_STATE,
        keyspace::META_LEASE,
        keyspace::META_FLOOR,
        keyspace::META_EXPIRY,
    ] {
        let name = String::from_utf8_lossy(name);
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name}");
    }
    assert!(DOCUMENT.contains(&format!("version byte is {VALUE_FORMAT}")));
    assert!(DOCUMENT.contains(&format!("`kvdb catalog {}`", keyspace::CATALOG_FORMAT)));
    let epoch = crate::catalog::view::DECISION_EPOCH.as_secs();
    assert!(DOCUMENT.contains(&format!("epoch: {epoch} s")));
}
