//! What an operator (the `kvdb` command) asks of a master, as JSON, signed like a call between servers, with
//! the nil volume in the place of a volume's id.

use crate::id::{ClusterId, VolumeId};
use crate::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Paths of the operator's calls.
pub mod path {
    /// `GET`, unsigned: [`super::Cluster`].
    pub const CLUSTER: &str = "/-/operator/cluster";
    /// `POST` [`super::Asked`] of nothing (`null`) → the same as [`STATUS_PAGE`].
    pub const STATUS: &str = "/-/operator/status";
    /// `GET`, unsigned; where there are tokens, for one that may do everything: the cluster at a glance.
    pub const STATUS_PAGE: &str = "/-/status";
    /// `POST` [`super::Asked`] of [`super::Order`] → a report as JSON.
    pub const ORDER: &str = "/-/operator/order";
    /// `POST` [`super::Asked`] of nothing (`null`) → the catalog, line by line.
    pub const EXPORT: &str = "/-/operator/export";
    /// `POST` [`super::Asked`] of where to begin → a page of records.
    pub const RECORDS: &str = "/-/operator/records";
    /// `POST` [`super::Asked`] of a key and copies of it → its record, and which of them are to be removed.
    pub const LOOK: &str = "/-/operator/look";
    /// `POST` [`super::Asked`] of copies that no record names → what becomes of each.
    pub const UNWANTED: &str = "/-/operator/unwanted";
}

/// How far the time of a call may be from the master's: a call that was overheard is of no use later.
pub const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// The volume's id in signatures of operators' calls.
pub const NO_VOLUME: VolumeId = VolumeId::from_bytes([0; 16]);

/// What must be known to sign a call; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its time.
    pub time: UnixMillis,
}

/// What is asked, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked<T> {
    /// The cluster's time, as [`path::CLUSTER`] tells it.
    pub at: UnixMillis,
    /// What is asked.
    pub ask: T,
}

/// A change of the cluster. Each can be given again without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Make contact with the volume at this address, from now on and after restarts too.
    Add {
        /// `host:port`.
        address: String,
    },
    /// Move all that a volume holds to others, and give it nothing new.
    Drain {
        /// The volume.
        volume: VolumeId,
    },
    /// Use a volume that was to be drained again.
    Resume {
        /// The volume.
        volume: VolumeId,
    },
    /// Take a volume out of the cluster for good.
    Remove {
        /// The volume.
        volume: VolumeId,
        /// Also if values name it: it and its copies are lost.
        lost: bool,
    },
    /// Have a volume, or all, read and check what they hold, from the beginning.
    Scrub {
        /// The volume; none: all.
        volume: Option<VolumeId>,
    },
}
