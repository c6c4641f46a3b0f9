//! What all parts of a running volume share.

use crate::checked::CheckedValues;
use crate::clock::ClusterClock;
use crate::commit_calls::CommitCalls;
use crate::config::Config;
use crate::fetch_log::FetchLog;
use crate::scrub::Scrub;
use crate::store::{Store, StoreError};
use crate::used::UsedTickets;
use kvdb_protocol::limits::MAX_REPLICAS;
use kvdb_protocol::message::ReclaimItem;
use kvdb_protocol::{ClusterId, ClusterSecret, ErrorCode, Key, Problem, Ticket, TicketKey, VersionId, VolumeId};
use kvdb_server::peer::{Credentials, Peers};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// Copies from other volumes at a time; more wait. Each holds about 3 MiB.
const MAX_FETCHES: usize = 4;

/// A running volume.
pub(crate) struct Node {
    pub store: Arc<Store>,
    pub config: Config,
    pub peers: Peers,
    pub clock: ClusterClock,
    /// What values expire by.
    pub expiry_clock: ClusterClock,
    /// Commits on their way to the master.
    pub commit_calls: CommitCalls,
    /// Places for uploads, by place in the chain: whoever holds one of a place waits only for one of the next, so no
    /// two volumes can wait for each other.
    pub uploads: Vec<Arc<Semaphore>>,
    /// What was read from the disk and found right.
    pub checked: CheckedValues,
    /// Memory for bytes of values on their way from disk to clients, in KiB.
    pub read_memory: Arc<Semaphore>,
    /// Memory for values whose content is checked, in KiB.
    pub content_memory: Arc<Semaphore>,
    /// Places for copies from other volumes.
    pub fetches: Semaphore,
    /// Held for writing while a fetch looks at what is here, and for reading from when a removal was checked until it is done.
    pub fetch_log: tokio::sync::RwLock<FetchLog>,
    /// Wakes the settling of prepared versions.
    pub settle_soon: Notify,
    /// A master has come in touch: it is asked for all prepared versions at once, as its word of some may have been missed.
    pub ask_for_all: AtomicBool,
    /// Wakes the telling of bad copies.
    pub tell_soon: Notify,
    pub scrub: Scrub,
    /// The volume is to stop: streams that have no end of their own end now.
    pub stopping: CancellationToken,
    /// Clients read only what a ticket permits.
    reads_need_tickets: AtomicBool,
    membership: RwLock<Option<Membership>>,
    master: Mutex<Option<String>>,
    in_flight: Mutex<HashSet<VersionId>>,
    used: Mutex<UsedTickets>,
    busy: AtomicU64,
    contacts: AtomicU64,
}

/// What belonging to a cluster brings.
#[derive(Clone)]
pub(crate) struct Membership {
    pub credentials: Credentials,
    pub tickets: TicketKey,
}

impl Membership {
    pub fn new(cluster: ClusterId, secret: &ClusterSecret) -> Self {
        Self { credentials: Credentials { cluster, key: secret.peer_key() }, tickets: secret.ticket_key() }
    }
}

impl Node {
    pub fn new(store: Store, config: Config, peers: Peers, stopping: CancellationToken) -> Self {
        let membership = match (store.cluster(), config.secret.clone().or_else(|| store.secret())) {
            (Some(cluster), Some(secret)) => Some(Membership::new(cluster, &secret)),
            _ => None,
        };
        // As it was when a master was last in touch: a volume must not be open while none is.
        let reads_need_tickets = AtomicBool::new(store.reads_need_tickets());
        Self {
            uploads: (0..MAX_REPLICAS).map(|_| Arc::new(Semaphore::new(config.max_uploads))).collect(),
            checked: CheckedValues::default(),
            read_memory: Arc::new(Semaphore::new(config.read_memory_kib())),
            content_memory: crate::content::memory(),
            scrub: Scrub::open(&config.dir, store.volume()),
            store: Arc::new(store),
            config,
            peers,
            clock: ClusterClock::new(),
            expiry_clock: ClusterClock::new(),
            commit_calls: CommitCalls::default(),
            fetches: Semaphore::new(MAX_FETCHES),
            fetch_log: tokio::sync::RwLock::default(),
            settle_soon: Notify::new(),
            ask_for_all: AtomicBool::new(false),
            tell_soon: Notify::new(),
            stopping,
            reads_need_tickets,
            membership: RwLock::new(membership),
            master: Mutex::new(None),
            in_flight: Mutex::new(HashSet::new()),
            used: Mutex::default(),
            busy: AtomicU64::new(0),
            contacts: AtomicU64::new(0),
        }
    }

    pub fn volume(&self) -> VolumeId {
        self.store.volume()
    }

