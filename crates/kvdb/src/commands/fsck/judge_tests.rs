use super::*;
use kvdb_protocol::{ContentHash, UnixMillis};

fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

fn version(n: u64) -> VersionId {
    VersionId::from_parts(n, 0)
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn record(n: u64, replicas: &[u8]) -> Record {
    Record {
        version: version(n),
        len: 3,
        hash: ContentHash::of(b"abc"),
        content_type: None,
        modified: UnixMillis(n),
        expires: None,
        replicas: replicas.iter().map(|v| volume(*v)).collect(),
        seq: n,
        created: true,
    }
}

/// As a volume holds it; prepared or committed.
fn held(at: u8, n: u64, committed: bool) -> (VolumeId, ValueEntry) {
    let r = record(n, &[1, 2]);
    let entry = ValueEntry {
        key: key(),
        version: r.version,
        len: r.len,
        hash: r.hash,
        content_type: None,
        modified: r.modified,
        expires: None,
        replicas: r.replicas,
        seq: committed.then_some(n),
    };
    (volume(at), entry)
}

fn expected() -> Expected {
    Expected { replicas: 2, asked: [volume(1), volume(2), volume(3)].into(), all: true }
}

/// Kinds and volumes.
fn found(sides: &Sides) -> Vec<(Kind, Option<VolumeId>)> {
    judge(&key(), sides, &expected(), &|_, _| false).findings.into_iter().map(|f| (f.kind, f.volume)).collect()
}

#[test]
fn a_key_whose_volumes_hold_what_its_record_says_is_clean_also_before_they_hear_of_the_commit() {
    for second in [true, false] {
        let sides = Sides { record: Some(record(5, &[1, 2])), held: vec![held(1, 5, true), held(2, 5, second)], tombstones: vec![] };
        assert_eq!(judge(&key(), &sides, &expected(), &|_, _| false), Judged::default());
    }
}

type Change = fn(&mut ValueEntry);

#[test]
fn each_difference_between_a_record_and_a_copy_is_named() {
    let changes: [(&str, Change); 5] = [
        ("length", |e| e.len = 4),
        ("hash", |e| e.hash = ContentHash::of(b"abd")),
        ("content type", |e| e.content_type = Some("a/b".into())),
        ("time", |e| e.modified = UnixMillis(6)),
        ("expiry", |e| e.expires = Some(UnixMillis(9))),
    ];
    for (name, change) in changes {
        let mut sides = Sides { record: Some(record(5, &[1, 2])), held: vec![held(1, 5, true), held(2, 5, true)], tombstones: vec![] };
        change(&mut sides.held[1].1);
        let judged = judge(&key(), &sides, &expected(), &|_, _| false);
        assert_eq!(judged.findings.len(), 1);
        assert_eq!((judged.findings[0].kind, judged.findings[0].volume), (Kind::Wrong, Some(volume(2))));
        assert_eq!(judged.findings[0].detail, format!("{name} differ"));
    }
}

#[test]
fn a_missing_copy_and_a_volume_that_is_not_of_the_cluster_dangle_but_not_one_that_is_only_down() {
    let sides = Sides { record: Some(record(5, &[1, 2])), held: vec![held(1, 5, true), held(2, 4, false)], tombstones: vec![] };
    assert_eq!(found(&sides), [(Kind::Dangling, Some(volume(2)))]);
    let elsewhere = Sides { record: Some(record(5, &[1, 9])), ..sides.clone() };
    assert_eq!(found(&elsewhere), [(Kind::Dangling, Some(volume(9)))]);
    let down = Expected { all: false, ..expected() };
    assert_eq!(judge(&key(), &elsewhere, &down, &|_, _| false).findings, []);
}

#[test]
fn copies_that_no_record_names_are_orphans_of_four_kinds_and_prepared_or_listed_ones_are_none() {
    let deleted = |seq| vec![(volume(1), Deleted { seq, time: UnixMillis(1) })];
    let good = vec![held(1, 5, true), held(2, 5, true)];
    let with = |more: (VolumeId, ValueEntry)| Sides {
        record: Some(record(5, &[1, 2])),
        held: [good.clone(), vec![more]].concat(),
        tombstones: vec![],
    };
    let orphan = |why| vec![(Kind::Orphan(why), Some(volume(3)))];
    assert_eq!(found(&with(held(3, 4, true))), orphan(Why::Superseded));
    assert_eq!(found(&with(held(3, 6, true))), orphan(Why::Unknown));
    assert_eq!(found(&with(held(3, 5, true))), orphan(Why::Surplus));
    let alone = |tombstones| Sides { record: None, held: vec![held(3, 4, true)], tombstones };
    assert_eq!(found(&alone(deleted(7))), orphan(Why::Deleted));
    assert_eq!(found(&alone(deleted(3))), orphan(Why::Unknown));
    assert_eq!(found(&alone(vec![])), orphan(Why::Unknown));

    let prepared = judge(&key(), &with(held(3, 6, false)), &expected(), &|_, _| false);
    assert_eq!(prepared, Judged { in_doubt: 1, ..Judged::default() });
    let listed = judge(&key(), &with(held(3, 4, true)), &expected(), &|v, n| (v, n) == (volume(3), version(4)));
    assert_eq!(listed, Judged { to_be_reclaimed: 1, ..Judged::default() });
}

#[test]
fn a_surplus_copy_is_kept_where_a_copy_that_the_record_names_is_missing() {
    let sides = Sides { record: Some(record(5, &[1, 2])), held: vec![held(1, 5, true), held(3, 5, true)], tombstones: vec![] };
    let judged = judge(&key(), &sides, &expected(), &|_, _| false);
    let surplus = judged.findings.iter().find(|f| f.kind == Kind::Orphan(Why::Surplus)).unwrap();
    assert_eq!(surplus.mend, Mend::None);
}

#[test]
fn too_few_and_too_many_replicas_and_a_later_delete_are_told() {
    let few = Sides { record: Some(record(5, &[1])), held: vec![held(1, 5, true)], tombstones: vec![] };
    assert_eq!(found(&few), [(Kind::UnderReplicated, None)]);
    let many = Sides { record: Some(record(5, &[1, 2, 3])), held: (1..4).map(|v| held(v, 5, true)).collect(), tombstones: vec![] };
    assert_eq!(found(&many), [(Kind::SurplusReplicas, None)]);
    let tombstones = vec![(volume(3), Deleted { seq: 6, time: UnixMillis(1) })];
    let back = Sides { record: Some(record(5, &[1, 2])), held: vec![held(1, 5, true), held(2, 5, true)], tombstones };
    assert_eq!(found(&back), [(Kind::DeletedLater, Some(volume(3)))]);
}
