//! The parser survives anything, and the bytes are those of `docs/format-volume.md`.

use super::*;
use kvdb_protocol::tree::TreeHasher;
use proptest::prelude::*;

fn sample(len: usize) -> (Vec<u8>, Footer) {
    let content: Vec<u8> = (0..len).map(|i| (i / 3) as u8).collect();
    let mut hasher = TreeHasher::new();
    hasher.update(&content);
    let tree = hasher.finish();
    let footer = Footer {
        key: Key::new("k\0ey").unwrap(),
        version: VersionId::from_bytes([6; 16]),
        len: tree.len,
        hash: tree.root,
        content_type: Some(String::new()),
        modified: UnixMillis(1),
        expires: Some(UnixMillis(0)),
        commit_by: UnixMillis(3),
        replicas: vec![VolumeId::from_bytes([1; 16])],
        subtrees: tree.subtrees,
    };
    (content, footer)
}

/// Reads a whole file's bytes as the store reads a file.
fn parse(file: &[u8]) -> Result<Footer, FormatError> {
    let file_len = file.len() as u64;
    let at = file.len().checked_sub(TAIL_BYTES).ok_or(FormatError::TooShort { what: "the file", found: file_len })?;
    let layout = Layout::parse(file_len, file[at..].try_into().unwrap())?;
    let start = usize::try_from(layout.content_len).unwrap();
    assert!(start + layout.footer_len + TAIL_BYTES == file.len());
    Footer::parse(&layout, &file[start..start + layout.footer_len])
}

fn file(content: &[u8], footer: &Footer) -> Vec<u8> {
    [content, &footer.encode().unwrap()].concat()
}

#[test]
fn footers_round_trip() {
    for len in [0, 1, 100, 262_144, 262_145, 900_000] {
        let (content, footer) = sample(len);
        assert_eq!(parse(&file(&content, &footer)).unwrap(), footer);
        let bare = Footer { content_type: None, expires: None, replicas: Vec::new(), ..footer };
        assert_eq!(parse(&file(&content, &bare)).unwrap(), bare);
        assert!(bare.encode().unwrap().len() as u64 <= max_overhead(len as u64));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_footer_and_tail_is_found() {
    let (content, footer) = sample(300_000);
    let good = file(&content, &footer);
    for at in content.len()..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(parse(&bad).is_err(), "byte {at}, bit {bit}");
        }
        assert!(parse(&good[..at]).is_err(), "cut at {at}");
    }
    assert!(parse(&[&good[..], &[0]].concat()).is_err(), "extended");
    assert!(parse(&good[1..]).is_err(), "without its first byte");
}

#[test]
fn a_length_that_the_file_cannot_have_is_refused_before_it_is_read() {
    let mut tail = [0; TAIL_BYTES];
    tail[..8].copy_from_slice(&MAGIC);
    tail[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    for (footer_len, file_len) in [(u32::MAX, u64::MAX), (1 << 31, 1 << 44), (u32::MAX, 1 << 33), (1 << 20, 1 << 20), (10_000, 20_000)] {
        tail[12..16].copy_from_slice(&footer_len.to_le_bytes());
        assert!(Layout::parse(file_len, tail).is_err(), "{footer_len} of {file_len}");
    }
}

#[test]
fn fields_that_are_too_long_are_not_written() {
    let (_, footer) = sample(1);
    let long_type = Footer { content_type: Some("x".repeat(MAX_CONTENT_TYPE_BYTES + 1)), ..footer.clone() };
    let many = Footer { replicas: vec![VolumeId::from_bytes([0; 16]); MAX_REPLICAS + 1], ..footer.clone() };
    let values = Footer { subtrees: vec![[0; 32]], ..footer };
    for bad in [long_type, many, values] {
        assert!(matches!(bad.encode(), Err(FormatError::Field(_))));
    }
}

#[test]
fn the_document_shows_the_bytes_that_are_written() {
    let bytes = crate::format::example("blob");
    let expected = Footer {
        key: Key::new("examplekey").unwrap(),
        version: "018bcfe5-6800-7000-8000-0000000000ab".parse().unwrap(),
        len: 12,
        hash: ContentHash::of(b"examplevalue"),
        content_type: Some("text/plain".into()),
        modified: UnixMillis(1_700_000_000_000),
        expires: None,
        commit_by: UnixMillis(1_700_000_060_000),
        replicas: vec!["11111111-1111-4111-8111-111111111111".parse().unwrap()],
        subtrees: Vec::new(),
    };
    let written = file(b"examplevalue", &expected);
    assert_eq!(written.len(), bytes.len(), "{}", dump(&written));
    assert!(written == bytes, "the document differs from the code:\n{}", dump(&written));
    assert_eq!(parse(&bytes).unwrap(), expected);
}

fn dump(bytes: &[u8]) -> String {
    let line = |(n, part): (usize, &[u8])| {
        let hex: Vec<String> = part.iter().map(|b| format!("{b:02x}")).collect();
        let text: String = part.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' }).collect();
        format!("{:04x}  {:<47} |{text}|\n", n * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_bytes_with_a_true_tail_are_refused_or_read_but_never_panic(
        footer in proptest::collection::vec(any::<u8>(), 0..300), content in 0usize..40,
    ) {
        let mut bytes = vec![0; content];
        let mut tail = footer.clone();
        tail.extend(MAGIC);
        tail.extend(FORMAT.to_le_bytes());
        tail.extend(u32::try_from(footer.len()).unwrap().to_le_bytes());
        let sum = checksum(&tail);
        bytes.extend(tail);
        bytes.extend(sum);
        let _ = parse(&bytes);
    }
}
