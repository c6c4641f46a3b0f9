//! Tickets: what the master permits, for one operation on one key and version at named volumes.
//!
//! As bytes: format (1 B), postcard body, BLAKE3 keyed hash of all before (32 B); as text, base64url
//! without padding. The layout is in `docs/protocol.md`.

use crate::content::ContentRule;
use crate::hash::ContentHash;
use crate::id::{ClusterId, TxnId, VersionId, VolumeId};
use crate::key::Key;
use crate::lab::{self, Bug};
use crate::limits::{MAX_REPLICAS, MAX_TICKET_CHARS};
use crate::secret::TicketKey;
use crate::time::UnixMillis;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const FORMAT: u8 = 3;
const MAC_BYTES: usize = 32;

/// What a ticket permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TicketOp {
    /// Store a value under a key that must not exist.
    Create,
    /// Store a value, whether the key exists or not.
    Replace,
    /// Remove the key.
    Delete,
    /// Read a value.
    Read,
}

/// A volume of a ticket: who, and where it is reached by the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketVolume {
    /// The volume.
    pub id: VolumeId,
    /// Its address within the cluster, as `host:port`.
    pub address: String,
}

/// Entity tags of a precondition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tags {
    /// `*`.
    Any,
    /// These.
    Of(Vec<ContentHash>),
}

impl Tags {
    fn holds(&self, current: Option<ContentHash>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tags), Some(h)) => tags.contains(&h),
        }
    }
}

/// The preconditions of a write (RFC 9110 §13), checked when the ticket is made and again at commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `If-Match`.
    pub if_match: Option<Tags>,
    /// `If-None-Match`.
    pub if_none_match: Option<Tags>,
}

impl Condition {
    /// Whether the current value's hash (none: no value) satisfies it.
    pub fn holds(&self, current: Option<ContentHash>) -> bool {
        self.if_match.as_ref().is_none_or(|t| t.holds(current)) && self.if_none_match.as_ref().is_none_or(|t| !t.holds(current))
    }
}

/// The transaction that a value is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketTxn {
    /// Its id.
    pub id: TxnId,
    /// When it ends by itself. Once the value is staged, which must be by the ticket's `commit_by`, it may be committed until then.
    pub ends: UnixMillis,
}

/// A signed permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// What it permits.
    pub op: TicketOp,
    /// The key.
    pub key: Key,
    /// Create and Replace: the version to be made. Delete: the version that was seen. Read: the version.
    pub version: VersionId,
    /// The volumes that hold or will hold it, in the order of the chain.
    pub volumes: Vec<TicketVolume>,
    /// Largest value that may be stored, in bytes.
    pub max_bytes: u64,
    /// Content type to store.
    pub content_type: Option<String>,
    /// What its content must be; checked by the first volume, before the value counts as durable.
    pub content: Option<ContentRule>,
    /// When the value expires.
    pub expires: Option<UnixMillis>,
    /// The preconditions.
    pub condition: Condition,
    /// The operation must have begun at its volume by then.
    pub start_by: UnixMillis,
    /// The master refuses to commit it after then, for good.
    pub commit_by: UnixMillis,
    /// The master's address within the cluster, as `host:port`.
    pub commit_to: String,
    /// The URL at the master to which the client is sent when the volume cannot serve it.
    pub return_to: String,
    /// The request that it was made for.
    pub request_id: String,
    /// The transaction that its value is staged in until that is committed.
    pub txn: Option<TicketTxn>,
}

/// Why a ticket is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TicketError {
    /// Not base64url, too long or too short.
    #[error("the ticket is malformed; ask the master again")]
    Malformed,
    /// A format that this server does not know.
    #[error("the ticket has format {0}, which this server does not know; upgrade it")]
    Format(u8),
    /// Not signed by this cluster, or altered.
    #[error("the ticket was not made by this cluster, or was altered")]
    Signature,
    /// Of another cluster.
    #[error("the ticket is for another cluster")]
    Cluster,
    /// Started too late.
    #[error("the ticket has expired; ask the master again")]
    Expired,
}

impl Ticket {
    /// Signs and encodes it. Fails only if it is longer than [`MAX_TICKET_CHARS`].
    pub fn encode(&self, key: &TicketKey) -> Result<String, TicketError> {
        let mut bytes = postcard::to_extend(self, vec![FORMAT]).map_err(|_| TicketError::Malformed)?;
        let mac = key.mac(&bytes);
        bytes.extend_from_slice(mac.as_bytes());
        let text = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
        if text.len() > MAX_TICKET_CHARS {
            return Err(TicketError::Malformed);
        }
        Ok(text)
    }

