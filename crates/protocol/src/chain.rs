//! Frames of the chain: how a value goes from one server to the next while it arrives.
//!
//! A chain call is one HTTP request whose body and response body flow at the same time. The receiver
//! answers its head (200) once it has checked the ticket, reserved space and opened the rest of the
//! chain; only then does the sender send the value. A frame is: kind (1 B), payload length (u32, little
//! endian), payload.
//!
//! | direction | kind | payload |
//! |---|---|---|
//! | to the next | `Data` | bytes of the value |
//! | to the next | `End` | length (u64 LE) of the whole value |
//! | to the next | `Commit` | JSON of [`Committed`] |
//! | to the next | `Abort` | none: remove the copy |
//! | back | `Prepared` | length (u64 LE) and BLAKE3 (32 B): all copies from here on are durable |
//! | back | `Failed` | JSON of a [`Problem`] |
//! | back | `Done` | JSON of [`Committed`]: only to a master that relays, from the first volume |

use crate::error::Problem;
use crate::hash::ContentHash;
use crate::message::{Committed, Prepared};
use thiserror::Error;

/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 5;
/// Largest payload of a `Data` frame, in bytes.
pub const MAX_DATA_BYTES: usize = 4 << 20;
/// Largest payload of any other frame, in bytes.
pub const MAX_CONTROL_BYTES: usize = 16 << 10;

const DATA: u8 = 1;
const END: u8 = 2;
const COMMIT: u8 = 3;
const ABORT: u8 = 4;
const PREPARED: u8 = 5;
const FAILED: u8 = 6;
const DONE: u8 = 7;

/// A frame other than `Data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The value is complete and this many bytes long.
    End(u64),
    /// The master committed it.
    Commit(Committed),
    /// It will not be committed.
    Abort,
    /// All copies from here on are durable.
    Prepared(Prepared),
    /// It failed here or further on.
    Failed(Problem),
    /// Committed; to a relaying master.
    Done(Committed),
}

/// Why bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Unknown kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Too large.
    #[error("frame of {0} bytes is too large")]
    Size(u32),
    /// The payload is not what the kind says.
    #[error("malformed payload of frame kind {0}")]
    Payload(u8),
}

/// What a frame's head announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameHead {
    /// This many bytes of the value follow.
    Data(usize),
    /// A control frame of this kind whose payload has this many bytes.
    Control(u8, usize),
}

/// The head of a `Data` frame. `len` is at most [`MAX_DATA_BYTES`].
pub fn data_head(len: usize) -> [u8; FRAME_HEAD_BYTES] {
    debug_assert!(len <= MAX_DATA_BYTES);
    head(DATA, u32::try_from(len).unwrap_or(u32::MAX))
}

fn head(kind: u8, len: u32) -> [u8; FRAME_HEAD_BYTES] {
    let [a, b, c, d] = len.to_le_bytes();
    [kind, a, b, c, d]
}

/// Reads a frame's head.
pub fn parse_head(h: [u8; FRAME_HEAD_BYTES]) -> Result<FrameHead, FrameError> {
    let [kind, len @ ..] = h;
    let len = u32::from_le_bytes(len);
    let n = usize::try_from(len).map_err(|_| FrameError::Size(len))?;
    match kind {
        DATA if n <= MAX_DATA_BYTES => Ok(FrameHead::Data(n)),
        END..=DONE if n <= MAX_CONTROL_BYTES => Ok(FrameHead::Control(kind, n)),
        DATA..=DONE => Err(FrameError::Size(len)),
        _ => Err(FrameError::Kind(kind)),
    }
}

impl Control {
    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::End(len) => (END, len.to_le_bytes().to_vec()),
            Self::Commit(c) => (COMMIT, json(c)),
            Self::Abort => (ABORT, Vec::new()),
            Self::Prepared(p) => (PREPARED, prepared_bytes(p)),
            Self::Failed(p) => (FAILED, failed_json(p)),
            Self::Done(c) => (DONE, json(c)),
        };
        let mut out = head(kind, u32::try_from(payload.len()).unwrap_or(u32::MAX)).to_vec();
        out.extend(payload);
        out
    }

    /// Reads the payload of a control frame of this kind.
    pub fn parse(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let bad = FrameError::Payload(kind);
        match kind {
            END => payload.try_into().map(|b| Self::End(u64::from_le_bytes(b))).map_err(|_| bad),
            COMMIT => serde_json::from_slice(payload).map(Self::Commit).map_err(|_| bad),
            ABORT if payload.is_empty() => Ok(Self::Abort),
            ABORT => Err(bad),
            PREPARED => prepared_parse(payload).map(Self::Prepared).ok_or(bad),
            FAILED => serde_json::from_slice(payload).map(Self::Failed).map_err(|_| bad),
            DONE => serde_json::from_slice(payload).map(Self::Done).map_err(|_| bad),
            _ => Err(FrameError::Kind(kind)),
        }
    }
}

fn json<T: serde::Serialize>(v: &T) -> Vec<u8> {
    // These types have no map with keys that are not strings, the only thing serde_json refuses.
    serde_json::to_vec(v).unwrap_or_default()
}

