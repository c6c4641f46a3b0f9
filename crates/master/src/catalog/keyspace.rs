//! Layout of the catalog's keys: one ordered keyspace, one prefix byte for each kind of entry.
//! The tables and a worked example are in `docs/format-catalog.md`; a test checks them against this file.

use kvdb_protocol::{Key, TxnId, UnixMillis, VersionId, VolumeId};

/// Format of the whole catalog: the directory, the keys, and where values are found.
pub(super) const CATALOG_FORMAT: u32 = 2;
/// Oldest format that is taken over: it has no journal before the database, and an older master would not look into one.
pub(super) const OLDEST_FORMAT: u32 = 1;

/// Decisions about versions: prefix, epoch (u64, big endian), kind, version[, commit-by (u64, big endian)].
pub(super) const DECISION: u8 = b'd';
/// What volumes are for: prefix and volume id.
pub(super) const DUTY: u8 = b's';
/// Keys whose value expires: prefix, expiry (u64, big endian, ms), key.
pub(super) const EXPIRY: u8 = b'e';
/// Addresses listed besides those of the command line: prefix and address.
pub(super) const LISTED: u8 = b'a';
/// Records: prefix and key.
pub(super) const RECORD: u8 = b'r';
/// Volumes: prefix and volume id.
pub(super) const VOLUME: u8 = b'v';
/// Members of transactions: prefix, transaction, key.
pub(super) const STAGED: u8 = b'u';
/// Transactions: prefix and id.
pub(super) const TXN: u8 = b't';
/// When a transaction is looked at next: prefix, time (u64, big endian, ms), id.
pub(super) const TXN_DUE: u8 = b'w';
/// Transactions of versions that are staged: prefix and version.
pub(super) const STAGED_IN: u8 = b'y';
/// Copies to be removed: prefix, volume id, version.
pub(super) const RECLAIM: u8 = b'x';

// Single values: the prefix `m` and a name.

/// Format of the catalog (u32, little endian).
pub(super) const META_FORMAT: &[u8] = b"mformat";
/// The cluster's id (16 bytes).
pub(super) const META_CLUSTER: &[u8] = b"mcluster";
/// Commit sequence, number of records, bytes of their values.
pub(super) const META_STATE: &[u8] = b"mstate";
/// Exclusive bound of all times and versions given out (u64, little endian).
pub(super) const META_LEASE: &[u8] = b"mlease";
/// At most [`super::clock::LEASE_AHEAD`] after the last known time of the clock that values expire by (u64, little endian).
pub(super) const META_EXPIRY: &[u8] = b"mexpiry";
/// Versions with an earlier time are never committed (u64, little endian). Set by a rebuild or an import.
pub(super) const META_FLOOR: &[u8] = b"mfloor";

const PUT: u8 = b'p';
const DELETE: u8 = b'd';
const BATCH: u8 = b'b';

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(super) fn record(key: &Key) -> Vec<u8> {
    record_at(key.as_bytes())
}

/// The place of a record whose key is or begins with these bytes.
pub(super) fn record_at(key: &[u8]) -> Vec<u8> {
    joined(&[&[RECORD], key])
}

/// That the value of a key expires then.
pub(super) fn expiry(at: UnixMillis, key: &Key) -> Vec<u8> {
    joined(&[&[EXPIRY], &at.0.to_be_bytes(), key.as_bytes()])
}

/// Where the expiries later than `at` begin; none: there can be none.
pub(super) fn expiries_after(at: UnixMillis) -> Option<Vec<u8>> {
    Some(joined(&[&[EXPIRY], &at.0.checked_add(1)?.to_be_bytes()]))
}

/// Time and key of an expiry.
pub(super) fn parse_expiry(key: &[u8]) -> Option<(UnixMillis, Key)> {
    let (at, key) = key.strip_prefix(&[EXPIRY])?.split_at_checked(8)?;
    Some((UnixMillis(u64::from_be_bytes(at.try_into().ok()?)), Key::new(key).ok()?))
}

pub(super) fn txn(id: TxnId) -> Vec<u8> {
    joined(&[&[TXN], id.as_bytes()])
}

pub(super) fn txn_due(at: UnixMillis, id: TxnId) -> Vec<u8> {
    joined(&[&[TXN_DUE], &at.0.to_be_bytes(), id.as_bytes()])
}

/// Where those due later than `at` begin; none: there can be none.
pub(super) fn txns_due_after(at: UnixMillis) -> Option<Vec<u8>> {
    Some(joined(&[&[TXN_DUE], &at.0.checked_add(1)?.to_be_bytes()]))
}

/// Time and transaction of such a key.
pub(super) fn parse_txn_due(key: &[u8]) -> Option<(UnixMillis, TxnId)> {
    let (at, id) = key.strip_prefix(&[TXN_DUE])?.split_at_checked(8)?;
    Some((UnixMillis(u64::from_be_bytes(at.try_into().ok()?)), TxnId::from_bytes(id.try_into().ok()?)))
}

pub(super) fn staged(id: TxnId, key: &Key) -> Vec<u8> {
    joined(&[&[STAGED], id.as_bytes(), key.as_bytes()])
}

pub(super) fn staged_in(version: VersionId) -> Vec<u8> {
    joined(&[&[STAGED_IN], version.as_bytes()])
}

