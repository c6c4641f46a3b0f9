//! What all parts of a running master share.

use crate::batch::Batches;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::DEFAULT_REPLICAS;
use crate::members::{Members, local_ip_towards};
use crate::redirect::Backs;
use crate::repair::Repair;
use crate::tokens::TokenTable;
use kvdb_protocol::signed_url::UrlKey;
use kvdb_protocol::{ClusterSecret, TicketKey, UnixMillis, VolumeId};
use kvdb_server::peer::{Credentials, Peers};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore};

/// A running master.
pub(crate) struct Node {
    pub config: Config,
    pub catalog: Catalog,
    pub members: Members,
    pub peers: Peers,
    pub credentials: Credentials,
    pub tickets: TicketKey,
    pub urls: UrlKey,
    /// What clients may do; none: everything.
    pub tokens: Option<TokenTable>,
    pub secret: ClusterSecret,
    pub listening: SocketAddr,
    pub repair: Repair,
    /// Wakes the reclaim of a volume.
    pub reclaims: Mutex<HashMap<VolumeId, Arc<Notify>>>,
    /// The last time given to a delete for its commit.
    pub last_delete: AtomicU64,
    pub backs: Backs,
    /// Bounds the memory of pages of values.
    pub page_memory: Arc<Semaphore>,
    pub batches: Batches,
}

impl Node {
    /// Replicas of a value: as configured, else two, or one with a single volume on the list.
    pub fn replicas(&self) -> usize {
        self.config.replicas.unwrap_or_else(|| self.members.listed_len().clamp(1, DEFAULT_REPLICAS))
    }

    /// A last time for the commit of a delete, not before `wanted`, that no other delete has: by the version that it saw and by
    /// this time the catalog tells a delete that is repeated from another one, which must find nothing.
    pub fn deadline_of_delete(&self, wanted: UnixMillis) -> UnixMillis {
        let next = |last: u64| wanted.0.max(last + 1);
        let update = self.last_delete.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        // It always updates; either way this is the value before.
        UnixMillis(next(update.unwrap_or_else(|last| last)))
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
