//! Values of any size, each byte of which depends on its place, and digests of them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::Digest as _;

/// Sizes around everything that is treated apart: the empty value, pages, the largest value inside the index, subtrees of
/// the hash, and several buffers.
pub const SIZES: [usize; 15] =
    [0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 262_143, 262_144, 262_145, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 3];

/// `len` bytes that look random; another `seed`, other bytes.
pub fn value(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The ETag that a value must have.
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(bytes).to_hex())
}

/// As a `Content-MD5` header says it.
pub fn content_md5(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(md5::Md5::digest(bytes))
}

/// As a `Repr-Digest` header says it.
pub fn sha256_digest(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(sha2::Sha256::digest(bytes)))
}

/// Fails with the first difference, not with megabytes of bytes.
#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    let at = found.iter().zip(expected).position(|(f, e)| f != e);
    panic!("{what}: {} bytes instead of {}, first difference at {at:?}", found.len(), expected.len());
}
