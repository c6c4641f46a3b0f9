//! Both ends of a stream between two servers: frames of [`kvdb_protocol::chain`], and lines of JSON.

use crate::peer::{Credentials, Destination, PeerError, Peers};
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use kvdb_protocol::chain::{Control, FrameError, MAX_DATA_BYTES, Piece, Splitter, data_head};
use kvdb_protocol::message::{Committed, Prepared, path};
use kvdb_protocol::{ErrorCode, Problem, TicketVolume};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;

/// Portions of a value that may wait for the next server. Each is at most what one read of the socket brought.
const WAITING_PORTIONS: usize = 4;
/// How long the next server may take to check the ticket, reserve space and open the rest of the chain.
pub const CHAIN_OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line of a status stream, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Why a stream ended otherwise than agreed.
#[derive(Debug, thiserror::Error)]
pub enum DuplexError {
    /// The other side went away, or this one was too slow for it.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It sent what this server does not understand.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It sent something out of order.
    #[error("unexpected {0} in the stream")]
    Unexpected(&'static str),
    /// It said that it failed.
    #[error("{0}")]
    Failed(Problem),
}

impl DuplexError {
    /// As an answer to whoever asked.
    pub fn to_problem(&self) -> Problem {
        match self {
            Self::Failed(p) => p.clone(),
            other => Problem::new(ErrorCode::Unavailable, format!("a replica could not be written: {other}")),
        }
    }

    /// The same once the other side may have committed: unless it said so, a failure is no longer certain.
    pub fn to_outcome(&self) -> Problem {
        match self {
            Self::Failed(p) => p.clone(),
            other => Problem::new(ErrorCode::OutcomeUnknown, format!("the write may have happened: {other}; ask for the key in a while")),
        }
    }
}

/// What a [`FrameReader`] found.
#[derive(Debug)]
pub enum Item {
    /// Bytes of the value.
    Data(Bytes),
    /// A control frame.
    Control(Control),
}

/// Reads frames from a body, without copying the value.
pub struct FrameReader<B> {
    body: B,
    splitter: Splitter,
    waiting: Bytes,
}

impl<B> FrameReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Reads from `body`.
    pub fn new(body: B) -> Self {
        Self { body, splitter: Splitter::default(), waiting: Bytes::new() }
    }

    /// The next item; `None` where the body ended between two frames. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Item>, DuplexError> {
        loop {
            let (used, piece) = self.splitter.next(&self.waiting)?;
            self.waiting.advance(used);
            match piece {
                Piece::Data(n) => return Ok(Some(Item::Data(self.waiting.split_to(n)))),
                Piece::Control(c) => return Ok(Some(Item::Control(c))),
                Piece::More => {}
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.waiting = frame.into_data().unwrap_or_default(),
                Some(Err(e)) => return Err(DuplexError::Broken(e.to_string())),
                None if self.splitter.at_boundary() => return Ok(None),
                None => return Err(DuplexError::Broken("it ended within a frame".into())),
            }
        }
    }
}

/// A body whose bytes are sent from elsewhere.
pub fn channel() -> (mpsc::Sender<Bytes>, impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) {
    let (tx, rx) = mpsc::channel(WAITING_PORTIONS * 2);
    (tx, futures_util::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|b| (Ok(b), rx)) }))
}

/// The sending end of a chain call.
pub struct ChainSender {
    to: mpsc::Sender<Bytes>,
    answers: FrameReader<reqwest::Body>,
}

/// What a chain call says at its start.
pub struct ChainOpen<'a> {
    /// The encoded ticket.
    pub ticket: &'a str,
    /// The receiver's place in the ticket's chain.
    pub at: usize,
    /// Length of the value, where it is known.
    pub len: Option<u64>,
    /// Whether the copies are left as prepared, to be committed by the master with others.
    pub hold: bool,
    /// Further headers for the receiver (digests that the client announced).
    pub headers: HeaderMap,
}

impl ChainSender {
    /// Calls `volume`; returns once it and all after it have reserved their space.
    pub async fn open(peers: &Peers, credentials: &Credentials, volume: &TicketVolume, call: ChainOpen<'_>) -> Result<Self, PeerError> {
        let (to, body) = channel();
        let len = call.len.map(|n| format!("&len={n}")).unwrap_or_default();
        let hold = if call.hold { "&hold" } else { "" };
        let target = format!("{}?at={}{len}{hold}&ticket={}", path::CHAIN, call.at, call.ticket);
        let destination = Destination { address: &volume.address, volume: volume.id, target: &target };
        let answers = peers.stream(credentials, destination, call.headers, body, CHAIN_OPEN_TIMEOUT).await?;
        Ok(Self { to, answers: FrameReader::new(answers) })
    }

