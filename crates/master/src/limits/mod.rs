//! Limits by prefix of the key: longest key, largest value, content type, content, number of keys and bytes in all.
//!
//! All rules whose prefix a key begins with apply to it. A write is looked at when it asks for a ticket, before a byte of the value
//! is sent, and once more at its commit; its content is looked at by the first volume. Quotas: [`crate::catalog::Ledger`].

mod file;
pub(crate) mod follow;

pub use file::{LimitsError, MAX_FILE_BYTES, MAX_RULES};

use kvdb_protocol::content::{ContentRule, MAX_CHECKED_BYTES};
use kvdb_protocol::{ErrorCode, Key, Problem};

/// What holds for all keys that begin with a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What the keys begin with; empty: all keys.
    pub prefix: Vec<u8>,
    /// Longest key, in bytes, the prefix included.
    pub max_key_bytes: Option<usize>,
    /// Largest value, in bytes.
    pub max_value_bytes: Option<u64>,
    /// The content types that a value may have; a value without one then has none of them.
    pub content_types: Option<Vec<ContentType>>,
    /// What a value's content must be. Such a value has [`MAX_CHECKED_BYTES`] at most.
    pub content: Option<ContentRule>,
    /// Most keys.
    pub max_keys: Option<u64>,
    /// Most bytes of all values, one copy of each counted.
    pub max_bytes: Option<u64>,
}

/// Which content types are meant: `image/png`, `image/*` or `*/*`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType {
    kind: String,
    subtype: String,
}

impl ContentType {
    /// Reads one. None where it is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let token = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
        let (kind, subtype) = text.split_once('/')?;
        let form = (token(kind) && (token(subtype) || subtype == "*")) || text == "*/*";
        form.then(|| Self { kind: kind.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase() })
    }

    /// Whether a header's value is of this type; parameters, as in `text/plain; charset=utf-8`, do not count.
    fn takes(&self, header: &str) -> bool {
        let essence = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let same = |mine: &str, other: &str| mine == "*" || mine == other;
        essence.split_once('/').is_some_and(|(kind, subtype)| same(&self.kind, kind) && same(&self.subtype, subtype))
    }
}

impl std::fmt::Display for ContentType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.subtype)
    }
}

impl Rule {
    /// Whether it applies to a key.
    pub fn covers(&self, key: &Key) -> bool {
        key.as_bytes().starts_with(&self.prefix)
    }

    /// Whether it says how many keys or bytes there may be in all.
    pub fn is_quota(&self) -> bool {
        self.max_keys.is_some() || self.max_bytes.is_some()
    }

    /// The prefix for people and JSON, written as keys are in lists.
    pub fn shown(&self) -> String {
        crate::list::shown(&self.prefix)
    }

    /// Where the rule holds, as a part of a sentence.
    pub(crate) fn place(&self) -> String {
        if self.prefix.is_empty() { "in this cluster".into() } else { format!("under {}", self.shown()) }
    }

    /// Largest value that can be stored by it, in bytes.
    fn largest(&self) -> u64 {
        let checked = self.content.map(|_| MAX_CHECKED_BYTES);
        [self.max_value_bytes, self.max_bytes, checked].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    fn check(&self, key: &Key, len: Option<u64>, content_type: Option<&str>) -> Result<(), Problem> {
        let bytes = key.as_bytes().len();
        if let Some(max) = self.max_key_bytes.filter(|max| bytes > *max) {
            let detail = format!("the key has {bytes} bytes, and {} a key may have {max}", self.place());
            return Err(Problem::new(ErrorCode::KeyTooLong, detail));
        }
        if len.is_some_and(|len| len > self.largest()) {
            let detail = format!("{} a value may have at most {} bytes", self.place(), self.largest());
            return Err(Problem::new(ErrorCode::ValueTooLarge, detail));
        }
        let Some(allowed) = &self.content_types else { return Ok(()) };
        if allowed.iter().any(|t| content_type.is_some_and(|header| t.takes(header))) {
            return Ok(());
        }
        let names: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        let found = content_type.map_or_else(|| "none".to_string(), |t| t.escape_debug().to_string());
        let detail = format!("{} a value must have one of the content types {}, and this one has {found}", self.place(), names.join(", "));
        Err(Problem::new(ErrorCode::ContentTypeRefused, detail))
    }
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    rules: Vec<Rule>,
}

impl Limits {
    /// Reads a file's text, JSON; see `docs/operations.md`.
    ///
    /// # Errors
    /// What is wrong, by name: members that are not known, more than [`MAX_RULES`], what contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Self, LimitsError> {
        file::parse(text).map(|rules| Self { rules })
    }

