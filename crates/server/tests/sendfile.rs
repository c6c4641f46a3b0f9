//! Parts of files in answers: in order among ordinary answers, to slow readers, to readers that go away, of files that shrink.

// Every test file uses a part of the common helpers; and a helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{Answer, Client, PATIENCE, get};
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kvdb_protocol::Problem;
use kvdb_server::sendfile::{FileSource, MAX_PART_BYTES};
use kvdb_server::{BoxError, Request, RequestContext, Response, ServeOptions, Service, body, serve};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// A file of which every third 64 KiB must be read before it may be sent.
struct Mixed {
    file: File,
    reads: AtomicUsize,
}

const BLOCK: u64 = 64 << 10;

impl FileSource for Mixed {
    fn file(&self) -> &File {
        &self.file
    }

    fn sendable(&self, offset: u64, len: usize) -> usize {
        let block = offset / BLOCK;
        if block % 3 == 2 { 0 } else { len.min(((block + 1) * BLOCK - offset) as usize) }
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut bytes = vec![0; len.min(((offset / BLOCK + 1) * BLOCK - offset) as usize)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

/// `/file?from=a&to=b` sends that part of its file, `/chunked` all of it without a length, `/plain` some text.
struct Site {
    source: Arc<Mixed>,
    len: u64,
}

impl Service for Site {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        let query = kvdb_server::Query::parse(request.uri().query())?;
        let number = |name: &str| query.get_str(name).and_then(|t| t.parse::<u64>().ok());
        let (from, to) = (number("from").unwrap_or(0), number("to").unwrap_or(self.len));
        if request.uri().path() == "/plain" {
            return Ok(Response::new(body::full("some text")));
        }
        let (source, files) = (self.source.clone(), cx.files);
        let starts = (from..to).step_by(MAX_PART_BYTES);
        let frames = stream::iter(starts).map(move |at| {
            let len = (to - at).min(MAX_PART_BYTES as u64) as usize;
            files.part(source.clone(), at, len).map(Frame::data).ok_or_else(|| BoxError::from("no part"))
        });
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
        if request.uri().path() == "/file" {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
        }
        Ok(response)
    }
}

struct Server {
    address: std::net::SocketAddr,
    content: Vec<u8>,
    source: Arc<Mixed>,
    shutdown: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Server {
    async fn start(len: usize) -> Self {
        let content: Vec<u8> = (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        let source = Arc::new(Mixed { file, reads: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let site = Arc::new(Site { source: source.clone(), len: len as u64 });
        tokio::spawn(serve(listener, ServeOptions::default(), site, shutdown.clone()));
        Self { address, content, source, shutdown }
    }

    async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap())
    }

    async fn ask(&self, target: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(get(target)).await;
        client.answer().await
    }
}

#[tokio::test]
async fn pipelined_answers_of_parts_and_of_bytes_come_in_order() {
    let server = Server::start(9 << 20).await;
    let mut client = server.connect().await;
    let targets = ["/file", "/plain", "/file?from=1&to=2", "/file", "/file?from=65535&to=131074", "/plain"];
    client.send(targets.map(get).concat()).await;
    let all = &server.content;
    let expected: [&[u8]; 6] = [all, b"some text", &all[1..2], all, &all[65_535..131_074], b"some text"];
    for (target, expected) in targets.into_iter().zip(expected) {
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == expected, "{target}: {} bytes", answer.body.len());
    }
    assert!(server.source.reads.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn every_range_is_exact() {
    let server = Server::start(5 << 20).await;
    let end = server.content.len();
    for (from, to) in [(0, 1), (0, end), (end - 1, end), (4095, 4097), (131_071, 131_073), (1, end - 1), (196_608, 4 << 20)] {
        let answer = server.ask(&format!("/file?from={from}&to={to}")).await;
        assert!(answer.body == server.content[from..to], "{from} to {to}");
    }
}

#[tokio::test]
async fn a_head_has_no_part_behind_it_and_http_1_0_ends_with_the_connection() {
    let server = Server::start(100_000).await;
    let mut client = server.connect().await;
    client.send("HEAD /file HTTP/1.1\r\nHost: h\r\n\r\n").await;
    client.send(get("/plain")).await;
    assert_eq!(client.head().await.header("content-length"), "100000");
    assert_eq!(client.answer().await.body, b"some text");

    let mut client = server.connect().await;
    client.send("GET /chunked HTTP/1.0\r\n\r\n").await;
    assert!(client.rest().await.ends_with(&server.content));
}

#[tokio::test]
async fn parts_pass_through_chunks() {
    let server = Server::start(9 << 20).await;
    let mut client = server.connect().await;
    client.send("GET /chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.head().await.header("transfer-encoding"), "chunked");
    let (rest, mut at, mut got) = (client.rest().await, 0, Vec::new());
    loop {
        let line = at + rest[at..].windows(2).position(|w| w == b"\r\n").unwrap();
        let len = usize::from_str_radix(std::str::from_utf8(&rest[at..line]).unwrap(), 16).unwrap();
        got.extend_from_slice(&rest[line + 2..line + 2 + len]);
        at = line + 2 + len + 2;
        if len == 0 {
            break;
        }
    }
    assert!(got == server.content && at == rest.len());
}

#[tokio::test]
async fn a_slow_reader_with_a_small_window_gets_every_byte() {
    let server = Server::start(6 << 20).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut client = Client::over(socket.connect(server.address).await.unwrap());
    client.send(get("/file")).await;
    let mut got = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 30_011];
        while !got.ends_with(&server.content[server.content.len() - 64..]) {
            let n = client.stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "cut after {} bytes", got.len());
            got.extend_from_slice(&buffer[..n]);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    assert!(got.ends_with(&server.content));
}

#[tokio::test]
async fn a_file_is_let_go_when_its_reader_goes_away() {
    let server = Server::start(64 << 20).await;
    for _ in 0..4 {
        let mut client = server.connect().await;
        client.send(get("/file")).await;
        let mut some = [0; 1000];
        client.stream.read_exact(&mut some).await.unwrap();
    }
    // The test's and the site's.
    let free = async {
        while Arc::strong_count(&server.source) > 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("a part is kept after its connection");
}

#[tokio::test]
async fn a_file_that_shrinks_cuts_the_connection_and_no_zeros_are_sent() {
    let server = Server::start(32 << 20).await;
    let mut client = server.connect().await;
    client.send(get("/file")).await;
    let mut some = vec![0; 1000];
    client.stream.read_exact(&mut some).await.unwrap();
    server.source.file.set_len(24 << 20).unwrap();
    some.extend(client.rest().await);
    let body = some.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let got = &some[body..];
    assert!(got.len() <= 24 << 20 && server.content.starts_with(got), "{} bytes", got.len());
}
