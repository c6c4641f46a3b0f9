//! The document of a batch: `{"operations":[{"put":"key","value":"text"},{"delete":"key"}]}`.

pub use crate::batch::{Action, MAX_OPERATIONS, Operation};
use crate::preconditions;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use kvdb_protocol::key::decode;
use kvdb_protocol::limits::MAX_CONTENT_TYPE_BYTES;
use kvdb_protocol::{Condition, ErrorCode, Key, Problem, UnixMillis, ttl};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(deserialize_with = "bounded")]
    operations: Vec<Wire>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    put: Option<String>,
    create: Option<String>,
    delete: Option<String>,
    value: Option<String>,
    base64: Option<String>,
    content_type: Option<String>,
    ttl: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

/// Only an object with members: derived readers take a list of their contents, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }
        from.deserialize_map(Members(PhantomData))
    }
}

/// No more than may be, so that many small ones take no memory.
fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Wire>, D::Error> {
    struct Operations;
    impl<'de> Visitor<'de> for Operations {
        type Value = Vec<Wire>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of operations")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut operations = Vec::new();
            while let Some(Object(one)) = items.next_element()? {
                if operations.len() == MAX_OPERATIONS {
                    return Err(A::Error::custom(TOO_MANY));
                }
                operations.push(one);
            }
            Ok(operations)
        }
    }
    from.deserialize_seq(Operations)
}

const TOO_MANY: &str = "there are more than 1000 operations";

/// Reads a document. Times to live count from `now`, by the clock that values expire by.
pub fn parse(document: &[u8], now: UnixMillis) -> Result<Vec<Operation>, Problem> {
    let Object(document) = serde_json::from_slice::<Object<Document>>(document).map_err(|e| {
        let (code, what) = match e.to_string() {
            what if what.starts_with(TOO_MANY) => (ErrorCode::ValueTooLarge, what),
            what => (ErrorCode::BadRequest, what),
        };
        Problem::new(code, format!("the batch is not as expected: {what}"))
    })?;
    document.operations.into_iter().enumerate().map(|(at, wire)| operation(wire, now).map_err(|p| located(p, at))).collect()
}

fn located(mut problem: Problem, at: usize) -> Problem {
    problem.detail = format!("operation {at} (from 0): {}", problem.detail);
    problem
}

fn bad(what: &str) -> Problem {
    Problem::new(ErrorCode::BadRequest, what)
}

fn operation(wire: Wire, now: UnixMillis) -> Result<Operation, Problem> {
    let condition = condition(wire.if_match, wire.if_none_match)?;
    let (key, create) = match (wire.put, wire.create, wire.delete) {
        (Some(key), None, None) => (key, false),
        (None, Some(key), None) => (key, true),
        (None, None, Some(text)) => {
            if wire.value.is_some() || wire.base64.is_some() || wire.content_type.is_some() || wire.ttl.is_some() {
                return Err(bad("a delete has no value, content_type or ttl"));
            }
            return Ok(Operation { key: key(&text)?, condition, action: Action::Delete });
        }
        _ => return Err(bad("give one of put, create and delete, with a key")),
    };
    let value = match (wire.value, wire.base64) {
        (Some(text), None) => Bytes::from(text),
        (None, Some(text)) => BASE64_STANDARD.decode(text).map(Bytes::from).map_err(|e| bad(&format!("the base64 is malformed: {e}")))?,
        _ => return Err(bad("give the value as text in `value`, or in `base64`")),
    };
    if wire.content_type.as_ref().is_some_and(|t| t.len() > MAX_CONTENT_TYPE_BYTES || HeaderValue::from_str(t).is_err()) {
        return Err(bad(&format!("the content_type is longer than {MAX_CONTENT_TYPE_BYTES} bytes, or no header can have it")));
    }
    let ttl = wire.ttl.as_deref().map(ttl::parse).transpose().map_err(|e| bad(&e.to_string()))?;
    let action = Action::Put { value, content_type: wire.content_type, expires: ttl.map(|t| now.plus(t)), create };
    Ok(Operation { key: self::key(&key)?, condition, action })
}