    /// The rules, in the file's order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that a key must keep.
    fn of<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(|rule| rule.covers(key))
    }

    /// Whether a value of this length (none: not known yet) and content type may be stored under the key, quotas aside.
    pub fn check(&self, key: &Key, len: Option<u64>, content_type: Option<&str>) -> Result<(), Problem> {
        self.of(key).try_for_each(|rule| rule.check(key, len, content_type))
    }

    /// Largest value that may be stored under the key, in bytes, and what its content must be.
    pub(crate) fn for_ticket(&self, key: &Key) -> (u64, Option<ContentRule>) {
        let rules = || self.of(key);
        (rules().map(Rule::largest).min().unwrap_or(u64::MAX), rules().find_map(|rule| rule.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn code(result: Result<(), Problem>) -> Option<ErrorCode> {
        result.err().map(|p| p.code)
    }

    #[test]
    fn all_rules_whose_prefix_the_key_begins_with_apply_to_it() {
        let limits = Limits::parse(
            br#"{"limits":[{"prefix":"","max_key_bytes":10},{"prefix":"a/","max_key_bytes":20,"max_value_bytes":5},
                {"prefix":"a/b","max_value_bytes":3,"max_bytes":2}]}"#,
        )
        .unwrap();
        let check = |k: &str, len| code(limits.check(&key(k), Some(len), None));
        assert_eq!(check("0123456789", 1 << 40), None);
        assert_eq!(check("01234567890", 0), Some(ErrorCode::KeyTooLong));
        assert_eq!((check("a/x", 5), check("a/x", 6)), (None, Some(ErrorCode::ValueTooLarge)));
        assert_eq!(
            (check("a/b", 2), check("a/bc", 3)),
            (None, Some(ErrorCode::ValueTooLarge)),
            "more than all may have can never be stored"
        );
        assert_eq!((limits.for_ticket(&key("a/x")), limits.for_ticket(&key("b"))), ((5, None), (u64::MAX, None)));
        assert_eq!(code(limits.check(&key("a/x"), None, None)), None, "a length that is not known is found out later");
    }

    #[test]
    fn content_types_are_compared_without_case_and_parameters() {
        let limits = Limits::parse(
            br#"{"limits":[{"prefix":"i","content_types":["Image/*","text/plain"]},{"prefix":"j","content_types":["*/*"]}]}"#,
        )
        .unwrap();
        let check = |k: &str, t: Option<&str>| code(limits.check(&key(k), None, t));
        for good in ["image/png", "IMAGE/SVG+XML", "text/plain", " text/plain ; charset=utf-8"] {
            assert_eq!(check("i", Some(good)), None, "{good}");
        }
        for bad in [None, Some(""), Some("image"), Some("text/html"), Some("imagex/png"), Some("text/plainx")] {
            assert_eq!(check("i", bad), Some(ErrorCode::ContentTypeRefused), "{bad:?}");
        }
        assert_eq!((check("j", Some("a/b")), check("j", None)), (None, Some(ErrorCode::ContentTypeRefused)));
    }

    #[test]
    fn a_value_whose_content_is_checked_is_bounded() {
        let limits = Limits::parse(
            br#"{"limits":[{"prefix":"j/","content":"json_object"},{"prefix":"j/s","content":"json_object","max_value_bytes":16384}]}"#,
        )
        .unwrap();
        assert_eq!(limits.for_ticket(&key("j/a")), (MAX_CHECKED_BYTES, Some(ContentRule::JsonObject)));
        assert_eq!(limits.for_ticket(&key("j/s")), (16384, Some(ContentRule::JsonObject)));
        assert_eq!(code(limits.check(&key("j/a"), Some(MAX_CHECKED_BYTES + 1), None)), Some(ErrorCode::ValueTooLarge));
    }
}
