//! Identities: clusters, volumes, versions. All are UUIDs; as text, hyphenated lower case.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The 16 bytes, in the order that sorts as the text does.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the 16 bytes.
            pub const fn from_bytes(b: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(b))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            /// Takes the hyphenated form only.
            fn from_str(s: &str) -> Result<Self, uuid::Error> {
                s.parse::<uuid::fmt::Hyphenated>().map(|h| Self(h.into_uuid()))
            }
        }
    };
}

id!(
    /// A cluster: given out by the master when its database is made.
    ClusterId
);
id!(
    /// A volume: made when its directory is first used, and moves with the directory.
    VolumeId
);
id!(
    /// One immutable value of a key: a UUID v7 given out by the master, never smaller than one given before.
    VersionId
);

id!(
    /// A transaction: whoever knows it may put into it, commit it and give it up.
    TxnId
);

/// A name that nobody else gives, such as an `Idempotency-Key`.
pub fn random_name() -> String {
    Uuid::new_v4().to_string()
}

impl ClusterId {
    /// A new random cluster.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl TxnId {
    /// A new one, which nobody can guess.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl VolumeId {
    /// A new random volume.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl VersionId {
    /// A version from its 48-bit time in milliseconds and 74 further bits (RFC 9562 §5.7).
    pub fn from_parts(unix_millis: u64, low74: u128) -> Self {
        let ms = u128::from(unix_millis & 0xFFFF_FFFF_FFFF) << 80;
        let rand_a = ((low74 >> 62) & 0xFFF) << 64;
        let rand_b = low74 & 0x3FFF_FFFF_FFFF_FFFF;
        Self(Uuid::from_u128(ms | (0x7 << 76) | rand_a | (0b10 << 62) | rand_b))
    }

    /// The 48-bit time, in milliseconds since 1970.
    pub fn unix_millis(&self) -> u64 {
        u64::try_from(self.0.as_u128() >> 80).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_uuid_v7_that_sorts_by_time_then_counter() {
        let a = VersionId::from_parts(1_000, (1 << 74) - 1);
        let b = VersionId::from_parts(1_001, 0);
        let c = VersionId::from_parts(1_001, 1 << 62);
        assert!(a < b && b < c);
        assert_eq!(a.0.get_version_num(), 7);
        assert_eq!(a.0.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(c.unix_millis(), 1_001);
    }

    #[test]
    fn only_the_hyphenated_form_is_read() {
        let v = VersionId::from_parts(5, 6);
        assert_eq!(v.to_string().parse::<VersionId>().unwrap(), v);
        assert!(v.0.simple().to_string().parse::<VersionId>().is_err());
    }
}
