//! `POST /prefix?delete-all`: all keys of a prefix deleted, a page at a time.

use crate::catalog::{DeleteAll, MAX_DELETED_KEYS};
use crate::node::Node;
use crate::{list, reclaim, write};
use http::StatusCode;
use kvdb_protocol::{ErrorCode, Problem, key};
use kvdb_server::body::{self, Response};
use kvdb_server::query::Query;
use serde_json::json;
use std::sync::Arc;

/// Deletes one page. Each answer tells where the next one begins; a page that is asked for again deletes what is left of it.
pub(crate) async fn post(node: &Arc<Node>, path: &str, query: &Query) -> Result<Response, Problem> {
    let what = asked(path, query)?;
    write::takes_writes(node)?;
    // It must not be given up half-way if the client goes away, so that the volumes are told.
    let node = node.clone();
    let task = tokio::spawn(async move {
        let page = node.catalog.delete_all(what).await.map_err(|e| e.problem())?;
        if page.deleted > 0 {
            node.members.live().keys().for_each(|volume| reclaim::kick(&node, *volume));
        }
        Ok::<_, Problem>(page)
    });
    let page = task.await.map_err(|e| Problem::new(ErrorCode::Internal, format!("the task that deletes failed: {e}")))??;
    tracing::info!(deleted = page.deleted, bytes = page.bytes, more = page.next.is_some(), "keys of a prefix deleted");
    let next = page.next.as_deref().map(list::next).unwrap_or_default();
    Ok(body::json(StatusCode::OK, &json!({"deleted": page.deleted, "bytes": page.bytes, "next": next})))
}

fn asked(path: &str, query: &Query) -> Result<DeleteAll, Problem> {
    let bad = |what: String| Problem::new(ErrorCode::BadRequest, what);
    let prefix = key::decode(path.strip_prefix('/').unwrap_or(path))?;
    match (prefix.is_empty(), query.has("all")) {
        (true, false) => {
            return Err(bad("this would delete all keys of the cluster; give a prefix, or say `all`, as in /?delete-all&all".into()));
        }
        (false, true) => return Err(bad("give either a prefix or `all`".into())),
        _ => {}
    }
    let limit = query.get_parsed::<usize>("limit")?.unwrap_or(MAX_DELETED_KEYS);
    if !(1..=MAX_DELETED_KEYS).contains(&limit) {
        return Err(bad(format!("`limit` must be 1 to {MAX_DELETED_KEYS}")));
    }
    let start = query.get("start").filter(|s| !s.is_empty()).map(list::start).transpose()?;
    Ok(DeleteAll { prefix, start, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, query: &str) -> Result<DeleteAll, Problem> {
        asked(path, &Query::parse(Some(query)).unwrap())
    }

    #[test]
    fn a_prefix_or_all_is_named_never_neither_and_never_both() {
        let of = |prefix: &[u8]| DeleteAll { prefix: prefix.to_vec(), start: None, limit: MAX_DELETED_KEYS };
        assert_eq!(read("/a%2F", "delete-all").unwrap(), of(b"a/"));
        assert_eq!(read("/", "delete-all&all").unwrap(), of(b""));
        assert!(read("/", "delete-all").unwrap_err().detail.contains("all keys"));
        assert_eq!(read("/a", "delete-all&all").unwrap_err().code, ErrorCode::BadRequest);
        let on = read("/a", "delete-all&limit=7&start=hex:61ff").unwrap();
        assert_eq!((on.limit, on.start.as_deref()), (7, Some(&b"a\xff"[..])));
        for bad in ["delete-all&limit=0", "delete-all&limit=1001", "delete-all&start=hex:z"] {
            assert!(read("/a", bad).is_err(), "{bad}");
        }
        assert!(read("/%zz", "delete-all").is_err());
    }
}
