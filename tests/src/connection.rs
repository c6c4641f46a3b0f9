//! HTTP/1.1 on one socket, byte for byte: what is sent is what the test says, and what comes back is read strictly.

use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A server that is silent for so long has failed.
const SILENCE: Duration = Duration::from_secs(60);

/// An answer that arrived whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether `100 Continue` came first.
    pub continued: bool,
    /// How many redirects were followed to get it.
    pub hops: usize,
}

impl Answer {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self}"))
    }

    /// Checks the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(self.status == status, "{status} was expected: {self}");
        self
    }

    /// Checks that it is a problem document of this status and code, with all its members and the request's id.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        assert!(self.status == status, "{status} {code} was expected: {self}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let json = self.json();
        assert_eq!(json["code"], code, "{self}");
        assert_eq!(json["status"], status, "{self}");
        assert_eq!(json["type"], format!("urn:kvdb:error:{code}"), "{self}");
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"), "{self}");
        assert!(json["title"].as_str().is_some_and(|t| !t.is_empty()), "{self}");
        assert!(json["detail"].as_str().is_some_and(|t| !t.is_empty()), "{self}");
        assert!(json["retry"].is_boolean(), "{self}");
        self
    }

    /// Whether the server closes the connection after it.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(600)];
        write!(f, "status {}, headers {:?}, {} bytes: {}", self.status, self.headers, self.body.len(), String::from_utf8_lossy(shown))
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn try_open(address: &str) -> io::Result<Self> {
        let address = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no address"))?;
        let stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects to `host:port`, or fails the test.
    #[track_caller]
    pub fn open(address: &str) -> Self {
        Self::try_open(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// Sends these bytes and nothing else.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends these bytes and nothing else, or fails the test.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap();
    }

    /// A second handle to send by, while answers are read by the first.
    pub fn sender(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    /// Ends the sending side; answers still arrive.
    pub fn end_sending(&self) {
        // Fails only where the server has closed already, which the next read tells.
        self.stream.get_ref().shutdown(Shutdown::Write).ok();
    }

    /// Closes both sides, for all handles.
    pub fn close(&self) {
        self.stream.get_ref().shutdown(Shutdown::Both).ok();
    }

    /// The next answer, to a request of any method but HEAD.
    pub fn try_answer(&mut self) -> io::Result<Answer> {
        self.try_answer_to("GET")
    }

    /// The next answer, to a request of any method but HEAD, or fails the test.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|e| panic!("no whole answer: {e}"))
    }

    /// The next final answer to a request of this method. An answer that is cut short is an error.
    pub fn try_answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let (mut head, mut continued) = (self.read_head()?, false);
        while head.status == 100 {
            continued = true;
            head = self.read_head()?;
        }
        head.continued = continued;
        self.finish(head, method)
    }

    /// Reads the body that belongs to a final head.
    pub fn finish(&mut self, mut head: Answer, method: &str) -> io::Result<Answer> {
        head.body = self.read_body(method, &head)?;
        Ok(head)
    }

    /// The next head alone, `100 Continue` included.
    pub fn read_head(&mut self) -> io::Result<Answer> {
        let line = self.read_line()?;
        let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")).and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| bad(format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(Answer { status, headers, body: Vec::new(), continued: false, hops: 0 });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("not a header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
    }

    fn read_body(&mut self, method: &str, head: &Answer) -> io::Result<Vec<u8>> {
        if method == "HEAD" || matches!(head.status, 204 | 304) {
            return Ok(Vec::new());
        }
        if head.header("transfer-encoding").is_some() {
            return self.read_chunks();
        }
        let mut body = Vec::new();
        match head.header("content-length") {
            Some(text) => {
                let len: u64 = text.parse().map_err(|_| bad(format!("Content-Length {text:?}")))?;
                (&mut self.stream).take(len).read_to_end(&mut body)?;
                if body.len() as u64 != len {
                    return Err(cut(format!("{} of {len} bytes of a {} arrived", body.len(), head.status)));
                }
            }
            None => drop(self.stream.read_to_end(&mut body)?),
        }
        Ok(body)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let len = u64::from_str_radix(&line, 16).map_err(|_| bad(format!("chunk size {line:?}")))?;
            if (&mut self.stream).take(len).read_to_end(&mut body)? as u64 != len {
                return Err(cut("a chunk is cut short".into()));
            }
            if !self.read_line()?.is_empty() {
                return Err(bad("a chunk without its end".into()));
            }
            if len == 0 {
                return Ok(body);
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(cut(format!("the connection ended after {:?}", String::from_utf8_lossy(&line)))),
        }
    }

    /// Reads `len` bytes, whatever they are.
    pub fn read_exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// All that still comes until the server closes; a reset counts as a close.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("the connection is not closed: {e}"),
        }
        bytes
    }
}

fn bad(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

fn cut(why: String) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, why)
}
