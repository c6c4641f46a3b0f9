//! Whether a token may do something.

use super::file::{Right, TokensFile};
use kvdb_protocol::signed_url::TokenId;
use kvdb_protocol::{ErrorCode, Problem, Token};
use std::collections::HashMap;

/// All tokens that are known.
#[derive(Debug, Default)]
pub struct Tokens {
    /// The first bytes of a hash find its token; the whole is then compared in constant time.
    by_id: HashMap<TokenId, Holder>,
}

/// Whoever has a token.
#[derive(Debug)]
pub struct Holder {
    name: String,
    hash: blake3::Hash,
    grants: Vec<(Vec<u8>, Vec<Right>)>,
}

impl Tokens {
    /// Reads a file of tokens.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut by_id = HashMap::new();
        for entry in TokensFile::parse(bytes)?.tokens {
            let hash = entry.hash()?;
            let grants = entry.rights.into_iter().map(|g| Ok((g.prefix_bytes()?, g.allow))).collect::<Result<_, String>>()?;
            if by_id.insert(id(&hash), Holder { name: entry.name.clone(), hash, grants }).is_some() {
                return Err(format!("the token {:?}: another one's hash begins alike; make a new one", entry.name));
            }
        }
        Ok(Self { by_id })
    }

    /// Who has this token. 401 where there is none, or nobody knows it.
    pub fn holder(&self, token: Option<&str>) -> Result<&Holder, Problem> {
        let refused = |detail: &str| Problem::new(ErrorCode::Unauthorized, detail);
        let text = token.ok_or_else(|| refused("this master wants a token; send it as `Authorization: Bearer <token>`"))?;
        let hash = Token::parse(text).map_err(|e| refused(&e.to_string()))?.hash();
        let holder = self.by_id.get(&id(&hash)).filter(|h| h.hash == hash);
        holder.ok_or_else(|| refused("this token is not known here, or no longer"))
    }

    /// Whether this token may do this with this key, or, for [`Right::List`], with all keys that begin so.
    ///
    /// 401 where the token is missing or unknown, 403 where it lacks the right. What the catalog has is not looked at.
    pub fn may(&self, token: Option<&str>, right: Right, key_or_prefix: &[u8]) -> Result<(), Problem> {
        self.holder(token)?.may(right, key_or_prefix)
    }

    /// The holder of the token whose hash begins so, as long as it is known.
    pub fn by_id(&self, id: &TokenId) -> Option<&Holder> {
        self.by_id.get(id)
    }
}

impl Holder {
    /// The name that the file gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// By what it can be named to anybody.
    pub fn id(&self) -> TokenId {
        id(&self.hash)
    }

    /// Whether it may write or delete any key at all.
    pub fn may_change_something(&self) -> bool {
        let changes = |right: &Right| matches!(right, Right::Write | Right::Delete | Right::Admin);
        self.grants.iter().any(|(_, rights)| rights.iter().any(changes))
    }

    /// Whether it has this right; 403 where it has not.
    pub fn may(&self, right: Right, key_or_prefix: &[u8]) -> Result<(), Problem> {
        let allows = |(prefix, rights): &(Vec<u8>, Vec<Right>)| {
            key_or_prefix.starts_with(prefix) && rights.iter().any(|r| *r == right || *r == Right::Admin)
        };
        if self.grants.iter().any(allows) {
            return Ok(());
        }
        let what = match right {
            Right::Admin => "the right admin for all keys".to_string(),
            right => format!("the right {} for this", right.as_str()),
        };
        Err(Problem::new(ErrorCode::Forbidden, format!("the token {:?} does not have {what}", self.name)))
    }
}

fn id(hash: &blake3::Hash) -> TokenId {
    let mut id = TokenId::default();
    for (to, from) in id.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::file::{Entry, Grant};

    fn token(n: u8) -> Token {
        Token::of_random([n; 32])
    }

    fn tokens() -> Tokens {
        let grant = |prefix: &str, allow: &[Right]| Grant { prefix: prefix.into(), allow: allow.to_vec() };
        let entry = |n: u8, rights| Entry { name: format!("t{n}"), hash: token(n).hash().to_hex().to_string(), rights };
        let file = TokensFile {
            tokens: vec![
                entry(1, vec![grant("a/", &[Right::Read, Right::List]), grant("a/b/", &[Right::Write])]),
                entry(2, vec![grant("", &[Right::Admin])]),
                entry(3, vec![grant("a/", &[Right::Admin])]),
                entry(4, vec![]),
            ],
        };
        Tokens::parse(&serde_json::to_vec(&file).unwrap()).unwrap()
    }

    #[test]
    fn a_token_may_do_what_its_grants_say_and_nothing_else() {
        let tokens = tokens();
        let status = |n: u8, right, key: &[u8]| tokens.may(Some(token(n).expose()), right, key).err().map_or(200, |p| p.status);
        for (n, right, key, expected) in [
            (1, Right::Read, &b"a/x"[..], 200),
            (1, Right::Read, b"a/", 200),
            (1, Right::Read, b"a", 403),
            (1, Right::Read, b"b", 403),
            (1, Right::List, b"a/x", 200),
            (1, Right::List, b"", 403),
            (1, Right::Write, b"a/x", 403),
            (1, Right::Write, b"a/b/x", 200),
            (1, Right::Delete, b"a/b/x", 403),
            (2, Right::Delete, b"\xff", 200),
            (2, Right::Admin, b"", 200),
            (3, Right::Write, b"a/x", 200),
            (3, Right::Write, b"x", 403),
            (3, Right::Admin, b"", 403),
            (4, Right::Read, b"a/x", 403),
            (5, Right::Read, b"a/x", 401),
        ] {
            assert_eq!(status(n, right, key), expected, "{n} {right:?} {key:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_even_looked_up() {
        let tokens = tokens();
        for text in [None, Some(""), Some("t1"), Some("password"), Some("kvdb_"), Some(token(1).hash().to_hex().as_ref())] {
            let problem = tokens.may(text, Right::Read, b"a/x").unwrap_err();
            assert_eq!(problem.code, ErrorCode::Unauthorized, "{text:?}");
            assert!(!problem.detail.contains("a/x"), "{problem}");
        }
    }

    #[test]
    fn a_holder_can_be_named_by_its_id() {
        let tokens = tokens();
        let holder = tokens.holder(Some(token(1).expose())).unwrap();
        assert_eq!(tokens.by_id(&holder.id()).unwrap().name(), "t1");
        assert!(tokens.by_id(&TokenId::default()).is_none());
    }
}
