//! Bounds that clients and servers share. Flags may lower or raise those documented as defaults.

/// Longest key, in bytes after percent-decoding.
pub const MAX_KEY_BYTES: usize = 1024;
/// Default for the largest value, in bytes (5 GiB).
pub const DEFAULT_MAX_VALUE_BYTES: u64 = 5 << 30;
/// Longest content type that is stored, in bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 256;
/// Longest request target, in bytes; beyond it the answer is 414.
pub const MAX_URI_BYTES: usize = 64 << 10;
/// Most header fields of a request; beyond it the answer is 431.
pub const MAX_HEADERS: usize = 100;
/// Largest body that a master reads and drops before it redirects, in bytes.
pub const MAX_DROPPED_BODY_BYTES: u64 = 64 << 10;
/// Largest value that lives inside a volume's index, in bytes.
pub const MAX_INLINE_VALUE_BYTES: u64 = 64 << 10;
/// Size of a subtree of the BLAKE3 tree whose chaining value is stored, in bytes.
pub const SUBTREE_BYTES: u64 = 256 << 10;
/// Most replicas of a value.
pub const MAX_REPLICAS: usize = 8;
/// Most keys of one list page, and its default.
pub const MAX_LIST_PAGE_KEYS: usize = 10_000;
/// Keys of a list page when no limit is given.
pub const DEFAULT_LIST_PAGE_KEYS: usize = 1_000;
/// Most keys of one page with values, and its default.
pub const MAX_VALUES_PAGE_KEYS: usize = 1_000;
/// Most bytes of the values of one page; one longer than [`MAX_INLINE_VALUE_BYTES`] is told by its location.
pub const MAX_VALUES_PAGE_BYTES: u64 = 8 << 20;
/// Most bytes that the keys may take in the URL when the newest of them is asked for.
pub const MAX_NEWEST_QUERY_BYTES: usize = 8 << 10;
/// Largest body of a call between servers that is not a stream, in bytes.
pub const MAX_PEER_BODY_BYTES: usize = 1 << 20;
/// Most versions named in one reclaim or settle call.
pub const MAX_PEER_BATCH: usize = 256;
/// Most commits that are asked for in one call; with the longest tickets they fit in [`MAX_PEER_BODY_BYTES`].
pub const MAX_PEER_COMMITS: usize = 64;
/// Longest encoded ticket, in characters.
pub const MAX_TICKET_CHARS: usize = 8 << 10;
