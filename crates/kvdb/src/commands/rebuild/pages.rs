//! A volume's index, read a page at a time.

use super::TIMEOUT;
use kvdb_master::rebuild::Entries;
use kvdb_protocol::VolumeId;
use kvdb_protocol::message::{EntriesPage, Entry, path};
use kvdb_server::peer::{Credentials, Destination, PeerError, Peers};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Entries of a page: what memory holds of each volume.
const PAGE: usize = 1000;

/// One volume's entries, in order. The iterator blocks while a page comes, so it belongs on a thread that may.
pub(super) struct Pages {
    peers: Peers,
    credentials: Credentials,
    volume: VolumeId,
    address: String,
    runtime: Handle,
    stop: CancellationToken,
    page: std::vec::IntoIter<Entry>,
    /// After what the next page begins, empty at first; none: there is no more.
    after: Option<String>,
}

impl Pages {
    /// To be made within the runtime that will do the calls; `stop` ends them.
    pub(super) fn new(peers: Peers, credentials: Credentials, volume: VolumeId, address: String, stop: CancellationToken) -> Self {
        let (runtime, page) = (Handle::current(), Vec::new().into_iter());
        Self { peers, credentials, volume, address, runtime, stop, page, after: Some(String::new()) }
    }

    /// Whether the volume shows its index to these credentials.
    pub(super) async fn check(&self) -> Result<(), PeerError> {
        self.fetch("", 1).await.map(drop)
    }

    /// As the merge takes it.
    pub(super) fn entries(self) -> Entries {
        Box::new(self)
    }

    async fn fetch(&self, after: &str, limit: usize) -> Result<EntriesPage, PeerError> {
        let from = if after.is_empty() { String::new() } else { format!("&after={after}") };
        let target = format!("{}?limit={limit}{from}", path::ENTRIES);
        let to = Destination { address: &self.address, volume: self.volume, target: &target };
        self.peers.get(Some(&self.credentials), to, TIMEOUT).await
    }

    fn next_page(&mut self, after: &str) -> Result<(), String> {
        let fetched = self.runtime.block_on(self.stop.run_until_cancelled(self.fetch(after, PAGE)));
        let page = fetched.ok_or("the rebuild was interrupted")?.map_err(|e| e.to_string())?;
        self.page = page.entries.into_iter();
        self.after = page.next;
        Ok(())
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
            if let Err(why) = self.next_page(&after) {
                return Some(Err(why));
            }
        }
    }
}