    /// Sends bytes of the value; waits while the next server is slower than the sender.
    pub async fn data(&mut self, mut bytes: Bytes) -> Result<(), DuplexError> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(MAX_DATA_BYTES));
            self.send(Bytes::copy_from_slice(&data_head(part.len()))).await?;
            self.send(part).await?;
        }
        Ok(())
    }

    /// Says that the value is complete.
    pub async fn end(&mut self, len: u64) -> Result<(), DuplexError> {
        self.control(&Control::End(len)).await
    }

    /// Waits until all copies from the next server on are durable.
    pub async fn prepared(&mut self) -> Result<Prepared, DuplexError> {
        match self.answer().await? {
            Control::Prepared(p) => Ok(p),
            _ => Err(DuplexError::Unexpected("frame, instead of Prepared")),
        }
    }

    /// Waits for the outcome of a commit that the first volume makes for a relaying master.
    pub async fn done(&mut self) -> Result<Committed, DuplexError> {
        match self.answer().await? {
            Control::Done(c) => Ok(c),
            _ => Err(DuplexError::Unexpected("frame, instead of Done")),
        }
    }

    /// Says that the master committed the version. Best effort: a volume that misses it asks the master.
    pub async fn commit(mut self, committed: Committed) -> Result<(), DuplexError> {
        self.control(&Control::Commit(committed)).await?;
        self.close().await
    }

    /// Has the next server remove its copy. Best effort likewise.
    pub async fn abort(mut self) -> Result<(), DuplexError> {
        self.control(&Control::Abort).await?;
        self.close().await
    }

    /// The copies are held as prepared: there is no more to say.
    pub async fn held(self) -> Result<(), DuplexError> {
        self.close().await
    }

    /// Ends the stream and lets the other side end its own, so that the connection can be used again.
    async fn close(self) -> Result<(), DuplexError> {
        let Self { to, mut answers } = self;
        drop(to);
        match answers.next().await? {
            None => Ok(()),
            Some(_) => Err(DuplexError::Unexpected("frame after the end")),
        }
    }

    async fn control(&mut self, frame: &Control) -> Result<(), DuplexError> {
        self.send(frame.encode().into()).await
    }

    /// An answer while bytes are still to be sent can only mean that it failed.
    async fn send(&mut self, bytes: Bytes) -> Result<(), DuplexError> {
        tokio::select! {
            biased;
            sent = self.to.send(bytes) => match sent {
                Ok(()) => Ok(()),
                // The request's task is gone: its answer says why, if there is one.
                Err(_) => Err(self.answer().await.err().unwrap_or(DuplexError::Unexpected("end of the stream"))),
            },
            answer = self.answers.next() => match answer? {
                Some(Item::Control(Control::Failed(p))) => Err(DuplexError::Failed(p)),
                Some(_) => Err(DuplexError::Unexpected("answer before the end of the value")),
                None => Err(DuplexError::Broken("it ended early".into())),
            },
        }
    }

    async fn answer(&mut self) -> Result<Control, DuplexError> {
        match self.answers.next().await? {
            Some(Item::Control(Control::Failed(p))) => Err(DuplexError::Failed(p)),
            Some(Item::Control(c)) => Ok(c),
            Some(Item::Data(_)) => Err(DuplexError::Unexpected("data")),
            None => Err(DuplexError::Broken("it ended without an answer".into())),
        }
    }
}

/// Reads lines of JSON from a body.
pub struct LineReader<B> {
    body: B,
    waiting: BytesMut,
}

impl<B> LineReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Reads from `body`.
    pub fn new(body: B) -> Self {
        Self { body, waiting: BytesMut::new() }
    }

    /// The next line; `None` at the end. Safe to cancel.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, DuplexError> {
        loop {
            if let Some(at) = self.waiting.iter().position(|b| *b == b'\n') {
                if at > MAX_LINE_BYTES {
                    return Err(DuplexError::Broken("a line is too long".into()));
                }
                let line = self.waiting.split_to(at + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|e| DuplexError::Broken(format!("a line is not as expected: {e}")));
            }
            if self.waiting.len() > MAX_LINE_BYTES {
                return Err(DuplexError::Broken("a line is too long".into()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.waiting.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(e)) => return Err(DuplexError::Broken(e.to_string())),
                None => return Ok(None),
            }
        }
    }
}

/// A line of JSON.
pub fn line(message: &impl serde::Serialize) -> Bytes {
    // Messages have no map with keys that are not strings, the only thing serde_json refuses.
    let mut text = serde_json::to_vec(message).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// The body of an answer whose bytes come from elsewhere; an error cuts the connection.
pub fn body<E: Into<crate::BoxError> + 'static>(
    stream: impl futures_util::Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> crate::Body {
    let frames = futures_util::StreamExt::map(stream, |r| r.map(http_body::Frame::data).map_err(Into::into));
    http_body_util::StreamBody::new(frames).boxed_unsync()
}
