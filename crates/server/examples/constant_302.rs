//! A bare hyper server that answers every request with the same redirect: what a lookup costs when there is nothing to look up.
//!
//! `constant_302 [PORT]` (default 3999) listens on loopback. Its answer has the headers, and about the size, of a master's.

use http::{HeaderValue, StatusCode, header};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpStream};

const DEFAULT_PORT: u16 = 3999;
const LOCATION: HeaderValue = HeaderValue::from_static(concat!(
    "http://127.0.0.1:3001/bench-123456?v=019ac1d4-7a33-7c41-8000-0123456789ab",
    "&back=127.0.0.1:3000.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
));
const REQUEST_ID: HeaderValue = HeaderValue::from_static("019ac1d47a337c4180000123456789ab");

async fn redirect(_: hyper::Request<Incoming>) -> Result<hyper::Response<Empty<Bytes>>, Infallible> {
    let mut response = hyper::Response::new(Empty::new());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, LOCATION);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::SERVER, HeaderValue::from_static("kvdb"));
    headers.insert("x-request-id", REQUEST_ID);
    Ok(response)
}

async fn connection(stream: TcpStream) {
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(redirect)).await {
        eprintln!("a connection failed: {error}");
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).map_or(Ok(DEFAULT_PORT), |p| p.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}
