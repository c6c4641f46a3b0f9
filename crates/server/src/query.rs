//! The query of a request target.

use kvdb_protocol::key::decode;
use kvdb_protocol::{ErrorCode, Problem};

/// What [`Query::get_str`] gives for a value that is not text: no number, id, ticket or host.
pub const NOT_TEXT: &str = "\u{FFFD}";

/// The parameters of a query: `name=value` or `name`, joined by `&`.
///
/// Both are percent-decoded once, strictly, and are bytes. `+` is a plus: keys are bytes in paths, where it means itself,
/// and they must not change when they move into a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Parses what follows the `?`. A `%` without two hex digits is a 400.
    pub fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let pairs = raw.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        pairs.map(pair).collect::<Result<_, _>>().map(Self)
    }

    /// The first value of this name; empty if the name stands alone.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The first value of this name as text. One that is not UTF-8 comes as [`NOT_TEXT`], so that whoever parses it refuses
    /// it: it must not pass for absent.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| std::str::from_utf8(value).unwrap_or(NOT_TEXT))
    }

    /// The first value of this name, parsed; 400 if it cannot be.
    pub fn get_parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parsed = self.get_str(name).map(str::parse).transpose();
        parsed.map_err(|_| bad(format!("the value of the query parameter {name} is not understood")))
    }

    /// Whether the name is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All values of this name, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// All names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

fn pair(part: &str) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    let decoded = |text: &str| decode(text).map_err(|_| bad("the query has a % that two hex digits do not follow"));
    Ok((decoded(name)?, decoded(value)?))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Query {
        Query::parse(Some(raw)).unwrap()
    }

    #[test]
    fn names_may_stand_alone_and_the_first_of_several_wins() {
        let q = parse("list&limit=5&limit=6&&start=");
        assert!(q.has("list") && !q.has("detail"));
        assert_eq!(q.get("list"), Some(&b""[..]));
        assert_eq!(q.get("limit"), Some(&b"5"[..]));
        assert_eq!(q.all("limit").collect::<Vec<_>>(), [b"5", b"6"]);
        assert_eq!(q.iter().count(), 4);
        assert_eq!(q.get_parsed::<u32>("limit").unwrap(), Some(5));
        assert_eq!(Query::parse(None).unwrap(), Query::default());
    }

    #[test]
    fn values_are_decoded_once_and_a_plus_stays_a_plus() {
        let q = parse("s%74art=a%2Fb+c%2541%ff=&x=1");
        assert_eq!(q.get("start"), Some(&b"a/b+c%41\xff="[..]));
        assert_eq!(q.get_str("start"), Some(NOT_TEXT));
        assert_eq!(q.get_str("x"), Some("1"));
    }

    #[test]
    fn bad_escapes_and_numbers_are_refused() {
        for raw in ["a=%", "a=%z1", "%4=1", "a=%1"] {
            assert_eq!(Query::parse(Some(raw)).unwrap_err().status, 400, "{raw}");
        }
        assert_eq!(parse("limit=%ff").get_parsed::<u32>("limit").unwrap_err().status, 400);
        assert_eq!(parse("limit=x").get_parsed::<u32>("limit").unwrap_err().status, 400);
    }
}