    /// The cluster that it belongs to; 503 while it belongs to none.
    pub fn membership(&self) -> Result<Membership, Problem> {
        self.membership
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| Problem::new(ErrorCode::Unavailable, "this volume belongs to no cluster yet; put it on a master's list"))
    }

    pub fn set_membership(&self, membership: Membership) {
        *self.membership.write().unwrap_or_else(PoisonError::into_inner) = Some(membership);
    }

    /// Where the master was last heard from, as `host:port`.
    pub fn master(&self) -> Option<String> {
        lock(&self.master).clone()
    }

    pub fn set_master(&self, address: &str) {
        let mut master = lock(&self.master);
        if master.as_deref() != Some(address) {
            *master = Some(address.to_string());
        }
    }

    /// Whether clients read only what a ticket permits.
    pub fn reads_need_tickets(&self) -> bool {
        self.reads_need_tickets.load(Ordering::Relaxed)
    }

    /// Does as the master says from now on, and keeps it for the next start.
    pub async fn set_reads_need_tickets(&self, needed: bool) -> Result<(), Problem> {
        let before = self.reads_need_tickets.swap(needed, Ordering::Relaxed);
        if before != needed {
            tracing::info!(needed, "whether reads need tickets has changed");
        }
        // What could not be kept is tried again at the next beat.
        if self.store.reads_need_tickets() == needed {
            return Ok(());
        }
        self.with_store(move |s| s.keep_reads_need_tickets(needed)).await
    }

    /// Decodes a ticket, checks that it may be started now, and finds this volume's place in it.
    pub fn ticket(&self, text: &str) -> Result<(Ticket, usize), Problem> {
        let membership = self.membership()?;
        let ticket = Ticket::decode(text, &membership.tickets, membership.credentials.cluster)?;
        ticket.check_start(self.clock.now())?;
        let at = ticket
            .volumes
            .iter()
            .position(|v| v.id == self.volume())
            .ok_or_else(|| Problem::new(ErrorCode::Misdirected, "the ticket is for other volumes"))?;
        Ok((ticket, at))
    }

    /// The same for a request of a client, whose URL names the key, too.
    pub fn ticket_for(&self, key: &Key, text: &str) -> Result<(Ticket, usize), Problem> {
        let (ticket, at) = self.ticket(text)?;
        if ticket.key != *key {
            return Err(Problem::new(ErrorCode::BadTicket, "the ticket is for another key than the URL; ask the master again"));
        }
        Ok((ticket, at))
    }

    /// Claims a version for one upload; a ticket cannot be used twice at once.
    pub fn claim(self: &Arc<Self>, version: VersionId) -> Result<Claim, Problem> {
        // Held over both looks: a version is noted as used before its claim ends.
        let used = lock(&self.used);
        if used.contains(version) {
            return Err(Problem::new(ErrorCode::BadTicket, "the ticket has been used; ask the master again"));
        }
        if !lock(&self.in_flight).insert(version) {
            return Err(Problem::new(ErrorCode::BadTicket, "the ticket is in use by another request"));
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        Ok(Claim { node: self.clone(), version })
    }

    /// Claims a version for one copy from another volume.
    pub fn claim_copy(self: &Arc<Self>, version: VersionId) -> Result<Claim, Problem> {
        if !lock(&self.in_flight).insert(version) {
            return Err(Problem::new(ErrorCode::Busy, "the version is being written here; try again"));
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        Ok(Claim { node: self.clone(), version })
    }

    /// The ticket's commit is about to be asked for: it is good for no other upload.
    pub fn note_used(&self, ticket: &Ticket) {
        lock(&self.used).note(ticket.version, ticket.start_by, self.clock.now());
    }

    pub fn is_in_flight(&self, version: VersionId) -> bool {
        lock(&self.in_flight).contains(&version)
    }

    /// Counts a request that carries a value's bytes, until dropped.
    pub fn busy_guard(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Counts a status stream of a master, until dropped.
    pub fn contact_guard(self: &Arc<Self>) -> Contact {
        self.contacts.fetch_add(1, Ordering::Relaxed);
        self.ask_for_all.store(true, Ordering::SeqCst);
        Contact(self.clone())
    }

    /// Whether a master is in touch.
    pub fn in_touch(&self) -> bool {
        self.contacts.load(Ordering::Relaxed) > 0
    }

    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Removes versions, as [`Store::remove`] does.
    pub async fn remove(&self, items: Vec<ReclaimItem>) -> Result<(), Problem> {
        self.store.remove_in_task(items).await.map_err(|e| e.to_problem())
    }

    /// Runs a whole operation of the store on a thread where it may block.
    pub async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(|e| e.to_problem()),
            Err(e) => Err(Problem::new(ErrorCode::Internal, format!("a storage task failed: {e}"))),
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole after every statement, so a panic elsewhere does not spoil it.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A version claimed for one upload, until its outcome is known here.
pub(crate) struct Claim {
    node: Arc<Node>,
    version: VersionId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.node.in_flight).remove(&self.version);
        self.node.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request in flight that carries a value's bytes.
pub(crate) struct Busy(Arc<Node>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A status stream of a master.
pub(crate) struct Contact(Arc<Node>);

impl Drop for Contact {
    fn drop(&mut self) {
        self.0.contacts.fetch_sub(1, Ordering::Relaxed);
    }
}
