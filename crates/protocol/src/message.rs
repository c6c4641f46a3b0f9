//! What servers say to each other, as JSON unless noted. Paths and order of calls: `docs/protocol.md`.

use crate::error::Problem;
use crate::hash::ContentHash;
use crate::id::{ClusterId, VersionId, VolumeId};
use crate::key::Key;
use crate::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// Paths of the calls between servers.
pub mod path {
    /// Volume, `GET`, unsigned: [`super::Identity`].
    pub const IDENTITY: &str = "/-/peer/identity";
    /// Volume, `POST` [`super::Adopt`] → [`super::Identity`]. Unsigned only while it belongs to no cluster and has no secret.
    pub const ADOPT: &str = "/-/peer/adopt";
    /// Volume, `POST`, a stream both ways: lines of [`super::Beat`] against lines of [`super::VolumeStatus`].
    pub const STATUS: &str = "/-/peer/status";
    /// Volume, `POST`, a stream both ways: frames of [`crate::chain`]. Query: `ticket`, `at`, `len`.
    pub const CHAIN: &str = "/-/peer/chain";
    /// Volume, `POST` [`super::Reclaim`] → empty 200 once durable.
    pub const RECLAIM: &str = "/-/peer/reclaim";
    /// Volume, `GET`, query `after` (hex) and `limit`: [`super::EntriesPage`].
    pub const ENTRIES: &str = "/-/peer/entries";
    /// Volume, `POST` [`super::Fetch`] → [`super::Prepared`] once the copy is durable.
    pub const FETCH: &str = "/-/peer/fetch";
    /// Volume, `GET`, query `key` and `v`: the bytes of a value, each checked before it is sent.
    pub const BLOB: &str = "/-/peer/blob";
    /// Volume, `POST` [`super::Keep`] → empty 200: fetched copies that are replicas now.
    pub const KEEP: &str = "/-/peer/keep";
    /// Volume, `POST` of nothing → empty 200: begin a scrub now.
    pub const SCRUB: &str = "/-/peer/scrub";
    /// Master, `POST` [`super::Bad`] → empty 200.
    pub const BAD: &str = "/-/peer/bad";
    /// Master, `POST` [`super::Commits`] → a [`super::CommitResult`] for each, in their order.
    pub const COMMITS: &str = "/-/peer/commits";
    /// Master, `POST`, a ticket as text, unsigned: [`super::Resolved`].
    pub const OUTCOME: &str = "/-/outcome";
    /// Master, `POST` [`super::Settle`] → [`super::SettleAnswer`].
    pub const SETTLE: &str = "/-/peer/settle";
}

/// Who a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The volume.
    pub volume: VolumeId,
    /// The cluster it belongs to; none: it can be adopted.
    pub cluster: Option<ClusterId>,
    /// Where clients reach it, as `http://host:port`; none: where the cluster does.
    pub public_url: Option<String>,
    /// Format of its directory.
    pub format: u32,
    /// Whether a master is in touch with it now.
    #[serde(default)]
    pub in_touch: bool,
}

/// A master takes an empty volume into its cluster.
#[derive(Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// The cluster.
    pub cluster: ClusterId,
    /// Handed over where none was configured on the volume. Never logged.
    pub secret: Option<String>,
}

/// What a master says once a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The cluster's time.
    pub time: UnixMillis,
    /// The time that values expire by; without it nothing expires.
    #[serde(default)]
    pub expiry: UnixMillis,
    /// Where this volume reaches the master, as `host:port`.
    pub master: String,
    /// Whether the volume serves clients' reads only with a ticket.
    #[serde(default)]
    pub reads_need_tickets: bool,
}

/// What a volume says once a second, and at once when `writable` changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Size of the file system, or the volume's capacity where that is less, in bytes.
    pub total_bytes: u64,
    /// Bytes that new values may still take: free, less what is reserved and what is kept back.
    pub free_bytes: u64,
    /// Bytes of the values that it holds.
    pub used_bytes: u64,
    /// Number of values that it holds.
    pub values: u64,
    /// Number of those that are prepared and not yet known to be committed.
    pub prepared: u64,
    /// Requests in flight that carry a value's bytes, either way.
    pub busy: u64,
    /// Whether it takes writes.
    pub writable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Damaged copies that were put aside and not cleared away.
    #[serde(default)]
    pub quarantined: u64,
    /// How far the scrub is.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// Whether clients' reads need a ticket, as the master said last; kept durably.
    #[serde(default)]
    pub reads_need_tickets: bool,
}

/// How far a volume is with reading and checking all that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// When the pass under way began, by the cluster's time; none: it rests until the next is due.
    pub began: Option<UnixMillis>,
    /// When the last whole pass ended; none: there was none yet.
    pub ended: Option<UnixMillis>,
    /// Values that the pass has checked.
    pub values: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that were there to be checked when it was last looked at.
    pub of_bytes: u64,
    /// Bad copies found by all passes since the volume was made.
    pub bad: u64,
}

/// The master has a volume fetch a value from another one, to become a replica of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// What is to be there in the end; its replicas are those the record is to name.
    pub value: ValueEntry,
    /// Where it is now.
    pub from: VolumeId,
    /// Address of that volume, as `host:port`.
    pub address: String,
    /// Until then the copy may become a replica; afterwards the volume asks what became of it.
    pub commit_by: UnixMillis,
    /// When the master sent this, by the cluster's time. Removals sent no later do not touch the copy.
    pub sent: UnixMillis,
    /// Most bytes a second; zero: as fast as it goes.
    pub rate: u64,
}

