//! Preconditions of a write, from its headers (RFC 9110 §13).

use http::{HeaderMap, HeaderName, header};
use kvdb_protocol::ticket::Tags;
use kvdb_protocol::{Condition, ContentHash, ErrorCode, Problem};

/// Most entity tags of one header.
const MAX_TAGS: usize = 16;

/// Reads `If-Match` and `If-None-Match`.
pub fn from_headers(headers: &HeaderMap) -> Result<Condition, Problem> {
    Ok(Condition { if_match: tags(headers, header::IF_MATCH, false)?, if_none_match: tags(headers, header::IF_NONE_MATCH, true)? })
}

/// A tag that is not 64 hex digits can belong to no value here, so it is left out.
fn tags(headers: &HeaderMap, name: HeaderName, weak: bool) -> Result<Option<Tags>, Problem> {
    if !headers.contains_key(&name) {
        return Ok(None);
    }
    let mut hashes = Vec::new();
    let (mut seen, mut any) = (0, false);
    for value in headers.get_all(&name) {
        let text = value.to_str().map_err(|_| malformed(&name))?;
        for tag in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            seen += 1;
            if seen > MAX_TAGS {
                return Err(Problem::new(ErrorCode::BadRequest, format!("{name} has more than {MAX_TAGS} entity tags")));
            }
            if tag == "*" {
                any = true;
                continue;
            }
            let strong = tag.strip_prefix("W/");
            let quoted = strong.unwrap_or(tag).strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(|| malformed(&name))?;
            if strong.is_some() && !weak {
                continue;
            }
            // Tags are compared as text: one in capitals is another.
            hashes.extend(ContentHash::from_hex(quoted).filter(|h| h.to_hex() == quoted));
        }
    }
    match (any, seen) {
        (true, 1) => Ok(Some(Tags::Any)),
        // Among tags it is no list, or part of a tag that is cut in two.
        (true, _) => Err(malformed(&name)),
        (false, _) => Ok(Some(Tags::Of(hashes))),
    }
}

fn malformed(name: &HeaderName) -> Problem {
    Problem::new(ErrorCode::BadRequest, format!("{name} is malformed; give entity tags in double quotes, or *"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Result<Condition, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        from_headers(&headers)
    }

    #[test]
    fn tags_are_read_as_rfc_9110_says() {
        let h = ContentHash::of(b"x");
        let tag = h.etag();
        assert_eq!(read("if-match", &tag).unwrap().if_match, Some(Tags::Of(vec![h])));
        assert_eq!(read("if-match", &format!("\"other\", {tag}")).unwrap().if_match, Some(Tags::Of(vec![h])));
        assert_eq!(read("if-match", &format!("W/{tag}")).unwrap().if_match, Some(Tags::Of(vec![])), "weak tags never match strongly");
        assert_eq!(read("if-none-match", &format!("W/{tag}")).unwrap().if_none_match, Some(Tags::Of(vec![h])));
        assert_eq!(read("if-match", &tag.to_uppercase()).unwrap().if_match, Some(Tags::Of(vec![])));
        assert_eq!(read("if-none-match", "*").unwrap().if_none_match, Some(Tags::Any));
        assert_eq!(read("accept", "x").unwrap(), Condition::default());
    }

    #[test]
    fn malformed_or_endless_tags_are_refused() {
        for bad in ["abc", "W/\"abc", "\"abc\", *", "*, *"] {
            assert!(read("if-match", bad).is_err(), "{bad}");
        }
        assert!(read("if-match", &vec!["\"a\""; 17].join(",")).is_err());
    }
}
