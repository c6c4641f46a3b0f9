//! Whether a request may be done: by a token, by a signed URL, or because the master has no file of tokens.
//!
//! The services ask before they do anything. What they get, a [`Leave`], goes into the URLs that lead on: volumes want a ticket to
//! read, and a client that a volume sends back has dropped its token on the way.

mod leave;
pub(crate) mod sign;

pub(crate) use leave::Leave;

use crate::batch::{Action, Operation};
use crate::catalog::Member;
use crate::node::Node;
use crate::tokens::{Right, Tokens};
use http::{HeaderMap, HeaderValue, header};
use kvdb_protocol::signed_url::{SIGNED, SignedUrl, Stamp, UrlRight};
use kvdb_protocol::{ErrorCode, Key, Problem};
use kvdb_server::body::Response;
use kvdb_server::problem::unnamed;
use kvdb_server::query::Query;

/// What a client that gets 401 is to send.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"kvdb\"");

/// Whether the token of a request has all of these rights: 401 where there is no token that is known, 403 where it lacks one.
///
/// The catalog is not looked at, so that the answer is the same whether a key exists or not.
pub(crate) fn by_token(node: &Node, headers: &HeaderMap, rights: &[(Right, &[u8])]) -> Result<Leave, Problem> {
    let Some(tokens) = node.tokens.as_ref().map(|t| t.get()) else { return Ok(Leave::OPEN) };
    let holder = tokens.holder(bearer(headers)?)?;
    rights.iter().try_for_each(|(right, key)| holder.may(*right, key))?;
    Ok(Leave::by(holder.id()))
}

/// The same for reading or writing some keys, which a signed URL can permit, too.
pub(crate) fn by_url(node: &Node, headers: &HeaderMap, query: &Query, right: UrlRight, keys: &[Key]) -> Result<Leave, Problem> {
    let Some(tokens) = node.tokens.as_ref().map(|t| t.get()) else { return Ok(Leave::OPEN) };
    let Some(value) = query.get_str(SIGNED) else { return token_for(node, headers, right, keys) };
    match signed(node, &tokens, value, right, keys) {
        Ok(stamp) => Ok(Leave::stamped(stamp)),
        // A token that is sent besides counts by itself.
        Err(_) if headers.contains_key(header::AUTHORIZATION) => token_for(node, headers, right, keys),
        Err(problem) => Err(problem),
    }
}

/// Whether the token of a request may write or delete any key at all.
pub(crate) fn of_a_writer(node: &Node, headers: &HeaderMap) -> Result<Leave, Problem> {
    let Some(tokens) = node.tokens.as_ref().map(|t| t.get()) else { return Ok(Leave::OPEN) };
    let holder = tokens.holder(bearer(headers)?)?;
    if holder.may_change_something() {
        return Ok(Leave::by(holder.id()));
    }
    Err(Problem::new(ErrorCode::Forbidden, format!("the token {:?} has neither the right write nor delete for any key", holder.name())))
}

/// Whether the token of a batch has the rights of all its operations. The keys for which it lacks one are named.
pub(crate) fn batch(node: &Node, headers: &HeaderMap, operations: &[Operation]) -> Result<(), Problem> {
    let right = |operation: &Operation| match operation.action {
        Action::Put { .. } => Right::Write,
        Action::Delete => Right::Delete,
    };
    all_of(node, headers, operations.iter().map(|o| (right(o), &o.key)))
}

/// The same for what is in a transaction, when it is to be seen, committed or given up.
pub(crate) fn members(node: &Node, headers: &HeaderMap, members: &[Member]) -> Result<(), Problem> {
    let right = |member: &Member| match member {
        Member::Put(_) => Right::Write,
        Member::Delete { .. } => Right::Delete,
    };
    all_of(node, headers, members.iter().map(|m| (right(m), m.key())))
}

fn all_of<'a>(node: &Node, headers: &HeaderMap, rights: impl Iterator<Item = (Right, &'a Key)>) -> Result<(), Problem> {
    let Some(tokens) = node.tokens.as_ref().map(|t| t.get()) else { return Ok(()) };
    let holder = tokens.holder(bearer(headers)?)?;
    let refused: Vec<&Key> = rights.filter(|(right, key)| holder.may(*right, key.as_bytes()).is_err()).map(|(_, key)| key).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "the token {:?} has not the right to write, or to delete, {} of the keys; nothing was changed",
        holder.name(),
        refused.len()
    );
    Err(Problem::new(ErrorCode::Forbidden, detail).of_keys(refused))
}

/// What the client is told that has no token: how one is sent.
pub(crate) fn challenged(answer: Result<Response, Problem>) -> Result<Response, Problem> {
    match answer {
        Err(problem) if problem.code == ErrorCode::Unauthorized => {
            let mut response = unnamed(problem);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
            Ok(response)
        }
        other => other,
    }
}

/// The token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(given) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let parts = given.to_str().ok().and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = parts.map(|(_, token)| Some(token.trim()));
    token.ok_or_else(|| Problem::new(ErrorCode::Unauthorized, "the Authorization is not understood; send `Bearer <token>`"))
}

/// The same by its token alone.
fn token_for(node: &Node, headers: &HeaderMap, right: UrlRight, keys: &[Key]) -> Result<Leave, Problem> {
    let rights: Vec<_> = keys.iter().map(|key| (of_token(right), key.as_bytes())).collect();
    by_token(node, headers, &rights)
}

/// The right that a token needs for what a URL can permit.
fn of_token(right: UrlRight) -> Right {
    match right {
        UrlRight::Read => Right::Read,
        UrlRight::Write => Right::Write,
    }
}

/// Whether a signature is of this URL and in time, and the token by which it was made has the right still.
fn signed(node: &Node, tokens: &Tokens, value: &str, right: UrlRight, keys: &[Key]) -> Result<Stamp, Problem> {
    let refused = |detail: &str| Problem::new(ErrorCode::Forbidden, detail);
    let url = SignedUrl { cluster: node.credentials.cluster, right, keys };
    let stamp = node.urls.verify(&url, value).ok_or_else(|| refused("the URL's signature is not for this request, or was altered"))?;
    if node.catalog.now() > stamp.until {
        return Err(refused("the URL has expired; ask for another"));
    }
    let Some(id) = stamp.by else { return Ok(stamp) };
    let holder = tokens.by_id(&id).ok_or_else(|| refused("the token by which this URL was signed is not known here any more"))?;
    let mut rights = keys.iter().map(|key| holder.may(of_token(right), key.as_bytes()));
    rights.try_for_each(|may| may.map_err(|_| refused("the token by which this URL was signed has not the right any more")))?;
    Ok(stamp)
}
