//! Tokens by which clients prove to a master what they may do.
//!
//! A token is `kvdb_` and 32 random bytes as base64url without padding. A master keeps only its hash. A plain fast hash is enough,
//! since nobody can try out 2^256 tokens; the slow and salted kind is for passwords, which people choose. So that this holds, nothing
//! of another form is ever taken for a token, and a token is made by [`Token::of_random`] of random bytes.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::fmt;

/// What every token begins with, so that it can be found where it should not be.
pub const PREFIX: &str = "kvdb_";
const CONTEXT: &str = "kvdb 2026-11 token hash v1";
const RANDOM_BYTES: usize = 32;
/// In base64url.
const RANDOM_CHARS: usize = 43;

/// A token. Never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: one is kvdb_ and 32 random bytes as base64url without padding")]
pub struct NotAToken;

impl Token {
    /// The token of these bytes, which must come from a source that nobody can guess.
    pub fn of_random(bytes: [u8; RANDOM_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Takes a text of the form of a token.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let random = text.strip_prefix(PREFIX).and_then(|t| BASE64_URL_SAFE_NO_PAD.decode(t).ok());
        random.filter(|bytes| bytes.len() == RANDOM_BYTES).map(|_| Self(text.into())).ok_or(NotAToken)
    }

    /// Whether something of the form of a token stands anywhere in these bytes.
    pub fn stands_in(bytes: &[u8]) -> bool {
        let of_token = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
        let random = |window: &[u8]| window.strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| rest.iter().all(of_token));
        bytes.windows(PREFIX.len() + RANDOM_CHARS).any(random)
    }

    /// The text, to be sent or shown on purpose.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it. Comparison takes constant time.
    pub fn hash(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(blake3::derive_key(CONTEXT, self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_256_bits_in_the_right_form_is_a_token() {
        let token = Token::of_random([7; 32]);
        assert_eq!(Token::parse(token.expose()), Ok(token.clone()));
        let text = token.expose();
        for bad in
            ["", "kvdb_", "secret", &text[5..], &text[..text.len() - 1], &format!("{text}A"), &format!("{text}="), &format!(" {text}")]
        {
            assert_eq!(Token::parse(bad), Err(NotAToken), "{bad}");
        }
        assert!(!format!("{token:?}").contains(&text[5..]));
        assert!(Token::stands_in(format!("a={text}&").as_bytes()) && !Token::stands_in(&text.as_bytes()[1..]));
    }

    #[test]
    fn the_hash_is_that_of_the_documentation() {
        let token = Token::of_random([0; 32]);
        assert_eq!(token.expose(), "kvdb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(token.hash().as_bytes(), &blake3::derive_key("kvdb 2026-11 token hash v1", token.expose().as_bytes()));
        assert_ne!(token.hash(), Token::of_random([1; 32]).hash());
    }
}
