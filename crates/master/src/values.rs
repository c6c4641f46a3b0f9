//! Pages of small values with their keys: of keys that are named (`GET /?get&key=a&key=b`), or that begin alike
//! (`GET /prefix?list&values`).
//!
//! A page is of one moment: its records are looked at together, and the values fetched by version. A version that was replaced
//! meanwhile is gone from its volumes; then the records are looked at again. What was fetched before is kept: a version
//! never changes.

use crate::catalog::{ListEntry, ListQuery, Record};
use crate::node::Node;
use crate::read;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use kvdb_protocol::limits::{MAX_VALUES_PAGE_BYTES, MAX_VALUES_PAGE_KEYS};
use kvdb_protocol::message::path;
use kvdb_protocol::{ContentHash, ErrorCode, Key, Problem, VersionId, VolumeId};
use kvdb_server::peer::{Destination, PeerError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Values of all pages that are in memory at a time, in KiB; each counts for one more than it has.
const MEMORY_KIB: u32 = 16 << 10;
/// How long a page waits for its share of that.
const MEMORY_WAIT: Duration = Duration::from_secs(5);
/// Values of one page that are fetched at a time.
const AT_ONCE: usize = 16;
/// How often records are looked at for one page.
const MAX_LOOKS: usize = 8;
/// A volume that does not answer in this time is passed over.
const PATIENCE: Duration = Duration::from_secs(10);

/// What bounds the memory of pages.
pub(crate) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MEMORY_KIB as usize))
}

/// A key of a page.
pub(crate) struct Found {
    pub key: Key,
    pub record: Record,
    /// The value, checked; none where it is longer than was asked for.
    pub value: Option<Bytes>,
}

/// A page.
#[derive(Default)]
pub(crate) struct Values {
    /// In the order asked, or ascending.
    pub found: Vec<Found>,
    /// Keys that were named and have no value.
    pub missing: Vec<Key>,
    /// Common prefixes of a list.
    pub prefixes: Vec<Vec<u8>>,
    /// Where to go on: of named keys, the first that is left out; of a list, the `start` of the next page.
    pub next: Option<Vec<u8>>,
    /// Its share of the memory, to be kept as long as the values.
    pub memory: Option<OwnedSemaphorePermit>,
}

/// What a page is of.
struct Asked<'a> {
    of: Of<'a>,
    /// Longer values are left out, in bytes; at most [`MAX_VALUES_PAGE_BYTES`].
    longest: u64,
}

#[derive(Clone, Copy)]
enum Of<'a> {
    Keys(&'a [Key]),
    List(&'a ListQuery),
}

/// What a look at the records found.
enum Item {
    Value(Key, Record),
    Missing(Key),
    Prefix(Vec<u8>),
}

/// The values of these keys, each named once, as far as they have a place on one page; none longer than `longest` bytes.
pub(crate) async fn of_keys(node: &Node, keys: &[Key], longest: u64) -> Result<Values, Problem> {
    page(node, Asked { of: Of::Keys(keys), longest: longest.min(MAX_VALUES_PAGE_BYTES) }).await
}

/// A page of a list, with values; none longer than `longest` bytes.
pub(crate) async fn of_list(node: &Node, query: &ListQuery, longest: u64) -> Result<Values, Problem> {
    page(node, Asked { of: Of::List(query), longest: longest.min(MAX_VALUES_PAGE_BYTES) }).await
}

async fn page(node: &Node, asked: Asked<'_>) -> Result<Values, Problem> {
    let (mut fetched, mut memory) = (HashMap::new(), None);
    for _ in 0..MAX_LOOKS {
        let (items, next) = look(node, &asked).await?;
        let small: Vec<(&Key, &Record)> = items.small().collect();
        grow(node, &mut memory, small.iter().map(|(_, r)| kib(r)).sum()).await?;
        fetched.retain(|version, _| small.iter().any(|(_, r)| r.version == *version));
        let wanted: Vec<(Key, Record)> =
            small.into_iter().filter(|(_, r)| !fetched.contains_key(&r.version)).map(|(k, r)| (k.clone(), r.clone())).collect();
        let fetches = wanted.into_iter().map(|(key, record)| fetch(node, key, record));
        let new: Vec<(VersionId, Option<Bytes>)> = stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect().await?;
        let whole = new.iter().all(|(_, value)| value.is_some());
        fetched.extend(new.into_iter().filter_map(|(version, value)| Some((version, value?))));
        if whole {
            return Ok(items.into_values(next, &fetched, memory));
        }
    }
    Err(Problem::new(ErrorCode::Busy, "values were replaced faster than they could be read together; try again, or ask for fewer"))
}

/// Looks at the records, all at one moment, and leaves out what has no place on the page.
async fn look(node: &Node, asked: &Asked<'_>) -> Result<(Items, Option<Vec<u8>>), Problem> {
    match asked.of {
        Of::Keys(keys) => {
            let some = keys.get(..MAX_VALUES_PAGE_KEYS).unwrap_or(keys);
            let records = node.catalog.lookup_all(some).await.map_err(|e| e.problem())?;
            let item = |(key, record): (&Key, Option<Record>)| match record {
                Some(record) => Item::Value(key.clone(), record),
                None => Item::Missing(key.clone()),
            };
            let items = Items::that_fit(some.iter().zip(records).map(item), asked.longest);
            let next = keys.get(items.all.len()).map(|k| k.as_bytes().to_vec());
            Ok((items, next))
        }
        Of::List(query) => {
            let page = node.catalog.list(query).await.map_err(|e| e.problem())?;
            let all = page.entries.len();
            let item = |entry| match entry {
                ListEntry::Prefix(prefix) => Item::Prefix(prefix),
                ListEntry::Key { key, record: Some(record) } => Item::Value(key, record),
                ListEntry::Key { key, record: None } => Item::Missing(key),
            };
            let items = Items::that_fit(page.entries.into_iter().map(item), asked.longest);
            let next = if items.all.len() < all { items.all.last().map(Item::bytes) } else { page.next };
            Ok((items, next))
        }
    }
}

impl Item {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Value(key, _) | Self::Missing(key) => key.as_bytes().to_vec(),
            Self::Prefix(prefix) => prefix.clone(),
        }
    }
}

