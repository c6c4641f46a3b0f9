//! The cluster secret and the keys made of it.
//!
//! Two keys are derived with BLAKE3 `derive_key`, so that a ticket can never pass for a call between
//! servers. Comparison goes through [`blake3::Hash`], whose equality takes constant time.

use crate::id::{ClusterId, VolumeId};
use std::fmt;

const TICKET_CONTEXT: &str = "kvdb 2026-11 ticket key v1";
const PEER_CONTEXT: &str = "kvdb 2026-11 peer call key v1";

/// Shortest secret that is accepted, in bytes.
pub const MIN_SECRET_BYTES: usize = 16;

/// The secret that all servers of a cluster share. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(String);

/// A secret of fewer than [`MIN_SECRET_BYTES`] bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the cluster secret has {0} bytes; use at least 16, for instance of `openssl rand -hex 32`")]
pub struct SecretTooShort(usize);

impl ClusterSecret {
    /// Takes a secret; white space around it is dropped, as files end in a newline.
    pub fn new(text: &str) -> Result<Self, SecretTooShort> {
        let text = text.trim();
        if text.len() < MIN_SECRET_BYTES {
            return Err(SecretTooShort(text.len()));
        }
        Ok(Self(text.to_string()))
    }

    /// A new secret of 244 random bits, as hex.
    pub fn random() -> Self {
        Self(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()))
    }

    /// The text, to hand it to a volume or keep it in a file.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key for tickets.
    pub fn ticket_key(&self) -> TicketKey {
        TicketKey(blake3::derive_key(TICKET_CONTEXT, self.0.as_bytes()))
    }

    /// The key for calls between servers.
    pub fn peer_key(&self) -> PeerKey {
        PeerKey(blake3::derive_key(PEER_CONTEXT, self.0.as_bytes()))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

/// Signs tickets.
#[derive(Clone)]
pub struct TicketKey([u8; 32]);

impl TicketKey {
    pub(crate) fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }

    /// Signs the host that a volume may send a reader back to; the value of the query parameter `back`.
    pub fn sign_back(&self, host: &str) -> String {
        let mac = self.back_mac(host);
        format!("{host}~{}", mac.to_hex().get(..32).unwrap_or_default())
    }

    /// The host inside a `back` parameter, if this cluster signed it.
    pub fn verify_back<'a>(&self, value: &'a str) -> Option<&'a str> {
        let (host, _) = value.rsplit_once('~')?;
        // Equal as whole strings: what differs is public, and the MAC is not a secret of its holder.
        let good = blake3::hash(self.sign_back(host).as_bytes()) == blake3::hash(value.as_bytes());
        good.then_some(host)
    }

    fn back_mac(&self, host: &str) -> blake3::Hash {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        h.update(b"back:").update(host.as_bytes());
        h.finalize()
    }
}

/// Signs calls between servers.
#[derive(Clone)]
pub struct PeerKey([u8; 32]);

/// The header that carries the signature of a call between servers: 64 hex digits.
pub const PEER_HEADER: &str = "kvdb-peer";

/// What a signature of a call between servers covers.
///
/// There is no time in it: every call between servers is idempotent by version, and clocks may differ.
#[derive(Clone, Copy, Debug)]
pub struct PeerCall<'a> {
    /// The caller's and the receiver's cluster.
    pub cluster: ClusterId,
    /// The volume that is called, or that calls the master.
    pub volume: VolumeId,
    /// The method, upper case.
    pub method: &'a str,
    /// The request target: path and query.
    pub target: &'a str,
    /// The body, or `None` where it is a stream.
    pub body: Option<&'a [u8]>,
}

impl PeerKey {
    /// Signs a call.
    pub fn sign(&self, call: &PeerCall<'_>) -> String {
        self.mac(call).to_hex().to_string()
    }

    /// Whether `signature` is this call's, in constant time.
    pub fn verify(&self, call: &PeerCall<'_>, signature: &str) -> bool {
        blake3::Hash::from_hex(signature).is_ok_and(|given| given == self.mac(call))
    }

    fn mac(&self, call: &PeerCall<'_>) -> blake3::Hash {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        h.update(call.cluster.as_bytes()).update(call.volume.as_bytes());
        for part in [call.method, call.target] {
            h.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes()).update(part.as_bytes());
        }
        match call.body {
            Some(b) => h.update(&[1]).update(blake3::hash(b).as_bytes()),
            None => h.update(&[0]),
        };
        h.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_call_alone() {
        let key = ClusterSecret::random().peer_key();
        let call = PeerCall {
            cluster: ClusterId::random(),
            volume: VolumeId::random(),
            method: "POST",
            target: "/-/peer/x?a=1",
            body: Some(b"b"),
        };
        let s = key.sign(&call);
        assert!(key.verify(&call, &s));
        let others = [
            PeerCall { volume: VolumeId::random(), ..call },
            PeerCall { cluster: ClusterId::random(), ..call },
            PeerCall { method: "PUT", ..call },
            PeerCall { target: "/-/peer/x?a=2", ..call },
            PeerCall { body: Some(b"c"), ..call },
            PeerCall { body: None, ..call },
        ];
        assert!(others.iter().all(|o| !key.verify(o, &s)));
        assert!(!ClusterSecret::random().peer_key().verify(&call, &s));
    }

    #[test]
    fn a_back_link_is_only_taken_from_its_cluster() {
        let key = ClusterSecret::random().ticket_key();
        let link = key.sign_back("localhost:3000");
        assert_eq!(key.verify_back(&link), Some("localhost:3000"));
        assert_eq!(key.verify_back(&link.replace("localhost", "evil")), None);
        assert_eq!(key.verify_back("localhost:3000"), None);
        assert_eq!(ClusterSecret::random().ticket_key().verify_back(&link), None);
    }

    #[test]
    fn short_secrets_are_refused_and_secrets_are_not_printed() {
        assert!(ClusterSecret::new("  short \n").is_err());
        let s = ClusterSecret::new("0123456789abcdef\n").unwrap();
        assert_eq!(s.expose(), "0123456789abcdef");
        assert!(!format!("{s:?}").contains("0123"));
    }
}
