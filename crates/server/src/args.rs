//! The flags that master and volume share.

use crate::serve::{DEFAULT_DRAIN_SECONDS, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_REQUESTS, ServeOptions};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use kvdb_protocol::ClusterSecret;
use kvdb_protocol::secret::SecretTooShort;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Flags of a server; each has an environment variable, and the flag wins.
#[derive(Args, Clone)]
pub struct ServerArgs {
    /// Address to listen on; beyond loopback a cluster secret is needed
    #[arg(long, env = "KVDB_BIND", default_value = "127.0.0.1", value_name = "IP")]
    pub bind: IpAddr,

    /// Port to listen on [default: 3000 for a master, 3001 for a volume]
    #[arg(long, env = "PORT")]
    pub port: Option<u16>,

    /// Secret that all servers of the cluster share, at least 16 characters
    #[arg(long, env = "KVDB_SECRET", hide_env_values = true)]
    pub secret: Option<String>,

    /// File that holds the cluster secret
    #[arg(long, env = "KVDB_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// Listen beyond loopback without a cluster secret: whoever reaches the port can read and write
    #[arg(long, env = "KVDB_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// Connections at once; further ones wait
    #[arg(long, env = "KVDB_MAX_CONNECTIONS", default_value_t = DEFAULT_MAX_CONNECTIONS, value_parser = at_least_one, value_name = "N")]
    pub max_connections: usize,

    /// Requests at once; further ones are told to come back
    #[arg(long, env = "KVDB_MAX_REQUESTS", default_value_t = DEFAULT_MAX_REQUESTS, value_parser = at_least_one, value_name = "N")]
    pub max_requests: usize,

    /// Seconds that requests in flight may take to end at shutdown
    #[arg(long, env = "KVDB_DRAIN_SECONDS", default_value_t = DEFAULT_DRAIN_SECONDS, value_name = "SECONDS")]
    pub drain_seconds: u64,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Two secrets.
    #[error("both --secret and --secret-file (or KVDB_SECRET and KVDB_SECRET_FILE) are given; keep one of them")]
    TwoSecrets,
    /// The file of the secret cannot be read.
    #[error("cannot read the cluster secret from {path}: {source}", path = .path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The secret is too short.
    #[error(transparent)]
    Secret(#[from] SecretTooShort),
    /// Open to others, and unprotected.
    #[error(
        "will not listen on {0} without a cluster secret: whoever reaches the port could read and write; \
         give --secret-file (KVDB_SECRET_FILE) or --secret (KVDB_SECRET), \
         or listen on 127.0.0.1, or accept the risk with --insecure (KVDB_INSECURE=1)"
    )]
    Exposed(IpAddr),
    /// The port is taken.
    #[error("cannot listen on {0}: the port is in use; stop the program that uses it, or choose another with --port (PORT)")]
    PortInUse(SocketAddr),
    /// Anything else about the address.
    #[error("cannot listen on {address}: {source}; check --bind (KVDB_BIND) and --port (PORT)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl ServerArgs {
    /// The cluster secret, from the flag or the file.
    pub fn secret(&self) -> Result<Option<ClusterSecret>, StartError> {
        let text = match (&self.secret, &self.secret_file) {
            (Some(_), Some(_)) => return Err(StartError::TwoSecrets),
            (Some(text), None) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(path).map_err(|source| StartError::SecretFile { path: path.clone(), source })?,
            (None, None) => return Ok(None),
        };
        Ok(Some(ClusterSecret::new(&text)?))
    }

    /// Refuses to listen beyond loopback with neither a secret among the flags nor `--insecure`.
    pub fn check_exposure(&self) -> Result<(), StartError> {
        self.check_exposure_with(self.secret()?.is_some())
    }

    /// The same for a server that may have its secret from elsewhere, as an adopted volume has.
    pub fn check_exposure_with(&self, has_secret: bool) -> Result<(), StartError> {
        self.allow(has_secret, self.bind)
    }

    /// [`ServerArgs::check_exposure`] for another address that the server listens on.
    pub fn check_exposure_at(&self, ip: IpAddr) -> Result<(), StartError> {
        self.allow(self.secret()?.is_some(), ip)
    }

    fn allow(&self, has_secret: bool, ip: IpAddr) -> Result<(), StartError> {
        if has_secret || self.insecure || ip.is_loopback() { Ok(()) } else { Err(StartError::Exposed(ip)) }
    }

    /// The bounds of the accept loop.
    pub fn serve_options(&self, name: &'static str) -> ServeOptions {
        ServeOptions {
            name,
            max_connections: self.max_connections,
            max_requests: self.max_requests,
            drain_time: Duration::from_secs(self.drain_seconds),
            ..ServeOptions::default()
        }
    }

    /// Listens, on `default_port` unless another is given. To be called inside a runtime.
    pub async fn listen(&self, default_port: u16) -> Result<TcpListener, StartError> {
        listen(SocketAddr::new(self.bind, self.port.unwrap_or(default_port)))
    }
}