/// A value, its key and what else is told of it take this share of the memory.
fn kib(record: &Record) -> u32 {
    u32::try_from(record.len.div_ceil(1024)).map_or(u32::MAX, |n| n.saturating_add(1))
}

/// What a look found, in order.
struct Items {
    all: Vec<Item>,
    longest: u64,
}

impl Items {
    /// Those from the first on whose values have a place on a page.
    fn that_fit(items: impl Iterator<Item = Item>, longest: u64) -> Self {
        let mut left = MAX_VALUES_PAGE_BYTES;
        let fits = |item: &Item| match item {
            Item::Value(_, record) if record.len <= longest => {
                let fits = record.len <= left;
                left = left.saturating_sub(record.len);
                fits
            }
            _ => true,
        };
        Self { all: items.take_while(fits).collect(), longest }
    }

    /// The values that are fetched.
    fn small(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.all.iter().filter_map(|item| match item {
            Item::Value(key, record) if record.len <= self.longest => Some((key, record)),
            _ => None,
        })
    }

    fn into_values(self, next: Option<Vec<u8>>, fetched: &HashMap<VersionId, Bytes>, memory: Option<OwnedSemaphorePermit>) -> Values {
        let mut values = Values { next, memory, ..Values::default() };
        for item in self.all {
            match item {
                Item::Value(key, record) => {
                    let value = fetched.get(&record.version).cloned();
                    values.found.push(Found { key, record, value });
                }
                Item::Missing(key) => values.missing.push(key),
                Item::Prefix(prefix) => values.prefixes.push(prefix),
            }
        }
        values
    }
}

/// Has a share of the memory of at least `wanted` KiB, or of all there is.
pub(crate) async fn grow(node: &Node, held: &mut Option<OwnedSemaphorePermit>, wanted: u32) -> Result<(), Problem> {
    let has = held.as_ref().map_or(0, |h| u32::try_from(h.num_permits()).unwrap_or(u32::MAX));
    let more = wanted.min(MEMORY_KIB).saturating_sub(has);
    let busy = |_| Problem::new(ErrorCode::Busy, "other pages of values take all the memory there is for them; try again");
    let permit = tokio::time::timeout(MEMORY_WAIT, node.page_memory.clone().acquire_many_owned(more)).await.map_err(busy)?;
    let permit = permit.map_err(|_| Problem::new(ErrorCode::Unavailable, "the master is stopping"))?;
    match held {
        Some(held) => held.merge(permit),
        None => *held = Some(permit),
    }
    Ok(())
}

/// The bytes of a version, from any volume that has them; none where none has it any more.
async fn fetch(node: &Node, key: Key, record: Record) -> Result<(VersionId, Option<Bytes>), Problem> {
    let (mut tried, mut gone, mut last): (Vec<VolumeId>, bool, Option<String>) = (Vec::new(), false, None);
    while let Some((volume, address)) = next_replica(node, &record, &tried) {
        tried.push(volume);
        match tokio::time::timeout(PATIENCE, fetch_from(node, volume, &address, &key, &record)).await {
            Ok(Ok(bytes)) => return Ok((record.version, Some(bytes))),
            Ok(Err(PeerError::Refused { problem, .. })) if problem.code == ErrorCode::NotFound => gone = true,
            Ok(Err(error)) => last = Some(error.to_string()),
            Err(_) => last = Some(format!("{address} does not answer in time")),
        }
    }
    match (gone, last) {
        (true, _) => Ok((record.version, None)),
        (false, why) => {
            let why = why.unwrap_or_else(|| "none of its volumes is up".into());
            Err(Problem::new(ErrorCode::NoReplica, format!("the value of {key} cannot be read: {why}")))
        }
    }
}

fn next_replica(node: &Node, record: &Record, tried: &[VolumeId]) -> Option<(VolumeId, String)> {
    read::replica(node, record, tried).map(|(id, live)| (id, live.address.clone()))
}

async fn fetch_from(node: &Node, volume: VolumeId, address: &str, key: &Key, record: &Record) -> Result<Bytes, PeerError> {
    let target = format!("{}?v={}&key={}", path::BLOB, record.version, key.to_query());
    let mut body = node.peers.download(&node.credentials, Destination { address, volume, target: &target }, PATIENCE).await?;
    let broken = |detail: String| PeerError::Broken { address: address.into(), detail };
    let mut bytes = Vec::with_capacity(usize::try_from(record.len.min(MAX_VALUES_PAGE_BYTES)).unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| broken(e.to_string()))?.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > record.len {
            return Err(broken("it sends more than the value has".into()));
        }
        bytes.extend_from_slice(&data);
    }
    if ContentHash::of(&bytes) != record.hash {
        return Err(broken("what it sends is not the value".into()));
    }
    Ok(bytes.into())
}
