//! Tells a service manager how far the process is, as systemd's `Type=notify` asks for.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The server listens. Does nothing where no manager waits for it.
pub fn ready() {
    tell("READY=1");
}

/// The server has begun to stop.
pub fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE).filter(|s| !s.is_empty()) else { return };
    if let Err(error) = send(state, &socket) {
        tracing::warn!(%error, state, socket = %socket.display(), "cannot notify the service manager");
    }
}

/// Sends one message to a socket given by path, or by abstract name with a leading `@`.
fn send(state: &str, socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sent = UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    if sent == state.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_with_a_path_hears_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send("READY=1", path.as_os_str()).unwrap();
        assert_eq!(received(&socket), "READY=1");
    }

    #[test]
    fn a_socket_with_an_abstract_name_hears_the_state() {
        let name = format!("kvdb-test-{}", uuid::Uuid::new_v4());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send("STOPPING=1", OsStr::new(&format!("@{name}"))).unwrap();
        assert_eq!(received(&socket), "STOPPING=1");
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        assert!(send("READY=1", OsStr::new("/nowhere/notify")).is_err());
    }
}
