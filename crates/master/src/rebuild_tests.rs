use super::*;

fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

fn version(n: u64) -> VersionId {
    VersionId::from_parts(n, 0)
}

fn key(k: &str) -> Key {
    Key::new(k).unwrap()
}

/// A value of version `n` at volumes 1 and 2.
fn value(k: &str, n: u64, seq: Option<u64>) -> ValueEntry {
    ValueEntry {
        key: key(k),
        version: version(n),
        len: n,
        hash: ContentHash::of(&n.to_le_bytes()),
        content_type: Some("text/plain".into()),
        modified: UnixMillis(n + 1),
        expires: Some(UnixMillis(9_000)),
        replicas: vec![volume(1), volume(2)],
        seq,
    }
}

fn held(k: &str, n: u64, seq: Option<u64>) -> Entry {
    Entry::Value(value(k, n, seq))
}

fn gone(k: &str, n: u64, seq: u64) -> Entry {
    Entry::Tombstone { key: key(k), version: version(n), deleted: Deleted { seq, time: UnixMillis(5_000) } }
}

fn merger(volumes: Vec<Vec<Entry>>, uncertain: Uncertain) -> Merger {
    let source =
        |(i, entries): (usize, Vec<Entry>)| (volume(u8::try_from(i + 1).unwrap()), Box::new(entries.into_iter().map(Ok)) as Entries);
    Merger::new(volumes.into_iter().enumerate().map(source).collect(), uncertain).unwrap()
}

fn merge(volumes: Vec<Vec<Entry>>, uncertain: Uncertain) -> (Vec<MergedKey>, Summary) {
    let mut m = merger(volumes, uncertain);
    let keys = m.by_ref().map(Result::unwrap).collect();
    (keys, m.summary().clone())
}

fn versions(merged: &[MergedKey]) -> Vec<Option<VersionId>> {
    merged.iter().map(|m| m.record.as_ref().map(|r| r.version)).collect()
}

#[test]
fn the_value_with_the_greatest_sequence_is_kept_whatever_its_version_and_others_are_surplus() {
    let (merged, summary) = merge(vec![vec![held("a", 5, Some(9)), held("a", 7, Some(8))], vec![held("a", 5, Some(9))]], Uncertain::Keep);
    let record = merged[0].record.clone().unwrap();
    assert_eq!((record.version, record.seq, record.replicas), (version(5), Some(9), vec![volume(1), volume(2)]));
    assert_eq!(
        (record.modified, record.expires, record.content_type.as_deref()),
        (UnixMillis(6), Some(UnixMillis(9_000)), Some("text/plain"))
    );
    assert_eq!(merged[0].surplus, [Surplus { volume: volume(1), version: version(7), deleted: None }]);
    let want = Summary { keys: 1, bytes: 5, surplus: 1, max_seq: 9, max_time: UnixMillis(8), ..Summary::default() };
    assert_eq!(summary, want);
}

#[test]
fn what_was_deleted_stays_deleted_and_what_was_stored_after_it_does_not() {
    let (merged, summary) =
        merge(vec![vec![gone("a", 5, 10), held("b", 8, Some(12)), gone("b", 5, 11)], vec![held("a", 5, Some(9))]], Uncertain::Keep);
    assert_eq!(versions(&merged), [None, Some(version(8))]);
    let deleted = Some(Deleted { seq: 10, time: UnixMillis(5_000) });
    assert_eq!(merged[0].surplus, [Surplus { volume: volume(2), version: version(5), deleted }]);
    assert_eq!((summary.tombstones, summary.keys, summary.max_seq, summary.max_time), (1, 1, 12, UnixMillis(5_000)));
}

#[test]
fn a_commit_that_one_volume_heard_of_counts_for_all_copies() {
    let (merged, summary) = merge(vec![vec![held("a", 5, Some(4))], vec![held("a", 5, None)]], Uncertain::Drop);
    assert_eq!(merged[0].record.as_ref().unwrap().replicas, [volume(1), volume(2)]);
    assert_eq!((summary.uncertain_kept, summary.uncertain_dropped, summary.under_replicated), (0, 0, 0));
}

