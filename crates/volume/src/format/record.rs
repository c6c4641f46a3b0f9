//! Records of the index: their keys, which sort by key and version, and their values.

use super::FormatError;
use kvdb_protocol::message::{Deleted, Entry, ValueEntry};
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};
use serde::{Deserialize, Serialize};

/// First byte of every record.
pub const RECORD_FORMAT: u8 = 1;
const VERSION_BYTES: usize = 16;
/// Ends a key; within a key a zero byte is followed by [`ESCAPE`].
const TERMINATOR: [u8; 2] = [0, 0];
const ESCAPE: u8 = 0xFF;

/// What the index holds for a key and version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A value that is here.
    Value(ValueRecord),
    /// The key was deleted, and this was its version.
    Tombstone(Deleted),
}

/// A value that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueRecord {
    /// Length in bytes.
    pub len: u64,
    /// BLAKE3.
    pub hash: ContentHash,
    /// Where the bytes are.
    pub place: Place,
    /// Content type.
    pub content_type: Option<String>,
    /// When it was written.
    pub modified: UnixMillis,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// Its ticket's last time for a commit.
    pub commit_by: UnixMillis,
    /// All volumes of its chain.
    pub replicas: Vec<VolumeId>,
    /// Commit sequence; none while it is only prepared.
    pub seq: Option<u64>,
}

/// Where a value's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In the index.
    Inline,
    /// In a blob file.
    File {
        /// Length of the file with its footer, in bytes.
        file_len: u64,
    },
}

impl Record {
    /// The format byte, then postcard.
    ///
    /// # Errors
    /// None in practice: postcard refuses nothing of these types.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        postcard::to_extend(self, vec![RECORD_FORMAT]).map_err(|_| FormatError::Field("the record"))
    }

    /// Reads it back; all bytes must be used.
    ///
    /// # Errors
    /// The bytes are damaged or a newer program's.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (format, body) = bytes.split_first().ok_or(FormatError::TooShort { what: "the record", found: 0 })?;
        if *format > RECORD_FORMAT {
            return Err(FormatError::Newer { found: u32::from(*format), known: u32::from(RECORD_FORMAT) });
        }
        if *format != RECORD_FORMAT {
            return Err(FormatError::Field("the record's format"));
        }
        match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            _ => Err(FormatError::Field("the record")),
        }
    }

    /// As other servers see it.
    pub fn into_entry(self, key: Key, version: VersionId) -> Entry {
        match self {
            Self::Value(v) => Entry::Value(v.into_entry(key, version)),
            Self::Tombstone(deleted) => Entry::Tombstone { key, version, deleted },
        }
    }
}

impl ValueRecord {
    /// As other servers see it.
    pub fn into_entry(self, key: Key, version: VersionId) -> ValueEntry {
        ValueEntry {
            key,
            version,
            len: self.len,
            hash: self.hash,
            content_type: self.content_type,
            modified: self.modified,
            expires: self.expires,
            replicas: self.replicas,
            seq: self.seq,
        }
    }
}

/// The index key of a key and version. Sorts as the pair does.
pub fn entry_key(key: &Key, version: VersionId) -> Vec<u8> {
    let bytes = key.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() + TERMINATOR.len() + VERSION_BYTES);
    for &b in bytes {
        out.push(b);
        if b == 0 {
            out.push(ESCAPE);
        }
    }
    out.extend(TERMINATOR);
    out.extend(version.as_bytes());
    out
}

/// Reads an index key back.
///
/// # Errors
/// It is not one.
pub fn parse_entry_key(bytes: &[u8]) -> Result<(Key, VersionId), FormatError> {
    const BAD: FormatError = FormatError::Field("an index key");
    let (escaped, version) = bytes.split_at_checked(bytes.len().saturating_sub(VERSION_BYTES)).ok_or(BAD)?;
    let version = <[u8; VERSION_BYTES]>::try_from(version).map_err(|_| BAD)?;
    let escaped = escaped.strip_suffix(&TERMINATOR).ok_or(BAD)?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter();
    while let Some(&b) = rest.next() {
        if b == 0 && rest.next() != Some(&ESCAPE) {
            return Err(BAD);
        }
        key.push(b);
    }
    Ok((Key::new(key).map_err(|_| BAD)?, VersionId::from_bytes(version)))
}

/// Key of the list of blob files: the two directories, then the version, so that the list sorts as the
/// directories are walked.
pub fn blob_list_key(version: VersionId) -> [u8; 18] {
    let v = version.as_bytes();
    let mut out = [0; 18];
    out[..2].copy_from_slice(&v[14..]);
    out[2..].copy_from_slice(v);
    out
}

/// Reads a key of the list of blob files back.
///
/// # Errors
/// It is not one.
pub fn parse_blob_list_key(bytes: &[u8]) -> Result<VersionId, FormatError> {
    let version = bytes.get(2..).and_then(|v| <[u8; 16]>::try_from(v).ok()).map(VersionId::from_bytes);
    version.filter(|v| blob_list_key(*v) == bytes).ok_or(FormatError::Field("a key of the list of blob files"))
}