fn failed_json(p: &Problem) -> Vec<u8> {
    let whole = json(p);
    if whole.len() <= MAX_CONTROL_BYTES {
        return whole;
    }
    json(&Problem::new(p.code, "(the detail was too long to pass on)"))
}

fn prepared_bytes(p: &Prepared) -> Vec<u8> {
    let mut v = p.len.to_le_bytes().to_vec();
    v.extend(p.hash.0);
    v
}

fn prepared_parse(b: &[u8]) -> Option<Prepared> {
    let (len, hash) = b.split_at_checked(8)?;
    Some(Prepared { len: u64::from_le_bytes(len.try_into().ok()?), hash: ContentHash(hash.try_into().ok()?) })
}

/// Cuts a stream of bytes, arriving in any portions, into frames without copying the value.
///
/// Feed it with [`Splitter::next`]: it consumes from the front of `input`.
#[derive(Debug, Default)]
pub struct Splitter {
    head: Vec<u8>,
    data_left: usize,
    control: Option<(u8, usize, Vec<u8>)>,
}

/// What [`Splitter::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// This many bytes of the value begin at the place that was named.
    Data(usize),
    /// A control frame.
    Control(Control),
    /// More bytes are needed.
    More,
}

impl Splitter {
    /// Whether it stands between two frames.
    pub fn at_boundary(&self) -> bool {
        self.head.is_empty() && self.data_left == 0 && self.control.is_none()
    }

    /// Takes frames' heads and control frames from the front of `input`, and says how many bytes that used
    /// and what it found. The caller drops these bytes, and those of `Data`, and calls again until `More`.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Piece), FrameError> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if self.data_left > 0 {
                let n = rest.len().min(self.data_left);
                self.data_left -= n;
                return Ok((used, if n == 0 { Piece::More } else { Piece::Data(n) }));
            }
            if let Some((kind, want, mut have)) = self.control.take() {
                let n = (want - have.len()).min(rest.len());
                have.extend_from_slice(rest.get(..n).unwrap_or_default());
                used += n;
                if have.len() < want {
                    self.control = Some((kind, want, have));
                    return Ok((used, Piece::More));
                }
                return Control::parse(kind, &have).map(|c| (used, Piece::Control(c)));
            }
            let n = (FRAME_HEAD_BYTES - self.head.len()).min(rest.len());
            self.head.extend_from_slice(rest.get(..n).unwrap_or_default());
            used += n;
            let Ok(h) = <[u8; FRAME_HEAD_BYTES]>::try_from(self.head.as_slice()) else { return Ok((used, Piece::More)) };
            self.head.clear();
            match parse_head(h)? {
                FrameHead::Data(len) => self.data_left = len,
                FrameHead::Control(kind, len) => self.control = Some((kind, len, Vec::with_capacity(len))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use proptest::prelude::*;

    fn split(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<Control>), FrameError> {
        let (mut s, mut data, mut controls) = (Splitter::default(), Vec::new(), Vec::new());
        for mut part in bytes.chunks(step) {
            loop {
                let (used, piece) = s.next(part)?;
                part = &part[used..];
                match piece {
                    Piece::Data(n) => {
                        data.extend_from_slice(&part[..n]);
                        part = &part[n..];
                    }
                    Piece::Control(c) => controls.push(c),
                    Piece::More => break,
                }
            }
        }
        assert!(s.at_boundary());
        Ok((data, controls))
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let p = Prepared { len: 7, hash: ContentHash::of(b"x") };
        let controls = vec![
            Control::End(7),
            Control::Abort,
            Control::Prepared(p),
            Control::Failed(Problem::new(ErrorCode::NoSpace, "full")),
            Control::Done(Committed {
                seq: 1,
                created: true,
                modified: crate::UnixMillis(5),
                removed: None,
                standing: crate::message::Standing::Gone,
            }),
        ];
        let mut bytes = Vec::new();
        for (i, c) in controls.iter().enumerate() {
            bytes.extend(data_head(i));
            bytes.extend(vec![i as u8; i]);
            bytes.extend(c.encode());
        }
        for step in 1..=bytes.len() {
            assert_eq!(split(&bytes, step).unwrap(), (vec![1, 2, 2, 3, 3, 3, 4, 4, 4, 4], controls.clone()), "step {step}");
        }
    }

    #[test]
    fn unknown_kinds_and_oversized_frames_are_refused() {
        assert_eq!(parse_head([0, 0, 0, 0, 0]), Err(FrameError::Kind(0)));
        assert_eq!(parse_head([8, 0, 0, 0, 0]), Err(FrameError::Kind(8)));
        assert_eq!(parse_head([DATA, 1, 0, 64, 0]), Err(FrameError::Size((4 << 20) + 1)));
        assert_eq!(parse_head([END, 1, 64, 0, 0]), Err(FrameError::Size((16 << 10) + 1)));
        assert_eq!(Control::parse(END, &[0; 39]), Err(FrameError::Payload(END)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
            let mut s = Splitter::default();
            for mut part in bytes.chunks(step) {
                while let Ok((used, piece)) = s.next(part) {
                    part = &part[used..];
                    match piece {
                        Piece::Data(n) => part = &part[n..],
                        Piece::Control(_) => {}
                        Piece::More => break,
                    }
                }
            }
        }
    }
}
