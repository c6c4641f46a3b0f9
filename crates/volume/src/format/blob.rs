//! A blob file: content, footer, tail. All numbers are little endian.

use super::{FORMAT, FormatError};
use kvdb_protocol::limits::{MAX_CONTENT_TYPE_BYTES, MAX_KEY_BYTES, MAX_REPLICAS, SUBTREE_BYTES};
use kvdb_protocol::tree::{ChainingValue, chaining_value_count};
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};

/// First bytes of the tail.
pub const MAGIC: [u8; 8] = *b"kvDBblob";
/// Length of the tail, the last bytes of every blob file.
pub const TAIL_BYTES: usize = 32;
/// Length of the part of a footer that is there in every file.
pub const FOOTER_FIXED_BYTES: usize = 96;
/// Longest content, in bytes (256 GiB): with it, what is read of a footer is bounded whatever a file claims.
pub const MAX_CONTENT_BYTES: u64 = 256 << 30;
/// What `expires` holds for a value that never does.
const NEVER: u64 = u64::MAX;
/// What the length of the content type holds where there is none.
const NO_CONTENT_TYPE: u16 = u16::MAX;
const ID_BYTES: usize = 16;
const CHAINING_VALUE_BYTES: usize = 32;
/// Of the tail, what the checksum covers besides the footer.
const TAIL_CHECKED_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 16;

const _: () = assert!(TAIL_CHECKED_BYTES + CHECKSUM_BYTES == TAIL_BYTES);
const _: () = assert!(MAGIC.len() + 4 + 4 == TAIL_CHECKED_BYTES);
const _: () = assert!(16 + 8 + 32 + 8 + 8 + 8 + 2 + 2 + 1 + 3 + 4 + 4 == FOOTER_FIXED_BYTES);
const _: () = assert!(MAX_CONTENT_TYPE_BYTES < NO_CONTENT_TYPE as usize && MAX_REPLICAS <= u8::MAX as usize);

/// What a blob file says of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The key.
    pub key: Key,
    /// The version; it is also the file's name.
    pub version: VersionId,
    /// Length of the content, in bytes.
    pub len: u64,
    /// BLAKE3 of the content.
    pub hash: ContentHash,
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
    /// Chaining values of the subtrees; none where the content is a single subtree.
    pub subtrees: Vec<ChainingValue>,
}

/// Where the parts of a blob file are, as its tail says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Length of the content; the footer begins here.
    pub content_len: u64,
    /// Length of the footer, without the tail. Bounded by what the content's length can ask for.
    pub footer_len: usize,
    format: u32,
    tail: [u8; TAIL_BYTES],
}

/// Most bytes of a footer and a tail for a content of `len` bytes.
pub fn max_overhead(len: u64) -> u64 {
    let variable = MAX_KEY_BYTES + MAX_CONTENT_TYPE_BYTES + MAX_REPLICAS * ID_BYTES;
    (FOOTER_FIXED_BYTES + variable + TAIL_BYTES) as u64 + chaining_value_count(len).saturating_mul(CHAINING_VALUE_BYTES as u64)
}

impl Footer {
    /// The footer and the tail, as they follow the content.
    ///
    /// # Errors
    /// A field is longer than the format can hold.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let content_type = self.content_type.as_deref().unwrap_or_default().as_bytes();
        if content_type.len() > MAX_CONTENT_TYPE_BYTES {
            return Err(FormatError::Field("the content type's length"));
        }
        if self.replicas.len() > MAX_REPLICAS {
            return Err(FormatError::Field("the number of replicas"));
        }
        if self.subtrees.len() as u64 != chaining_value_count(self.len) {
            return Err(FormatError::Field("the number of chaining values"));
        }
        let key_len = u16::try_from(self.key.as_bytes().len()).map_err(|_| FormatError::Field("the key's length"))?;
        let type_len = match self.content_type {
            None => NO_CONTENT_TYPE,
            Some(_) => u16::try_from(content_type.len()).map_err(|_| FormatError::Field("the content type's length"))?,
        };
        let replica_count = u8::try_from(self.replicas.len()).map_err(|_| FormatError::Field("the number of replicas"))?;
        let subtree_count = u32::try_from(self.subtrees.len()).map_err(|_| FormatError::Field("the number of chaining values"))?;
        let subtree_bytes = u32::try_from(SUBTREE_BYTES).map_err(|_| FormatError::Field("the subtree's size"))?;

        let mut out = Vec::with_capacity(usize::try_from(max_overhead(self.len)).unwrap_or(0));
        out.extend(self.version.as_bytes());
        out.extend(self.len.to_le_bytes());
        out.extend(self.hash.0);
        out.extend(self.modified.0.to_le_bytes());
        out.extend(self.expires.map_or(NEVER, |t| t.0).to_le_bytes());
        out.extend(self.commit_by.0.to_le_bytes());
        out.extend(key_len.to_le_bytes());
        out.extend(type_len.to_le_bytes());
        out.extend([replica_count, 0, 0, 0]);
        out.extend(subtree_count.to_le_bytes());
        out.extend(subtree_bytes.to_le_bytes());
        debug_assert_eq!(out.len(), FOOTER_FIXED_BYTES);
        out.extend(self.key.as_bytes());
        out.extend(content_type);
        self.replicas.iter().for_each(|r| out.extend(r.as_bytes()));
        self.subtrees.iter().for_each(|s| out.extend(s));

