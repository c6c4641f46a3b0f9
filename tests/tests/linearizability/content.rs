//! Values that name their key, their writer and their write, and the numbers that a seed decides.

use kvdb_tests::values::value;

/// Of all sizes the smallest is the most frequent: it goes into the index, the others into files.
const SIZES: [usize; 4] = [16, 70 << 10, 300 << 10, 2 << 20];

/// Numbers that a seed decides.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub fn size(&mut self) -> usize {
        match self.below(100) {
            0..60 => SIZES[0],
            60..85 => SIZES[1],
            85..98 => SIZES[2],
            _ => SIZES[3],
        }
    }
}

/// The bytes of a write: its number, its key, its length, and what looks random but follows from them.
pub fn bytes(key: usize, write: u64, len: usize) -> Vec<u8> {
    let mut bytes = write.to_le_bytes().to_vec();
    bytes.extend(u32::try_from(key).unwrap().to_le_bytes());
    bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
    bytes.extend(value(len - bytes.len(), write));
    bytes
}

/// Which write these bytes are of, if they are exactly what it sent.
pub fn write_of(found: &[u8], key: usize) -> Option<u64> {
    let write = u64::from_le_bytes(found.get(..8)?.try_into().ok()?);
    (found.len() >= 16 && bytes(key, write, found.len()) == found).then_some(write)
}

#[test]
fn a_value_names_its_key_and_write_and_no_other_bytes_pass_for_it() {
    for len in SIZES {
        let mut made = bytes(3, 77, len);
        assert_eq!((made.len(), write_of(&made, 3), write_of(&made, 2)), (len, Some(77), None));
        *made.last_mut().unwrap() ^= 1;
        assert_eq!(write_of(&made, 3), None);
        made.pop();
        assert_eq!(write_of(&made, 3), None);
    }
}
