//! Values whose content must be of a kind that the ticket names: held in memory as they come, and looked at before any copy counts.

use crate::node::Node;
use crate::upload::Leg;
use kvdb_protocol::content::{ContentRule, MAX_CHECKED_BYTES};
use kvdb_protocol::{ErrorCode, Problem, Ticket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for such values, all together, in KiB (16 MiB): four of the largest at a time.
const MEMORY_KIB: u32 = 16 << 10;
/// How long one waits for memory that others use.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// A value that is being received, as far as it has come.
pub(crate) struct ContentCheck {
    rule: ContentRule,
    value: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

/// What all of them share.
pub(crate) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MEMORY_KIB as usize))
}

impl ContentCheck {
    /// None where nothing is to be checked. The first volume of a chain checks for all.
    pub async fn begin(node: &Node, ticket: &Ticket, leg: Leg) -> Result<Option<Self>, Problem> {
        let Some(rule) = ticket.content.filter(|_| leg.at == 0) else { return Ok(None) };
        let most = ticket.max_bytes.min(MAX_CHECKED_BYTES);
        let kib = u32::try_from(leg.len.unwrap_or(most).min(most) >> 10).unwrap_or(MEMORY_KIB).saturating_add(1).min(MEMORY_KIB);
        match tokio::time::timeout(MEMORY_WAIT, node.content_memory.clone().acquire_many_owned(kib)).await {
            Ok(Ok(memory)) => Ok(Some(Self { rule, value: Vec::new(), _memory: memory })),
            Ok(Err(_)) | Err(_) => {
                Err(Problem::new(ErrorCode::Busy, "all memory for values whose content is checked is in use; try again"))
            }
        }
    }

    /// Takes bytes of the value, of which there are no more than the ticket allows.
    pub fn take(&mut self, bytes: &[u8]) {
        self.value.extend_from_slice(bytes);
    }

    /// Whether the whole value is as it must be.
    pub fn finish(self) -> Result<(), Problem> {
        self.rule.check(&self.value)
    }
}
