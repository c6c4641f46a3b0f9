//! `kvdb rebuild`: a new master's catalog, from what the volumes hold.

use crate::args::{Common, Rebuild};
use crate::output;
use anyhow::{Context as _, bail};
use kvdb_master::catalog::{Catalog, CatalogOptions};
use kvdb_master::rebuild::{Entries, Merger, Summary};
use kvdb_protocol::message::{EntriesPage, Entry, Identity, path};
use kvdb_protocol::{ClusterId, ClusterSecret, VolumeId};
use kvdb_server::peer::{Credentials, Destination, Peers};
use serde_json::json;
use std::time::Duration;

/// Entries of a page.
const PAGE: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Merges the volumes' indexes into a catalog in an empty directory; with a dry run, only counts.
pub async fn run(common: &Common, args: Rebuild) -> anyhow::Result<()> {
    let secret = secret(&args)?;
    let peers = Peers::new().context("the HTTP client could not be made")?;
    let (cluster, members) = identify(&peers, &args.volumes).await?;
    let credentials = Credentials { cluster, key: secret.peer_key() };
    let sources = sources(&peers, &credentials, &members);
    let (dry_run, uncertain) = (args.dry_run, args.uncertain.into());
    let options = CatalogOptions::new(&args.db);
    // The merge asks for pages as it needs them, so it blocks.
    let merged = tokio::task::spawn_blocking(move || -> anyhow::Result<Summary> {
        let merger = Merger::new(sources, uncertain)?;
        if dry_run {
            return Ok(merger.finish()?);
        }
        let summary = Catalog::create_from(&options, cluster, &members, merger)?;
        Catalog::open(options)?.store_secret(&secret)?;
        Ok(summary)
    });
    let summary = merged.await.context("the rebuild failed")??;
    report(common, &args, cluster, &summary)
}

fn secret(args: &Rebuild) -> anyhow::Result<ClusterSecret> {
    let text = match (&args.secret, &args.secret_file) {
        (Some(_), Some(_)) => bail!("give --secret or --secret-file, not both"),
        (Some(text), None) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("cannot read the secret from {}", file.display()))?,
        (None, None) => bail!(
            "the volumes answer only who knows the cluster's secret: give --secret-file; where none was configured, it is the file `secret` in any volume's directory"
        ),
    };
    Ok(ClusterSecret::new(&text)?)
}

/// Who is at each address; all must be of one cluster.
async fn identify(peers: &Peers, addresses: &[String]) -> anyhow::Result<(ClusterId, Vec<(VolumeId, String)>)> {
    let mut cluster: Option<(ClusterId, &str)> = None;
    let mut members: Vec<(VolumeId, String)> = Vec::new();
    for address in addresses {
        let to = Destination { address, volume: VolumeId::from_bytes([0; 16]), target: path::IDENTITY };
        let identity: Identity = peers.get(None, to, TIMEOUT).await.context(
            "without this volume the rebuild could lose values and bring back deleted ones; start it, or leave it off the list if it is gone for good",
        )?;
        let Some(own) = identity.cluster else {
            bail!("the volume at {address} belongs to no cluster: it holds nothing; leave it off the list")
        };
        match cluster {
            None => cluster = Some((own, address)),
            Some((first, there)) if first != own => {
                bail!("the volume at {address} belongs to cluster {own}, the one at {there} to {first}")
            }
            Some(_) => {}
        }
        if let Some((_, there)) = members.iter().find(|(id, _)| *id == identity.volume) {
            bail!("{address} and {there} are the same volume; list it once");
        }
        members.push((identity.volume, address.clone()));
    }
    let (cluster, _) = cluster.context("no volumes are given")?;
    Ok((cluster, members))
}

/// Each volume's index, in order, a page at a time.
fn sources(peers: &Peers, credentials: &Credentials, members: &[(VolumeId, String)]) -> Vec<(VolumeId, Entries)> {
    let source = |(volume, address): &(VolumeId, String)| {
        let pages = Pages {
            peers: peers.clone(),
            credentials: credentials.clone(),
            volume: *volume,
            address: address.clone(),
            runtime: tokio::runtime::Handle::current(),
            page: Vec::new().into_iter(),
            after: Some(String::new()),
        };
        (*volume, Box::new(pages) as Entries)
    };
    members.iter().map(source).collect()
}

struct Pages {
    peers: Peers,
    credentials: Credentials,
    volume: VolumeId,
    address: String,
    runtime: tokio::runtime::Handle,
    page: std::vec::IntoIter<Entry>,
    /// Where the next page begins; none: there is no more.
    after: Option<String>,
}

impl Pages {
    fn fetch(&self, after: &str) -> Result<EntriesPage, String> {
        let from = if after.is_empty() { String::new() } else { format!("&after={after}") };
        let target = format!("{}?limit={PAGE}{from}", path::ENTRIES);
        let to = Destination { address: &self.address, volume: self.volume, target: &target };
        self.runtime.block_on(self.peers.get(Some(&self.credentials), to, TIMEOUT)).map_err(|e| e.to_string())
    }
}

impl Iterator for Pages {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let after = self.after.take()?;
            match self.fetch(&after) {
                Ok(page) => {
                    self.page = page.entries.into_iter();
                    self.after = page.next;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn report(common: &Common, args: &Rebuild, cluster: ClusterId, s: &Summary) -> anyhow::Result<()> {
    if common.json {
        let o = json!({
            "cluster": cluster, "dry_run": args.dry_run, "keys": s.keys, "bytes": s.bytes, "tombstones": s.tombstones,
            "uncertain_kept": s.uncertain_kept, "uncertain_dropped": s.uncertain_dropped,
            "under_replicated": s.under_replicated, "conflicts": s.conflicts, "surplus": s.surplus,
        });
        return Ok(output::line(&o.to_string())?);
    }
    let lines = [
        ("keys", s.keys, ""),
        ("bytes", s.bytes, "of one copy of each"),
        ("tombstones", s.tombstones, "deleted keys that stay deleted"),
        ("uncertain, kept", s.uncertain_kept, "writes that no volume knows the outcome of, whole on all their volumes"),
        ("uncertain, dropped", s.uncertain_dropped, "the same, not kept"),
        ("under-replicated", s.under_replicated, "keys with fewer copies than they were written with"),
        ("conflicts", s.conflicts, "copies that differ from the key's record; left where they are"),
        ("surplus", s.surplus, "old copies that the master will have removed"),
    ];
    for (name, n, what) in lines {
        output::line(format!("{name:19} {n:>14}  {what}").trim_end())?;
    }
    let end = if args.dry_run {
        "a dry run: nothing was written".to_string()
    } else {
        format!("the catalog of cluster {cluster} is in {}; start the master with it", args.db.display())
    };
    Ok(output::line(&end)?)
}
