//! The socket as hyper sees it: it gives up on peers that send their head too slowly, or that stop reading, and has the
//! kernel send parts of files.

use crate::deadline::Deadline;
use crate::sendfile::{FileSender, is_part};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// sendfile(2) pushes so many bytes at a time, whatever the length of a part.
const PUSH_BYTES: usize = 64 << 10;
/// Room for what is read and dropped before a close, in bytes.
const LINGER_BUFFER_BYTES: usize = 16 << 10;

/// What a connection waits for; shared between its socket and its requests, which run in one task.
#[derive(Default)]
pub(crate) struct Phase(AtomicU8);

/// A head has begun, or is due because the connection is new.
const HEAD: u8 = 0;
/// A request is being served.
const REQUEST: u8 = 1;
/// Nothing; the next request may come or not.
const IDLE: u8 = 2;

impl Phase {
    pub fn begin_request(&self) {
        self.0.store(REQUEST, Ordering::Relaxed);
    }

    pub fn end_request(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    /// True for the first bytes after a request.
    fn begin_head(&self) -> bool {
        self.0.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn in_head(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HEAD
    }
}

/// How patient a socket is.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For a whole head, from its first byte, or from the accept.
    pub head: Duration,
    /// For a peer that takes nothing although there is something to send.
    pub write_stall: Duration,
}

/// A connection's socket.
pub(crate) struct Socket {
    io: TokioIo<TcpStream>,
    phase: Arc<Phase>,
    files: FileSender,
    /// The kernel holds back segments that are not full (TCP_CORK): the parts of a file are pushed as one.
    corked: bool,
    patience: Patience,
    head: Deadline,
    stall: Deadline,
}

impl Socket {
    pub fn new(stream: TcpStream, phase: Arc<Phase>, files: FileSender, patience: Patience) -> Self {
        let mut head = Deadline::default();
        head.arm(Instant::now() + patience.head);
        Self { io: TokioIo::new(stream), phase, files, corked: false, patience, head, stall: Deadline::default() }
    }

    /// Reads and drops until the peer closes, at most `max_bytes` for at most `max_time`.
    ///
    /// To be called after the last answer is sent and the sending side is shut down: closing with bytes unread would reset
    /// the connection, and the peer might lose the answer.
    pub async fn linger(mut self, max_bytes: usize, max_time: Duration) {
        let stream = self.io.inner_mut();
        let read = async {
            let mut buffer = vec![0; LINGER_BUFFER_BYTES];
            let mut left = max_bytes;
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                match left.checked_sub(n) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // Whether the peer closed or time ran out: the connection is dropped now.
        let _ = tokio::time::timeout(max_time, read).await;
    }

    /// Set while a part of a file and what comes before it are written: sendfile(2) would else push every 64 KiB by
    /// themselves, and wake the reader for each. Only a hint: where it is refused, it is only slower.
    fn cork(&mut self, corked: bool) {
        if self.corked != corked {
            let _ = rustix::net::sockopt::set_tcp_cork(self.io.inner(), corked);
            self.corked = corked;
        }
    }

    /// Writes what comes before a part that is pushed at once: it goes with that. Cheaper than [`Socket::cork`] by two calls.
    fn poll_write_before_part(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let stream = self.io.inner();
        poll_call(stream, cx, || Ok(rustix::net::sendmsg(stream, bufs, &mut SendAncillaryBuffer::default(), flags)?))
    }

    /// Has the kernel send some of the part of a file that `bytes` stand for.
    fn poll_send_part(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.io.inner();
        poll_call(stream, cx, || self.files.send(stream, bytes))
    }

    /// Passes on the result of a write, unless the peer has taken nothing for too long.
    fn watch_write<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall.disarm();
            return written;
        }
        if !self.stall.is_armed() {
            self.stall.arm(Instant::now() + self.patience.write_stall);
        }
        self.stall.poll_expired(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

/// Makes a call that sends, once the socket takes something.
fn poll_call(stream: &TcpStream, cx: &mut Context<'_>, mut send: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, &mut send) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            sent => return Poll::Ready(sent),
        }
    }
}

impl Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_ready() {
            if this.phase.begin_head() {
                this.head.arm(Instant::now() + this.patience.head);
            }
            return read;
        }
        if !this.phase.in_head() {
            return Poll::Pending;
        }
        this.head.poll_expired(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the request's head did not arrive in time")))
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = if is_part(buf) { self.poll_send_part(cx, buf) } else { Pin::new(&mut self.io).poll_write(cx, buf) };
        self.watch_write(written, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // What comes before the first part is written first.
        let plain = bufs.iter().position(|b| is_part(b)).unwrap_or(bufs.len());
        let corked = self.corked;
        let small = bufs.get(plain).is_some_and(|part| !corked && plain + 1 == bufs.len() && part.len() <= PUSH_BYTES);
        self.cork(corked || (plain < bufs.len() && !small));
        let written = match (bufs.get(..plain), bufs.get(plain)) {
            (Some([]), Some(part)) => self.poll_send_part(cx, part),
            (Some(before), Some(_)) if small => self.poll_write_before_part(cx, before),
            (Some(before), _) => Pin::new(&mut self.io).poll_write_vectored(cx, before),
            (None, _) => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        };
        self.watch_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when all that it has is written.
        self.cork(false);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;

    async fn socket(patience: Duration) -> Socket {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Socket::new(stream, Arc::default(), FileSender::default(), Patience { head: patience, write_stall: patience })
    }

    #[tokio::test]
    async fn a_write_that_succeeds_ends_the_wait_for_the_reader() {
        let mut socket = socket(Duration::from_secs(3600)).await;
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(socket.watch_write(Poll::<io::Result<usize>>::Pending, &mut cx).is_pending());
        assert!(socket.stall.is_armed());
        assert!(socket.watch_write(Poll::Ready(Ok(1)), &mut cx).is_ready());
        assert!(!socket.stall.is_armed());
    }

    #[tokio::test]
    async fn a_write_that_waits_too_long_fails() {
        let mut socket = socket(Duration::ZERO).await;
        let written = std::future::poll_fn(|cx| socket.watch_write(Poll::<io::Result<usize>>::Pending, cx)).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
