//! Requests as an HTTP client makes them.

use crate::connection::{Answer, Connection};
use std::io::{self, ErrorKind, Write};

/// Redirects that are followed before it is taken for a loop.
const MAX_HOPS: usize = 12;

/// An absolute `http` URL, in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `host:port`.
    pub address: String,
    /// Path and query.
    pub target: String,
}

impl Url {
    /// Parses `http://host:port/target`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (address, target) = rest.split_at(rest.find('/')?);
        Some(Self { address: address.into(), target: target.into() })
    }

    /// Where an answer redirects to.
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        answer.header("location").and_then(Self::parse).unwrap_or_else(|| panic!("no Location: {answer}"))
    }

    /// The value of a query parameter, as it stands.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
    }

    /// The same with another value of a query parameter that it has.
    pub fn with_parameter(&self, name: &str, value: &str) -> Self {
        let old = self.parameter(name).expect("the parameter is there");
        Self { address: self.address.clone(), target: self.target.replace(&format!("{name}={old}"), &format!("{name}={value}")) }
    }
}

/// How a body goes out.
#[derive(Clone, Debug)]
enum Body {
    None,
    Sized(Vec<u8>),
    /// In chunks of so many bytes.
    Chunked(Vec<u8>, usize),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Body,
    expects_continue: bool,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Body::None, expects_continue: false }
    }

    /// `GET`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// `PUT` of a value.
    pub fn put(target: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::new("PUT", target).body(value)
    }

    /// `POST` of a value.
    pub fn post(target: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(value)
    }

    /// `DELETE`.
    pub fn delete(target: &str) -> Self {
        Self::new("DELETE", target)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A body with a `Content-Length`.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Sized(bytes.into());
        self
    }

    /// The body in chunks of so many bytes, its length unannounced.
    #[must_use]
    pub fn chunked(mut self, chunk_bytes: usize) -> Self {
        let (Body::Sized(bytes) | Body::Chunked(bytes, _)) = self.body else { panic!("there is no body") };
        self.body = Body::Chunked(bytes, chunk_bytes);
        self
    }

    /// The same for another target.
    #[must_use]
    pub fn at(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    /// Waits for `100 Continue` before the body.
    #[must_use]
    pub fn expect_continue(mut self) -> Self {
        self.expects_continue = true;
        self
    }

    /// Sends it to `host:port` on a connection of its own, and follows nothing.
    pub fn try_send(&self, address: &str) -> io::Result<Answer> {
        let mut connection = Connection::try_open(address)?;
        self.send_on(&mut connection, address)
    }

    /// Sends it to `host:port`, follows nothing, and fails the test where no whole answer comes.
    #[track_caller]
    pub fn send(&self, address: &str) -> Answer {
        self.try_send(address).unwrap_or_else(|e| panic!("{} {} at {address}: {e}", self.method, self.target))
    }

    /// Sends it to `address` in the name of another host.
    #[track_caller]
    pub fn send_as(&self, address: &str, host: &str) -> Answer {
        let sent = Connection::try_open(address).and_then(|mut connection| self.send_on(&mut connection, host));
        sent.unwrap_or_else(|e| panic!("{} {} at {address}: {e}", self.method, self.target))
    }

    /// Sends it and follows redirects as `curl -L` does: 307 keeps method and body, 302 and 303 make a GET. As most clients do, it
    /// forgets its `Authorization` once it has been sent to another server.
    pub fn try_follow(&self, address: &str) -> io::Result<Answer> {
        let (mut request, mut address) = (self.clone(), address.to_string());
        for hops in 0..MAX_HOPS {
            let mut answer = request.try_send(&address)?;
            answer.hops = hops;
            match answer.status {
                302 | 303 if request.method != "HEAD" => (request.method, request.body) = ("GET".into(), Body::None),
                302 | 303 | 307 | 308 => {}
                _ => return Ok(answer),
            }
            let location = Url::of(&answer);
            if location.address != address {
                request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
            }
            (address, request.target) = (location.address, location.target);
        }
        Err(io::Error::new(ErrorKind::InvalidData, format!("more than {MAX_HOPS} redirects")))
    }

    /// Like [`Request::try_follow`]; fails the test where no whole answer comes.
    #[track_caller]
    pub fn follow(&self, address: &str) -> Answer {
        self.try_follow(address).unwrap_or_else(|e| panic!("{} {} at {address}: {e}", self.method, self.target))
    }

    /// Sends it on a connection that may be used before and after.
    pub fn send_on(&self, connection: &mut Connection, host: &str) -> io::Result<Answer> {
        connection.try_send(self.head(host).as_bytes())?;
        if self.expects_continue {
            let first = connection.read_head()?;
            if first.status != 100 {
                // The answer without the body; what follows the head is its own body.
                return connection.finish(first, &self.method);
            }
        }
        // An early answer is read while the body still goes out: whoever only sends would never see it.
        let mut out = connection.sender()?;
        let mut answer = std::thread::scope(|scope| {
            let sending = scope.spawn(move || self.send_body(&mut out));
            let answer = connection.try_answer_to(&self.method);
            let early = answer.as_ref().is_ok_and(Answer::closes) || answer.is_err();
            if early && !sending.is_finished() {
                connection.close();
            }
            let sent = sending.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
            match (answer, sent) {
                (Err(e), Err(sent)) => Err(io::Error::new(e.kind(), format!("{e}, and the body was not sent: {sent}"))),
                (answer, _) => answer,
            }
        })?;
        answer.continued |= self.expects_continue;
        Ok(answer)
    }

    fn head(&self, host: &str) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Sized(bytes) => head += &format!("Content-Length: {}\r\n", bytes.len()),
            Body::Chunked(..) => head += "Transfer-Encoding: chunked\r\n",
        }
        if self.expects_continue {
            head += "Expect: 100-continue\r\n";
        }
        head + "\r\n"
    }

    fn send_body(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.body {
            Body::None => Ok(()),
            Body::Sized(bytes) => out.write_all(bytes),
            Body::Chunked(bytes, step) => {
                for chunk in bytes.chunks(*step) {
                    out.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    out.write_all(chunk)?;
                    out.write_all(b"\r\n")?;
                }
                out.write_all(b"0\r\n\r\n")
            }
        }
    }
}