/// Fetched copies that the catalog names as replicas now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// When it was sent, by the cluster's time: it says nothing of a copy fetched by a later order.
    #[serde(default)]
    pub sent: UnixMillis,
    /// Key, version and commit sequence of each; at most [`crate::limits::MAX_PEER_BATCH`].
    pub versions: Vec<(Key, VersionId, u64)>,
}

/// A volume tells of copies that it should hold and cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// The volume.
    pub volume: VolumeId,
    /// At most [`crate::limits::MAX_PEER_BATCH`].
    pub copies: Vec<BadCopy>,
}

/// A copy that was damaged, unreadable or missing, and has been put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadCopy {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: VersionId,
    /// What was wrong, for the log.
    pub why: String,
}

/// A volume asks the master to commit what tickets permit, each by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commits {
    /// The volume that asks.
    pub volume: VolumeId,
    /// At most [`crate::limits::MAX_PEER_COMMITS`].
    pub commits: Vec<Commit>,
}

/// One commit that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// The ticket, encoded.
    pub ticket: String,
    /// Length and hash of the value; none for a delete.
    pub value: Option<Prepared>,
}

/// A copy that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Its length, in bytes.
    pub len: u64,
    /// Its hash.
    pub hash: ContentHash,
}

/// The master's final word on a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitAnswer {
    /// Done and durable (now, or when it was first asked).
    Committed(Committed),
    /// Refused for good: the version will never be committed.
    Refused(Problem),
}

/// What came of one commit: the final word, or why there is none. Then it may be asked for again.
pub type CommitResult = Result<CommitAnswer, Problem>;

/// A commit that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its place in the order of all commits.
    pub seq: u64,
    /// Whether the key was new (create), or existed (replace, delete).
    pub created: bool,
    /// When: the value's Last-Modified.
    pub modified: UnixMillis,
    /// A delete: the version that was removed.
    pub removed: Option<VersionId>,
    /// How the version stands now; what a volume does with its copy depends on it.
    #[serde(default)]
    pub standing: Standing,
}

/// How a committed version stands when its commit is answered, which may be for a second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// The record names it, at the ticket's volumes. A delete stands, too.
    #[default]
    Current,
    /// The record names it, at other volumes.
    Moved,
    /// It was replaced or deleted since.
    Gone,
    /// It is durable in a transaction, and no record names it before that is committed. It has no sequence yet.
    Staged,
}

/// What became of a write, as the client is told that lost the answer to it. Final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Resolved {
    /// It was done; its value may have been replaced or removed since.
    Committed {
        /// The version that it made; for a delete, the one that it removed.
        version: VersionId,
        /// Whether the key was new.
        created: bool,
    },
    /// Its value is staged in a transaction that is open.
    Staged {
        /// The version that it will have.
        version: VersionId,
    },
    /// It was not, and never will be.
    Refused {
        /// Why.
        problem: Problem,
    },
}

/// A volume asks what became of versions that it holds as prepared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settle {
    /// The volume that asks.
    pub volume: VolumeId,
    /// At most [`crate::limits::MAX_PEER_BATCH`].
    pub versions: Vec<SettleItem>,
}

/// One version in doubt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettleItem {
    /// Its key.
    pub key: Key,
    /// The version.
    pub version: VersionId,
    /// Its ticket's last time for a commit; zero where the volume does not know.
    pub commit_by: UnixMillis,
}

/// What became of each, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleAnswer {
    /// One for each version asked.
    pub outcomes: Vec<Outcome>,
}

/// What became of a prepared version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is the key's committed version, and this volume one of its replicas.
    Keep {
        /// Its commit sequence.
        seq: u64,
    },
    /// It may still be committed; ask again.
    Pending,
    /// It was never committed and will not be, or is no longer current, or this volume holds a surplus copy.
    Drop,
}

/// The master has a volume remove versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reclaim {
    /// When it was sent, by the cluster's time: a copy fetched by a later order stays.
    #[serde(default)]
    pub sent: UnixMillis,
    /// At most [`crate::limits::MAX_PEER_BATCH`].
    pub versions: Vec<ReclaimItem>,
}

/// One version to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimItem {
    /// Its key.
    pub key: Key,
    /// The version.
    pub version: VersionId,
    /// Where the key was deleted (not replaced): leave a tombstone.
    pub deleted: Option<Deleted>,
}

/// When a key was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Commit sequence of the delete.
    pub seq: u64,
    /// When.
    pub time: UnixMillis,
}

/// A part of a volume's index, in order of key and version, for rebuild and fsck.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntriesPage {
    /// The volume.
    pub volume: VolumeId,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Give this as `after` for the next page; none: there is no more.
    pub next: Option<String>,
}

/// What a volume knows of a version or of a deleted key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A value that it holds.
    Value(ValueEntry),
    /// A key that was deleted.
    Tombstone {
        /// The key.
        key: Key,
        /// The version that was removed.
        version: VersionId,
        /// When.
        deleted: Deleted,
    },
}

/// A value that a volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueEntry {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: VersionId,
    /// Length in bytes.
    pub len: u64,
    /// Hash.
    pub hash: ContentHash,
    /// Content type.
    pub content_type: Option<String>,
    /// When it was written: its Last-Modified.
    pub modified: UnixMillis,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// All volumes of its chain.
    pub replicas: Vec<VolumeId>,
    /// Commit sequence; none while it is only prepared.
    pub seq: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_utf8_round_trip_in_json() {
        let item = ReclaimItem { key: Key::new(vec![0, 255, b'%', b'/']).unwrap(), version: VersionId::from_parts(1, 2), deleted: None };
        let json = serde_json::to_string(&item).unwrap();
        assert!(json.contains("%00%FF%25/"), "{json}");
        assert_eq!(serde_json::from_str::<ReclaimItem>(&json).unwrap(), item);
    }
}
