//! What the master reads from its own disk.

use crate::input::{Input, chosen};
use crate::sample;
use kvdb_master::catalog::Record;
use kvdb_master::catalog::outside::{KINDS, key_recoded, recoded};
use kvdb_protocol::Condition;
use kvdb_protocol::message::Deleted;
use kvdb_protocol::ticket::Tags;
use serde::Serialize;

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (kind, at) = (input.byte() % (KINDS + 1), usize::from(input.byte()));
    let bytes = input.rest();
    if kind == KINDS {
        let Some(again) = key_recoded(bytes) else { return false };
        assert_eq!(again, bytes);
        return true;
    }
    let Ok(written) = recoded(kind, bytes) else { return false };
    // Numbers may have been written longer than they need to be, never shorter.
    assert!(written.len() <= bytes.len());
    assert_eq!(recoded(kind, &written).unwrap(), written);
    assert!(recoded(kind, &[bytes, &[0]].concat()).is_err(), "a byte too many is taken");
    assert!(recoded(kind, &written[..at % written.len()]).is_err(), "a part of a value is taken");
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    fn value(kind: u8, value: impl Serialize) -> Vec<u8> {
        // The format, as docs/format-catalog.md says.
        chosen(&[kind, 7, 1], postcard::to_extend(&value, Vec::new()).unwrap())
    }
    let record = Record {
        version: sample::version(),
        len: 5,
        hash: sample::hash(),
        content_type: Some("text/plain".into()),
        modified: sample::NOW,
        expires: Some(sample::NOW),
        replicas: vec![sample::VOLUME],
        seq: 3,
        created: true,
    };
    let committed = (3_u64, true, sample::NOW, Some(sample::version()));
    let key = &sample::keys()[0];
    let id = sample::VOLUME.as_bytes();
    let kind = KINDS;
    let condition = Condition { if_match: Some(Tags::Of(vec![sample::hash()])), if_none_match: Some(Tags::Any) };
    vec![
        value(0, &record),
        value(0, Record { content_type: None, expires: None, ..record }),
        value(1, (key, Some(Deleted { seq: 1, time: sample::NOW }), Some(committed))),
        chosen(&[2, 7, 1, 0], postcard::to_extend(&committed, Vec::new()).unwrap()),
        chosen(&[2, 7, 1, 1], postcard::to_extend(&("conflict", "it exists"), Vec::new()).unwrap()),
        value(3, "localhost:3001"),
        value(4, (3_u64, 2_u64, 1_u64)),
        chosen(&[5, 0, 1, 0], []),
        value(6, (0_u8, sample::NOW, sample::NOW, sample::NOW, 2_u32, 300_u64)),
        value(
            7,
            (
                0_u8,
                (sample::version(), true, 5_u64, sample::hash()),
                (None::<&str>, Some(sample::NOW), [sample::VOLUME].as_slice()),
                condition,
                150_u64,
            ),
        ),
        value(7, (1_u8, Condition::default(), 96_u64)),
        chosen(&[kind, 0, b'x'], [&id[..], sample::version().as_bytes()].concat()),
        chosen(&[kind, 0, b'v'], id),
        chosen(&[kind, 0, b's'], id),
    ]
}
