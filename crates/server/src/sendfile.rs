//! Parts of files in answers, sent by the kernel.
//!
//! hyper takes only bytes for a body. So a body yields, for a part of a file, bytes that stand for it: a slice of a
//! region that is never read. The socket ([`crate::socket`]) knows them by their address, and calls `sendfile(2)` for
//! the part that was queued with them. Head, chunk sizes and other bytes around them pass as usual, in order.
//!
//! The place of the slice within the region tells the number of its part, so that a slice whose part is not the next
//! one cannot be taken for another: it fails, and the connection is cut. The region's own bytes are never sent.

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Longest part, in bytes.
pub const MAX_PART_BYTES: usize = 4 << 20;
/// Distance of the places of successive parts in the region, in bytes.
const STEP_BYTES: usize = 4 << 10;
/// Places in the region; more parts of one connection never wait at once, since hyper holds 16 buffers at most.
const PLACES: usize = 1024;

/// What stands for parts of files. It takes addresses but no memory: zeros of this length come as pages that are not there
/// until they are touched, and nobody touches them.
static REGION: OnceLock<Vec<u8>> = OnceLock::new();

fn region() -> &'static [u8] {
    REGION.get_or_init(|| vec![0; MAX_PART_BYTES + PLACES * STEP_BYTES])
}

/// A file of which parts are sent. All calls may wait for the disk, but should not as a rule.
pub trait FileSource: Send + Sync + 'static {
    /// The file.
    fn file(&self) -> &File;

    /// How many of the `len` bytes at `offset` may go to the client as they are in the page cache now; 0: none.
    fn sendable(&self, offset: u64, len: usize) -> usize;

    /// Reads bytes at `offset` that may not, and checks them: 1 to `len` of them.
    ///
    /// # Errors
    /// The connection is cut, so that the client does not take what it got for the whole.
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes>;
}

/// The parts of files that wait to be sent on one connection.
#[derive(Clone, Default)]
pub struct FileSender(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    parts: VecDeque<Part>,
    /// Place of the next part, 0 to `PLACES`.
    next: usize,
}

struct Part {
    source: Arc<dyn FileSource>,
    /// Where its bytes would lie if they were in the region, of those that are left.
    address: usize,
    offset: u64,
    left: usize,
}

impl FileSender {
    /// Bytes that stand for `len` bytes of a file from `offset` on. The answer's body must yield them at once, and
    /// whole. None: that is no length of a part, 1 to [`MAX_PART_BYTES`].
    pub fn part(&self, source: Arc<dyn FileSource>, offset: u64, len: usize) -> Option<Bytes> {
        if !(1..=MAX_PART_BYTES).contains(&len) {
            return None;
        }
        let mut queue = self.lock();
        let start = queue.next * STEP_BYTES;
        queue.next = (queue.next + 1) % PLACES;
        let bytes = region().get(start..start + len)?;
        queue.parts.push_back(Part { source, address: bytes.as_ptr() as usize, offset, left: len });
        Some(Bytes::from_static(bytes))
    }

    /// Sends some of the part that `bytes` stand for. At least one byte, or an error, which may be `WouldBlock`.
    pub(crate) fn send(&self, socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        let mut queue = self.lock();
        let part = queue.parts.front_mut().filter(|p| p.address == bytes.as_ptr() as usize);
        let Some(part) = part else { return Err(io::Error::other("an answer does not send the part of a file that is next")) };
        let sent = part.send(socket, bytes.len().min(part.left))?;
        part.address += sent;
        part.offset += sent as u64;
        part.left -= sent;
        if part.left == 0 {
            queue.parts.pop_front();
        }
        Ok(sent)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for FileSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSender").field("parts", &self.lock().parts.len()).finish()
    }
}

impl Part {
    fn send(&self, socket: impl AsFd, len: usize) -> io::Result<usize> {
        let mut sendable = self.source.sendable(self.offset, len).min(len);
        let mut bytes = None;
        if sendable == 0 {
            // An error here is the file's: `WouldBlock` would be taken for the socket's.
            bytes = Some(self.source.read(self.offset, len).map_err(io::Error::other)?);
            // Reading has brought it into the page cache: as a rule it can go from there now.
            sendable = self.source.sendable(self.offset, len).min(len);
        }
        if sendable > 0 {
            match send_file(&socket, self.source.file(), self.offset, sendable) {
                Err(e @ (Errno::AGAIN | Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT)) => return Err(e.into()),
                // The file system cannot, or the file cannot be read, which reading it will tell.
                Err(_) => {}
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file that is being sent is shorter than it was")),
                Ok(n) => return Ok(n),
            }
        }
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => self.source.read(self.offset, len).map_err(io::Error::other)?,
        };
        let bytes = bytes.get(..bytes.len().min(len)).unwrap_or_default();
        match rustix::net::send(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
            0 => Err(io::Error::new(io::ErrorKind::WriteZero, "nothing of a file was sent")),
            n => Ok(n),
        }
    }
}