/// Listens on an address that a process before this one may have used a moment ago.
pub fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse(address),
        _ => StartError::Listen { address, source },
    })
}

/// A number of bytes, with an optional K, M or G.
///
/// # Errors
/// It is none.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let n: u64 = digits.parse().map_err(|_| "a number of bytes, such as 65536, 64K, 1M or 1G".to_string())?;
    n.checked_mul(unit).ok_or_else(|| "too large".into())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("must be a whole number".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        server: ServerArgs,
    }

    /// Flags alone: tests of the environment would disturb each other.
    fn args(flags: &[&str]) -> ServerArgs {
        Program::try_parse_from(["p"].iter().chain(flags)).map_err(|e| e.to_string()).unwrap().server
    }

    #[test]
    fn beyond_loopback_a_secret_or_consent_is_needed() {
        let secret = "0123456789abcdef";
        assert!(args(&[]).check_exposure().is_ok());
        assert!(args(&["--bind", "::1"]).check_exposure().is_ok());
        let refused = args(&["--bind", "0.0.0.0"]).check_exposure().unwrap_err().to_string();
        assert!(refused.contains("--secret-file") && refused.contains("--insecure"), "{refused}");
        assert!(args(&["--bind", "::"]).check_exposure().is_err());
        assert!(args(&["--bind", "0.0.0.0"]).check_exposure_with(true).is_ok());
        assert!(args(&[]).check_exposure_at("0.0.0.0".parse().unwrap()).is_err());
        assert!(args(&["--bind", "0.0.0.0", "--insecure"]).check_exposure().is_ok());
        assert!(args(&["--bind", "0.0.0.0", "--secret", secret]).check_exposure().is_ok());
    }

    #[test]
    fn the_secret_comes_from_one_place_and_is_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let path = file.to_str().unwrap();
        assert_eq!(args(&["--secret-file", path]).secret().unwrap().unwrap().expose(), "0123456789abcdef");
        assert!(args(&[]).secret().unwrap().is_none());
        assert!(matches!(args(&["--secret", "x", "--secret-file", path]).secret(), Err(StartError::TwoSecrets)));
        assert!(matches!(args(&["--secret", "short"]).secret(), Err(StartError::Secret(_))));
        assert!(matches!(args(&["--secret", ""]).secret(), Err(StartError::Secret(_))));
        let missing = args(&["--secret-file", "/nowhere/secret"]).secret().unwrap_err().to_string();
        assert!(missing.contains("/nowhere/secret"), "{missing}");
    }

    #[test]
    fn bounds_of_nothing_are_refused() {
        for flags in [["--max-connections", "0"], ["--max-requests", "0"], ["--bind", "nowhere"], ["--port", "70000"]] {
            assert!(Program::try_parse_from(["p"].iter().chain(&flags)).is_err(), "{flags:?}");
        }
        let options = args(&["--max-connections", "7", "--drain-seconds", "3"]).serve_options("volume");
        assert_eq!((options.name, options.max_connections, options.drain_time), ("volume", 7, Duration::from_secs(3)));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = args(&["--port", "0"]).listen(1).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = args(&["--port", &address.port().to_string()]).listen(1).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--port"), "{error}");
    }

    #[test]
    fn the_help_shows_no_secret() {
        use clap::CommandFactory;
        let command = Program::command();
        let secret = command.get_arguments().find(|a| a.get_id() == "secret").unwrap();
        assert!(secret.is_hide_env_values_set());
    }
}
