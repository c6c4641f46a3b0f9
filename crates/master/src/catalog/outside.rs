//! A door for the fuzzers: what the catalog reads from its disk and from an export.

pub use super::exported::{Checker, End, Header, KeyRecord, Line, Reclaimed, read_line};
pub use super::journal_format::{JournalDamage, Run, SECTOR, Salt, Writes, file_head, framed, last_run};

use super::error::CatalogError;
use super::keyspace;
use super::placing::Duty;
use super::record::{Decision, ReclaimEntry, Record, State, VolumeEntry, decode, encode};
use super::transaction::{StagedEntry, TxnEntry};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Number of kinds that [`recoded`] knows.
pub const KINDS: u8 = 8;

/// Reads a stored value of one of the catalog's kinds, and gives it as it would be written.
pub fn recoded(kind: u8, bytes: &[u8]) -> Result<Vec<u8>, CatalogError> {
    fn through<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, CatalogError> {
        encode(&decode::<T>(bytes, "value")?, "value")
    }
    match kind % KINDS {
        0 => through::<Record>(bytes),
        1 => through::<ReclaimEntry>(bytes),
        2 => through::<Decision>(bytes),
        3 => through::<VolumeEntry>(bytes),
        4 => through::<State>(bytes),
        5 => through::<Duty>(bytes),
        6 => through::<TxnEntry>(bytes),
        _ => through::<StagedEntry>(bytes),
    }
}

/// Reads a key of the keyspace that names a volume, and gives it as it would be written.
pub fn key_recoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let reclaim = keyspace::parse_reclaim(bytes).map(|(volume, version)| keyspace::reclaim(volume, version));
    let volume = || keyspace::parse_volume(bytes).map(keyspace::volume);
    reclaim.or_else(volume).or_else(|| keyspace::parse_duty(bytes).map(keyspace::duty))
}
