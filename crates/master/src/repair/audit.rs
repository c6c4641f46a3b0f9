//! Compares a volume's index with the catalog, to find copies that the volume should hold and does not:
//! its index was damaged, or its directory is an older one.

use crate::node::Node;
use kvdb_protocol::message::{EntriesPage, Entry, ValueEntry, path};
use kvdb_protocol::{Key, VolumeId};
use kvdb_server::peer::Destination;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const PAGE: usize = 1000;
/// Between two pages, so that the audit of a large volume leaves room for others.
const PAUSE: Duration = Duration::from_millis(5);

/// Goes over the catalog and the volume's index side by side, and notes as bad what is missing or differs.
/// What changes meanwhile may be noted, too: a look at the volume then finds the copy.
pub(super) async fn audit(node: &Arc<Node>, volume: VolumeId) -> Result<(), String> {
    // First, so that a copy reported from now on has it audited again.
    node.repair.audited(volume);
    let result = compare(node, volume).await;
    match result {
        Ok(missing) if missing > 0 => tracing::error!(%volume, missing, "a volume lacks copies that it should hold; they are made anew"),
        Ok(_) => tracing::debug!(%volume, "a volume holds what it should"),
        Err(_) => node.repair.volume_up(volume),
    }
    result.map(drop)
}

async fn compare(node: &Arc<Node>, volume: VolumeId) -> Result<u64, String> {
    let mut index = Index { node, volume, page: VecDeque::new(), next: Some(None) };
    let (mut after, mut missing): (Option<Key>, u64) = (None, 0);
    loop {
        let records = node.catalog.records(after, PAGE).await.map_err(|e| e.to_string())?;
        let Some((last, _)) = records.last() else { return Ok(missing) };
        after = Some(last.clone());
        let now = node.catalog.expiry_now();
        for (key, record) in records.into_iter().filter(|(_, r)| r.replicas.contains(&volume) && !r.expired(now)) {
            let held = index.of_key(&key).await?;
            if held.iter().any(|e| (e.version, e.len, e.hash) == (record.version, record.len, record.hash)) {
                continue;
            }
            // Written or removed while the two were read?
            let current = node.catalog.lookup(&key).await.map_err(|e| e.to_string())?;
            if current.is_some_and(|c| c.version == record.version && c.replicas.contains(&volume)) {
                missing += 1;
                node.repair.note_bad(volume, key, record.version);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A volume's index, in order of key.
struct Index<'a> {
    node: &'a Node,
    volume: VolumeId,
    page: VecDeque<Entry>,
    /// Where the next page begins; the outer none: there is none.
    next: Option<Option<String>>,
}

impl Index<'_> {
    /// The values of a key; keys are asked for in order.
    async fn of_key(&mut self, key: &Key) -> Result<Vec<ValueEntry>, String> {
        let mut held = Vec::new();
        loop {
            let Some(entry) = self.page.front() else {
                if !self.turn().await? {
                    return Ok(held);
                }
                continue;
            };
            let at = match entry {
                Entry::Value(v) => &v.key,
                Entry::Tombstone { key, .. } => key,
            };
            if at > key {
                return Ok(held);
            }
            let same = at == key;
            if let Some(Entry::Value(value)) = self.page.pop_front()
                && same
            {
                held.push(value);
            }
        }
    }

    /// Gets the next page; false at the end.
    async fn turn(&mut self) -> Result<bool, String> {
        let Some(after) = self.next.take() else { return Ok(false) };
        let address = self.node.members.live().get(&self.volume).map(|l| l.address.clone()).ok_or("the volume went down")?;
        let from = after.map(|a| format!("after={a}&")).unwrap_or_default();
        let target = format!("{}?{from}limit={PAGE}", path::ENTRIES);
        let to = Destination { address: &address, volume: self.volume, target: &target };
        let page: EntriesPage = self.node.peers.get(Some(&self.node.credentials), to, CALL_TIMEOUT).await.map_err(|e| e.to_string())?;
        self.page = page.entries.into();
        self.next = page.next.map(Some);
        Ok(true)
    }
}
