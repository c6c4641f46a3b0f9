//! What a value is sent from, so that it can be sent again when a try fails.

use crate::error::Error;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use kvdb_protocol::ContentHash;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Bytes of a one-shot stream that are kept, so that a try that fails early can be made again.
pub const REPLAY_BYTES: usize = 8 << 20;
/// Bytes that are read from a file at a time.
const READ_BYTES: usize = 1 << 20;
/// Chunks of a file that may wait for the socket.
const READ_AHEAD: usize = 3;

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where a value comes from.
pub enum Source {
    /// From memory.
    Bytes(Bytes),
    /// From a file, which is opened anew for each try. It must not change meanwhile.
    File(PathBuf),
    /// From a stream that can be read only once. It can be sent again only as long as no more than
    /// [`REPLAY_BYTES`] of it were used.
    Stream {
        /// The bytes.
        chunks: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
        /// Their number, when it is known.
        len: Option<u64>,
    },
}

impl Source {
    /// From a stream that can be read only once; `len` is its length in bytes, when it is known.
    pub fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static, len: Option<u64>) -> Self {
        Self::Stream { chunks: Box::pin(chunks), len }
    }

    /// From a blocking reader, such as standard input; `len` is its length in bytes, when it is known.
    ///
    /// It is read on a thread of its own. That thread ends at the next read after the upload.
    /// Must be called within a tokio runtime.
    pub fn reader(reader: impl Read + Send + 'static, len: Option<u64>) -> Self {
        Self::stream(read_ahead(reader), len)
    }
}

impl From<Bytes> for Source {
    fn from(b: Bytes) -> Self {
        Self::Bytes(b)
    }
}

impl From<Vec<u8>> for Source {
    fn from(b: Vec<u8>) -> Self {
        Self::Bytes(b.into())
    }
}

impl From<PathBuf> for Source {
    fn from(p: PathBuf) -> Self {
        Self::File(p)
    }
}

impl From<&Path> for Source {
    fn from(p: &Path) -> Self {
        Self::File(p.into())
    }
}

/// A count of bytes that an operation keeps up to date; clones share it. A try that starts again sets it to zero.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `n` more bytes, where the caller does the work.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

/// A source that was opened.
pub(crate) struct Opened {
    kind: Kind,
    /// Length in bytes, when it is known.
    pub(crate) len: Option<u64>,
}

enum Kind {
    Bytes(Bytes),
    File(PathBuf),
    Once(Arc<tokio::sync::Mutex<Once>>),
}

/// A stream that can be read once, with what was kept of it.
struct Once {
    chunks: Chunks,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Whether everything that was used is still kept.
    whole: bool,
    ended: bool,
    /// Which try may read. A body of an earlier try may still be alive in a connection that is being closed.
    turn: u64,
}

impl Opened {
    /// Opens a source, to know its length and that it can be read.
    pub(crate) async fn new(source: Source) -> Result<Self, Error> {
        Ok(match source {
            Source::Bytes(b) => Self { len: Some(b.len() as u64), kind: Kind::Bytes(b) },
            Source::File(path) => {
                let len = blocking({
                    let path = path.clone();
                    move || regular_file_len(&path)
                });
                let len = len.await.map_err(|error| source_error(&path, error))?;
                Self { kind: Kind::File(path), len }
            }
            Source::Stream { chunks, len } => {
                let once = Once { chunks, kept: Vec::new(), kept_bytes: 0, whole: true, ended: false, turn: 0 };
                Self { kind: Kind::Once(Arc::new(tokio::sync::Mutex::new(once))), len }
            }
        })
    }

    /// Whether the next try can send from the first byte on.
    pub(crate) async fn can_start(&self) -> bool {
        match &self.kind {
            Kind::Bytes(_) | Kind::File(_) => true,
            Kind::Once(once) => once.lock().await.whole,
        }
    }

    /// The body of one try, and what will be known of it.
    pub(crate) async fn body(&self, progress: Progress) -> Result<(reqwest::Body, Arc<Sent>), Error> {
        let sent = Arc::new(Sent::new(self.len, progress));
        let chunks: Chunks = match &self.kind {
            Kind::Bytes(b) => Box::pin(slices(b.clone())),
            Kind::File(path) => {
                let open = {
                    let path = path.clone();
                    move || File::open(path)
                };
                let file = blocking(open).await.map_err(|error| source_error(path, error))?;
                // One byte more than the length, so that a file that grew is noticed.
                Box::pin(read_ahead(file.take(self.len.map_or(u64::MAX, |n| n.saturating_add(1)))))
            }
            Kind::Once(once) => Box::pin(replayed(once.clone()).await),
        };
        Ok((reqwest::Body::wrap_stream(observed(chunks, sent.clone())), sent))
    }

