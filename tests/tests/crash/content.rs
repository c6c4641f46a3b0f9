//! Values that name their key and their write, and the numbers that a seed decides.

use kvdb_tests::values::value;

/// Small ones go into the index, up to 64 KiB.
const SIZES: [usize; 8] = [0, 100, 5_000, 65_535, 65_536, 65_537, 100_000, 300_001];
const LARGE: usize = 2 << 20;

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
}

/// A value by what makes it: its length and the number of its write, which no other write has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub len: usize,
    pub write: u64,
}

/// What a key holds; none: it does not exist.
pub type State = Option<Content>;

impl Content {
    pub fn any(random: &mut Random, write: u64) -> Self {
        let n = usize::try_from(random.below(2 * SIZES.len() as u64)).unwrap();
        // One in sixteen is large: its ticket lives long, and what a crash leaves of it waits as long.
        let len = if n == 0 { LARGE } else { SIZES[n % SIZES.len()] };
        Self { len, write }
    }

    pub fn bytes(self, target: &str) -> Vec<u8> {
        let mut bytes = value(self.len, self.write);
        let label = format!("{target} {} {}\n", self.write, self.len);
        let labelled = label.len().min(self.len);
        bytes[..labelled].copy_from_slice(&label.as_bytes()[..labelled]);
        bytes
    }

    /// Which write made these bytes, by what they say themselves; none where they are not exactly what a write to this key sent.
    /// An empty value does not tell: its write is 0.
    pub fn of(bytes: &[u8], target: &str) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self { len: 0, write: 0 });
        }
        let label = std::str::from_utf8(bytes.split(|b| *b == b'\n').next()?).ok()?;
        let (write, len) = label.strip_prefix(target)?.trim_start().split_once(' ')?;
        let content = Self { len: len.parse().ok()?, write: write.parse().ok()? };
        (content.len == bytes.len() && content.bytes(target) == bytes).then_some(content)
    }
}

pub fn is(body: Option<&[u8]>, target: &str, state: State) -> bool {
    match (body, state) {
        (None, None) => true,
        (Some(bytes), Some(content)) => bytes.len() == content.len && bytes == content.bytes(target),
        _ => false,
    }
}

/// For a message: what a body is.
pub fn described(body: Option<&[u8]>) -> String {
    let Some(bytes) = body else { return "nothing".into() };
    format!("{} bytes that begin {:?}", bytes.len(), String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
}

#[test]
fn a_value_names_its_write_and_no_other_bytes_pass_for_it() {
    let mut random = Random::new(1);
    for write in 1..40 {
        let content = Content::any(&mut random, write);
        let mut bytes = content.bytes("/key");
        let found = Content::of(&bytes, "/key");
        assert_eq!(found.map(|c| c.len), Some(content.len));
        if content.len > 0 {
            assert_eq!(found, Some(content));
            assert_eq!(Content::of(&bytes, "/other"), None);
            *bytes.last_mut().unwrap() ^= 1;
            assert_eq!(Content::of(&bytes, "/key"), None);
            bytes.pop();
            assert_eq!(Content::of(&bytes, "/key"), None);
        }
    }
}
