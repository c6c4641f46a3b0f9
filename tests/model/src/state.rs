//! The state of the whole cluster: what is on disks, in memories and on the network.

use crate::network::Network;

/// Most volumes.
pub const VOLUMES: usize = 3;
/// Most writes. A write's number is its version, so versions are in the order in which tickets were given out.
pub const WRITES: usize = 4;

/// A version: the number of its write.
pub type Version = u8;
/// A volume.
pub type Volume = u8;
/// A set of volumes, a bit each.
pub type Volumes = u8;

/// Whether a set has a volume.
pub fn has(set: Volumes, volume: Volume) -> bool {
    set >> volume & 1 == 1
}

/// The volumes of a set.
pub fn members(set: Volumes) -> impl Iterator<Item = Volume> {
    (0..8).filter(move |v| has(set, *v))
}

/// What a volume holds of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Copy {
    /// Nothing.
    Absent,
    /// Its bytes, durable.
    Value {
        /// Until then it may be committed.
        commit_by: u8,
        /// The replicas that it was written with.
        chain: Volumes,
        /// Commit sequence; none while it is prepared.
        seq: Option<u8>,
        /// Whether the sequence would survive a power cut.
        synced: bool,
    },
    /// Removed, but a power cut brings the file back.
    Unlinked {
        /// As of the value.
        commit_by: u8,
        /// As of the value.
        chain: Volumes,
    },
    /// The key was deleted when it had this version.
    Tombstone {
        /// Commit sequence of the delete.
        seq: u8,
    },
}

impl Copy {
    /// Whether the bytes are here.
    pub fn is_value(self) -> bool {
        matches!(self, Self::Value { .. })
    }

    /// The commit sequence, where it is known here.
    pub fn seq(self) -> Option<u8> {
        match self {
            Self::Value { seq, .. } => seq,
            _ => None,
        }
    }
}

/// What a volume is doing with a version: the claim on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Nothing.
    None,
    /// Its bytes are coming.
    Receiving,
    /// They are durable; the outcome is awaited.
    Durable,
    /// The first of the chain, or the volume of a delete, has asked for the commit.
    Asked,
    /// It is fetched from another volume.
    Fetching(Order),
}

/// The last order to fetch a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetched {
    /// The order's stamp.
    pub sent: u8,
    /// Until then it may become a replica.
    pub commit_by: u8,
}

/// A volume. What is not a copy is in memory only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeState {
    /// By version.
    pub copies: [Copy; WRITES],
    /// By version.
    pub tasks: [Task; WRITES],
    /// Versions whose tickets were used here, a bit each.
    pub used: u8,
    /// The fetch log.
    pub fetched: [Option<Fetched>; WRITES],
    /// A question about a version is open.
    pub settling: bool,
    /// Versions that were found bad here and not replaced since; for the properties.
    pub bad: u8,
}

/// What the master knows of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The committed version.
    pub version: Version,
    /// The volumes that hold it.
    pub replicas: Volumes,
    /// Its commit sequence.
    pub seq: u8,
}

/// How a committed version stands when its commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// The record names it, at the volumes of its ticket.
    Current,
    /// The record names it, at other volumes too or instead.
    Moved,
    /// It was replaced or deleted since.
    Gone,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// Done.
    Committed {
        /// Commit sequence.
        seq: u8,
        /// A delete: the version that was removed.
        removed: Option<Version>,
        /// How it stands now.
        standing: Standing,
    },
    /// Refused for good.
    Refused,
}

/// A copy that a volume has still to remove; the sequence of the delete, if it was one.
pub type Removal = Option<Option<u8>>;

/// The catalog: all of it is durable with each batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Catalog {
    /// The key's record.
    pub record: Option<Record>,
    /// The reclaim list, by volume and version.
    pub reclaim: [[Removal; WRITES]; VOLUMES],
    /// Decisions with the time they were made, by write.
    pub decisions: [Option<(u8, Answer)>; WRITES],
    /// What the key was after each commit; only the properties look at it.
    pub history: Vec<Option<Version>>,
}

impl Catalog {
    /// The last commit sequence.
    pub fn seq(&self) -> u8 {
        u8::try_from(self.history.len()).unwrap_or(u8::MAX)
    }
}

/// A fetch that the master has ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Order {
    /// Its stamp.
    pub sent: u8,
    /// What.
    pub version: Version,
    /// To where.
    pub target: Volume,
    /// From where.
    pub source: Volume,
    /// The replicas that the master saw.
    pub before: Volumes,
    /// The replicas to be.
    pub after: Volumes,
    /// Until then.
    pub commit_by: u8,
    /// The commit sequence, where the record names the target already and its copy is to be made anew.
    pub seq: Option<u8>,
}

/// The master.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Master {
    /// What is durable.
    pub disk: Catalog,
    /// What it shows; the same, except with some flaws.
    pub shown: Catalog,
    /// Memory only: orders that are open.
    pub orders: Vec<Order>,
    /// Memory only: the stamp of each volume's open call to reclaim.
    pub reclaiming: [Option<u8>; VOLUMES],
}

/// What became of a prepared version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It is a replica.
    Keep(u8),
    /// Ask again.
    Pending,
    /// It will never be one.
    Drop,
}

/// What a client knows of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// It has not begun.
    Idle,
    /// It sends, or waits.
    Waiting,
    /// 200 or 201.
    Acknowledged,
    /// Any other answer.
    Refused,
    /// No answer, or *outcome unknown*.
    Unknown,
}

/// A write of a client, with its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// What its client knows.
    pub client: Client,
    /// The ticket's last time to begin.
    pub start_by: u8,
    /// The ticket's last time for a commit.
    pub commit_by: u8,
    /// A delete: the volume that it goes to.
    pub at: Volume,
    /// Commits when the client began; for the properties.
    pub since: u8,
}

/// A reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// It has not begun.
    Idle,
    /// It was sent to a volume for a version, and has missed it at others.
    Sent { version: Version, at: Volume, missed: Volumes, since: u8 },
    /// It comes back to the master.
    Back { version: Version, missed: Volumes, since: u8 },
    /// It has its answer.
    Done,
}

/// What is left of the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub master_crashes: u8,
    pub volume_kills: u8,
    pub power_cuts: u8,
    pub timeouts: u8,
    pub retries: u8,
    pub reuses: u8,
    pub repairs: u8,
    pub bad_copies: u8,
    pub early_questions: u8,
}

/// What went wrong on the way here; once set it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrongs {
    /// A read brought what was not the key's value at any time between its beginning and its end.
    pub read: bool,
    /// A read found no copy, although every volume was up.
    pub unreadable: bool,
    /// A version was committed after a volume was told that it never will be.
    pub drop_not_final: bool,
    /// A volume removed a copy that the record named.
    pub dropped_named: bool,
    /// A version was committed twice.
    pub committed_twice: bool,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The cluster's time. Its lease is durable, so it survives everything.
    pub now: u8,
    /// Stamps given out: distinct and rising, as the milliseconds of calls that follow each other are.
    pub stamps: u8,
    pub master: Master,
    pub volumes: [VolumeState; VOLUMES],
    pub network: Network,
    pub writes: [Write; WRITES],
    pub readers: [Reader; 2],
    pub left: Left,
    /// Versions that a volume was told to drop while no record named them: for the properties.
    pub told_drop: u8,
    /// A power cut happened: for the properties.
    pub power_was_cut: bool,
    pub wrongs: Wrongs,
}
