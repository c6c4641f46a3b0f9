//! URLs of a master that permit one thing until a time, to whoever has them: `/key?signed=<until>.<by>.<MAC>`.
//!
//! Users ask for them, and a master puts them into the redirects that lead back to it, since clients drop their token on the way. The
//! layout is in `docs/protocol.md`.

use crate::id::ClusterId;
use crate::key::Key;
use crate::secret::ClusterSecret;
use crate::time::UnixMillis;

const CONTEXT: &str = "kvdb 2026-11 signed url key v1";

/// Path at which a master signs, for who has a token.
pub const PATH: &str = "/-/sign";
/// The query parameter.
pub const SIGNED: &str = "signed";
/// Longest life of a URL that users ask for: 7 days.
pub const MAX_LIFE: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
/// So much of a token's hash names it.
pub const TOKEN_ID_BYTES: usize = 8;

/// The first bytes of a token's hash, by which it can be named to anybody.
pub type TokenId = [u8; TOKEN_ID_BYTES];

/// What such a URL can permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlRight {
    /// `GET` and `HEAD`.
    Read,
    /// `PUT` and `POST`.
    Write,
}

/// What a URL permits.
#[derive(Clone, Copy, Debug)]
pub struct SignedUrl<'a> {
    /// In which cluster.
    pub cluster: ClusterId,
    /// What may be done.
    pub right: UrlRight,
    /// With which keys, in the order in which the URL names them.
    pub keys: &'a [Key],
}

/// On whose word, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The last moment at which it is good, by the cluster's time.
    pub until: UnixMillis,
    /// The token that must have the right still; none: it hangs on no token.
    pub by: Option<TokenId>,
}

/// Signs URLs. It signs nothing else, so that no other signature of the cluster can pass for one.
#[derive(Clone)]
pub struct UrlKey([u8; 32]);

impl ClusterSecret {
    /// The key for signed URLs.
    pub fn url_key(&self) -> UrlKey {
        UrlKey(blake3::derive_key(CONTEXT, self.expose().as_bytes()))
    }
}

impl UrlKey {
    /// The value of the parameter.
    pub fn sign(&self, url: &SignedUrl<'_>, stamp: Stamp) -> String {
        let by: String = stamp.by.iter().flatten().map(|b| format!("{b:02x}")).collect();
        format!("{}.{by}.{}", stamp.until.0, self.mac(url, stamp).to_hex())
    }

    /// The stamp, if the value is this URL's. Compared in constant time; whether it is in time is for the caller to see.
    pub fn verify(&self, url: &SignedUrl<'_>, value: &str) -> Option<Stamp> {
        let (until, rest) = value.split_once('.')?;
        let (by, mac) = rest.split_once('.')?;
        let until = until.bytes().all(|b| b.is_ascii_digit()).then(|| until.parse().ok()).flatten()?;
        let stamp = Stamp { until: UnixMillis(until), by: if by.is_empty() { None } else { Some(token_id(by)?) } };
        blake3::Hash::from_hex(mac).is_ok_and(|given| given == self.mac(url, stamp)).then_some(stamp)
    }

    fn mac(&self, url: &SignedUrl<'_>, stamp: Stamp) -> blake3::Hash {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        let right = match url.right {
            UrlRight::Read => b'r',
            UrlRight::Write => b'w',
        };
        h.update(url.cluster.as_bytes()).update(&[right]).update(&stamp.until.0.to_le_bytes());
        match &stamp.by {
            Some(id) => h.update(&[1]).update(id),
            None => h.update(&[0]),
        };
        for key in url.keys {
            let len = u32::try_from(key.as_bytes().len()).unwrap_or(u32::MAX);
            h.update(&len.to_le_bytes()).update(key.as_bytes());
        }
        h.finalize()
    }
}

fn token_id(hex: &str) -> Option<TokenId> {
    let number = u64::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 2 * TOKEN_ID_BYTES);
    number.map(u64::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> Vec<Key> {
        texts.iter().map(|t| Key::new(*t).unwrap()).collect()
    }

    #[test]
    fn a_signature_holds_for_its_url_alone() {
        let key = ClusterSecret::random().url_key();
        let (one, two) = (keys(&["a/b"]), keys(&["a/b", "c"]));
        let url = SignedUrl { cluster: ClusterId::random(), right: UrlRight::Read, keys: &two };
        let stamp = Stamp { until: UnixMillis(5), by: Some([7; TOKEN_ID_BYTES]) };
        let signed = key.sign(&url, stamp);
        assert_eq!(key.verify(&url, &signed), Some(stamp));
        let (joined, swapped) = (keys(&["a/bc"]), keys(&["c", "a/b"]));
        let others = [
            SignedUrl { cluster: ClusterId::random(), ..url },
            SignedUrl { right: UrlRight::Write, ..url },
            SignedUrl { keys: &one, ..url },
            SignedUrl { keys: &joined, ..url },
            SignedUrl { keys: &swapped, ..url },
            SignedUrl { keys: &[], ..url },
        ];
        assert!(others.iter().all(|o| key.verify(o, &signed).is_none()));
        assert_eq!(ClusterSecret::random().url_key().verify(&url, &signed), None);
        let unnamed = Stamp { by: None, ..stamp };
        assert_eq!(key.verify(&url, &key.sign(&url, unnamed)), Some(unnamed));
    }

    #[test]
    fn nothing_of_a_signature_can_be_altered() {
        let (key, keys) = (ClusterSecret::random().url_key(), keys(&["k"]));
        let url = SignedUrl { cluster: ClusterId::random(), right: UrlRight::Write, keys: &keys };
        let signed = key.sign(&url, Stamp { until: UnixMillis(1_700_000_000_000), by: Some([0xab; TOKEN_ID_BYTES]) });
        for at in 0..signed.len() {
            let mut other = signed.clone().into_bytes();
            other[at] = if other[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(key.verify(&url, std::str::from_utf8(&other).unwrap()), None, "byte {at}");
            assert_eq!(key.verify(&url, &signed[..at]), None, "cut at {at}");
        }
        for bad in ["", ".", "..", "+1..x", &signed.replace(".abab", ".+bab"), &signed.replace(".abab", ".")] {
            assert_eq!(key.verify(&url, bad), None, "{bad}");
        }
    }
}