fn send_file(socket: impl AsFd, file: &File, offset: u64, len: usize) -> Result<usize, Errno> {
    loop {
        let mut at = offset;
        match rustix::fs::sendfile(&socket, file, Some(&mut at), len) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether bytes stand for a part of a file.
pub(crate) fn is_part(bytes: &[u8]) -> bool {
    let in_region = |region: &Vec<u8>| region.as_ptr_range().contains(&bytes.as_ptr());
    !bytes.is_empty() && REGION.get().is_some_and(in_region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::FileExt as _;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// A file that is sent as it is, or only after it was read.
    struct Source {
        file: File,
        resident: AtomicBool,
        reads: AtomicUsize,
    }

    impl FileSource for Source {
        fn file(&self) -> &File {
            &self.file
        }

        fn sendable(&self, _: u64, len: usize) -> usize {
            if self.resident.load(Ordering::SeqCst) { len } else { 0 }
        }

        fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let mut bytes = vec![0; len.min(1000)];
            let n = self.file.read_at(&mut bytes, offset)?;
            if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes[..n].to_vec().into()) }
        }
    }

    fn source(bytes: &[u8], resident: bool) -> Arc<Source> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Arc::new(Source { file, resident: resident.into(), reads: AtomicUsize::new(0) })
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (to, listener.accept().unwrap().0)
    }

    fn send_all(sender: &FileSender, socket: &TcpStream, bytes: &Bytes) {
        let mut at = 0;
        while at < bytes.len() {
            at += sender.send(socket, &bytes[at..]).unwrap();
        }
    }

    #[test]
    fn parts_are_sent_in_order_from_the_cache_or_by_reading() {
        let content: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        for resident in [true, false] {
            let (to, mut from) = pair();
            let (sender, source) = (FileSender::default(), source(&content, resident));
            let first = sender.part(source.clone(), 100, 20_000).unwrap();
            let second = sender.part(source.clone(), 7, 13).unwrap();
            assert!(is_part(&first) && is_part(&first[19_999..]) && !is_part(&[]) && !is_part(&content));
            send_all(&sender, &to, &first);
            send_all(&sender, &to, &second);
            drop(to);
            let mut got = Vec::new();
            from.read_to_end(&mut got).unwrap();
            assert!(got == [&content[100..20_100], &content[7..20]].concat());
            assert_eq!(source.reads.load(Ordering::SeqCst) == 0, resident);
            assert!(sender.lock().parts.is_empty());
        }
    }

    #[test]
    fn bytes_that_stand_for_no_part_that_is_next_are_not_sent() {
        let (to, _from) = pair();
        let (sender, source) = (FileSender::default(), source(&[1; 100], true));
        let first = sender.part(source.clone(), 0, 50).unwrap();
        let second = sender.part(source, 50, 50).unwrap();
        assert!(sender.send(&to, &second).is_err());
        assert!(sender.send(&to, &first[1..]).is_err());
        assert!(FileSender::default().send(&to, &first).is_err());
        assert_eq!(sender.send(&to, &first).unwrap(), 50);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let (to, _from) = pair();
        let (sender, source) = (FileSender::default(), source(&[1; 100], true));
        let part = sender.part(source.clone(), 0, 100).unwrap();
        source.file.set_len(0).unwrap();
        assert_eq!(sender.send(&to, &part).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_part_has_1_byte_to_4_mib() {
        let (sender, source) = (FileSender::default(), source(&[], true));
        assert!(sender.part(source.clone(), 0, 0).is_none());
        assert!(sender.part(source.clone(), 0, MAX_PART_BYTES + 1).is_none());
        for _ in 0..2 * PLACES {
            assert!(sender.part(source.clone(), 0, MAX_PART_BYTES).is_some_and(|b| b.len() == MAX_PART_BYTES));
        }
    }
}
