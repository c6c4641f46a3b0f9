//! What was permitted, as it goes along when a client is sent on: in tickets for volumes, and in signatures for the way back.

use crate::catalog::Record;
use crate::config::{LONGEST_COMMIT_WITHIN, SLOWEST_BYTES_PER_SECOND};
use crate::node::Node;
use kvdb_protocol::signed_url::{SIGNED, SignedUrl, Stamp, TokenId, UrlRight};
use kvdb_protocol::{Condition, ErrorCode, Key, Problem, Ticket, TicketOp, TicketVolume, UnixMillis, VolumeId};
use std::time::Duration;

/// Leave to do what was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leave {
    /// None where the master has no file of tokens: then everybody has it, and nothing need go along.
    stamp: Option<Stamp>,
}

impl Leave {
    /// Everybody's.
    pub const OPEN: Self = Self { stamp: None };

    /// Of a token, for as long as it has the right.
    pub fn by(token: TokenId) -> Self {
        Self { stamp: Some(Stamp { until: UnixMillis(u64::MAX), by: Some(token) }) }
    }

    /// Of a signed URL.
    pub fn stamped(stamp: Stamp) -> Self {
        Self { stamp: Some(stamp) }
    }

    /// Of the master itself, whoever asks.
    pub fn of_all(node: &Node) -> Self {
        Self { stamp: node.tokens.as_ref().map(|_| Stamp { until: UnixMillis(u64::MAX), by: None }) }
    }

    /// The token on which it hangs.
    pub fn token(&self) -> Option<TokenId> {
        self.stamp.and_then(|stamp| stamp.by)
    }

    /// The parameter that permits the same once more when a volume sends the client back: `signed=…`, or nothing where none is needed.
    ///
    /// It lasts as long as a client may take to begin at the volume, and as long again to come back; never longer than what permitted
    /// it, so that going round does not extend it.
    pub fn way_back(&self, node: &Node, right: UrlRight, keys: &[Key]) -> Option<String> {
        let stamp = self.stamp?;
        let until = node.catalog.now().plus(2 * node.config.start_within).min(stamp.until);
        let url = SignedUrl { cluster: node.credentials.cluster, right, keys };
        Some(format!("{SIGNED}={}", node.urls.sign(&url, Stamp { until, ..stamp })))
    }

    /// The parameters by which volumes let a client read this version, and the master knows it when it comes back, each with a `&`
    /// before it; `asked` are all keys of the question.
    pub fn for_reading(&self, node: &Node, key: &Key, record: &Record, volumes: &[VolumeId], asked: &[Key]) -> Result<String, Problem> {
        let (Some(stamp), Some(back)) = (self.stamp, self.way_back(node, UrlRight::Read, asked)) else { return Ok(String::new()) };
        let begin = node.config.start_within + node.config.commit_within;
        // As for a write of it: a reader may take it in parts, one after the other.
        let life = begin + Duration::from_secs(record.len / SLOWEST_BYTES_PER_SECOND);
        let start_by = node.catalog.now().plus(life.min(LONGEST_COMMIT_WITHIN)).min(stamp.until);
        let ticket = Ticket {
            cluster: node.credentials.cluster,
            op: TicketOp::Read,
            key: key.clone(),
            version: record.version,
            volumes: volumes.iter().map(|id| TicketVolume { id: *id, address: String::new() }).collect(),
            max_bytes: 0,
            content_type: None,
            content: None,
            expires: None,
            condition: Condition::default(),
            start_by,
            commit_by: start_by,
            commit_to: String::new(),
            return_to: String::new(),
            request_id: String::new(),
            txn: None,
        };
        let ticket = ticket.encode(&node.tickets).map_err(|_| Problem::new(ErrorCode::Internal, "a ticket to read is too long"))?;
        Ok(format!("&{back}&ticket={ticket}"))
    }
}
