//! The index: its keys and values.

use crate::input::{Input, chosen};
use crate::sample;
use kvdb_protocol::message::Deleted;
use kvdb_volume::format::record::*;

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (kind, at) = (input.byte() % 5, usize::from(input.byte()));
    let bytes = input.rest();
    match kind {
        0 => {
            let Ok(record) = Record::decode(bytes) else { return false };
            let written = record.encode().unwrap();
            assert!(written.len() <= bytes.len());
            assert_eq!(Record::decode(&written), Ok(record));
            assert!(Record::decode(&[bytes, &[0]].concat()).is_err(), "a byte too many is taken");
            assert!(Record::decode(&written[..at % written.len()]).is_err(), "a part of a record is taken");
        }
        1 => {
            let Ok((key, version)) = parse_entry_key(bytes) else { return false };
            assert_eq!(entry_key(&key, version), bytes);
            for later in [[key.as_bytes(), &[0]].concat(), [key.as_bytes(), &[0xFF]].concat()] {
                let Ok(later) = kvdb_protocol::Key::new(later) else { continue };
                assert!(entry_key(&later, version).as_slice() > bytes, "the index is not in order of keys");
            }
        }
        2 => {
            let Ok(version) = parse_blob_list_key(bytes) else { return false };
            assert_eq!(blob_list_key(version), bytes);
        }
        3 => {
            let Ok((time, entry)) = parse_time_list_key(bytes) else { return false };
            assert_eq!(time_list_key(time, entry), bytes);
        }
        _ => {
            let Ok((time, why)) = parse_bad_row(bytes) else { return false };
            assert_eq!(bytes[..8], time.0.to_be_bytes());
            assert_eq!(why, String::from_utf8_lossy(&bytes[8..]));
        }
    }
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let value = ValueRecord {
        len: 12,
        hash: sample::hash(),
        place: Place::Inline,
        content_type: Some("text/plain".into()),
        modified: sample::NOW,
        expires: None,
        commit_by: sample::NOW,
        replicas: vec![sample::VOLUME],
        seq: None,
    };
    let file = ValueRecord {
        place: Place::File { file_len: u64::MAX },
        content_type: None,
        expires: Some(sample::NOW),
        seq: Some(7),
        ..value.clone()
    };
    let entry = |n: usize| entry_key(&sample::keys()[n], sample::version());
    vec![
        chosen(&[4, 0], bad_row(told_from(&value), "its hash")),
        chosen(&[0, 20], Record::Value(value).encode().unwrap()),
        chosen(&[0, 3], Record::Value(file).encode().unwrap()),
        chosen(&[0, 0], Record::Tombstone(Deleted { seq: 9, time: sample::NOW }).encode().unwrap()),
        chosen(&[1, 0], entry(0)),
        chosen(&[1, 0], entry(3)),
        chosen(&[2, 0], blob_list_key(sample::version())),
        chosen(&[3, 0], time_list_key(sample::NOW, &entry(0))),
    ]
}
