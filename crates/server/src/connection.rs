//! One connection, from accept to close.

use crate::exchange::{Exchanges, Shared};
use crate::sendfile::FileSender;
use crate::serve::Service;
use crate::socket::{Patience, Phase, Socket};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How much of what a client still sends is read before a close, in bytes. Time bounds it first, usually; a client that sends without
/// waiting has often sent some MiB before it looks for an answer.
const LINGER_BYTES: usize = 32 << 20;

/// Serves one connection; after `shutdown` it ends with the request in flight.
pub(crate) async fn run<S: Service>(stream: TcpStream, remote: SocketAddr, shared: Arc<Shared<S>>, shutdown: CancellationToken) {
    let _counted = crate::metrics::Gauge::rise("kvdb_http_connections", shared.options.name);
    let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
        Ok(local) => local,
        Err(error) => return tracing::debug!(%error, %remote, "the connection was gone before its first request"),
    };
    no_pacing_over_loopback(&stream, remote);
    let options = &shared.options;
    let phase = Arc::new(Phase::default());
    let patience = Patience { head: options.head_timeout, write_stall: options.write_stall_timeout };
    let files = FileSender::default();
    let socket = Socket::new(stream, Arc::clone(&phase), files.clone(), patience);
    let linger_time = options.linger_time;
    let builder = builder(&shared);
    let exchanges = Arc::new(Exchanges { shared, phase, files, remote, local });
    let serve = service_fn(move |request| {
        let exchanges = Arc::clone(&exchanges);
        async move { Ok::<_, std::convert::Infallible>(exchanges.run(request).await) }
    });

    let mut connection = builder.serve_connection(socket, serve);
    let ended = match shutdown.run_until_cancelled(&mut connection).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };

    // After an answer that was sent whole, also hyper's own to a head it cannot parse, the client must be able to read it.
    let answered = match ended {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, cause = std::error::Error::source(&error), %remote, "the connection ended early");
            error.is_parse()
        }
    };
    if answered {
        connection.into_parts().io.linger(LINGER_BYTES, linger_time).await;
    }
}

/// Loopback cannot be congested. Where the system's congestion control paces (BBR), timers would send there what the kernel could pass on at
/// once, at half the rate or less. Reno does not, and whoever may open a socket may choose it. Only a hint: without it, it is only slower.
fn no_pacing_over_loopback(stream: &TcpStream, remote: SocketAddr) {
    if remote.ip().to_canonical().is_loopback() {
        let _ = rustix::net::sockopt::set_tcp_congestion(stream, "reno");
    }
}

fn builder<S: Service>(shared: &Shared<S>) -> http1::Builder {
    let options = &shared.options;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper counts from the end of the last answer: this is the idle time. The head's own time is kept by the socket.
        .header_read_timeout(options.idle_timeout.max(options.head_timeout))
        .max_buf_size(options.buf_bytes())
        .max_header_size(options.max_head_bytes)
        // Never copied together into one buffer: bytes that stand for a part of a file must keep their address.
        .writev(true)
        // A client may shut down its sending side after a whole request and wait for the answer. It also means that a
        // service is not dropped when its client goes away.
        .half_close(true);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_over_loopback_is_not_paced_and_other_connections_stay_as_the_system_has_them() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let chosen = || rustix::net::sockopt::tcp_congestion(&stream).unwrap();
        let before = chosen();
        no_pacing_over_loopback(&stream, "192.0.2.1:80".parse().unwrap());
        assert_eq!(chosen(), before);
        no_pacing_over_loopback(&stream, "[::ffff:127.0.0.1]:80".parse().unwrap());
        assert_eq!(chosen(), "reno");
    }
}
