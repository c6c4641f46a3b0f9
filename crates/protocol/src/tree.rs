//! The BLAKE3 tree of a value, cut into subtrees of [`SUBTREE_BYTES`].
//!
//! The chaining values of the subtrees are kept beside a value, so that any 256 KiB of it can be checked
//! without reading the rest: a subtree against its chaining value, all chaining values against the hash.
//! A value of at most one subtree has no chaining values: that subtree is the root.

use crate::hash::ContentHash;
use crate::lab::{self, Bug};
use crate::limits::SUBTREE_BYTES;
use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::ops::Range;

/// The hash of a subtree that is not the root.
pub type ChainingValue = [u8; 32];

/// A value's hash and the chaining values of its subtrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHash {
    /// Length of the value, in bytes.
    pub len: u64,
    /// BLAKE3 of the value.
    pub root: ContentHash,
    /// One for each subtree, in order; none where the value is a single subtree.
    pub subtrees: Vec<ChainingValue>,
}

/// Number of subtrees of a value of `len` bytes; an empty value is one empty subtree.
pub fn subtree_count(len: u64) -> u64 {
    len.div_ceil(SUBTREE_BYTES).max(1)
}

/// Number of chaining values that are kept for a value of `len` bytes.
pub fn chaining_value_count(len: u64) -> u64 {
    match subtree_count(len) {
        1 => 0,
        n => n,
    }
}

/// The bytes of subtree `index`, or none where there is no such subtree.
pub fn subtree_range(len: u64, index: u64) -> Option<Range<u64>> {
    (index < subtree_count(len)).then(|| index * SUBTREE_BYTES..len.min((index + 1).saturating_mul(SUBTREE_BYTES)))
}

/// Hashes a value that arrives in pieces. Pieces of whole subtrees are hashed fastest.
#[derive(Clone)]
pub struct TreeHasher {
    current: Hasher,
    current_bytes: u64,
    len: u64,
    closed: Vec<ChainingValue>,
}

impl TreeHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self { current: Hasher::new(), current_bytes: 0, len: 0, closed: Vec::new() }
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full subtree is closed only when more follows: until then it may be the root.
            if self.current_bytes == SUBTREE_BYTES {
                self.closed.push(self.current.finalize_non_root());
                self.current = Hasher::new();
                self.current.set_input_offset(self.len);
                self.current_bytes = 0;
            }
            let room = usize::try_from(SUBTREE_BYTES - self.current_bytes).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.current_bytes += now.len() as u64;
            self.len += now.len() as u64;
            bytes = rest;
        }
    }

    /// Bytes hashed so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was hashed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hash and the chaining values.
    pub fn finish(self) -> TreeHash {
        let mut subtrees = self.closed;
        if subtrees.is_empty() {
            return TreeHash { len: self.len, root: self.current.finalize().into(), subtrees };
        }
        subtrees.push(self.current.finalize_non_root());
        TreeHash { len: self.len, root: merge_root(&subtrees), subtrees }
    }
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash that the chaining values of a value of `len` bytes add up to. None where their number is not
/// the one that `len` asks for, or where the value is a single subtree and so has none.
pub fn root_of(len: u64, subtrees: &[ChainingValue]) -> Option<ContentHash> {
    let count = chaining_value_count(len);
    (count != 0 && subtrees.len() as u64 == count).then(|| merge_root(subtrees))
}

/// Whether `bytes` are subtree `index` of the value that has this length, hash and chaining values.
///
/// The chaining values must have been checked with [`root_of`] before.
pub fn verify_subtree(len: u64, root: &ContentHash, subtrees: &[ChainingValue], index: u64, bytes: &[u8]) -> bool {
    let Some(range) = subtree_range(len, index) else { return false };
    if lab::has(Bug::ReadNotChecked) {
        return true;
    }
    if bytes.len() as u64 != range.end - range.start {
        return false;
    }
    if subtree_count(len) == 1 {
        return ContentHash::of(bytes) == *root;
    }
    let found = Hasher::new().set_input_offset(range.start).update(bytes).finalize_non_root();
    usize::try_from(index).ok().and_then(|i| subtrees.get(i)).is_some_and(|expected| *expected == found)
}

