//! The volumes of the cluster: contact, adoption, status.
//!
//! Each address on the list has a task that finds out who is there, adopts an empty volume, and then holds a
//! status stream open. The end of the stream, or three missed beats, means that the volume is down.

use crate::catalog::Duty;
use crate::node::Node;
use crate::placement::Candidate;
use crate::reclaim;
use kvdb_protocol::VolumeId;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{Adopt, Beat, Identity, VolumeStatus, path};
use kvdb_server::duplex::{self, LineReader};
use kvdb_server::peer::{Destination, PeerError};
use std::collections::{HashMap, HashSet};
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// Without a status for this long (three beats) a volume is down.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two tries to make contact: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// A volume that is up.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// As on the master's list: `host:port`.
    pub address: String,
    /// Where clients are sent: `http://host:port`.
    pub public_url: String,
    /// Where it reaches the master: `host:port`.
    pub master: String,
    pub status: VolumeStatus,
}

impl Live {
    /// As a place for values.
    pub fn candidate(&self, id: VolumeId) -> Candidate {
        Candidate {
            id,
            host: self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host).to_string(),
            free_bytes: self.status.free_bytes,
            busy: self.status.busy,
            writable: self.status.writable,
        }
    }
}

/// What is known of an address on the list, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Listed {
    pub address: String,
    pub id: Option<VolumeId>,
    pub up: bool,
    pub error: Option<String>,
}

/// The volumes that are up, the state of each address on the list, and what volumes are for.
pub(crate) struct Members {
    live: RwLock<Arc<HashMap<VolumeId, Arc<Live>>>>,
    listed: RwLock<Vec<Listed>>,
    duties: RwLock<Arc<HashMap<VolumeId, Duty>>>,
    /// All volumes that ever were of the cluster.
    known: RwLock<HashSet<VolumeId>>,
    /// Since when volumes are down; those that were never up are down since `began`.
    down_since: Mutex<HashMap<VolumeId, Instant>>,
    began: Instant,
    /// The task of each address.
    contacts: Mutex<HashMap<String, AbortHandle>>,
}

impl Members {
    pub fn new(known: HashSet<VolumeId>, duties: HashMap<VolumeId, Duty>) -> Self {
        Self {
            live: RwLock::default(),
            listed: RwLock::default(),
            duties: RwLock::new(Arc::new(duties)),
            known: RwLock::new(known),
            down_since: Mutex::default(),
            began: Instant::now(),
            contacts: Mutex::default(),
        }
    }