    /// The error of a source that failed.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        match &self.kind {
            Kind::File(path) => source_error(path, error),
            _ => Error::Source { what: "the source".into(), error },
        }
    }
}

fn source_error(path: &Path, error: io::Error) -> Error {
    Error::Source { what: path.display().to_string(), error }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// None for what has no length beforehand, such as a pipe.
fn regular_file_len(path: &Path) -> io::Result<Option<u64>> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    Ok(meta.is_file().then_some(meta.len()))
}

fn slices(bytes: Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(bytes, |mut rest| async move {
        let n = rest.len().min(READ_BYTES);
        (n > 0).then(|| (Ok(rest.split_to(n)), rest))
    })
}

/// Reads on a thread of the blocking pool, a few chunks ahead.
fn read_ahead(reader: impl Read + Send + 'static) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (to, from) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || read_into(reader, &to));
    stream::unfold(from, |mut from| async move { from.recv().await.map(|chunk| (chunk, from)) })
}

fn read_into(mut reader: impl Read, to: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let read = reader.by_ref().take(READ_BYTES as u64).read_to_end(&mut buffer);
        let message = match read {
            Ok(0) => return,
            Ok(_) => Ok(Bytes::from(buffer)),
            Err(e) => Err(e),
        };
        // The receiver is gone when the try has ended.
        if to.blocking_send(message).is_err() {
            return;
        }
    }
}

/// A one-shot stream from its first byte on: first what was kept, then what follows.
async fn replayed(once: Arc<tokio::sync::Mutex<Once>>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let turn = {
        let mut o = once.lock().await;
        o.turn += 1;
        o.turn
    };
    stream::unfold((once, 0usize), move |(once, at)| async move {
        let chunk = once.lock().await.next(turn, at).await?;
        Some((chunk, (once, at + 1)))
    })
}

impl Once {
    async fn next(&mut self, turn: u64, at: usize) -> Option<io::Result<Bytes>> {
        if turn != self.turn {
            return Some(Err(io::Error::other("a later try has taken over")));
        }
        if let Some(chunk) = self.kept.get(at).filter(|_| self.whole) {
            return Some(Ok(chunk.clone()));
        }
        if self.ended {
            return None;
        }
        let chunk = self.chunks.next().await;
        match &chunk {
            Some(Ok(c)) if self.whole && self.kept_bytes + c.len() <= REPLAY_BYTES => {
                self.kept_bytes += c.len();
                self.kept.push(c.clone());
            }
            Some(_) => {
                self.whole = false;
                self.kept = Vec::new();
            }
            None => self.ended = true,
        }
        chunk
    }
}

/// What is known of the body of one try while it is sent.
#[derive(Debug)]
pub(crate) struct Sent {
    len: Option<u64>,
    progress: Progress,
    state: Mutex<State>,
    waiting_for_source: AtomicBool,
}

#[derive(Debug)]
struct State {
    bytes: u64,
    hasher: blake3::Hasher,
    whole: bool,
    failure: Option<io::Error>,
}

