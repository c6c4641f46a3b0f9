//! Takes choices off the front of a target's bytes. Where they run out, the choice is zero.

pub(crate) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((&b, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        b
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Up to the next newline.
    pub fn line(&mut self) -> &'a [u8] {
        let at = self.0.iter().position(|b| *b == b'\n').unwrap_or(self.0.len());
        let line = self.bytes(at);
        self.byte();
        line
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Cuts bytes into portions, of sizes that another few bytes choose, over and over; none: one portion.
pub(crate) fn cut<'a>(mut bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for n in sizes.iter().cycle().map(|n| usize::from(*n).max(1)) {
        if bytes.len() <= n {
            break;
        }
        let (part, rest) = bytes.split_at(n);
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

/// The bytes with one bit changed, of those there are.
pub(crate) fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut other = bytes.to_vec();
    let n = bit % (bytes.len() * 8);
    other[n / 8] ^= 1 << (n % 8);
    other
}

/// The bytes behind a choice.
pub(crate) fn chosen(choice: &[u8], bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [choice, bytes.as_ref()].concat()
}