/// The left side of a node over `n` subtrees: the largest power of two below `n` (n ≥ 2).
fn left_count(n: usize) -> usize {
    n.div_ceil(2).next_power_of_two()
}

fn merge_root(subtrees: &[ChainingValue]) -> ContentHash {
    debug_assert!(subtrees.len() >= 2, "a single subtree is the root itself");
    let (left, right) = subtrees.split_at(left_count(subtrees.len()));
    merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).into()
}

/// Recursion is as deep as the tree is high: 15 levels for 5 GiB.
fn merge(subtrees: &[ChainingValue]) -> ChainingValue {
    match subtrees {
        [one] => *one,
        more => {
            let (left, right) = more.split_at(left_count(more.len()));
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUB: usize = SUBTREE_BYTES as usize;

    fn value(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
    }

    fn hash_in_pieces(bytes: &[u8], piece: usize) -> TreeHash {
        let mut h = TreeHasher::new();
        for p in bytes.chunks(piece.max(1)) {
            h.update(p);
        }
        h.finish()
    }

    fn check(len: usize, piece: usize) {
        let bytes = value(len);
        let tree = hash_in_pieces(&bytes, piece);
        assert_eq!(tree.root, ContentHash::of(&bytes), "{len} in pieces of {piece}");
        assert_eq!(tree.len, len as u64);
        assert_eq!(tree.subtrees.len() as u64, chaining_value_count(len as u64));
        if !tree.subtrees.is_empty() {
            assert_eq!(root_of(len as u64, &tree.subtrees), Some(tree.root));
        }
        for i in 0..subtree_count(len as u64) {
            let r = subtree_range(len as u64, i).unwrap();
            let part = &bytes[r.start as usize..r.end as usize];
            assert!(verify_subtree(tree.len, &tree.root, &tree.subtrees, i, part));
            if let Some(last) = part.last() {
                let mut bad = part.to_vec();
                *bad.last_mut().unwrap() = last ^ 1;
                assert!(!verify_subtree(tree.len, &tree.root, &tree.subtrees, i, &bad));
                assert!(!verify_subtree(tree.len, &tree.root, &tree.subtrees, i, &part[1..]));
            }
        }
        assert!(!verify_subtree(tree.len, &tree.root, &tree.subtrees, subtree_count(tree.len), &[]));
    }

    #[test]
    fn the_root_is_blake3_around_every_boundary() {
        let mut lens = vec![0, 1, 1023, 1024, 1025, SUB / 2];
        for n in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17] {
            lens.extend([n * SUB - 1, n * SUB, n * SUB + 1]);
        }
        for len in lens {
            for piece in [len, SUB, 1 << 20, 100_003] {
                check(len, piece);
            }
        }
    }

    #[test]
    fn chaining_values_of_a_wrong_number_or_order_have_no_or_another_root() {
        let bytes = value(3 * SUB + 5);
        let tree = hash_in_pieces(&bytes, SUB);
        assert_eq!(root_of(tree.len, &tree.subtrees[..3]), None);
        assert_eq!(root_of(2 * SUBTREE_BYTES, &tree.subtrees), None);
        assert_eq!(root_of(5, &[]), None);
        let mut swapped = tree.subtrees.clone();
        swapped.swap(0, 1);
        assert_ne!(root_of(tree.len, &swapped), Some(tree.root));
    }

    #[test]
    fn equal_subtrees_at_different_places_do_not_pass_for_each_other() {
        let bytes = vec![7; 2 * SUB];
        let tree = hash_in_pieces(&bytes, SUB);
        assert_ne!(tree.subtrees[0], tree.subtrees[1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn any_length_in_any_pieces_hashes_as_a_whole(len in 0usize..(9 * SUB), piece in 1usize..(3 * SUB)) {
            check(len, piece.max(997));
        }
    }
}
