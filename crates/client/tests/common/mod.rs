//! A server that does what a test says, request by request, on a real socket.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

use kvdb_client::{Client, ContentHash, ErrorCode, Key, Problem};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    /// Filled by [`Conn::body`].
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// One request's connection; dropped without an answer it is closed.
pub struct Conn {
    reader: BufReader<TcpStream>,
    pub seen: Seen,
    /// How many requests this server had before.
    pub nth: usize,
    log: Log,
    keep: bool,
}

impl Conn {
    /// Reads the body to its end.
    pub fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.seen.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                self.reader.read_line(&mut line).unwrap();
                let n = usize::from_str_radix(line.trim(), 16).unwrap();
                let mut part = vec![0; n + 2];
                self.reader.read_exact(&mut part).unwrap();
                if n == 0 {
                    break;
                }
                body.extend_from_slice(&part[..n]);
            }
        } else {
            let n = self.seen.header("content-length").map_or(0, |v| v.parse().unwrap());
            body.resize(n, 0);
            self.reader.read_exact(&mut body).unwrap();
        }
        // Before the answer, so that a test which has it finds the body here.
        self.log.lock().unwrap()[self.nth].body.clone_from(&body);
        body
    }

    /// Answers, and keeps the connection when the body was read.
    pub fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("HTTP/1.1 {status} X\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(n, _)| *n == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let stream = self.reader.get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        if self.seen.method != "HEAD" {
            stream.write_all(body).unwrap();
        }
        self.keep = true;
    }

    pub fn redirect(&mut self, status: u16, location: &str) {
        self.answer(status, &[("Location", location)], b"");
    }

    pub fn problem(&mut self, code: ErrorCode) {
        let body = serde_json::to_vec(&Problem::new(code, "told so")).unwrap();
        self.answer(code.status(), &[("Content-Type", "application/problem+json")], &body);
    }

    /// Answers as a volume does to a value that it has stored.
    pub fn stored(&mut self, status: u16, value: &[u8]) {
        self.answer(status, &[("ETag", &ContentHash::of(value).etag())], b"");
    }

    /// Sends only the first `cut` bytes of a whole or a part of the value, as asked, then closes.
    pub fn serve(&mut self, value: &[u8], cut: usize) {
        let etag = ContentHash::of(value).etag();
        let range = self.seen.header("range").map(|r| {
            let (first, last) = r.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let last = last.parse().unwrap_or(usize::MAX).min(value.len() - 1);
            (first.parse::<usize>().unwrap(), last)
        });
        let (status, part, content_range) = match range {
            Some((first, last)) => (206, &value[first..=last], format!("bytes {first}-{last}/{}", value.len())),
            None => (200, value, String::new()),
        };
        let length = part.len().to_string();
        let mut headers = vec![("ETag", etag.as_str()), ("Content-Length", length.as_str())];
        if range.is_some() {
            headers.push(("Content-Range", &content_range));
        }
        self.answer(status, &headers, &part[..cut.min(part.len())]);
        self.keep = cut >= part.len();
    }
}

/// A server on a port of its own.
pub struct Fake {
    pub host: String,
    log: Log,
}

impl Fake {
    pub fn start(handler: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (log, handler) = (Arc::new(Mutex::new(Vec::new())), Arc::new(handler));
        let fake = Self { host, log: log.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, handler) = (log.clone(), handler.clone());
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, &log, &*handler));
            }
        });
        fake
    }

    /// What it was asked so far.
    pub fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub fn client(&self) -> Client {
        Client::builder(&self.host).no_proxy().retries(3).stall_timeout(Duration::from_secs(20)).build().unwrap()
    }
}

fn serve(stream: TcpStream, log: &Log, handler: &dyn Fn(&mut Conn)) {
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read_head(&mut reader) {
        let nth = {
            let mut all = log.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let mut conn = Conn { reader, seen, nth, log: log.clone(), keep: false };
        handler(&mut conn);
        if !conn.keep {
            return;
        }
        reader = conn.reader;
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            l => lines.push(l.to_string()),
        }
    }
    let mut first = lines.first()?.split(' ');
    let (method, target) = (first.next()?.to_string(), first.next()?.to_string());
    let headers = lines[1..].iter().filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_string())).collect();
    Some(Seen { method, target, headers, body: Vec::new() })
}

pub fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The chaining values of a value, as a volume tells them.
pub fn tree(value: &[u8]) -> Vec<u8> {
    let mut hasher = kvdb_protocol::tree::TreeHasher::new();
    hasher.update(value);
    hasher.finish().subtrees.concat()
}

/// Waits, as long as it takes.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
