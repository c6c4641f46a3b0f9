//! URLs that permit one operation on one key until a time, to whoever has them.
//!
//! `/key?expires=<ms>&by=<id of a token>&signature=<MAC>`: the signature covers the cluster, the method, the key and all of the query
//! before it. It is made with a key of its own, so that no other signature of the cluster can pass for one.

use crate::id::ClusterId;
use crate::key::Key;
use crate::secret::ClusterSecret;

const CONTEXT: &str = "kvdb 2026-11 signed url key v1";

/// The query parameter with the signature, the last that is signed.
pub const SIGNATURE: &str = "signature";
/// The query parameter with the time until which the URL is good, in milliseconds since 1970.
pub const EXPIRES: &str = "expires";
/// The query parameter with the token that had it signed: the first 16 hex digits of its hash.
pub const BY: &str = "by";

/// Signs URLs.
#[derive(Clone)]
pub struct UrlKey([u8; 32]);

/// What a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedUrl<'a> {
    /// The cluster.
    pub cluster: ClusterId,
    /// The method, upper case; `GET` also stands for `HEAD`.
    pub method: &'a str,
    /// The key.
    pub key: &'a Key,
    /// The query as it stands in the URL, up to the `&` before [`SIGNATURE`].
    pub query: &'a str,
}

impl ClusterSecret {
    /// The key for signed URLs.
    pub fn url_key(&self) -> UrlKey {
        UrlKey(blake3::derive_key(CONTEXT, self.expose().as_bytes()))
    }
}

impl UrlKey {
    /// Signs a URL: 64 hex digits.
    pub fn sign(&self, url: &SignedUrl<'_>) -> String {
        self.mac(url).to_hex().to_string()
    }

    /// Whether `signature` is this URL's, in constant time.
    pub fn verify(&self, url: &SignedUrl<'_>, signature: &str) -> bool {
        blake3::Hash::from_hex(signature).is_ok_and(|given| given == self.mac(url))
    }

    fn mac(&self, url: &SignedUrl<'_>) -> blake3::Hash {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        h.update(url.cluster.as_bytes());
        for part in [url.method.as_bytes(), url.key.as_bytes(), url.query.as_bytes()] {
            h.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes()).update(part);
        }
        h.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_url_alone() {
        let key = ClusterSecret::random().url_key();
        let (k, other) = (Key::new("a/b").unwrap(), Key::new("a/bG").unwrap());
        let url = SignedUrl { cluster: ClusterId::random(), method: "GET", key: &k, query: "expires=5&by=0" };
        let signature = key.sign(&url);
        assert!(key.verify(&url, &signature));
        let others = [
            SignedUrl { cluster: ClusterId::random(), ..url },
            SignedUrl { method: "PUT", ..url },
            SignedUrl { key: &other, ..url },
            SignedUrl { query: "expires=6&by=0", ..url },
            SignedUrl { query: "", ..url },
        ];
        assert!(others.iter().all(|o| !key.verify(o, &signature)));
        assert!(!key.verify(&url, &signature[..63]) && !key.verify(&url, ""));
        assert!(!ClusterSecret::random().url_key().verify(&url, &signature));
    }
}
