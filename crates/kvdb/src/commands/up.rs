//! `kvdb up`: a master and its volumes in one process.

use crate::args::{Common, Up};
use crate::commands::servers::{self, Servers};
use crate::output;
use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Volumes of a new directory.
const NEW_VOLUMES: u16 = 2;
const MOST_REPLICAS_UNASKED: u16 = 2;

pub async fn run(common: &Common, args: Up) -> anyhow::Result<()> {
    let stop = kvdb_server::signals::on_terminate();
    if args.stop_at_eof {
        stop_at_eof(stop.clone())?;
    }
    if let Some((_, address)) = args.fronts.addresses().find(|(_, address)| !address.ip().is_loopback()) {
        bail!("kvdb up is for this machine alone and does not listen on {address}; run `master` and `volume` for others");
    }
    let dir = servers::made(&args.dir)?;
    let count = volumes(&dir, args.volumes)?;
    let replicas = args.replicas.unwrap_or(count.min(MOST_REPLICAS_UNASKED));
    ensure!(replicas <= count, "--replicas {replicas} needs as many volumes, and there are {count}; give --volumes {replicas}");
    // All ports before the first server, so that a port in use leaves nothing half started.
    let listeners = (0..=count).map(|i| servers::listen(port(args.port, i)?)).collect::<anyhow::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<anyhow::Result<Vec<_>>>()?;
    let greeting = Running { dir: dir.clone(), ports, tokens: args.tokens.is_some(), json: common.json }.greeting();
    let mut listeners = listeners.into_iter();
    let servers = Servers {
        dir,
        master: listeners.next().context("no port for the master")?,
        volumes: listeners.collect(),
        fronts: args.fronts.listen()?,
    };
    let configure = |config: &mut kvdb_master::Config| {
        config.replicas = Some(replicas.into());
        config.limits_file = args.limits;
        config.tokens = args.tokens;
        config.fronts = args.fronts;
    };
    servers.run(configure, stop, move || output::greet(&greeting)).await
}

/// What was started, and where.
struct Running {
    dir: PathBuf,
    /// The master's, then the volumes'.
    ports: Vec<u16>,
    /// Whether clients need one.
    tokens: bool,
    json: bool,
}

/// How many volumes are to run: all that the directory has, as each may hold values that no other has.
fn volumes(dir: &Path, asked: Option<u16>) -> anyhow::Result<u16> {
    let there = (1..=u16::MAX).take_while(|i| volume_dir(dir, *i).is_dir()).last().unwrap_or(0);
    match asked {
        Some(count) if count < there => {
            bail!("{} has {there} volumes, and --volumes {count} would leave some out; leave the option away", dir.display())
        }
        Some(count) => Ok(count),
        None if there > 0 => Ok(there),
        None => Ok(NEW_VOLUMES),
    }
}

fn volume_dir(dir: &Path, i: u16) -> PathBuf {
    dir.join(format!("volume{i}"))
}

/// The port of the master, and of those after it; 0 is any that is free.
fn port(first: u16, i: u16) -> anyhow::Result<u16> {
    let port = if first == 0 { Some(0) } else { first.checked_add(i) };
    port.with_context(|| format!("--port {first} leaves no ports for the volumes; give a lower one"))
}

/// Stops when standard input ends. A thread of its own: one that waits for input must not hold up the end.
fn stop_at_eof(stop: CancellationToken) -> anyhow::Result<()> {
    let read = move || {
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        tracing::info!("stopping: standard input has ended");
        stop.cancel();
    };
    std::thread::Builder::new().name("stdin".into()).spawn(read).context("cannot watch standard input")?;
    Ok(())
}

impl Running {
    fn url(&self) -> String {
        format!("http://localhost:{}", self.ports.first().copied().unwrap_or_default())
    }

    fn greeting(&self) -> String {
        if self.json {
            return serde_json::json!({ "master": self.url(), "dir": self.dir, "volumes": self.ports.len() - 1 }).to_string();
        }
        let url = self.url();
        let at = url.trim_start_matches("http://");
        let volumes = match self.ports.get(1..).unwrap_or_default() {
            [one] => format!("a volume at port {one}"),
            several => {
                let ports: Vec<_> = several.iter().map(u16::to_string).collect();
                format!("volumes at ports {}", ports.join(", "))
            }
        };
        let with = if self.tokens { ", each with -H 'Authorization: Bearer TOKEN'" } else { "" };
        format!(
            "kvDB is up: the master at {url}, {volumes}, data in {}. Ctrl-C stops it.

Try{with}:
  curl -L -X POST -d examplevalue {at}/examplekey       store a value under a new key
  curl -L {at}/examplekey                               read it
  curl -L -T FILE {at}/big                              store a file, replacing what was there
  curl -L -r 0-99 {at}/big                              read a part of it
  curl '{at}/?list'                                     list the keys
  curl -L -X DELETE {at}/examplekey                     delete it",
            self.dir.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(ports: &[u16]) -> Running {
        Running { dir: "/srv/x".into(), ports: ports.to_vec(), tokens: false, json: false }
    }

    #[test]
    fn the_greeting_names_the_ports_and_the_directory_that_are_used() {
        let text = up(&[4000, 4001, 4002]).greeting();
        for part in ["http://localhost:4000", "ports 4001, 4002", "/srv/x", "-X POST", "?list", "-X DELETE"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("3000") && !text.contains("Bearer"));
        assert!(Running { tokens: true, ..up(&[4000, 4001]) }.greeting().contains("Try, each with -H 'Authorization: Bearer TOKEN':"));
        assert!(up(&[4000, 7]).greeting().contains("a volume at port 7"));
    }

    #[test]
    fn for_programs_the_greeting_is_one_line_of_json() {
        let text = Running { json: true, ..up(&[4000, 4001]) }.greeting();
        let expected = serde_json::json!({ "master": "http://localhost:4000", "dir": "/srv/x", "volumes": 1 });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
        assert!(!text.contains('\n'));
    }

    #[test]
    fn ports_follow_each_other_as_far_as_there_are_any() {
        assert_eq!(port(3000, 2).unwrap(), 3002);
        assert_eq!(port(65_533, 2).unwrap(), 65_535);
        assert!(port(65_533, 3).unwrap_err().to_string().contains("--port 65533"));
        assert_eq!(port(0, 3).unwrap(), 0);
    }

    #[test]
    fn all_volumes_of_a_directory_are_run_and_none_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(volumes(dir.path(), None).unwrap(), 2);
        assert_eq!(volumes(dir.path(), Some(1)).unwrap(), 1);
        for i in 1..=3 {
            std::fs::create_dir(volume_dir(dir.path(), i)).unwrap();
        }
        assert_eq!(volumes(dir.path(), None).unwrap(), 3);
        assert_eq!(volumes(dir.path(), Some(4)).unwrap(), 4);
        let refused = volumes(dir.path(), Some(2)).unwrap_err().to_string();
        assert!(refused.contains("has 3 volumes"), "{refused}");
    }
}