/// Key of a list in order of time: the time (big endian), then the index key.
pub fn time_list_key(time: UnixMillis, entry_key: &[u8]) -> Vec<u8> {
    [&time.0.to_be_bytes()[..], entry_key].concat()
}

/// Reads a key of a list in order of time back.
///
/// # Errors
/// It is not one.
pub fn parse_time_list_key(bytes: &[u8]) -> Result<(UnixMillis, &[u8]), FormatError> {
    let (time, entry) = bytes.split_first_chunk::<8>().ok_or(FormatError::Field("a key of a list in order of time"))?;
    Ok((UnixMillis(u64::from_be_bytes(*time)), entry))
}

/// From when on the master is to be told of a bad copy. Of a version that may still be committed it is told later: before, it would
/// not know what the volume speaks of.
pub fn told_from(record: &ValueRecord) -> UnixMillis {
    if record.seq.is_some() { UnixMillis(0) } else { record.commit_by }
}

/// A row of the list of bad copies: from when on the master is to be told, and what is wrong.
pub fn bad_row(not_before: UnixMillis, why: &str) -> Vec<u8> {
    [&not_before.0.to_be_bytes(), why.as_bytes()].concat()
}

/// Reads a row of the list of bad copies back.
///
/// # Errors
/// It is not one.
pub fn parse_bad_row(bytes: &[u8]) -> Result<(UnixMillis, String), FormatError> {
    let (time, why) = bytes.split_first_chunk::<8>().ok_or(FormatError::Field("a row of the list of bad copies"))?;
    Ok((UnixMillis(u64::from_be_bytes(*time)), String::from_utf8_lossy(why).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ValueRecord {
        ValueRecord {
            len: 3,
            hash: ContentHash([5; 32]),
            place: Place::Inline,
            content_type: Some("text/plain".into()),
            modified: UnixMillis(1000),
            expires: None,
            commit_by: UnixMillis(2000),
            replicas: vec![VolumeId::from_bytes([7; 16])],
            seq: None,
        }
    }

    fn key() -> impl Strategy<Value = Key> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(0xFE), Just(0xFF), any::<u8>()];
        proptest::collection::vec(byte, 1..12).prop_filter_map("reserved", |b| Key::new(b).ok())
    }

    proptest! {
        #[test]
        fn index_keys_round_trip_and_sort_as_key_and_version(a in key(), b in key(), va in any::<[u8; 16]>(), vb in any::<[u8; 16]>()) {
            let (va, vb) = (VersionId::from_bytes(va), VersionId::from_bytes(vb));
            let (ea, eb) = (entry_key(&a, va), entry_key(&b, vb));
            prop_assert_eq!(parse_entry_key(&ea).unwrap(), (a.clone(), va));
            prop_assert_eq!(ea.cmp(&eb), (a, va).cmp(&(b, vb)));
        }

        #[test]
        fn damaged_records_and_keys_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Record::decode(&bytes);
            let _ = parse_entry_key(&bytes);
            let _ = parse_blob_list_key(&bytes);
            let _ = parse_time_list_key(&bytes);
        }
    }

    #[test]
    fn records_round_trip_and_need_every_byte() {
        let tombstone = Record::Tombstone(Deleted { seq: 9, time: UnixMillis(8) });
        let file = Record::Value(ValueRecord { place: Place::File { file_len: 77 }, seq: Some(u64::MAX), ..sample() });
        for record in [Record::Value(sample()), file, tombstone] {
            let bytes = record.encode().unwrap();
            assert_eq!(Record::decode(&bytes).unwrap(), record);
            for cut in 0..bytes.len() {
                assert!(Record::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
            let newer = [&[RECORD_FORMAT + 1], &bytes[1..]].concat();
            assert_eq!(Record::decode(&newer), Err(FormatError::Newer { found: 2, known: 1 }));
        }
    }

    #[test]
    fn the_document_shows_the_record_that_is_written() {
        let record = ValueRecord {
            len: 12,
            hash: ContentHash::of(b"examplevalue"),
            place: Place::Inline,
            content_type: Some("text/plain".into()),
            modified: UnixMillis(1_700_000_000_000),
            expires: None,
            commit_by: UnixMillis(1_700_000_060_000),
            replicas: vec!["11111111-1111-4111-8111-111111111111".parse().unwrap()],
            seq: None,
        };
        let shown = crate::format::example("record");
        assert!(Record::Value(record.clone()).encode().unwrap() == shown, "{:02x?}", Record::Value(record).encode());
    }

    #[test]
    fn the_list_of_blob_files_sorts_as_directories_are_walked() {
        let v = VersionId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xAB, 0xCD]);
        let k = blob_list_key(v);
        assert_eq!(k[..2], [0xAB, 0xCD]);
        assert_eq!(parse_blob_list_key(&k).unwrap(), v);
        let mut other = k;
        other[0] ^= 1;
        assert!(parse_blob_list_key(&other).is_err());
    }
}
