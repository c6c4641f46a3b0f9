//! Pages of keys.

use super::support::{Fixture, committed, put};
use crate::catalog::{CommitPut, ListQuery};
use kvdb_protocol::UnixMillis;
use proptest::prelude::*;
use std::collections::BTreeSet;

async fn filled(keys: &[&[u8]]) -> Fixture {
    let f = Fixture::new();
    for k in keys {
        f.put(k, 1).await;
    }
    f
}

fn query(prefix: &str, delimiter: Option<&str>, limit: usize) -> ListQuery {
    ListQuery { prefix: prefix.into(), delimiter: delimiter.map(Into::into), limit, ..ListQuery::default() }
}

/// All entries, page by page.
async fn all(f: &Fixture, mut q: ListQuery) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    loop {
        let page = f.catalog.list(&q).await.unwrap();
        assert!(page.entries.len() <= q.limit);
        found.extend(page.entries.iter().map(|e| e.as_bytes().to_vec()));
        match page.next {
            Some(next) => (q.start, q.with_start) = (Some(next), false),
            None => return found,
        }
    }
}

fn text(entries: &[Vec<u8>]) -> String {
    entries.iter().map(|e| String::from_utf8_lossy(e)).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn keys_come_in_order_of_bytes_page_by_page_whatever_the_limit() {
    let f = filled(&[b"b", b"a", b"a/1", b"\xFF\xFF", b"\x00"]).await;
    for limit in 1..=6 {
        assert_eq!(all(&f, query("", None, limit)).await, [b"\x00".as_slice(), b"a", b"a/1", b"b", b"\xFF\xFF"], "limit {limit}");
    }
    let page = f.catalog.list(&query("a", None, 10)).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (2, None));
    let detailed = f.catalog.list(&ListQuery { detail: true, ..query("b", None, 1) }).await.unwrap();
    assert!(matches!(&detailed.entries[0], crate::catalog::ListEntry::Key { record: Some(r), .. } if r.len == 1));
    let clamped = f.catalog.list(&query("", None, 0)).await.unwrap();
    assert_eq!(clamped.entries.len(), 1);
}

#[tokio::test]
async fn keys_with_a_delimiter_after_the_prefix_are_grouped() {
    let f = filled(&[b"a", b"p/a/1", b"p/a/2", b"p/b", b"p/c/1", b"p/", b"q/1", b"z"]).await;
    for limit in 1..=5 {
        assert_eq!(text(&all(&f, query("", Some("/"), limit)).await), "a p/ q/ z");
        assert_eq!(text(&all(&f, query("p/", Some("/"), limit)).await), "p/ p/a/ p/b p/c/");
        assert_eq!(text(&all(&f, query("p", Some("/"), limit)).await), "p/");
    }
    assert_eq!(text(&all(&f, query("", Some(""), 99)).await), text(&all(&f, query("", None, 99)).await), "an empty delimiter is none");
}

#[tokio::test]
async fn a_listing_begins_after_any_start() {
    let f = filled(&[b"a", b"p/1", b"p/2", b"q"]).await;
    for (start, plain, grouped) in [
        ("", "a p/1 p/2 q", "a p/ q"),
        ("a", "p/1 p/2 q", "p/ q"),
        ("p/", "p/1 p/2 q", "q"),
        ("p/1", "p/2 q", "p/ q"),
        ("p/2", "q", "q"),
        ("z", "", ""),
    ] {
        let from = |d: Option<&str>| ListQuery { start: Some(start.into()), ..query("", d, 2) };
        assert_eq!(text(&all(&f, from(None)).await), plain, "after {start}");
        assert_eq!(text(&all(&f, from(Some("/"))).await), grouped, "after {start}");
    }
    let before = ListQuery { start: Some(b"a".to_vec()), ..query("p", None, 9) };
    assert_eq!(text(&all(&f, before).await), "p/1 p/2", "a start before the prefix");
    let after = ListQuery { start: Some(b"q".to_vec()), ..query("p", None, 9) };
    assert_eq!(text(&all(&f, after).await), "", "a start after the prefix");
}

#[tokio::test]
async fn a_range_has_both_its_ends() {
    let f = filled(&[b"a", b"b", b"b/1", b"c"]).await;
    for (start, last, want) in
        [("b", "c", "b b/1 c"), ("aa", "b0", "b b/1"), ("b", "b", "b"), ("c", "a", ""), ("", "a", "a"), ("d", "z", "")]
    {
        for limit in 1..4 {
            let range = ListQuery { start: Some(start.into()), with_start: true, last: Some(last.into()), ..query("", None, limit) };
            assert_eq!(text(&all(&f, range).await), want, "{start} to {last}");
        }
    }
}

#[tokio::test]
async fn expired_keys_are_left_out_and_a_group_of_them_too() {
    let f = filled(&[b"g/live", b"z"]).await;
    let expires = Some(UnixMillis(f.catalog.now().0 + 1));
    for k in ["a", "e/1", "e/2", "g/1"] {
        let request = CommitPut { expires, ..put(k, f.catalog.next_version(), 1) };
        committed(f.catalog.commit(request).await.unwrap());
    }
    assert_eq!(text(&all(&f, query("", Some("/"), 9)).await), "a e/ g/ z");
    f.pass(1).await;
    assert_eq!(text(&all(&f, query("", Some("/"), 1)).await), "g/ z");
    assert_eq!(text(&all(&f, query("", None, 1)).await), "g/live z");
}

/// The slow way: all keys, filtered and grouped.
fn reference(keys: &BTreeSet<Vec<u8>>, q: &ListQuery) -> Vec<Vec<u8>> {
    let delimiter = q.delimiter.clone().filter(|d| !d.is_empty());
    let group = |k: &Vec<u8>| {
        let d = delimiter.as_ref()?;
        let at = (q.prefix.len()..=k.len().checked_sub(d.len())?).find(|i| k[*i..].starts_with(d))?;
        Some(k[..at + d.len()].to_vec())
    };
    let mut entries = Vec::new();
    let begun = |k: &Vec<u8>| q.start.as_ref().is_none_or(|s| k > s || (q.with_start && k == s));
    for k in keys.iter().filter(|k| k.starts_with(&q.prefix) && begun(k) && q.last.as_ref().is_none_or(|l| *k <= l)) {
        let entry = group(k).unwrap_or_else(|| k.clone());
        let listed_before = group(k).is_some() && q.start.as_ref() == Some(&entry);
        if !listed_before && entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    entries
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'/'), Just(0xFF), Just(b'b')], 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn pages_together_are_what_the_slow_way_finds(
        keys in proptest::collection::btree_set(words(), 0..120),
        prefix in proptest::option::of(words()), start in proptest::option::of(words()),
        delimiter in proptest::option::of(prop_oneof![Just(b"/".to_vec()), Just(b"aa".to_vec()), Just(vec![0xFF])]),
        limit in 1usize..7, with_start in any::<bool>(), last in proptest::option::of(words()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let f = filled(&slices).await;
            let with_start = with_start && delimiter.is_none();
            let q = ListQuery { prefix: prefix.unwrap_or_default(), start, with_start, last, delimiter, limit, detail: false };
            let want = reference(&keys, &q);
            prop_assert_eq!(all(&f, q).await, want);
            Ok(())
        })?;
    }
}
