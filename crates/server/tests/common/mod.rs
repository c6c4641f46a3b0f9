//! A small service on port 0, and a client that writes raw bytes.
// Every test file uses a part of it; and a helper that fails fails its test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use kvdb_protocol::{ErrorCode, Problem};
use kvdb_server::{Request, RequestContext, Response, ServeOptions, Service, body, guard, pages, serve};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test waits longer for one thing; it decides no outcome of a server that works.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What tests look at and steer.
pub struct Site {
    /// Bodies that arrived whole at `/store`.
    pub stored: Mutex<Vec<Bytes>>,
    /// How reads at `/store` ended that failed.
    pub failures: mpsc::UnboundedSender<Problem>,
    /// `/wait` has begun.
    pub waiting: mpsc::UnboundedSender<()>,
    /// Lets one `/wait` go.
    pub release: Notify,
    /// Bytes that `/endless` produced.
    pub produced: Arc<AtomicU64>,
}

impl Service for Site {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        let path = request.uri().path().to_string();
        match path.as_str() {
            "/store" => self.store(request).await,
            "/early" => {
                let mut r = body::status(StatusCode::TEMPORARY_REDIRECT);
                r.headers_mut().insert(http::header::LOCATION, HeaderValue::from_static("http://elsewhere/"));
                Ok(r)
            }
            "/too-large" => {
                let mut incoming = request.into_body();
                guard::read_all(&mut incoming, 1000).await.map(|b| Response::new(body::full(b)))
            }
            "/wait" | "/-/wait" => {
                self.waiting.send(()).unwrap();
                self.release.notified().await;
                Ok(Response::new(body::full("released")))
            }
            "/endless" => Ok(Response::new(self.endless())),
            "/cut" => {
                // The pause lets the first half out: hyper sends nothing of an answer that fails at once.
                let second = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(body::BoxError::from("damaged"))
                });
                let frames = stream::iter([Ok(http_body::Frame::data(Bytes::from("half")))]).chain(second);
                let mut r = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
                r.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("8"));
                Ok(r)
            }
            "/panic" => panic!("as the test asked for"),
            "/target" => Ok(Response::new(body::full(request.uri().to_string()))),
            "/remote" => Ok(Response::new(body::full(format!("{} {}", cx.remote, cx.local)))),
            "/-/health/ready" | "/-/health/live" | "/-/metrics" => {
                Ok(pages::common(&path, request.method(), || Err("not in this test".into())).unwrap())
            }
            "/busy" => Err(Problem::new(ErrorCode::NoReplica, "none")),
            _ => Err(Problem::new(ErrorCode::NotFound, "no such page")),
        }
    }
}

impl Site {
    async fn store(&self, request: Request) -> Result<Response, Problem> {
        let mut incoming = request.into_body();
        match guard::read_all(&mut incoming, 4 << 20).await {
            Ok(bytes) => {
                self.stored.lock().unwrap().push(bytes.clone());
                let mut r = Response::new(body::full(bytes));
                *r.status_mut() = StatusCode::CREATED;
                Ok(r)
            }
            Err(problem) => {
                self.failures.send(problem.clone()).unwrap();
                Err(problem)
            }
        }
    }

    /// 1 GiB, made as it is asked for.
    fn endless(&self) -> body::Body {
        let chunk = Bytes::from(vec![7; 64 << 10]);
        let counter = Arc::clone(&self.produced);
        let frames = (0..(1 << 14)).map(move |_| {
            counter.fetch_add(64 << 10, Ordering::SeqCst);
            Ok(http_body::Frame::data(chunk.clone()))
        });
        BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames)))
    }
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub site: Arc<Site>,
    pub shutdown: CancellationToken,
    pub failures: mpsc::UnboundedReceiver<Problem>,
    pub waiting: mpsc::UnboundedReceiver<()>,
    pub ended: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start(options: ServeOptions) -> Self {
        let (failed, failures) = mpsc::unbounded_channel();
        let (waits, waiting) = mpsc::unbounded_channel();
        let site =
            Arc::new(Site { stored: Mutex::default(), failures: failed, waiting: waits, release: Notify::new(), produced: Arc::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(serve(listener, options, Arc::clone(&site), shutdown.clone()));
        Self { address, site, shutdown, failures, waiting, ended }
    }

    pub async fn plain() -> Self {
        Self::start(ServeOptions::default()).await
    }

    pub async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap())
    }

    pub fn stored(&self) -> Vec<Bytes> {
        self.site.stored.lock().unwrap().clone()
    }

    /// Sends one request on a connection of its own and reads its answer.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    pub async fn next_failure(&mut self) -> Problem {
        tokio::time::timeout(PATIENCE, self.failures.recv()).await.expect("no read failed").unwrap()
    }

    pub async fn next_waiting(&mut self) {
        tokio::time::timeout(PATIENCE, self.waiting.recv()).await.expect("nothing waits").unwrap();
    }

    pub async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("the server did not stop").unwrap().unwrap();
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == "close"
    }

    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), "application/problem+json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Shuts the sending side down.
    pub async fn end(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads one answer with its body, for any method but HEAD.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length: usize = answer.header("content-length").parse().unwrap_or(0);
        while self.buffer.len() < length {
            assert!(self.more().await, "the body ended early");
        }
        answer.body = self.buffer.drain(..length).collect();
        answer
    }

    /// Reads the head of one answer.
    pub async fn head(&mut self) -> Answer {
        loop {
            let end = self.buffer.windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return parse_head(std::str::from_utf8(&head).unwrap());
            }
            assert!(self.more().await, "the connection ended before an answer, after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Reads on; false at the end of the connection.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("the server is silent").unwrap() > 0
    }

    /// Waits for the end of the connection, which must not be a reset: the peer has read all that was sent.
    pub async fn clean_end(&mut self) {
        assert!(!self.more().await, "more came: {:?}", String::from_utf8_lossy(&self.buffer));
    }

    /// What else comes until the connection ends, be it by a reset.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        // A reset is an end as well.
        let _ = read.expect("the server does not close the connection");
        rest
    }
}

fn parse_head(head: &str) -> Answer {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Answer { status, headers, body: Vec::new() }
}

/// A PUT to `/store` with these header lines, each ended, and this body.
pub fn put(headers: &str, body: &str) -> String {
    format!("PUT /store HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

/// A GET.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}
