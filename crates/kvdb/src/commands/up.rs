//! `kvdb up`: a master and two volumes in one process.

use crate::args::Up;
use crate::commands::servers::{self, Servers};
use crate::output;
use anyhow::{Context as _, bail};
use std::path::Path;

const VOLUMES: u16 = 2;

pub async fn run(args: Up) -> anyhow::Result<()> {
    let stop = kvdb_server::signals::on_terminate();
    if let Some((_, address)) = args.fronts.addresses().find(|(_, address)| !address.ip().is_loopback()) {
        bail!("kvdb up is for this machine alone and does not listen on {address}; run `master` and `volume` for others");
    }
    let dir = servers::made(&args.dir)?;
    // All ports before the first server, so that a port in use leaves nothing half started.
    let mut listeners = (0..=VOLUMES).map(|i| servers::listen(args.port + i)).collect::<anyhow::Result<Vec<_>>>()?.into_iter();
    let greeting = greeting(args.port, &dir);
    let servers = Servers {
        dir,
        master: listeners.next().context("no port for the master")?,
        volumes: listeners.collect(),
        fronts: args.fronts.listen()?,
    };
    let configure = |config: &mut kvdb_master::Config| {
        config.replicas = Some(args.replicas);
        config.limits_file = args.limits;
        config.fronts = args.fronts;
    };
    servers.run(configure, stop, move || output::greet(&greeting)).await
}

fn greeting(port: u16, dir: &Path) -> String {
    let at = format!("localhost:{port}");
    let (first, last) = (port + 1, port + VOLUMES);
    format!(
        "kvDB is up: the master at http://{at}, volumes at ports {first} and {last}, data in {}. Ctrl-C stops it.

Try:
  curl -L -X POST -d examplevalue {at}/examplekey       store a value under a new key
  curl -L {at}/examplekey                               read it
  curl -L -T FILE {at}/big                              store a file, replacing what was there
  curl -L -r 0-99 {at}/big                              read a part of it
  curl '{at}/?list'                                     list the keys
  curl -L -X DELETE {at}/examplekey                     delete it",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_the_ports_and_the_directory_that_are_used() {
        let text = greeting(4000, Path::new("/srv/x"));
        for part in ["http://localhost:4000", "4001 and 4002", "/srv/x", "-X POST", "?list", "-X DELETE"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("3000"));
    }
}