        let footer_len = u32::try_from(out.len()).map_err(|_| FormatError::Field("the footer's length"))?;
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(footer_len.to_le_bytes());
        let sum = checksum(&out);
        out.extend(sum);
        Ok(out)
    }

    /// Reads a footer: the `layout.footer_len` bytes that follow the content.
    ///
    /// # Errors
    /// The bytes were damaged, or are not consistent with each other and with the file's length.
    pub fn parse(layout: &Layout, bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() != layout.footer_len {
            return Err(FormatError::TooShort { what: "the footer", found: bytes.len() as u64 });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes).update(&layout.tail[..TAIL_CHECKED_BYTES]);
        if hasher.finalize().as_bytes()[..CHECKSUM_BYTES] != layout.tail[TAIL_CHECKED_BYTES..] {
            return Err(FormatError::Checksum);
        }
        // Only now: a flipped bit in the format must not pass for a newer program's work.
        if layout.format > FORMAT {
            return Err(FormatError::Newer { found: layout.format, known: FORMAT });
        }
        if layout.format != FORMAT {
            return Err(FormatError::Field("the format"));
        }

        // Everything below is what we wrote; it is checked all the same, since a checksum is no proof of sense.
        let mut r = Reader(bytes);
        let version = VersionId::from_bytes(r.array()?);
        let len = r.u64()?;
        if len != layout.content_len {
            return Err(FormatError::Field("the content's length"));
        }
        let hash = ContentHash(r.array()?);
        let modified = UnixMillis(r.u64()?);
        let expires = Some(r.u64()?).filter(|t| *t != NEVER).map(UnixMillis);
        let commit_by = UnixMillis(r.u64()?);
        let key_len = usize::from(r.u16()?);
        let type_len = r.u16()?;
        let [replica_count, reserved @ ..] = r.array::<4>()?;
        if reserved != [0; 3] {
            return Err(FormatError::Field("what is reserved"));
        }
        if usize::from(replica_count) > MAX_REPLICAS {
            return Err(FormatError::Field("the number of replicas"));
        }
        if type_len != NO_CONTENT_TYPE && usize::from(type_len) > MAX_CONTENT_TYPE_BYTES {
            return Err(FormatError::Field("the content type's length"));
        }
        let subtree_count = r.u32()?;
        let subtree_bytes = r.u32()?;
        if u64::from(subtree_bytes) != SUBTREE_BYTES {
            return Err(FormatError::Field("the subtree's size"));
        }
        if u64::from(subtree_count) != chaining_value_count(len) {
            return Err(FormatError::Field("the number of chaining values"));
        }
        let key = Key::new(r.take(key_len)?).map_err(|_| FormatError::Field("the key"))?;
        let content_type = match type_len {
            NO_CONTENT_TYPE => None,
            n => {
                let text = std::str::from_utf8(r.take(usize::from(n))?).map_err(|_| FormatError::Field("the content type"))?;
                Some(text.to_string())
            }
        };
        let replicas = (0..replica_count).map(|_| r.array().map(VolumeId::from_bytes)).collect::<Result<_, _>>()?;
        let subtrees = (0..subtree_count).map(|_| r.array()).collect::<Result<_, _>>()?;
        if !r.0.is_empty() {
            return Err(FormatError::Field("the footer's length"));
        }
        Ok(Self { key, version, len, hash, content_type, modified, expires, commit_by, replicas, subtrees })
    }
}

impl Layout {
    /// Reads a tail: the last bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// The tail is not one of ours, or does not fit the file.
    pub fn parse(file_len: u64, tail: [u8; TAIL_BYTES]) -> Result<Self, FormatError> {
        let mut r = Reader(&tail);
        if r.array()? != MAGIC {
            return Err(FormatError::Magic);
        }
        let format = r.u32()?;
        let footer_len = r.u32()?;
        let content_len = file_len
            .checked_sub(TAIL_BYTES as u64 + u64::from(footer_len))
            .ok_or(FormatError::TooShort { what: "the file", found: file_len })?;
        // The bound on what is read into memory: it follows from the file's real length.
        if content_len > MAX_CONTENT_BYTES {
            return Err(FormatError::Field("the content's length"));
        }
        if u64::from(footer_len) + TAIL_BYTES as u64 > max_overhead(content_len) {
            return Err(FormatError::Field("the footer's length"));
        }
        let footer_len = usize::try_from(footer_len).map_err(|_| FormatError::Field("the footer's length"))?;
        Ok(Self { content_len, footer_len, format, tail })
    }
}

fn checksum(footer_and_tail_head: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&blake3::hash(footer_and_tail_head).as_bytes()[..CHECKSUM_BYTES]);
    sum
}

/// Takes fields off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(FormatError::TooShort { what: "the footer", found: self.0.len() as u64 })?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
