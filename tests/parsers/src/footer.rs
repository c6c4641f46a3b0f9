//! The end of a blob file.

use crate::input::{Input, chosen, flipped};
use crate::sample;
use kvdb_protocol::limits::{MAX_CONTENT_TYPE_BYTES, MAX_REPLICAS, SUBTREE_BYTES};
use kvdb_protocol::tree::TreeHasher;
use kvdb_volume::format::FORMAT;
use kvdb_volume::format::blob::{Footer, Layout, MAGIC, MAX_CONTENT_BYTES, TAIL_BYTES, max_overhead};

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (raw, bit, content_len) = (input.byte() & 1 == 1, usize::from(input.u16()), u64::from(input.u32()));
    let rest = input.rest();
    // With a checksum that is right what is behind it is read, too.
    let end = if raw { rest.to_vec() } else { sealed(rest) };
    let Some(footer) = read(content_len, &end) else { return false };
    assert_eq!(footer.encode().as_ref(), Ok(&end), "it is written in another form");
    assert!(read(content_len, &flipped(&end, bit)).is_none(), "a changed bit is not seen");
    assert!(read(content_len + 1, &end).is_none(), "it fits another file, too");
    true
}

fn sealed(footer: &[u8]) -> Vec<u8> {
    let len = u32::try_from(footer.len()).unwrap();
    let mut end = [footer, &MAGIC, &FORMAT.to_le_bytes(), &len.to_le_bytes()].concat();
    let sum = blake3::hash(&end);
    end.extend(&sum.as_bytes()[..16]);
    end
}

/// As a volume does: the tail first, then what it says is before.
fn read(content_len: u64, end: &[u8]) -> Option<Footer> {
    let tail = *end.last_chunk::<TAIL_BYTES>()?;
    let file_len = content_len + end.len() as u64;
    let layout = Layout::parse(file_len, tail).ok()?;
    assert_eq!(layout.content_len + (layout.footer_len + TAIL_BYTES) as u64, file_len);
    assert!(layout.content_len <= MAX_CONTENT_BYTES);
    assert!((layout.footer_len + TAIL_BYTES) as u64 <= max_overhead(layout.content_len), "memory is not bounded");
    let from = end.len().checked_sub(layout.footer_len + TAIL_BYTES)?;
    let footer = Footer::parse(&layout, &end[from..end.len() - TAIL_BYTES]).ok()?;
    assert_eq!(footer.len, layout.content_len);
    assert!(footer.replicas.len() <= MAX_REPLICAS, "more replicas than a value can have");
    assert!(footer.content_type.as_ref().is_none_or(|t| t.len() <= MAX_CONTENT_TYPE_BYTES), "a longer content type than is stored");
    Some(footer)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let footer = |len: u64, many: bool| {
        let mut tree = TreeHasher::new();
        tree.update(&vec![7; usize::try_from(len).unwrap()]);
        let tree = tree.finish();
        Footer {
            key: sample::keys().swap_remove(0),
            version: sample::version(),
            len,
            hash: tree.root,
            content_type: many.then(|| "text/plain".into()),
            modified: sample::NOW,
            expires: many.then_some(sample::NOW),
            commit_by: sample::NOW,
            replicas: vec![sample::VOLUME; if many { MAX_REPLICAS } else { 1 }],
            subtrees: tree.subtrees,
        }
    };
    let lens = [(0, false), (12, true), (SUBTREE_BYTES, false), (SUBTREE_BYTES + 1, true)];
    let with = |raw: u8, len: u64, end: &[u8]| chosen(&[&[raw, 9, 0], &u32::try_from(len).unwrap().to_le_bytes()[..]].concat(), end);
    let mut seeds = Vec::new();
    for (len, many) in lens {
        let end = footer(len, many).encode().unwrap();
        seeds.push(with(0, len, &end[..end.len() - TAIL_BYTES]));
        seeds.push(with(1, len, &end));
    }
    seeds
}