    /// Number of addresses on the list.
    pub fn listed_len(&self) -> usize {
        self.listed.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All volumes that ever were of the cluster.
    pub fn known(&self) -> Vec<VolumeId> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// What volumes are for, where they are not simply used.
    pub fn duties(&self) -> Arc<HashMap<VolumeId, Duty>> {
        self.duties.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_duty(&self, id: VolumeId, duty: Option<Duty>) {
        let mut guard = self.duties.write().unwrap_or_else(PoisonError::into_inner);
        let duties = Arc::make_mut(&mut guard);
        match duty {
            Some(duty) => drop(duties.insert(id, duty)),
            None => drop(duties.remove(&id)),
        }
    }

    /// For how long a volume has been down; zero for one that is up.
    pub fn down_for(&self, id: VolumeId) -> Duration {
        if self.live().contains_key(&id) {
            return Duration::ZERO;
        }
        let since = self.down_since.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        since.unwrap_or(self.began).elapsed()
    }

    /// Keeps in touch with an address from now on. False if it was on the list already.
    pub fn list(&self, node: &Arc<Node>, address: &str) -> bool {
        let mut contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        if contacts.contains_key(address) {
            return false;
        }
        let fresh = Listed { address: address.to_string(), id: None, up: false, error: Some("not contacted yet".into()) };
        self.listed.write().unwrap_or_else(PoisonError::into_inner).push(fresh);
        let task = tokio::spawn(keep_in_touch(node.clone(), address.to_string()));
        contacts.insert(address.to_string(), task.abort_handle());
        true
    }

    /// Ends contact with a volume for good.
    pub fn unlist(&self, id: VolumeId) -> Vec<String> {
        let mut listed = self.listed.write().unwrap_or_else(PoisonError::into_inner);
        let (gone, stay) = std::mem::take(&mut *listed).into_iter().partition(|l| l.id == Some(id));
        *listed = stay;
        let gone: Vec<String> = gone.into_iter().map(|l: Listed| l.address).collect();
        let mut contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        gone.iter().filter_map(|a| contacts.remove(a)).for_each(|task| task.abort());
        drop((listed, contacts));
        self.set_down(id);
        gone
    }

    /// Ends all contacts.
    pub fn end(&self) {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner).drain().for_each(|(_, task)| task.abort());
    }

    /// The volumes that are up now.
    pub fn live(&self) -> Arc<HashMap<VolumeId, Arc<Live>>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn listed(&self) -> Vec<Listed> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A volume is up, or has told its status. False where it is up at another address already.
    fn set_live(&self, id: VolumeId, live: Live) -> bool {
        let mut guard = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if guard.get(&id).is_some_and(|l| l.address != live.address) || self.duties().get(&id) == Some(&Duty::Removed) {
            return false;
        }
        Arc::make_mut(&mut guard).insert(id, Arc::new(live));
        true
    }

    fn set_down(&self, id: VolumeId) {
        self.down_since.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
        Arc::make_mut(&mut self.live.write().unwrap_or_else(PoisonError::into_inner)).remove(&id);
    }

    fn note(&self, address: &str, id: Option<VolumeId>, error: Option<String>) {
        let mut guard = self.listed.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(l) = guard.iter_mut().find(|l| l.address == address) {
            l.id = id.or(l.id);
            l.up = error.is_none();
            l.error = error;
        }
    }

    /// Whether another address on the list already leads to this volume.
    fn is_elsewhere(&self, id: VolumeId, address: &str) -> bool {
        self.live().get(&id).is_some_and(|l| l.address != address)
    }
}

/// Why a volume is not in touch.
#[derive(Debug, thiserror::Error)]
enum ContactError {
    #[error("{0}")]
    Peer(#[from] PeerError),
    #[error("{0}")]
    Stream(#[from] duplex::DuplexError),
    #[error("it belongs to another cluster ({0}); take it off the list, or give it an empty directory")]
    Foreign(kvdb_protocol::ClusterId),
    #[error("volume {0} is already reached at another address; list it once")]
    Twice(VolumeId),
    #[error("volume {0} was removed from the cluster; to use its disk again, give it an empty directory")]
    Removed(VolumeId),
    #[error("it does not heed whether reads need tickets; upgrade it")]
    Reads,
    #[error("it ended the status stream")]
    Ended,
    #[error("it missed three beats")]
    Silent,
    #[error("the catalog does not take its address: {0}")]
    Catalog(String),
}

/// Keeps in touch with the volume at `address` until stopped.
async fn keep_in_touch(node: Arc<Node>, address: String) {
    let mut pause = RETRY_FIRST;
    let mut said = String::new();
    loop {
        let mut up = None;
        let Err(error) = in_touch(&node, &address, &mut up).await;
        if let Some(id) = up {
            node.members.set_down(id);
            pause = RETRY_FIRST;
            tracing::warn!(volume = %id, %address, reason = %error, "volume down");
        } else if said != error.to_string() {
            said = error.to_string();
            tracing::warn!(%address, reason = %said, "no contact with a volume; trying on");
        }
        node.members.note(&address, up, Some(error.to_string()));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

async fn in_touch(node: &Arc<Node>, address: &str, up: &mut Option<VolumeId>) -> Result<std::convert::Infallible, ContactError> {
    let identity = identify(node, address).await?;
    let id = identity.volume;
    if node.members.duties().get(&id) == Some(&Duty::Removed) {
        return Err(ContactError::Removed(id));
    }
    if node.members.is_elsewhere(id, address) {
        return Err(ContactError::Twice(id));
    }
    node.catalog.remember_member(id, address).await.map_err(|e| ContactError::Catalog(e.to_string()))?;
    node.members.known.write().unwrap_or_else(PoisonError::into_inner).insert(id);
    let master = node.address_for(address);
    let (beats, body) = duplex::channel();
    let to = Destination { address, volume: id, target: path::STATUS };
    let now = || Beat {
        time: node.catalog.now(),
        expiry: node.catalog.expiry_now(),
        master: master.clone(),
        reads_need_tickets: node.tokens.is_some(),
    };
    drop(beats.send(duplex::line(&now())).await);
    let answers = node.peers.stream(&node.credentials, to, http::HeaderMap::new(), body, CALL_TIMEOUT).await?;
    let mut lines = LineReader::new(answers);
    let public_url = identity.public_url.unwrap_or_else(|| format!("http://{address}"));
    let mut beat = tokio::time::interval(BEAT);
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::select! {
            status = lines.next::<VolumeStatus>() => {
                let status = status?.ok_or(ContactError::Ended)?;
                heard = tokio::time::Instant::now();
                tell_metrics(id, &status);
                if status.reads_need_tickets != node.tokens.is_some() {
                    return Err(ContactError::Reads);
                }
                let live = Live { address: address.into(), public_url: public_url.clone(), master: master.clone(), status };
                if !node.members.set_live(id, live) {
                    return Err(ContactError::Twice(id));
                }
                if up.is_none() {
                    *up = Some(id);
                    node.members.note(address, *up, None);
                    tracing::info!(volume = %id, %address, "volume up");
                    reclaim::kick(node, id);
                    node.repair.volume_up(id);
                }
            }
            _ = beat.tick() => {
                if heard.elapsed() > SILENCE && !lab::has(Bug::SilentVolumeUp) {
                    return Err(ContactError::Silent);
                }
                // A full channel means that the volume does not read: it will miss its own beats soon.
                drop(beats.try_send(duplex::line(&now())));
            }
        }
    }
}

/// Asks who is at an address, and adopts a volume that belongs to nobody.
async fn identify(node: &Node, address: &str) -> Result<Identity, ContactError> {
    let nobody = VolumeId(uuid::Uuid::nil());
    let to = Destination { address, volume: nobody, target: path::IDENTITY };
    let identity: Identity = node.peers.get(None, to, CALL_TIMEOUT).await?;
    match identity.cluster {
        Some(c) if c == node.credentials.cluster => Ok(identity),
        Some(c) => Err(ContactError::Foreign(c)),
        None => {
            let to = Destination { address, volume: identity.volume, target: path::ADOPT };
            // A configured secret is configured on the volumes too, and never sent.
            let secret = node.config.secret.is_none().then(|| node.secret.expose().to_string());
            let message = Adopt { cluster: node.credentials.cluster, secret };
            let adopted: Identity = node.peers.post_maybe_signed(Some(&node.credentials), to, &message, CALL_TIMEOUT).await?;
            tracing::info!(volume = %adopted.volume, %address, "volume adopted");
            Ok(adopted)
        }
    }
}

fn tell_metrics(id: VolumeId, status: &VolumeStatus) {
    let volume = id.to_string();
    // Gauges are floating point by nature.
    #[allow(clippy::cast_precision_loss)]
    for (name, value) in [
        ("kvdb_volume_total_bytes", status.total_bytes as f64),
        ("kvdb_volume_free_bytes", status.free_bytes as f64),
        ("kvdb_volume_used_bytes", status.used_bytes as f64),
        ("kvdb_volume_values", status.values as f64),
        ("kvdb_volume_prepared", status.prepared as f64),
    ] {
        metrics::gauge!(name, "volume" => volume.clone()).set(value);
    }
}

/// The address of this machine from which `peer` is reached. No packet is sent.
pub(crate) fn local_ip_towards(peer: &str) -> Option<std::net::IpAddr> {
    let any = if peer.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}
