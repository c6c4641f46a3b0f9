//! Pairs as HTML forms send them (`application/x-www-form-urlencoded`): in a query, or as a body.
//!
//! Read as web frameworks do, and never refused for their form: `+` is a space, a `%` without two hex digits stands for
//! itself, a name without `=` has an empty value, parts of nothing are passed over, order and repetitions are kept.

use kvdb_protocol::{ErrorCode, Problem};
use percent_encoding::percent_decode;

/// A name and a value, as bytes.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The pairs of a form, in order; a 413 if there are more than `most`.
pub fn parse(form: &[u8], most: usize) -> Result<Vec<Pair>, Problem> {
    let mut pairs = Vec::new();
    for part in form.split(|b| *b == b'&').filter(|part| !part.is_empty()) {
        if pairs.len() == most {
            return Err(Problem::new(ErrorCode::ValueTooLarge, format!("there are more than {most} names")));
        }
        let at = part.iter().position(|b| *b == b'=');
        let (name, value) = at.map_or((part, &b""[..]), |at| (&part[..at], &part[at + 1..]));
        pairs.push((decoded(name), decoded(value)));
    }
    Ok(pairs)
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(form: &str) -> Vec<(String, String)> {
        let text = |b: Vec<u8>| b.escape_ascii().to_string();
        parse(form.as_bytes(), 9).unwrap().into_iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_form_is_read_as_web_frameworks_read_it() {
        assert_eq!(shown("foo=bar&baz=qux"), pairs(&[("foo", "bar"), ("baz", "qux")]));
        assert_eq!(shown("a+b=c%20d%2B+e&%3D=%26"), pairs(&[("a b", "c d+ e"), ("=", "&")]));
        assert_eq!(shown("a&b=&=c&&=&a=b=c"), pairs(&[("a", ""), ("b", ""), ("", "c"), ("", ""), ("a", "b=c")]));
        assert_eq!(shown("a=%&b=%4&c=%zz&d=%FF%00"), pairs(&[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "\\xff\\x00")]));
        assert_eq!(shown("a=1&a=2;b"), pairs(&[("a", "1"), ("a", "2;b")]));
        assert_eq!(shown(""), pairs(&[]));
    }

    #[test]
    fn more_pairs_than_may_be_are_refused_as_they_are_read() {
        assert_eq!(parse(b"a&b&&c", 3).unwrap().len(), 3);
        assert_eq!(parse(b"a&b&c&d", 3).unwrap_err().status, 413);
    }
}
