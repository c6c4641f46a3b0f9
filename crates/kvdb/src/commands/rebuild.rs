//! `kvdb rebuild`: a new master's catalog, from what the volumes hold.

mod pages;

use crate::args::{Common, Rebuild};
use crate::{operator, output};
use anyhow::{Context as _, bail};
use kvdb_master::catalog::{Catalog, CatalogOptions};
use kvdb_master::rebuild::{Merger, Summary};
use kvdb_protocol::message::{Identity, path};
use kvdb_protocol::{ClusterId, ErrorCode, VolumeId};
use kvdb_server::peer::{Credentials, Destination, PeerError, Peers};
use pages::Pages;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long a call to a volume may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a volume may take to notice that its master has ended.
const MASTER_ENDS: Duration = Duration::from_secs(3);
const MASTER_ENDS_POLL: Duration = Duration::from_millis(100);

/// Merges the volumes' indexes into a catalog in an empty directory; with a dry run, only counts.
pub async fn run(common: &Common, args: Rebuild) -> anyhow::Result<()> {
    let secret = operator::secret(&args.secret)?;
    let peers = Peers::new().context("the HTTP client could not be made")?;
    let (cluster, members) = identify(&peers, &args.volumes).await?;
    let credentials = Credentials { cluster, key: secret.peer_key() };
    // An interrupted command drops this, which ends the merge on its thread, too.
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let mut sources = Vec::new();
    for (volume, address) in &members {
        let pages = Pages::new(peers.clone(), credentials.clone(), *volume, address.clone(), stop.clone());
        pages.check().await.map_err(|e| refusal(&e))?;
        sources.push((*volume, pages.entries()));
    }
    if !args.dry_run {
        wait_for_no_master(&peers, &members).await?;
    }
    let (dry_run, uncertain) = (args.dry_run, args.uncertain.into());
    let options = CatalogOptions::new(&args.db);
    // The merge asks for pages as it needs them, so it blocks.
    let merged = tokio::task::spawn_blocking(move || -> anyhow::Result<Summary> {
        let merger = Merger::new(sources, uncertain)?;
        if dry_run { Ok(merger.finish()?) } else { Ok(Catalog::create_from(&options, (cluster, &secret), &members, merger)?) }
    });
    let summary = merged.await.context("the rebuild failed")??;
    report(common, &args, cluster, &summary)
}

/// Who is at each address; all must be of one cluster.
async fn identify(peers: &Peers, addresses: &[String]) -> anyhow::Result<(ClusterId, Vec<(VolumeId, String)>)> {
    let mut clusters: Vec<(ClusterId, &str)> = Vec::new();
    let mut members: Vec<(VolumeId, String)> = Vec::new();
    for address in addresses {
        let identity = identity(peers, address).await?;
        let Some(own) = identity.cluster else {
            bail!("the volume at {address} belongs to no cluster: it holds nothing; leave it off the list")
        };
        if let Some((_, there)) = members.iter().find(|(id, _)| *id == identity.volume) {
            bail!("{address} and {there} are the same volume; list it once");
        }
        clusters.push((own, address));
        members.push((identity.volume, address.clone()));
    }
    let Some((cluster, _)) = clusters.first().copied() else { bail!("no volumes are given") };
    if clusters.iter().any(|(c, _)| *c != cluster) {
        let lines: String = clusters.iter().map(|(c, address)| format!("\n  {address} belongs to cluster {c}")).collect();
        bail!("the volumes are not of one cluster; list those of one:{lines}");
    }
    Ok((cluster, members))
}

async fn identity(peers: &Peers, address: &str) -> anyhow::Result<Identity> {
    let to = Destination { address, volume: VolumeId::from_bytes([0; 16]), target: path::IDENTITY };
    peers.get(None, to, TIMEOUT).await.map_err(|e| {
        anyhow::anyhow!(
            "the volume at {address} cannot be asked: {e}. Start it: without it, values could be lost and deleted ones come back. \
             If it is gone for good, leave it off the list"
        )
    })
}

/// A master that goes on would acknowledge writes that the new catalog does not have.
async fn wait_for_no_master(peers: &Peers, members: &[(VolumeId, String)]) -> anyhow::Result<()> {
    let give_up = Instant::now() + MASTER_ENDS;
    for (_, address) in members {
        while identity(peers, address).await?.in_touch {
            if Instant::now() >= give_up {
                bail!(
                    "a master is in touch with the volume at {address}: what it stores meanwhile would be missing in the new catalog. \
                     Stop it first (one whose machine went down is noticed within 10 s); --dry-run does without"
                );
            }
            sleep(MASTER_ENDS_POLL).await;
        }
    }
    Ok(())
}

/// Why a volume does not show its index.
fn refusal(error: &PeerError) -> anyhow::Error {
    match error {
        PeerError::Refused { address, problem } if matches!(problem.code, ErrorCode::Forbidden | ErrorCode::Unauthorized) => {
            anyhow::anyhow!(
                "the volume at {address} does not accept this secret: it is not the cluster's. If none was configured, it stands in the \
                 file `secret` of any volume's directory"
            )
        }
        other => anyhow::anyhow!("the volume's index cannot be read: {other}"),
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
    if common.quiet {
        return Ok(());
    }
    let lines = [
        ("keys", s.keys, "that have a value"),
        ("bytes", s.bytes, "of one copy of each"),
        ("tombstones", s.tombstones, "deleted keys that stay deleted"),
        ("uncertain, kept", s.uncertain_kept, "writes that no volume knows the outcome of, whole on all their volumes"),
        ("uncertain, dropped", s.uncertain_dropped, "writes that were never committed, or that --uncertain drop leaves out"),
        ("under-replicated", s.under_replicated, "keys with fewer copies than they were written with"),
        ("conflicts", s.conflicts, "keys with copies that differ; those that the commit did not mean stay unused"),
        ("surplus", s.surplus, "old copies that the master will have removed"),
    ];
    for (name, n, what) in lines {
        output::line(&format!("{name:19} {n:>14}  {what}"))?;
    }
    let end = if args.dry_run {
        "a dry run: nothing was written".to_string()
    } else {
        format!("the catalog of cluster {cluster} is in {}; start the master with it", args.db.display())
    };
    Ok(output::line(&end)?)
}
