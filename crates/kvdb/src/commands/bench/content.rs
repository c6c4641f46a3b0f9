//! What the values hold: bytes that follow from the key, that no compressor shrinks and no two keys share.

use std::io;

/// Length of the pattern that values repeat.
pub const PERIOD: usize = 1 << 20;
/// A value begins with its key's own bytes.
const STAMP_BYTES: u64 = 16;
const STAMP: usize = STAMP_BYTES as usize;

/// The bytes that all values are cut out of.
pub struct Pattern {
    /// The pattern twice, so that a period that begins anywhere is one slice.
    twice: Vec<u8>,
}

/// The content of one key: a stamp, then the pattern from a place that the key decides.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    pattern: &'a Pattern,
    stamp: [u8; STAMP],
    shift: usize,
}

impl Pattern {
    pub fn new() -> Self {
        let mut twice = vec![0; 2 * PERIOD];
        let (first, second) = twice.split_at_mut(PERIOD);
        blake3::Hasher::new().update(b"kvdb bench").finalize_xof().fill(first);
        second.copy_from_slice(first);
        Self { twice }
    }

    /// The content of a key.
    pub fn content(&self, key: &str) -> Content<'_> {
        let hash = *blake3::hash(key.as_bytes()).as_bytes();
        let mut stamp = [0; STAMP];
        stamp.copy_from_slice(&hash[..STAMP]);
        let shift = u32::from_le_bytes([hash[16], hash[17], hash[18], 0]) as usize % PERIOD;
        Content { pattern: self, stamp, shift }
    }
}

impl Content<'_> {
    /// Bytes of the content from `at` on: at most a period and at most `most`, and at least one of these.
    pub fn slice(&self, at: u64, most: u64) -> &[u8] {
        let most = usize::try_from(most).unwrap_or(PERIOD).min(PERIOD);
        if at < STAMP_BYTES {
            let rest = self.stamp.get(usize::try_from(at).unwrap_or(0)..).unwrap_or_default();
            return &rest[..most.min(rest.len())];
        }
        // Less than a period: it fits.
        let within = usize::try_from(at % PERIOD as u64).unwrap_or(0);
        let start = (within + self.shift) % PERIOD;
        &self.pattern.twice[start..start + most]
    }

    /// Compares what arrived with the content from `at` on.
    pub fn compare(&self, mut at: u64, mut got: &[u8]) -> io::Result<()> {
        while !got.is_empty() {
            let want = self.slice(at, got.len() as u64);
            let (now, rest) = got.split_at(want.len());
            if now != want {
                return Err(io::Error::other(format!("wrong content within {} bytes after byte {at}", want.len())));
            }
            (at, got) = (at + want.len() as u64, rest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: &Content<'_>, from: u64, to: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while from + (out.len() as u64) < to {
            let at = from + out.len() as u64;
            out.extend_from_slice(content.slice(at, to - at));
        }
        out
    }

    #[test]
    fn any_part_of_a_content_is_the_same_bytes() {
        let pattern = Pattern::new();
        let content = pattern.content("k-1");
        let whole = bytes(&content, 0, 3_000_000);
        for (from, to) in [(0, 1), (3, 15), (3, 17), (16, 40), (1_048_570, 1_048_590), (2_000_000, 3_000_000)] {
            assert!(bytes(&content, from, to) == whole[from as usize..to as usize], "{from}..{to}");
            content.compare(from, &whole[from as usize..to as usize]).unwrap();
        }
    }

    #[test]
    fn keys_differ_in_their_first_bytes_and_after_them() {
        let pattern = Pattern::new();
        let (a, b) = (pattern.content("k-1"), pattern.content("k-2"));
        assert_ne!(bytes(&a, 0, 16), bytes(&b, 0, 16));
        assert_ne!(bytes(&a, 16, 64), bytes(&b, 16, 64));
    }

    #[test]
    fn one_wrong_byte_is_found_wherever_it_is() {
        let pattern = Pattern::new();
        let content = pattern.content("k");
        for at in [0, 15, 16, 1_048_575, 1_048_576, 1_999_999] {
            let mut got = bytes(&content, 0, 2_000_000);
            got[at] ^= 1;
            assert!(content.compare(0, &got).is_err(), "{at}");
        }
    }
}
