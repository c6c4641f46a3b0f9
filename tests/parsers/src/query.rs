//! Queries of request targets.

use kvdb_protocol::key::query_escape;
use kvdb_server::query::{NOT_TEXT, Query};

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let whole = |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
    let sound = text.match_indices('%').all(|(at, _)| whole(at));
    let Ok(query) = Query::parse(Some(text)) else {
        assert!(!sound, "a query whose escapes are whole is refused");
        return false;
    };
    assert!(sound, "a broken escape is taken");
    assert_eq!(query.iter().count(), text.split('&').filter(|p| !p.is_empty()).count());
    let parts: Vec<String> = query.iter().map(|(n, v)| format!("{}={}", query_escape(n), query_escape(v))).collect();
    // A pair of nothing is written as `=`, which is a pair, too.
    assert_eq!(Query::parse(Some(&parts.join("&"))).unwrap(), query);
    for (name, _) in query.iter() {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let first = query.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, v)| v);
        assert!(query.has(name) && query.get(name) == first && query.all(name).next() == first);
        assert!(std::str::from_utf8(first.unwrap()).is_ok() || query.get_str(name) == Some(NOT_TEXT));
        let number = query.get_str(name).unwrap().parse::<u64>().ok();
        assert_eq!(query.get_parsed::<u64>(name).ok().flatten(), number);
    }
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    ["list&limit=5&start=a%2Fb&delimiter=/&detail", "ticket=AbC_-9&at=1&len=10", "k=%00%ff+&=&%3D=x&&v="]
        .map(|s| s.as_bytes().to_vec())
        .to_vec()
}
