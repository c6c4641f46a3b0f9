//! What all parts of a running master share.

use crate::catalog::Catalog;
use crate::config::Config;
use crate::members::{Members, local_ip_towards};
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
    pub replicas: usize,
    pub listening: SocketAddr,
    /// Wakes the reclaim of a volume.
    pub reclaims: Mutex<HashMap<VolumeId, Arc<Notify>>>,
}

impl Node {
    /// Where the volume at `volume` (`host:port`) reaches this master.
    pub fn address_for(&self, volume: &str) -> String {
        if let Some(address) = &self.config.address {
            return address.clone();
        }
        let ip = if self.listening.ip().is_unspecified() { local_ip_towards(volume) } else { None };
        SocketAddr::new(ip.unwrap_or(self.listening.ip()), self.listening.port()).to_string()
    }
}
