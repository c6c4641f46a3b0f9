//! What a list is asked for, and where it goes on.

use crate::input::chosen;
use kvdb_master::list::{asked, next, start};
use kvdb_protocol::key::query_escape;
use kvdb_protocol::limits::MAX_LIST_PAGE_KEYS;
use kvdb_server::query::Query;

pub(crate) fn check(data: &[u8]) -> bool {
    // Whatever a page ends with, its `next` leads back there, in a query or out of it.
    let token = next(data);
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b":-._~/".contains(&b)), "{token}");
    assert_eq!(start(token.as_bytes()).unwrap(), data);
    if let Ok(from) = start(data) {
        assert!(from.len() <= data.len());
        assert_eq!(start(next(&from).as_bytes()).unwrap(), from);
    }
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let Ok(query) = Query::parse(Some(query)) else { return false };
    let Ok(list) = asked(path, &query) else { return false };
    assert!((1..=MAX_LIST_PAGE_KEYS).contains(&list.limit));
    assert!(list.prefix.len() <= path.len() && list.delimiter.as_ref().is_none_or(|d| !d.is_empty()));
    let part = |name: &str, value: Option<String>| value.map(|v| format!("&{name}={v}")).unwrap_or_default();
    let again = format!(
        "list&limit={}{}{}{}",
        list.limit,
        part("start", list.start.as_deref().map(next).filter(|s| !s.is_empty())),
        part("delimiter", list.delimiter.as_deref().map(query_escape)),
        if list.detail { "&detail" } else { "" },
    );
    let reread = asked(&format!("/{}", query_escape(&list.prefix)), &Query::parse(Some(&again)).unwrap()).unwrap();
    // To begin after nothing is to begin at the beginning.
    let begin = |l: kvdb_master::catalog::ListQuery| kvdb_master::catalog::ListQuery { start: l.start.filter(|s| !s.is_empty()), ..l };
    assert_eq!(begin(reread), begin(list));
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    ["/a?list&limit=10&start=hex:612062&delimiter=/&detail", "/?list", "/%ff%00?list&start=a/b&limit=10000", "hex:00ff"]
        .map(|s| chosen(&[], s))
        .to_vec()
}