    /// Decodes and checks signature and cluster, but no time: see [`Ticket::check_start`].
    pub fn decode(text: &str, key: &TicketKey, cluster: ClusterId) -> Result<Self, TicketError> {
        if text.len() > MAX_TICKET_CHARS {
            return Err(TicketError::Malformed);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TicketError::Malformed)?;
        let (signed, mac) = bytes.len().checked_sub(MAC_BYTES).and_then(|n| bytes.split_at_checked(n)).ok_or(TicketError::Malformed)?;
        let (&format, body) = signed.split_first().ok_or(TicketError::Malformed)?;
        let mac: [u8; MAC_BYTES] = mac.try_into().map_err(|_| TicketError::Malformed)?;
        if key.mac(signed) != blake3::Hash::from_bytes(mac) && !lab::has(Bug::ForgedTicketAccepted) {
            return Err(TicketError::Signature);
        }
        if format != FORMAT {
            return Err(TicketError::Format(format));
        }
        let Ok((ticket, [])) = postcard::take_from_bytes::<Self>(body) else { return Err(TicketError::Malformed) };
        if ticket.cluster != cluster {
            return Err(TicketError::Cluster);
        }
        if ticket.volumes.is_empty() || ticket.volumes.len() > MAX_REPLICAS {
            return Err(TicketError::Malformed);
        }
        Ok(ticket)
    }

    /// Whether the operation may begin at `now` (cluster time).
    pub fn check_start(&self, now: UnixMillis) -> Result<(), TicketError> {
        if now > self.start_by && !lab::has(Bug::ExpiredTicketAccepted) { Err(TicketError::Expired) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ClusterSecret;

    fn ticket() -> Ticket {
        Ticket {
            cluster: ClusterId::random(),
            op: TicketOp::Replace,
            key: Key::new("a/b").unwrap(),
            version: VersionId::from_parts(7, 8),
            volumes: vec![TicketVolume { id: VolumeId::random(), address: "localhost:3001".into() }],
            max_bytes: 5,
            content_type: Some("text/plain".into()),
            content: Some(ContentRule::JsonObject),
            expires: None,
            condition: Condition::default(),
            start_by: UnixMillis(100),
            commit_by: UnixMillis(200),
            commit_to: "localhost:3000".into(),
            return_to: "http://localhost:3000/a/b".into(),
            request_id: "r".into(),
            txn: Some(TicketTxn { id: TxnId::random(), ends: UnixMillis(300) }),
        }
    }

    #[test]
    fn a_ticket_round_trips() {
        let (t, k) = (ticket(), ClusterSecret::random().ticket_key());
        assert_eq!(Ticket::decode(&t.encode(&k).unwrap(), &k, t.cluster).unwrap(), t);
    }

    #[test]
    fn an_altered_truncated_or_foreign_ticket_is_refused() {
        let (t, k) = (ticket(), ClusterSecret::random().ticket_key());
        let good = BASE64_URL_SAFE_NO_PAD.decode(t.encode(&k).unwrap()).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let text = BASE64_URL_SAFE_NO_PAD.encode(&bad);
                assert_eq!(Ticket::decode(&text, &k, t.cluster), Err(TicketError::Signature), "byte {at}");
            }
            let text = BASE64_URL_SAFE_NO_PAD.encode(&good[..at]);
            assert!(Ticket::decode(&text, &k, t.cluster).is_err(), "cut at {at}");
        }
        let text = t.encode(&k).unwrap();
        assert_eq!(Ticket::decode(&text, &ClusterSecret::random().ticket_key(), t.cluster), Err(TicketError::Signature));
        assert_eq!(Ticket::decode(&text, &k, ClusterId::random()), Err(TicketError::Cluster));
        assert_eq!(Ticket::decode("", &k, t.cluster), Err(TicketError::Malformed));
    }

    #[test]
    fn a_ticket_with_a_byte_too_many_is_refused_even_if_it_is_signed() {
        let (t, k) = (ticket(), ClusterSecret::random().ticket_key());
        let mut bytes = postcard::to_extend(&t, vec![FORMAT]).unwrap();
        bytes.push(0);
        let mac = k.mac(&bytes);
        bytes.extend_from_slice(mac.as_bytes());
        assert_eq!(Ticket::decode(&BASE64_URL_SAFE_NO_PAD.encode(&bytes), &k, t.cluster), Err(TicketError::Malformed));
    }

    #[test]
    fn a_ticket_can_be_started_up_to_its_time_and_not_after() {
        assert!(ticket().check_start(UnixMillis(100)).is_ok());
        assert_eq!(ticket().check_start(UnixMillis(101)), Err(TicketError::Expired));
    }

    #[test]
    fn preconditions_follow_rfc_9110() {
        let (a, b) = (ContentHash::of(b"a"), ContentHash::of(b"b"));
        let of = |m: Option<Tags>, n: Option<Tags>| Condition { if_match: m, if_none_match: n };
        assert!(of(None, None).holds(None));
        assert!(!of(Some(Tags::Any), None).holds(None));
        assert!(of(Some(Tags::Of(vec![a])), None).holds(Some(a)));
        assert!(!of(Some(Tags::Of(vec![a])), None).holds(Some(b)));
        assert!(of(None, Some(Tags::Any)).holds(None));
        assert!(!of(None, Some(Tags::Any)).holds(Some(a)));
        assert!(!of(Some(Tags::Any), Some(Tags::Of(vec![a]))).holds(Some(a)));
    }
}
