//! `kvdb flatdb`, and the program `flatdb`: a store on one directory for FlatDB's clients.

use crate::args::Flatdb;
use crate::commands::servers::{self, Servers};
use crate::output;
use anyhow::{Context as _, bail};
use kvdb_master::front::{Front, FrontKind};
use std::net::SocketAddr;
use std::path::Path;

pub async fn run(args: Flatdb) -> anyhow::Result<()> {
    let stop = kvdb_server::signals::on_terminate();
    let address = address(&args.host, args.port).await?;
    if !address.ip().is_loopback() && !args.insecure {
        bail!(
            "will not listen on {}: whoever reaches the port could read and write; listen on 127.0.0.1, or accept the risk with --insecure",
            address.ip()
        );
    }
    let listener = kvdb_server::args::listen(address)?;
    let address = listener.local_addr()?;
    let servers = Servers {
        dir: servers::made(&args.database)?,
        master: servers::listen(0)?,
        volumes: vec![servers::listen(0)?],
        fronts: vec![Front { kind: FrontKind::FlatDb, listener }],
    };
    let greeting = greeting(address, &servers.dir);
    servers.run(|config| config.replicas = Some(1), stop, move || output::greet(&greeting)).await
}

/// Of a host with several addresses, one of IPv4 if there is one.
async fn address(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.with_context(|| format!("no such host: {host}"))?.collect();
    let first = found.iter().find(|a| a.is_ipv4()).or_else(|| found.first());
    first.copied().with_context(|| format!("the host {host} has no address"))
}

fn greeting(address: SocketAddr, dir: &Path) -> String {
    format!(
        "FlatDB is up: http://{address}, data in {}. Ctrl-C stops it.

Try:
  curl '{address}/put?foo=bar&baz=qux'      store keys, all or none
  curl '{address}/get?key=foo&key=baz'      read them, as JSON
  curl '{address}/getrange?from=a&to=c'     read a range of keys
  curl '{address}/delete?key=foo&key=baz'   delete them, all or none",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_is_an_address_or_a_name() {
        assert_eq!(address("127.0.0.1", 7).await.unwrap(), "127.0.0.1:7".parse().unwrap());
        assert_eq!(address("::1", 7).await.unwrap(), "[::1]:7".parse().unwrap());
        assert!(address("localhost", 7).await.unwrap().ip().is_loopback());
        assert!(address("a host", 7).await.is_err());
    }
}