impl Sent {
    fn new(len: Option<u64>, progress: Progress) -> Self {
        progress.set(0);
        let state = State { bytes: 0, hasher: blake3::Hasher::new(), whole: len == Some(0), failure: None };
        Self { len, progress, state: Mutex::new(state), waiting_for_source: AtomicBool::new(false) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No panic can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash, once the last byte was handed over: from then on the value may be stored.
    pub(crate) fn whole(&self) -> Option<ContentHash> {
        let s = self.state();
        s.whole.then(|| s.hasher.finalize().into())
    }

    /// How far it is: bytes, and whether these are all.
    pub(crate) fn mark(&self) -> (u64, bool) {
        let s = self.state();
        (s.bytes, s.whole)
    }

    /// Whether the next step is the source's: then nobody else is slow.
    pub(crate) fn is_waiting_for_source(&self) -> bool {
        self.waiting_for_source.load(Ordering::Relaxed)
    }

    /// Why the source failed, if it did.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.state().failure.take()
    }

    /// Accounts for what the source gave and decides what is sent.
    fn account(&self, chunk: Option<io::Result<Bytes>>) -> Option<io::Result<Bytes>> {
        let mut s = self.state();
        let failure = match chunk {
            Some(Ok(c)) if self.len.is_none_or(|n| s.bytes + c.len() as u64 <= n) => {
                s.hasher.update(&c);
                s.bytes += c.len() as u64;
                s.whole |= self.len == Some(s.bytes);
                self.progress.set(s.bytes);
                return Some(Ok(c));
            }
            None if self.len.is_none_or(|n| s.bytes == n) => {
                s.whole = true;
                return None;
            }
            Some(Ok(_)) => io::Error::new(io::ErrorKind::InvalidData, "it is longer than announced: it changed while it was being read"),
            None => io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than announced: it changed while it was being read"),
            Some(Err(e)) => e,
        };
        let shown = io::Error::new(failure.kind(), failure.to_string());
        s.failure = Some(failure);
        Some(Err(shown))
    }
}

fn observed(chunks: Chunks, sent: Arc<Sent>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some((chunks, sent)), |state| async move {
        let (mut chunks, sent) = state?;
        sent.waiting_for_source.store(true, Ordering::Relaxed);
        let chunk = chunks.next().await;
        sent.waiting_for_source.store(false, Ordering::Relaxed);
        let out = sent.account(chunk)?;
        let rest = out.is_ok().then_some((chunks, sent));
        Some((out, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn all(opened: &Opened) -> (Result<Vec<u8>, String>, Arc<Sent>) {
        let (body, sent) = opened.body(Progress::default()).await.unwrap();
        (body.collect().await.map(|b| b.to_bytes().to_vec()).map_err(|e| e.to_string()), sent)
    }

    fn chunked(parts: usize, part: usize) -> (Source, Vec<u8>) {
        let value: Vec<u8> = (0..parts * part).map(|i| (i % 251) as u8).collect();
        let chunks: Vec<_> = value.chunks(part).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        (Source::stream(stream::iter(chunks), None), value)
    }

    #[tokio::test]
    async fn bytes_and_files_are_sent_whole_as_often_as_needed() {
        let dir = tempfile::tempdir().unwrap();
        let value: Vec<u8> = (0..3_000_001u32).map(|i| i as u8).collect();
        std::fs::write(dir.path().join("f"), &value).unwrap();
        for source in [Source::from(value.clone()), Source::from(dir.path().join("f"))] {
            let opened = Opened::new(source).await.unwrap();
            assert_eq!(opened.len, Some(3_000_001));
            for _ in 0..2 {
                let (got, sent) = all(&opened).await;
                assert!(got.unwrap() == value);
                assert_eq!(sent.whole(), Some(ContentHash::of(&value)));
            }
        }
    }

    #[tokio::test]
    async fn a_short_stream_can_be_sent_again_and_a_long_one_cannot() {
        let (source, value) = chunked(8, REPLAY_BYTES / 8);
        let opened = Opened::new(source).await.unwrap();
        for _ in 0..3 {
            assert!(opened.can_start().await);
            let (got, sent) = all(&opened).await;
            assert!(got.unwrap() == value);
            assert_eq!(sent.whole(), Some(ContentHash::of(&value)));
        }
        let (source, value) = chunked(9, REPLAY_BYTES / 8);
        let opened = Opened::new(source).await.unwrap();
        assert!(all(&opened).await.0.unwrap() == value);
        assert!(!opened.can_start().await);
    }

    #[tokio::test]
    async fn a_stream_that_was_read_in_part_starts_again_from_its_first_byte() {
        let (source, value) = chunked(5, 10);
        let opened = Opened::new(source).await.unwrap();
        let (mut body, sent) = opened.body(Progress::default()).await.unwrap();
        body.frame().await.unwrap().unwrap();
        assert_eq!(sent.mark(), (10, false));
        let (got, _) = all(&opened).await;
        assert_eq!(got.unwrap(), value);
        assert!(body.frame().await.unwrap().is_err(), "the earlier body must not steal bytes");
    }

    #[tokio::test]
    async fn a_source_of_another_length_than_announced_is_an_error_and_never_whole() {
        for announced in [4, 6] {
            let chunks = stream::iter([Ok(Bytes::from_static(b"12345"))]);
            let opened = Opened::new(Source::stream(chunks, Some(announced))).await.unwrap();
            let (got, sent) = all(&opened).await;
            assert!(got.is_err(), "{announced}");
            assert_eq!(sent.whole(), None);
            assert!(sent.take_failure().is_some());
        }
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("missing")] {
            let e = Opened::new(Source::from(path.clone())).await.err().unwrap();
            assert!(matches!(&e, Error::Source { what, .. } if *what == path.display().to_string()), "{e}");
        }
    }

    #[tokio::test]
    async fn an_empty_source_is_whole_from_the_start_only_when_its_length_is_known() {
        let known = Opened::new(Source::from(Vec::new())).await.unwrap();
        assert_eq!(known.body(Progress::default()).await.unwrap().1.whole(), Some(ContentHash::of(b"")));
        let unknown = Opened::new(Source::stream(stream::empty(), None)).await.unwrap();
        let (_, sent) = unknown.body(Progress::default()).await.unwrap();
        assert_eq!(sent.whole(), None);
    }
}