/// A key as lists write it: percent-decoding gives its bytes.
fn key(text: &str) -> Result<Key, Problem> {
    Ok(Key::new(decode(text)?)?)
}

/// Entity tags as in the headers of the same names; a single one may be without its quotes.
fn condition(if_match: Option<String>, if_none_match: Option<String>) -> Result<Condition, Problem> {
    let mut headers = HeaderMap::new();
    for (name, tags) in [(header::IF_MATCH, if_match), (header::IF_NONE_MATCH, if_none_match)] {
        let Some(tags) = tags else { continue };
        let quoted = if tags == "*" || tags.contains('"') { tags } else { format!("\"{tags}\"") };
        headers.insert(name, HeaderValue::from_str(&quoted).map_err(|_| bad("a precondition has characters that no tag has"))?);
    }
    preconditions::from_headers(&headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(document: &str) -> Problem {
        parse(document.as_bytes(), UnixMillis(0)).unwrap_err()
    }

    #[test]
    fn values_come_as_text_or_base64_and_keys_in_the_encoding_of_lists() {
        let read = parse(
            br#"{"operations":[{"put":"a%2Fb%FF","value":"x\u00e9","content_type":"text/plain","ttl":"2s"},{"create":"c","base64":"AP8="},{"delete":"d","if_match":"*"}]}"#,
            UnixMillis(5),
        )
        .unwrap();
        assert_eq!(read[0].key.as_bytes(), b"a/b\xFF");
        let put = |value: &[u8], content_type: Option<&str>, expires, create| Action::Put {
            value: Bytes::copy_from_slice(value),
            content_type: content_type.map(String::from),
            expires,
            create,
        };
        assert_eq!(read[0].action, put("x\u{e9}".as_bytes(), Some("text/plain"), Some(UnixMillis(2_005)), false));
        assert_eq!(read[1].action, put(&[0, 255], None, None, true));
        assert_eq!(read[2].action, Action::Delete);
        assert!(read[2].condition.if_match.is_some() && read[0].condition == Condition::default());
    }

    #[test]
    fn what_is_not_a_batch_is_refused_with_the_place() {
        for (document, why) in [
            ("", "EOF"),
            ("[]", "an object"),
            ("[[]]", "an object"),
            (r#"{"operations":[["a",null,null,"1",null,null,null,null,null]]}"#, "an object"),
            ("{}", "operations"),
            (r#"{"operations":[{"put":"a"}]}"#, "give the value"),
            (r#"{"operations":[{"put":"a","value":"1","base64":"AA=="}]}"#, "give the value"),
            (r#"{"operations":[{"put":"a","delete":"a","value":"1"}]}"#, "one of put"),
            (r#"{"operations":[{"delete":"a","value":"1"}]}"#, "no value"),
            (r#"{"operations":[{"delete":"a"},{"put":"","value":"1"}]}"#, "operation 1"),
            (r#"{"operations":[{"put":"-/x","value":"1"}]}"#, "reserved"),
            (r#"{"operations":[{"put":"%zz","value":"1"}]}"#, "%25"),
            (r#"{"operations":[{"put":"a","base64":"?"}]}"#, "base64"),
            (r#"{"operations":[{"put":"a","value":"1","ttl":"1w"}]}"#, "time to live"),
            (r#"{"operations":[{"put":"a","value":"1","valu":"2"}]}"#, "valu"),
            (r#"{"operations":[{"put":"a","value":"1","content_type":"a\nb"}]}"#, "content_type"),
        ] {
            let problem = refused(document);
            assert!(problem.detail.contains(why) && problem.status == 400, "{document}: {problem}");
        }
    }

    #[test]
    fn more_operations_than_may_be_are_refused_as_they_are_read() {
        let many = vec![r#"{"delete":"a"}"#; MAX_OPERATIONS + 1].join(",");
        let problem = refused(&format!(r#"{{"operations":[{many},!"#));
        assert_eq!(problem.code, ErrorCode::ValueTooLarge, "{problem}");
    }
}
