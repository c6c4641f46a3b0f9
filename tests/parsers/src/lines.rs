//! Lines of JSON between servers: however the stream is cut, the same comes out.

use crate::chain::Parts;
use crate::input::{Input, chosen, cut};
use crate::sample;
use bytes::Bytes;
use futures_util::FutureExt as _;
use kvdb_protocol::message::{Beat, VolumeStatus};
use kvdb_server::duplex::{LineReader, line};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Stands for [`PADDING`] spaces: long lines from few bytes.
const STRETCH: u8 = 0xFF;
const PADDING: usize = 4 << 10;
/// Enough for lines that are too long.
const MOST_STRETCHES: usize = 20;

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (choice, n) = (input.byte(), usize::from(input.byte() % 8));
    let sizes = input.bytes(n);
    let mut stream = Vec::new();
    let mut stretches = 0;
    for &b in input.rest() {
        stretches += usize::from(b == STRETCH);
        if b == STRETCH && stretches <= MOST_STRETCHES { stream.extend([b' '; PADDING]) } else { stream.push(b) }
    }
    if choice & 1 == 0 { with::<Beat>(&stream, sizes) } else { with::<VolumeStatus>(&stream, sizes) }
}

fn with<T: DeserializeOwned + Serialize>(stream: &[u8], sizes: &[u8]) -> bool {
    let whole = read::<T>(stream, &[]);
    // Cutting a long stream small costs time and shows no more.
    let sizes: Vec<u8> = sizes.iter().map(|n| if stream.len() > PADDING { n | 0x80 } else { *n }).collect();
    assert_eq!(read::<T>(stream, &sizes), whole, "another cut, another result");
    let (messages, good) = whole;
    for message in &messages {
        assert_eq!(message.iter().filter(|b| **b == b'\n').count(), 1, "a message is one line");
        let again: T = serde_json::from_slice(message).unwrap();
        assert_eq!(&line(&again), message);
    }
    good && !messages.is_empty()
}

/// The messages, as they are written, and whether the stream ended well.
fn read<T: DeserializeOwned + Serialize>(stream: &[u8], sizes: &[u8]) -> (Vec<Bytes>, bool) {
    let parts: Vec<_> = cut(stream, sizes).into_iter().map(Bytes::copy_from_slice).collect();
    let (mut reader, mut messages) = (LineReader::new(Parts(parts.into_iter())), Vec::new());
    loop {
        match reader.next::<T>().now_or_never().unwrap() {
            Ok(Some(message)) => messages.push(line(&message)),
            Ok(None) => return (messages, true),
            Err(_) => return (messages, false),
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let beat = line(&Beat { time: sample::NOW, expiry: sample::NOW, master: "localhost:3000".into(), reads_need_tickets: true });
    let status = line(&VolumeStatus { total_bytes: 9, writable: true, reason: Some("\n".into()), ..VolumeStatus::default() });
    vec![
        chosen(&[0, 1, 4], &beat),
        chosen(&[0, 0], [&beat[..], &beat[..]].concat()),
        chosen(&[0, 1, 200], [&[STRETCH; 3][..], &beat[..]].concat()),
        chosen(&[1, 2, 7, 1], status),
    ]
}