#[test]
fn a_value_of_unknown_outcome_is_kept_only_if_whole_and_newest_and_wanted() {
    let whole = || vec![vec![held("a", 3, Some(1)), held("a", 5, None)], vec![held("a", 3, Some(1)), held("a", 5, None)]];
    let (merged, summary) = merge(whole(), Uncertain::Keep);
    assert_eq!(versions(&merged), [Some(version(5))]);
    assert_eq!((merged[0].record.as_ref().unwrap().seq, summary.uncertain_kept, merged[0].surplus.len()), (None, 1, 2));
    let (merged, summary) = merge(whole(), Uncertain::Drop);
    assert_eq!((versions(&merged), summary.uncertain_dropped), (vec![Some(version(3))], 1));
    let (merged, _) = merge(vec![vec![held("a", 3, Some(1)), held("a", 5, None)], vec![held("a", 3, Some(1))]], Uncertain::Keep);
    assert_eq!(versions(&merged), [Some(version(3))], "not whole");
    let (merged, summary) = merge(vec![vec![held("a", 5, None)]], Uncertain::Keep);
    assert_eq!(versions(&merged), [Some(version(5))], "the volume that takes no part may have known of the commit");
    assert_eq!((summary.uncertain_kept, summary.under_replicated), (1, 1));
    let (merged, _) = merge(vec![vec![held("a", 5, None), held("a", 7, Some(1))], vec![held("a", 5, None)]], Uncertain::Keep);
    assert_eq!(versions(&merged), [Some(version(7))], "overtaken");
    let (merged, _) = merge(vec![vec![held("a", 5, None), gone("a", 5, 2)], vec![held("a", 5, None)]], Uncertain::Keep);
    assert_eq!(versions(&merged), [None], "deleted");
    let (merged, _) = merge(vec![vec![gone("a", 5, 2), held("a", 6, None)], vec![held("a", 6, None)]], Uncertain::Keep);
    assert_eq!(versions(&merged), [Some(version(6))], "stored after the delete");
}

#[test]
fn a_value_that_was_moved_before_its_volumes_heard_of_the_commit_is_whole_by_the_newer_list() {
    let moved = ValueEntry { replicas: vec![volume(1), volume(3)], ..value("a", 5, None) };
    let (merged, summary) = merge(vec![vec![held("a", 5, None)], vec![], vec![Entry::Value(moved)]], Uncertain::Keep);
    assert_eq!(versions(&merged), [Some(version(5))]);
    assert_eq!((merged[0].record.as_ref().unwrap().replicas.clone(), summary.uncertain_kept), (vec![volume(1), volume(3)], 1));
}

#[test]
fn missing_copies_are_counted() {
    let (merged, summary) = merge(vec![vec![held("a", 5, Some(4))], vec![]], Uncertain::Keep);
    assert_eq!((merged[0].record.as_ref().unwrap().replicas.clone(), summary.under_replicated), (vec![volume(1)], 1));
}

#[test]
fn copies_that_differ_are_a_conflict_and_the_committed_one_is_taken() {
    let odd = ValueEntry { hash: ContentHash::of(b"odd"), ..value("a", 5, None) };
    let (merged, summary) = merge(vec![vec![Entry::Value(odd)], vec![held("a", 5, Some(4))]], Uncertain::Keep);
    let record = merged[0].record.clone().unwrap();
    assert_eq!((record.hash, record.replicas), (value("a", 5, None).hash, vec![volume(2)]));
    assert_eq!((summary.conflicts, summary.under_replicated, summary.surplus), (1, 1, 0));
}

#[test]
fn keys_come_in_order_however_they_are_spread() {
    let spread = vec![vec![held("a", 1, Some(1)), held("d", 4, Some(4))], vec![held("b", 2, Some(2))], vec![held("c", 3, Some(3))]];
    let (merged, summary) = merge(spread, Uncertain::Keep);
    let keys: Vec<_> = merged.iter().map(|m| m.key.to_string()).collect();
    assert_eq!((keys.concat().as_str(), summary.keys), ("abcd", 4));
    assert_eq!(merger(vec![vec![held("a", 1, Some(1))]], Uncertain::Keep).finish().unwrap().keys, 1);
}

#[test]
fn entries_out_of_order_unreadable_or_of_a_volume_named_twice_end_the_merge() {
    let mut m = merger(vec![vec![held("b", 1, Some(1)), held("a", 1, Some(1))]], Uncertain::Keep);
    assert!(m.next().unwrap().is_ok());
    assert_eq!(m.next(), Some(Err(MergeError::Order { volume: volume(1), key: key("a") })));
    assert_eq!(m.next(), None);
    let entries = Box::new(vec![Ok(held("a", 1, None)), Err("reset".to_string())].into_iter()) as Entries;
    let m = Merger::new(vec![(volume(1), entries)], Uncertain::Keep).unwrap();
    assert_eq!(m.finish(), Err(MergeError::Source { volume: volume(1), why: "reset".into() }));
    let twice = vec![(volume(1), Box::new(std::iter::empty()) as Entries), (volume(1), Box::new(std::iter::empty()) as Entries)];
    assert!(matches!(Merger::new(twice, Uncertain::Keep), Err(MergeError::Twice(v)) if v == volume(1)));
}
