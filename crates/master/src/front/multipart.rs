//! Pairs as `multipart/form-data` (RFC 7578), which `curl -F` sends, and forms with files: names and contents of the parts.

use crate::front::form::Pair;
use bytes::Bytes;
use futures_util::{future, stream};
use kvdb_protocol::{ErrorCode, Problem};
use multer::Multipart;
use std::convert::Infallible;

/// The pairs of a form of this content type, in order; a 413 if there are more than `most`. Types and file names of parts are not
/// looked at.
pub async fn parse(content_type: &str, form: Bytes, most: usize) -> Result<Vec<Pair>, Problem> {
    let boundary = multer::parse_boundary(content_type).map_err(|e| bad(&e))?;
    let mut parts = Multipart::new(stream::once(future::ready(Ok::<_, Infallible>(form))), boundary);
    let mut pairs = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(|e| bad(&e))? {
        if pairs.len() == most {
            return Err(Problem::new(ErrorCode::ValueTooLarge, format!("there are more than {most} parts")));
        }
        let name = part.name().map(|name| name.as_bytes().to_vec());
        let name = name.ok_or_else(|| Problem::new(ErrorCode::BadRequest, "a part of the form has no name"))?;
        pairs.push((name, part.bytes().await.map_err(|e| bad(&e))?.to_vec()));
    }
    Ok(pairs)
}

fn bad(error: &multer::Error) -> Problem {
    Problem::new(ErrorCode::BadRequest, format!("the form is malformed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x y\"";

    fn part(disposition: &str, content: &str) -> String {
        format!("--x y\r\nContent-Disposition: form-data{disposition}\r\n\r\n{content}\r\n")
    }

    async fn read(form: String, most: usize) -> Result<Vec<Pair>, u16> {
        parse(TYPE, form.into(), most).await.map_err(|p| p.status)
    }

    #[tokio::test]
    async fn parts_are_pairs_in_order() {
        let form = part("; name=\"a b\"", "1\r\n--x") + &part("; name=a; filename=\"f\"\r\nContent-Type: image/png", "") + "--x y--\r\n";
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(read(form.clone(), 2).await, Ok(vec![pair("a b", "1\r\n--x"), pair("a", "")]));
        assert_eq!(read(form, 1).await, Err(413));
    }

    #[tokio::test]
    async fn what_is_cut_or_nameless_is_refused() {
        let whole = part("; name=a", "1");
        for form in [whole.clone(), whole[..whole.len() - 3].into(), part("", "1") + "--x y--\r\n", String::new(), "a=1".into()] {
            assert_eq!(read(form.clone(), 9).await, Err(400), "{form}");
        }
        for content_type in ["multipart/form-data", "multipart/mixed; boundary=x", "text/plain"] {
            assert_eq!(parse(content_type, Bytes::new(), 9).await.unwrap_err().status, 400, "{content_type}");
        }
    }
}
