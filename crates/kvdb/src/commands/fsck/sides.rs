//! The two sides of the comparison: pages of the catalog's records and of the volumes' indexes, and second looks.

use super::judge::Sides;
use crate::operator::Operator;
use anyhow::Context as _;
use kvdb_master::catalog::exported::KeyRecord;
use kvdb_master::export::{Look, Page, Seen};
use kvdb_protocol::message::{EntriesPage, Entry, path};
use kvdb_protocol::{Key, VersionId, VolumeId, operator};
use kvdb_volume::format::record::entry_key;
use std::collections::VecDeque;
use std::time::Duration;

/// Entries of a page: what memory holds of each volume.
const PAGE: usize = 1000;
/// Entries of a page when one key is asked for.
const FEW: usize = 32;
/// Looks at a key that goes on changing, and the pause between them.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(300);

/// A volume that is asked.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) id: VolumeId,
    pub(super) address: String,
}

impl Volume {
    /// A page of its index after a place in it.
    pub(super) async fn page(&self, operator: &Operator, after: Option<&str>, limit: usize) -> anyhow::Result<EntriesPage> {
        let from = after.map(|a| format!("after={a}&")).unwrap_or_default();
        let target = format!("{}?{from}limit={limit}", path::ENTRIES);
        operator.get_from(&self.address, self.id, &target).await.with_context(|| format!("the index of volume {} cannot be read", self.id))
    }
}

fn key_of(entry: &Entry) -> &Key {
    match entry {
        Entry::Value(v) => &v.key,
        Entry::Tombstone { key, .. } => key,
    }
}

/// A volume's index, in order of key.
pub(super) struct Index<'a> {
    pub(super) volume: &'a Volume,
    page: VecDeque<Entry>,
    /// Where the next page begins; the outer none: there is none.
    next: Option<Option<String>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        Self { volume, page: VecDeque::new(), next: Some(None) }
    }

    /// The key that comes next.
    pub(super) async fn key(&mut self, operator: &Operator) -> anyhow::Result<Option<&Key>> {
        while self.page.is_empty() {
            let Some(after) = self.next.take() else { return Ok(None) };
            let page = self.volume.page(operator, after.as_deref(), PAGE).await?;
            (self.page, self.next) = (page.entries.into(), page.next.map(Some));
        }
        Ok(self.page.front().map(key_of))
    }

    /// Takes what comes next, if it is of this key.
    pub(super) fn take(&mut self, key: &Key) -> Option<Entry> {
        if self.page.front().is_some_and(|e| key_of(e) == key) { self.page.pop_front() } else { None }
    }
}

/// The catalog's records, in order of key.
#[derive(Default)]
pub(super) struct Records {
    page: VecDeque<KeyRecord>,
    after: Option<Key>,
    ended: bool,
}

impl Records {
    pub(super) async fn key(&mut self, operator: &Operator) -> anyhow::Result<Option<&Key>> {
        if self.page.is_empty() && !self.ended {
            let page: Vec<KeyRecord> = operator.ask(operator::path::RECORDS, &Page { after: self.after.take() }).await?;
            self.after = page.last().map(|r| r.key.clone());
            (self.ended, self.page) = (page.is_empty(), page.into());
        }
        Ok(self.page.front().map(|r| &r.key))
    }

    pub(super) fn take(&mut self, key: &Key) -> Option<KeyRecord> {
        if self.page.front().is_some_and(|r| r.key == *key) { self.page.pop_front() } else { None }
    }
}

impl Sides {
    pub(super) fn add(&mut self, volume: VolumeId, entry: Entry) {
        match entry {
            Entry::Value(value) => self.held.push((volume, value)),
            Entry::Tombstone { deleted, .. } => self.tombstones.push((volume, deleted)),
        }
    }

    fn copies(&self) -> Vec<(VolumeId, VersionId)> {
        self.held.iter().map(|(volume, e)| (*volume, e.version)).collect()
    }
}

/// Both sides of a key as of one moment, with the copies that are to be removed; none: it goes on changing.
///
/// The volumes are read, then the catalog, then both again. If nothing differs, then what is missing at a volume was
/// missing while the record named it, and what no record named and no list had to be removed was there all the while.
pub(super) async fn look(
    operator: &Operator,
    volumes: &[Volume],
    key: &Key,
) -> anyhow::Result<Option<(Sides, Vec<(VolumeId, VersionId)>)>> {
    for n in 0..LOOKS {
        if n > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let held = entries(operator, volumes, key).await?;
        let seen = ask(operator, key, &held).await?;
        if entries(operator, volumes, key).await? != held || ask(operator, key, &held).await? != seen {
            continue;
        }
        let reclaimed = held.copies().into_iter().zip(seen.reclaimed).filter_map(|(copy, listed)| listed.then_some(copy)).collect();
        return Ok(Some((Sides { record: seen.record, ..held }, reclaimed)));
    }
    Ok(None)
}

async fn ask(operator: &Operator, key: &Key, held: &Sides) -> anyhow::Result<Seen> {
    operator.ask(operator::path::LOOK, &Look { key: key.clone(), copies: held.copies() }).await
}

/// What the volumes hold of a key.
async fn entries(operator: &Operator, volumes: &[Volume], key: &Key) -> anyhow::Result<Sides> {
    let mut sides = Sides::default();
    for volume in volumes {
        // The place before the first version.
        let place = entry_key(key, VersionId::from_bytes([0; 16]));
        let mut after = Some(place.iter().map(|b| format!("{b:02x}")).collect::<String>());
        while let Some(from) = after.take() {
            let page = volume.page(operator, Some(&from), FEW).await?;
            let all_of_key = page.entries.iter().all(|e| key_of(e) == key);
            page.entries.into_iter().filter(|e| key_of(e) == key).for_each(|e| sides.add(volume.id, e));
            after = page.next.filter(|_| all_of_key);
        }
    }
    Ok(sides)
}
