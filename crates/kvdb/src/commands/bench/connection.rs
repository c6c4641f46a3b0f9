//! One HTTP/1.1 connection over a blocking socket.

use super::content::{Content, PERIOD};
use rustix::net::RecvFlags;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Time for one read or write to bring anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest head of a response.
const HEAD_BYTES: usize = 16 << 10;
/// Most fields in a head.
const FIELDS: usize = 64;
/// Most bytes that one call drops.
pub const DROP_BYTES: usize = 4 << 20;
/// Bytes that are compared at a time.
const COMPARE_BYTES: usize = 256 << 10;
/// A body up to this length goes out together with its head.
const TOGETHER_BYTES: u64 = 64 << 10;

/// What is needed of a response's head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub location: Option<String>,
    /// The server ends the connection after this response.
    pub close: bool,
    framing: Framing,
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// An open connection and what was read of it too early.
pub struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// The part of the buffer that was read and not used.
    from: usize,
    to: usize,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(host: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(host).map_err(|e| io::Error::new(e.kind(), format!("cannot connect to {host}: {e}")))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, buffer: vec![0; HEAD_BYTES], from: 0, to: 0 })
    }

    /// Sends a head and, if it is given, `size` bytes of content.
    pub fn send(&mut self, head: &mut Vec<u8>, body: Option<(Content<'_>, u64)>) -> io::Result<()> {
        let Some((content, size)) = body else { return self.socket.write_all(head) };
        if size > TOGETHER_BYTES {
            self.socket.write_all(head)?;
            return self.send_body(content, size);
        }
        let mut at = 0;
        while at < size {
            let part = content.slice(at, size - at);
            head.extend_from_slice(part);
            at += part.len() as u64;
        }
        self.socket.write_all(head)
    }

    /// Sends `size` bytes of content.
    pub fn send_body(&mut self, content: Content<'_>, size: u64) -> io::Result<()> {
        write_content(&self.socket, content, size)
    }

    /// Reads the head of the next response. [`io::ErrorKind::ConnectionAborted`] if there is none at all.
    pub fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((head, length)) = parse(&self.buffer[self.from..self.to])? {
                self.from += length;
                return Ok(head);
            }
            let nothing_yet = self.from == self.to;
            match self.fill() {
                Err(e) if nothing_yet && e.kind() == io::ErrorKind::UnexpectedEof => return Err(io::ErrorKind::ConnectionAborted.into()),
                filled => filled?,
            }
        }
    }

    /// Reads the body of a response, and compares it with the content from a byte on, or drops it in the kernel, which is told of
    /// `room` for it. Gives its length.
    pub fn body(&mut self, head: &Head, compare: Option<(Content<'_>, u64)>, room: &mut [u8]) -> io::Result<u64> {
        match (&head.framing, compare) {
            (Framing::Length(n), Some((content, at))) => self.compare(*n, content, at).map(|()| *n),
            (Framing::Length(n), None) => self.skip(*n, room).map(|()| *n),
            (_, Some(_)) => Err(io::Error::other("a response without Content-Length is not compared: leave out --verify")),
            (Framing::Chunked, None) => self.skip_chunks(room),
            (Framing::UntilClose, None) => {
                let early = (self.to - self.from) as u64;
                (self.from, self.to) = (0, 0);
                Ok(early + io::copy(&mut self.socket, &mut io::sink())?)
            }
        }
    }

    /// Reads more into the buffer.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.buffer.len() {
            return Err(io::Error::other(format!("a head of over {HEAD_BYTES} bytes")));
        }
        match self.socket.read(&mut self.buffer[self.to..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.to += n;
                Ok(())
            }
        }
    }

    /// Uses up to `n` bytes of what was read too early, and gives them.
    fn early(&mut self, n: u64) -> &[u8] {
        let have = (self.to - self.from).min(usize::try_from(n).unwrap_or(usize::MAX));
        self.from += have;
        &self.buffer[self.from - have..self.from]
    }

    fn skip(&mut self, mut n: u64, room: &mut [u8]) -> io::Result<()> {
        n -= self.early(n).len() as u64;
        while n > 0 {
            n -= drop_bytes(&self.socket, room, n)?;
        }
        Ok(())
    }

    fn compare(&mut self, mut n: u64, content: Content<'_>, mut at: u64) -> io::Result<()> {
        let early = self.early(n);
        content.compare(at, early)?;
        (n, at) = (n - early.len() as u64, at + early.len() as u64);
        let mut portion = vec![0; COMPARE_BYTES];
        while n > 0 {
            let most = COMPARE_BYTES.min(usize::try_from(n).unwrap_or(COMPARE_BYTES));
            let got = self.socket.read(&mut portion[..most])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            content.compare(at, &portion[..got])?;
            (n, at) = (n - got as u64, at + got as u64);
        }
        Ok(())
    }

    fn skip_chunks(&mut self, room: &mut [u8]) -> io::Result<u64> {
        let mut all = 0;
        loop {
            let line = match httparse::parse_chunk_size(&self.buffer[self.from..self.to]) {
                Ok(httparse::Status::Complete(line)) => Some(line),
                Ok(httparse::Status::Partial) => None,
                Err(e) => return Err(io::Error::other(format!("a bad chunk: {e}"))),
            };
            let Some((length, n)) = line else {
                self.fill()?;
                continue;
            };
            self.from += length;
            // A chunk ends with CRLF, and the last, empty one with that of an empty trailer.
            self.skip(n.saturating_add(2), room)?;
            all += n;
            if n == 0 {
                return Ok(all);
            }
        }
    }
}

/// Writes `size` bytes of content, a period in each call although the key's own first bytes lie elsewhere: sent by themselves
/// they would be a packet of their own, and all that the server reads after it would be out of step with its buffers.
pub fn write_content(mut to: &TcpStream, content: Content<'_>, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let most = (size - at).min(PERIOD as u64);
        let first = content.slice(at, most);
        let second = content.slice(at + first.len() as u64, most - first.len() as u64);
        match to.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => at += sent as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Has the kernel drop up to `n` bytes that have arrived, or waits for some: on TCP, `MSG_TRUNC` copies nothing.
pub fn drop_bytes(socket: &TcpStream, room: &mut [u8], n: u64) -> io::Result<u64> {
    let most = room.len().min(usize::try_from(n).unwrap_or(usize::MAX));
    loop {
        match rustix::net::recv(socket, &mut room[..most], RecvFlags::TRUNC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, got)) => return Ok(got as u64),
        }
    }
}

/// The head at the start of `bytes` and its length, or `None` if more bytes are needed.
fn parse(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(io::Error::other(format!("not a response of HTTP/1: {e}"))),
    };
    let status = response.code.unwrap_or(0);
    let mut head = Head { status, location: None, close: response.version == Some(0), framing: Framing::UntilClose };
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            head.framing = Framing::Length(value.parse().map_err(|_| io::Error::other(format!("a bad Content-Length: {value:?}")))?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        } else if field.name.eq_ignore_ascii_case("location") {
            head.location = Some(value.to_string());
        }
    }
    if status < 200 || matches!(status, 204 | 304) {
        head.framing = Framing::Length(0);
    }
    head.close |= head.framing == Framing::UntilClose;
    Ok(Some((head, length)))
}
