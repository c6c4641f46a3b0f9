//! What all parts of a running master share.

use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::DEFAULT_REPLICAS;
use crate::members::{Members, local_ip_towards};
use crate::repair::Repair;
use kvdb_protocol::{ClusterSecret, TicketKey, VolumeId};
use kvdb_server::peer::{Credentials, Peers};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// A running master.
pub(crate) struct Node {
    pub config: Config,
    pub catalog: Catalog,
    pub members: Members,
    pub peers: Peers,
    pub credentials: Credentials,
    pub tickets: TicketKey,
    pub secret: ClusterSecret,
    pub listening: SocketAddr,
    pub repair: Repair,
    /// Wakes the reclaim of a volume.
    pub reclaims: Mutex<HashMap<VolumeId, Arc<Notify>>>,
}

impl Node {
    /// Replicas of a value: as configured, else two, or one with a single volume on the list.
    pub fn replicas(&self) -> usize {
        self.config.replicas.unwrap_or_else(|| self.members.listed_len().clamp(1, DEFAULT_REPLICAS))
    }

    /// Where the volume at `volume` (`host:port`) reaches this master.
    pub fn address_for(&self, volume: &str) -> String {
        if let Some(address) = &self.config.address {
            return address.clone();
        }
        let ip = if self.listening.ip().is_unspecified() { local_ip_towards(volume) } else { None };
        SocketAddr::new(ip.unwrap_or(self.listening.ip()), self.listening.port()).to_string()
    }
}
