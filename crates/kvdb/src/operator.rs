//! Asking a master what only an operator may: calls are signed with the cluster's secret.

use crate::args::{Common, SecretArgs};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kvdb_protocol::operator::{Asked, Cluster, NO_VOLUME, path};
use kvdb_protocol::{ClusterSecret, VolumeId};
use kvdb_server::peer::{Credentials, Destination, PeerError, Peers};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a call to the master may take: some look at all records.
const TIMEOUT: Duration = Duration::from_secs(600);
const NO_SECRET: &str = "this is only for who knows the cluster's secret: give --secret-file or --secret; if none was configured, \
     the master made one itself, and it is the file `secret` in its directory and in that of any volume";

const NO_TOKEN: &str = "give --token or --token-file with a token that is allowed admin for all keys, or the cluster's secret, as in \
     `kvdb cluster status --secret-file FILE`";

/// The secret that the command line names.
pub fn secret(args: &SecretArgs) -> anyhow::Result<ClusterSecret> {
    let text = match (&args.secret, &args.secret_file) {
        (Some(_), Some(_)) => bail!("give --secret or --secret-file, not both"),
        (Some(text), None) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("cannot read the secret from {}", file.display()))?,
        (None, None) => bail!(NO_SECRET),
    };
    Ok(ClusterSecret::new(&text)?)
}

/// The master's `host:port`.
fn address(common: &Common) -> anyhow::Result<String> {
    let Some(address) = common.master.strip_prefix("http://") else {
        bail!("operators' commands need the master itself, as http://host:port")
    };
    Ok(address.trim_end_matches('/').to_string())
}

/// The master's `/-/status`, for which nobody needs the secret, but a token where there are any.
pub async fn status_page(common: &Common) -> anyhow::Result<serde_json::Value> {
    let (peers, address, token) = (Peers::new().context("the HTTP client could not be made")?, address(common)?, common.token()?);
    let to = Destination { address: &address, volume: NO_VOLUME, target: path::STATUS_PAGE };
    match peers.get_with_token(token.as_deref(), to, TIMEOUT).await {
        Err(PeerError::Refused { problem, .. }) if matches!(problem.status, 401 | 403) => bail!("{problem}; {NO_TOKEN}"),
        other => other.context("the master cannot be asked"),
    }
}

/// A master, and the right to give it orders.
pub struct Operator {
    peers: Peers,
    credentials: Credentials,
    /// `host:port`.
    address: String,
}

impl Operator {
    /// Asks the master which cluster it is of.
    pub async fn connect(common: &Common, args: &SecretArgs) -> anyhow::Result<Self> {
        let secret = secret(args)?;
        let address = address(common)?;
        let peers = Peers::new().context("the HTTP client could not be made")?;
        let cluster = cluster(&peers, &address).await?.cluster;
        Ok(Self { peers, credentials: Credentials { cluster, key: secret.peer_key() }, address })
    }

    /// The master's `/-/status`.
    pub async fn status<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        self.ask(path::STATUS, &()).await
    }

    /// Asks something; the master's refusal is the error.
    pub async fn ask<A: DeserializeOwned>(&self, target: &str, ask: &impl Serialize) -> anyhow::Result<A> {
        let now = cluster(&self.peers, &self.address).await?.time;
        let to = Destination { address: &self.address, volume: NO_VOLUME, target };
        match self.peers.post(&self.credentials, to, &Asked { at: now, ask }, TIMEOUT).await {
            Err(PeerError::Refused { problem, .. }) => bail!("{problem}"),
            other => Ok(other?),
        }
    }

    /// Asks a volume for something, as its master would.
    pub async fn get_from<A: DeserializeOwned>(&self, address: &str, volume: VolumeId, target: &str) -> Result<A, PeerError> {
        self.peers.get(Some(&self.credentials), Destination { address, volume, target }, TIMEOUT).await
    }

    /// Tells the master something in the place of a volume.
    pub async fn tell_as(&self, volume: VolumeId, target: &str, message: &impl Serialize) -> Result<(), PeerError> {
        self.peers.post(&self.credentials, Destination { address: &self.address, volume, target }, message, TIMEOUT).await
    }

    /// Asks for something that comes as a stream of bytes.
    pub async fn stream<A: Serialize>(&self, target: &str, ask: &A) -> anyhow::Result<impl Stream<Item = anyhow::Result<Bytes>> + use<A>> {
        let now = cluster(&self.peers, &self.address).await?.time;
        let to = Destination { address: &self.address, volume: NO_VOLUME, target };
        let body = match self.peers.post_for_stream(&self.credentials, to, &Asked { at: now, ask }, TIMEOUT).await {
            Err(PeerError::Refused { problem, .. }) => bail!("{problem}"),
            other => other?,
        };
        Ok(http_body_util::BodyDataStream::new(body).map(|part| part.context("the answer broke off")))
    }
}

async fn cluster(peers: &Peers, address: &str) -> anyhow::Result<Cluster> {
    let to = Destination { address, volume: NO_VOLUME, target: path::CLUSTER };
    peers.get(None, to, TIMEOUT).await.context("the master cannot be asked")
}