pub(super) fn staged_of(id: TxnId) -> Vec<u8> {
    joined(&[&[STAGED], id.as_bytes()])
}

/// Key of a member.
pub(super) fn parse_staged(at: &[u8]) -> Option<Key> {
    let (_, key) = at.strip_prefix(&[STAGED])?.split_at_checked(16)?;
    Key::new(key).ok()
}

pub(super) fn volume(id: VolumeId) -> Vec<u8> {
    joined(&[&[VOLUME], id.as_bytes()])
}

pub(super) fn duty(id: VolumeId) -> Vec<u8> {
    joined(&[&[DUTY], id.as_bytes()])
}

/// Volume of a duty's key.
pub(super) fn parse_duty(key: &[u8]) -> Option<VolumeId> {
    Some(VolumeId::from_bytes(key.strip_prefix(&[DUTY])?.try_into().ok()?))
}

pub(super) fn listed(address: &str) -> Vec<u8> {
    joined(&[&[LISTED], address.as_bytes()])
}

pub(super) fn reclaim(volume: VolumeId, version: VersionId) -> Vec<u8> {
    joined(&[&[RECLAIM], volume.as_bytes(), version.as_bytes()])
}

pub(super) fn reclaim_of(volume: VolumeId) -> Vec<u8> {
    joined(&[&[RECLAIM], volume.as_bytes()])
}

/// Volume and version of a reclaim entry's key.
pub(super) fn parse_reclaim(key: &[u8]) -> Option<(VolumeId, VersionId)> {
    let (volume, version) = key.strip_prefix(&[RECLAIM])?.split_at_checked(16)?;
    Some((VolumeId::from_bytes(volume.try_into().ok()?), VersionId::from_bytes(version.try_into().ok()?)))
}

/// Volume of a volume entry's key.
pub(super) fn parse_volume(key: &[u8]) -> Option<VolumeId> {
    Some(VolumeId::from_bytes(key.strip_prefix(&[VOLUME])?.try_into().ok()?))
}

/// The first decision of an epoch.
pub(super) fn decisions_from(epoch: u64) -> Vec<u8> {
    joined(&[&[DECISION], &epoch.to_be_bytes()])
}

/// What was decided about storing a version.
pub(super) fn put_decision(epoch: u64, version: VersionId) -> Vec<u8> {
    joined(&[&decisions_from(epoch), &[PUT], version.as_bytes()])
}

/// What was decided about the delete whose ticket saw this version and had this time for its commit.
pub(super) fn delete_decision(epoch: u64, version: VersionId, commit_by: u64) -> Vec<u8> {
    joined(&[&decisions_from(epoch), &[DELETE], version.as_bytes(), &commit_by.to_be_bytes()])
}

/// A part of what is remembered of a batch: its name, and the part's number.
pub(super) fn batch_decision(epoch: u64, name: [u8; 16], part: u16) -> Vec<u8> {
    joined(&[&decisions_from(epoch), &[BATCH], &name, &part.to_be_bytes()])
}

/// The smallest string greater than all that begin with `prefix`; none: there is no such string.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xFF)?;
    let mut next = prefix.get(..=last)?.to_vec();
    *next.get_mut(last)? += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_of_entries_sort_as_what_they_hold_and_are_read_back() {
        let (a, b) = (VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16]));
        let (v, w) = (VersionId::from_parts(1, 0), VersionId::from_parts(2, 0));
        assert!(reclaim(a, v) < reclaim(a, w) && reclaim(a, w) < reclaim(b, v));
        assert_eq!(parse_reclaim(&reclaim(a, w)), Some((a, w)));
        assert_eq!(parse_reclaim(&reclaim_of(a)), None);
        assert_eq!(parse_volume(&volume(b)), Some(b));
        let (k, at) = (Key::new("k").unwrap(), UnixMillis(256));
        assert_eq!(parse_expiry(&expiry(at, &k)), Some((at, k.clone())));
        assert!(expiry(UnixMillis(255), &k) < expiry(at, &k) && Some(expiry(at, &k)) < expiries_after(at));
        assert!(expiries_after(UnixMillis(255)) <= Some(expiry(at, &k)) && expiries_after(UnixMillis(u64::MAX)).is_none());
        let txn = TxnId::from_bytes([3; 16]);
        assert_eq!((parse_txn_due(&txn_due(at, txn)), parse_staged(&staged(txn, &k))), (Some((at, txn)), Some(k.clone())));
        assert!(Some(txn_due(at, txn)) < txns_due_after(at) && txns_due_after(UnixMillis(255)) <= Some(txn_due(at, txn)));
        assert_eq!((parse_staged(&staged_of(txn)), parse_txn_due(&self::txn(txn))), (None, None));
        assert!(put_decision(1, w) < put_decision(2, v) && delete_decision(255, v, 0) < put_decision(256, v));
    }

    proptest! {
        #[test]
        fn the_successor_is_the_bound_of_a_prefix(p in proptest::collection::vec(any::<u8>(), 0..6), k in proptest::collection::vec(any::<u8>(), 0..8)) {
            match successor(&p) {
                Some(s) => prop_assert_eq!(k.starts_with(&p), k >= p && k < s),
                None => prop_assert_eq!(k.starts_with(&p), k >= p),
            }
        }
    }
}
