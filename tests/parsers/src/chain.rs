//! Frames of the chain: however the stream is cut, the same comes out.

use crate::input::{Input, chosen, cut};
use crate::sample;
use bytes::Bytes;
use futures_util::FutureExt as _;
use kvdb_protocol::chain::{Control, FrameError, MAX_CONTROL_BYTES, Piece, Splitter, data_head};
use kvdb_protocol::message::{Committed, Prepared, Standing};
use kvdb_protocol::{ErrorCode, Problem};
use kvdb_server::duplex::{DuplexError, FrameReader, Item};

/// What a stream brought: bytes of the value joined, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Found {
    items: Vec<Part>,
    end: Option<FrameError>,
    at_boundary: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Data(Vec<u8>),
    Control(Control),
}

impl Found {
    fn data(&mut self, bytes: &[u8]) {
        match self.items.last_mut() {
            Some(Part::Data(have)) => have.extend_from_slice(bytes),
            _ => self.items.push(Part::Data(bytes.to_vec())),
        }
    }
}

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let n = usize::from(input.byte() % 8);
    let sizes = input.bytes(n);
    let stream = input.rest();
    let whole = split(stream, &[]);
    assert_eq!(split(stream, sizes), whole, "another cut, another result");
    assert_eq!(read(stream, sizes), whole, "the reader of bodies finds something else");
    let mut again = Vec::new();
    for item in &whole.items {
        match item {
            Part::Data(bytes) => again.extend([&data_head(bytes.len())[..], bytes].concat()),
            Part::Control(control) => again.extend(frame(control)),
        }
    }
    let reread = split(&again, &[]);
    assert_eq!((reread.items, reread.end, reread.at_boundary), (whole.items.clone(), None, true));
    whole.end.is_none() && whole.at_boundary && !whole.items.is_empty()
}

/// What is written can be read: also where a problem grows by being written in full.
fn frame(control: &Control) -> Vec<u8> {
    let frame = control.encode();
    assert!(frame.len() <= MAX_CONTROL_BYTES + 5, "a frame of {} bytes would be refused", frame.len());
    frame
}

fn split(stream: &[u8], sizes: &[u8]) -> Found {
    let (mut splitter, mut found) = (Splitter::default(), Found::default());
    for mut part in cut(stream, sizes) {
        loop {
            match splitter.next(part) {
                Ok((used, piece)) => {
                    part = &part[used..];
                    match piece {
                        Piece::Data(n) => {
                            assert!(n > 0);
                            found.data(&part[..n]);
                            part = &part[n..];
                        }
                        Piece::Control(c) => found.items.push(Part::Control(c)),
                        Piece::More => {
                            assert!(part.is_empty(), "bytes are left lying");
                            break;
                        }
                    }
                }
                Err(e) => return Found { end: Some(e), ..found },
            }
        }
    }
    found.at_boundary = splitter.at_boundary();
    found
}

fn read(stream: &[u8], sizes: &[u8]) -> Found {
    let parts = cut(stream, sizes).into_iter().map(Bytes::copy_from_slice);
    let (mut reader, mut found) = (FrameReader::new(Parts(parts)), Found::default());
    loop {
        match reader.next().now_or_never().unwrap() {
            Ok(Some(Item::Data(bytes))) => found.data(&bytes),
            Ok(Some(Item::Control(c))) => found.items.push(Part::Control(c)),
            Ok(None) => return Found { at_boundary: true, ..found },
            Err(DuplexError::Frame(e)) => return Found { end: Some(e), ..found },
            Err(_) => return found,
        }
    }
}

/// A body that has arrived.
pub(crate) struct Parts<I>(pub I);

impl<I: Iterator<Item = Bytes> + Unpin> http_body::Body for Parts<I> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.next().map(|b| Ok(http_body::Frame::data(b))))
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let committed =
        Committed { seq: 3, created: true, modified: sample::NOW, removed: Some(sample::version()), standing: Standing::Current };
    let controls = [
        Control::End(7),
        Control::Commit(committed),
        Control::Abort,
        Control::Prepared(Prepared { len: 7, hash: sample::hash() }),
        Control::Failed(Problem::new(ErrorCode::NoSpace, "full").at_volume(sample::VOLUME)),
        Control::Done(committed),
    ];
    let mut seeds: Vec<_> = controls.iter().map(|c| chosen(&[1, 3], c.encode())).collect();
    let write = [&data_head(5)[..], b"value", &data_head(2), b"12", &Control::End(7).encode(), &Control::Commit(committed).encode()];
    seeds.push(chosen(&[2, 1, 9], write.concat()));
    seeds
}
