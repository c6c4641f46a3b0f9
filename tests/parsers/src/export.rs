//! An exported catalog, as an import reads it.

use crate::input::chosen;
use crate::sample;
use kvdb_master::catalog::outside::{Checker, End, Header, KeyRecord, Line, Reclaimed, read_line};
use kvdb_master::catalog::{Duty, Record};
use kvdb_protocol::ContentHash;
use kvdb_protocol::message::{Committed, Deleted, Standing};

/// Whether the end is to have the hash that is right, then the lines.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((choice, text)) = data.split_first() else { return false };
    let text = if choice & 1 == 1 { text.to_vec() } else { sealed(text) };
    let Some(lines) = read(&text) else { return false };
    assert!(matches!(lines.first(), Some(Line::Catalog(_))) && matches!(lines.last(), Some(Line::End(_))));
    let keys: Vec<_> = lines.iter().filter_map(|l| if let Line::Record(r) = l { Some(&r.key) } else { None }).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "records are out of order");
    for line in &lines {
        let written = serde_json::to_vec(line).unwrap();
        assert_eq!(&serde_json::from_slice::<Line>(&written).unwrap(), line);
    }
    let without_last = &text[..text.len() - 1];
    assert!(read(without_last).is_none(), "an export that was cut is taken");
    true
}

fn read(mut text: &[u8]) -> Option<Vec<Line>> {
    let (mut checker, mut buffer, mut lines) = (Checker::default(), Vec::new(), Vec::new());
    while read_line(&mut text, &mut buffer).unwrap() {
        lines.push(checker.line(&buffer).ok()?);
    }
    checker.finish().ok()?;
    Some(lines)
}

/// The lines, and an end that fits them.
fn sealed(text: &[u8]) -> Vec<u8> {
    let count = |kind: &str| text.split(|b| *b == b'\n').filter(|l| l.starts_with(kind.as_bytes())).count() as u64;
    let end = End { records: count("{\"record\""), reclaim: count("{\"reclaim\""), blake3: ContentHash::of(text) };
    [text, &serde_json::to_vec(&Line::End(end)).unwrap(), b"\n"].concat()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let header = Header { format: 1, cluster: sample::CLUSTER, time: sample::NOW, seq: 3, lease: sample::NOW.0, keys: 2, bytes: 10 };
    let record = Record {
        version: sample::version(),
        len: 5,
        hash: sample::hash(),
        content_type: Some("text/plain".into()),
        modified: sample::NOW,
        expires: None,
        replicas: vec![sample::VOLUME],
        seq: 3,
        created: true,
    };
    let key = sample::keys().swap_remove(0);
    let reclaimed = Reclaimed {
        volume: sample::VOLUME,
        version: sample::version(),
        key: key.clone(),
        deleted: Some(Deleted { seq: 1, time: sample::NOW }),
        committed: Some(Committed { seq: 1, created: false, modified: sample::NOW, removed: None, standing: Standing::Current }),
    };
    let lines = [
        Line::Catalog(header),
        Line::Volume { id: sample::VOLUME, address: "localhost:3001".into() },
        Line::Duty { id: sample::VOLUME, duty: Duty::Drain },
        Line::Listed { address: "localhost:3002".into() },
        Line::Record(KeyRecord { key, record: record.clone() }),
        Line::Record(KeyRecord { key: sample::keys().swap_remove(1), record }),
        Line::Reclaim(reclaimed),
    ];
    let text = |n: usize| lines[..n].iter().fold(Vec::new(), |t, l| [t, serde_json::to_vec(l).unwrap(), b"\n".to_vec()].concat());
    vec![chosen(&[0], text(1)), chosen(&[0], text(lines.len())), chosen(&[1], sealed(&text(5)))]
}
