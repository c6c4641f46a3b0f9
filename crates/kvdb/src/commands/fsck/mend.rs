//! Has the master see to what was found.

use super::judge::{Finding, Mend};
use crate::operator::Operator;
use kvdb_master::catalog::{Unlisted, Unwanted};
use kvdb_protocol::limits::MAX_PEER_BATCH;
use kvdb_protocol::message::{Bad, BadCopy, path};
use kvdb_protocol::{VolumeId, operator};
use std::collections::BTreeMap;

pub(super) struct Mender {
    remove_unknown: bool,
    unwanted: Vec<Unwanted>,
    bad: BTreeMap<VolumeId, Vec<BadCopy>>,
}

impl Mender {
    pub(super) fn new(remove_unknown: bool) -> Self {
        Self { remove_unknown, unwanted: Vec::new(), bad: BTreeMap::new() }
    }

    /// Takes a finding on; whether something can be done about it.
    pub(super) fn take(&mut self, finding: &Finding) -> bool {
        match (&finding.mend, finding.volume) {
            (Mend::Remake, Some(volume)) => {
                let copy = BadCopy { key: finding.key.clone(), version: finding.version, why: finding.detail.clone() };
                self.bad.entry(volume).or_default().push(copy);
            }
            (Mend::Remove(unwanted), _) => self.unwanted.push(unwanted.clone()),
            (Mend::RemoveUnknown(unwanted), _) if self.remove_unknown => self.unwanted.push(unwanted.clone()),
            _ => return false,
        }
        true
    }

    /// Tells the master once there is enough for a call.
    pub(super) async fn flush_full(&mut self, operator: &Operator) -> anyhow::Result<u64> {
        let full = self.unwanted.len() + self.bad.values().map(Vec::len).sum::<usize>() >= MAX_PEER_BATCH / 2;
        if full { self.flush(operator).await } else { Ok(0) }
    }

    /// Tells the master; how many copies it sees to now.
    pub(super) async fn flush(&mut self, operator: &Operator) -> anyhow::Result<u64> {
        let mut mended = 0;
        let unwanted = std::mem::take(&mut self.unwanted);
        for some in unwanted.chunks(MAX_PEER_BATCH) {
            let told: Vec<Unlisted> = operator.ask(operator::path::UNWANTED, &some).await?;
            mended += told.iter().filter(|t| **t == Unlisted::ToBeRemoved).count();
        }
        for (volume, copies) in std::mem::take(&mut self.bad) {
            for some in copies.chunks(MAX_PEER_BATCH) {
                operator.tell_as(volume, path::BAD, &Bad { volume, copies: some.to_vec() }).await?;
                mended += some.len();
            }
        }
        Ok(u64::try_from(mended).unwrap_or(u64::MAX))
    }
}
