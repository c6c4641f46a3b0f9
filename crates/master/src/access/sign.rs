//! `POST /-/sign`: a URL for somebody who has no token, such as a browser.

use crate::access;
use crate::node::Node;
use crate::redirect;
use http::StatusCode;
use kvdb_protocol::key::{decode, query_escape};
use kvdb_protocol::signed_url::{MAX_LIFE, SIGNED, SignedUrl, Stamp, UrlRight};
use kvdb_protocol::{ErrorCode, Key, Problem, ttl};
use kvdb_server::body::{self, Response};
use kvdb_server::guard::{Request, read_all};
use serde::Deserialize;
use serde_json::json;

/// Longest document, in bytes: a key written in escapes, and what is around it.
const MAX_DOCUMENT_BYTES: usize = 8 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// As in lists: percent-decoding gives the key.
    key: String,
    #[serde(default)]
    method: SignedMethod,
    /// How long it is to be good, as a time to live.
    r#for: String,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum SignedMethod {
    #[default]
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "PUT")]
    Put,
}

/// Signs a URL in the name of the token that asks, which must have the right itself.
pub(crate) async fn post(node: &Node, mut request: Request) -> Result<Response, Problem> {
    let bytes = read_all(request.body_mut(), MAX_DOCUMENT_BYTES).await?;
    let asked: Asked = serde_json::from_slice(&bytes).map_err(|e| bad(&format!("what is to be signed is not as expected: {e}")))?;
    let key = Key::new(decode(&asked.key)?)?;
    let life = ttl::parse(&asked.r#for).map_err(|e| bad(&format!("`for`: {e}")))?;
    if life > MAX_LIFE {
        return Err(bad("a signed URL is good for 7 days at most; ask for another when it has expired"));
    }
    let right = match asked.method {
        SignedMethod::Get => UrlRight::Read,
        SignedMethod::Put => UrlRight::Write,
    };
    let leave = access::token_for(node, request.headers(), right, std::slice::from_ref(&key))?;
    let Some(by) = leave.token() else {
        return Err(bad("this cluster has no tokens, so everybody may use its URLs without a signature; see --tokens"));
    };
    let until = node.catalog.now().plus(life);
    let path = path(&key).ok_or_else(|| bad("clients cannot send this key in a URL: it is a path that they shorten"))?;
    let url = SignedUrl { cluster: node.credentials.cluster, right, keys: std::slice::from_ref(&key) };
    let signed = node.urls.sign(&url, Stamp { until, by: Some(by) });
    let url = format!("http://{}{path}?{SIGNED}={signed}", redirect::own_host(node, request.headers())?);
    Ok(body::json(StatusCode::OK, &json!({ "url": url, "expires": until })))
}

fn bad(detail: &str) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}

/// The path of a key that reaches the master as it is: clients remove segments that are dots, so none is left. None where that cannot be.
fn path(key: &Key) -> Option<String> {
    match key.as_bytes() {
        b"." | b".." => None,
        _ if key.survives_clients() => Some(key.to_path()),
        bytes => Some(format!("/{}", query_escape(bytes).replace('/', "%2F"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_segments_that_clients_remove() {
        let of = |key: &str| path(&Key::new(key).unwrap());
        assert_eq!(of("a/b c").unwrap(), "/a/b%20c");
        assert_eq!(of("a/../b").unwrap(), "/a%2F..%2Fb");
        assert_eq!((of("."), of("..")), (None, None));
        assert_eq!(Key::from_path(&of("a/./\u{fc}?").unwrap()).unwrap().as_bytes(), "a/./\u{fc}?".as_bytes());
    }
}
