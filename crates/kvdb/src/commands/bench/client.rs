//! One client: requests over kept connections, redirects followed as `curl -L` does.

use super::connection::{Connection, DROP_BYTES, Head};
use super::content::{Content, Pattern};
use crate::args::Expect;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::Arc;

/// Most redirects of one request.
const MOST_HOPS: usize = 6;
/// A body longer than this is asked for, unless told otherwise.
const ASK_OVER_BYTES: u64 = 64 << 10;

/// The server to measure, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// As `host:port`.
    pub host: String,
    /// Without a slash at its end.
    pub path: String,
    /// For the first server only; a redirect never gets it.
    pub token: Option<String>,
}

impl Base {
    /// Takes a URL apart; `http://` may be left out.
    pub fn parse(url: &str, token: Option<String>) -> Result<Self, io::Error> {
        let url = if url.contains("://") { url.to_string() } else { format!("http://{url}") };
        let (host, path) = split(&url)?;
        if token.as_deref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(io::Error::other("the token is not ASCII text"));
        }
        Ok(Self { host, path: path.trim_end_matches('/').to_string(), token })
    }
}

/// `host:port` and the path with its query.
fn split(url: &str) -> io::Result<(String, String)> {
    let uri: http::Uri = url.parse().map_err(|e| io::Error::other(format!("{url:?} is no URL: {e}")))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| io::Error::other(format!("{url:?} is not a URL of the kind http://host:port/path")))?;
    let host = if authority.port().is_some() { authority.to_string() } else { format!("{authority}:80") };
    Ok((host, uri.path_and_query().map_or("/", |p| p.as_str()).to_string()))
}

/// What to ask for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: &'static str,
    pub key: &'a str,
    /// Length of the body, which is the key's content.
    pub body: Option<u64>,
    /// First byte and length.
    pub range: Option<(u64, u64)>,
    pub verify: bool,
    pub follow: bool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Whether it names a place to go.
    pub location: bool,
    /// Length of the last response's body.
    pub length: u64,
}

pub struct Client {
    base: Base,
    expect: Expect,
    pattern: Arc<Pattern>,
    connections: HashMap<String, Connection>,
    head: Vec<u8>,
    /// Room that the kernel is told of when it drops bytes; never written to. It is not the connection's: a master ends that after
    /// each body that it sends elsewhere unread, and room for a new one would be filled with zeros every time.
    room: Vec<u8>,
}

impl Client {
    pub fn new(base: Base, expect: Expect, pattern: Arc<Pattern>) -> Self {
        Self { base, expect, pattern, connections: HashMap::new(), head: Vec::new(), room: vec![0; DROP_BYTES] }
    }

    /// Sends a request and follows its redirects; 307 keeps method and body.
    pub fn request(&mut self, request: Request<'_>) -> io::Result<Answer> {
        let pattern = self.pattern.clone();
        let content = pattern.content(request.key);
        let (mut host, mut target) = (self.base.host.clone(), format!("{}/{}", self.base.path, request.key));
        for hop in 0..MOST_HOPS {
            let (head, length) = self.with_retry(&request, content, &host, &target, hop == 0)?;
            match head.location {
                Some(to) if request.follow && matches!(head.status, 301 | 302 | 303 | 307 | 308) => {
                    if to.starts_with('/') {
                        target = to;
                    } else {
                        (host, target) = split(&to)?;
                    }
                }
                location => return Ok(Answer { status: head.status, location: location.is_some(), length }),
            }
        }
        Err(io::Error::other(format!("more than {MOST_HOPS} redirects")))
    }

    /// One exchange. A kept connection that turns out to be closed is replaced by a new one, once.
    fn with_retry(
        &mut self,
        request: &Request<'_>,
        content: Content<'_>,
        host: &str,
        target: &str,
        first: bool,
    ) -> io::Result<(Head, u64)> {
        self.write_head(request, host, target, first);
        let kept = self.connections.remove(host);
        let was_kept = kept.is_some();
        let mut connection = kept.map_or_else(|| Connection::open(host), Ok)?;
        let expect = first && self.asks(request);
        let mut result = exchange(&mut connection, (&mut self.head, &mut self.room), request, content, expect);
        if was_kept && result.as_ref().is_err_and(is_stale) {
            connection = Connection::open(host)?;
            self.write_head(request, host, target, first);
            result = exchange(&mut connection, (&mut self.head, &mut self.room), request, content, expect);
        }
        let (head, length) = result?;
        if !head.close {
            self.connections.insert(host.to_string(), connection);
        }
        Ok((head, length))
    }

    fn asks(&self, request: &Request<'_>) -> bool {
        let Some(size) = request.body else { return false };
        match self.expect {
            Expect::Auto => size > ASK_OVER_BYTES,
            Expect::Always => true,
            Expect::Never => false,
        }
    }

    fn write_head(&mut self, request: &Request<'_>, host: &str, target: &str, first: bool) {
        let expect = first && self.asks(request);
        let token = self.base.token.as_deref().filter(|_| first);
        self.head.clear();
        let head = &mut self.head;
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing to memory does not fail.
            let _ = head.write_fmt(text);
        };
        line(format_args!("{} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kvdb-bench\r\nAccept: */*\r\n", request.method));
        if let Some(size) = request.body {
            line(format_args!("Content-Length: {size}\r\nContent-Type: application/octet-stream\r\n"));
        }
        if expect {
            line(format_args!("Expect: 100-continue\r\n"));
        }
        if let Some((from, length)) = request.range {
            line(format_args!("Range: bytes={from}-{}\r\n", from + length - 1));
        }
        if let Some(token) = token {
            line(format_args!("Authorization: Bearer {token}\r\n"));
        }
        line(format_args!("\r\n"));
    }
}

/// A server may close a kept connection at any time: then nothing of an answer arrives.
fn is_stale(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn exchange(
    connection: &mut Connection,
    (head, room): (&mut Vec<u8>, &mut [u8]),
    request: &Request<'_>,
    content: Content<'_>,
    expect: bool,
) -> io::Result<(Head, u64)> {
    let body = request.body.map(|size| (content, size));
    let sent = connection.send(head, body.filter(|_| !expect));
    let mut answer = match (sent, connection.head()) {
        (_, Ok(answer)) => answer,
        // A server that refuses a body may close the connection: its answer counts, if it is there.
        (Err(e), Err(_)) | (Ok(()), Err(e)) => return Err(e),
    };
    if let (true, 100, Some((content, size))) = (expect, answer.status, body) {
        connection.send_body(content, size)?;
        answer = connection.head()?;
    }
    while answer.status < 200 {
        answer = connection.head()?;
    }
    let verify = request.verify && matches!(answer.status, 200 | 206);
    let from = request.range.filter(|_| answer.status == 206).map_or(0, |(from, _)| from);
    let length = connection.body(&answer, verify.then_some((content, from)), room)?;
    Ok((answer, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_may_leave_out_what_is_usual() {
        let base = |url| Base::parse(url, None).map(|b| (b.host, b.path)).ok();
        let is = |host: &str, path: &str| Some((host.to_string(), path.to_string()));
        assert_eq!(base("localhost:3000"), is("localhost:3000", ""));
        assert_eq!(base("http://h/"), is("h:80", ""));
        assert_eq!(base("http://[::1]:5/a/"), is("[::1]:5", "/a"));
        assert_eq!(base("https://h:1"), None);
        assert_eq!(base("http://"), None);
    }

    #[test]
    fn a_token_that_would_break_the_head_is_refused() {
        assert!(Base::parse("h:1", Some("a\r\nb".into())).is_err());
    }
}
