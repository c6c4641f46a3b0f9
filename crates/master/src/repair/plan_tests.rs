use super::*;
use kvdb_protocol::{ContentHash, UnixMillis, VersionId};
use rand::SeedableRng;
use rand::rngs::StdRng;

const GIB: u64 = 1 << 30;

fn id(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

fn ids(of: &[u8]) -> Vec<VolumeId> {
    of.iter().copied().map(id).collect()
}

fn record(replicas: &[u8]) -> Record {
    Record {
        version: VersionId::from_parts(1, 1),
        len: 1 << 20,
        hash: ContentHash::of(b""),
        content_type: None,
        modified: UnixMillis(1),
        expires: None,
        replicas: ids(replicas),
        seq: 1,
        created: true,
    }
}

/// Volumes 1, 2, … with these standings, each on a host of its own.
fn volumes(wanted: usize, standings: &[Standing]) -> Volumes {
    let seen = |(n, standing): (usize, &Standing)| {
        let n = n as u8 + 1;
        let place = Candidate { id: id(n), host: format!("h{n}"), free_bytes: GIB, busy: 0, writable: true };
        (id(n), Seen { standing: *standing, place, used_bytes: 0 })
    };
    Volumes { seen: standings.iter().enumerate().map(seen).collect(), wanted }
}

fn step(v: &Volumes, r: &Record, bad: &[u8]) -> Step {
    v.step(r, &|id| ids(bad).contains(&id), &mut StdRng::seed_from_u64(1))
}

use Standing::{Away, Gone, Up};
const LEAVING: Standing = Standing::Leaving { up: true };
const LEFT: Standing = Standing::Leaving { up: false };

#[test]
fn a_record_with_all_copies_on_volumes_that_count_is_fine_also_while_one_is_away() {
    assert_eq!(step(&volumes(2, &[Up, Up, Up]), &record(&[1, 2]), &[]), Step::Fine);
    assert_eq!(step(&volumes(2, &[Up, Away, Up]), &record(&[1, 2]), &[]), Step::Fine);
}

#[test]
fn a_copy_on_a_volume_that_is_gone_or_leaving_is_replaced_on_another_volume() {
    for lost in [Gone, LEFT] {
        let want = Step::Copy { target: id(3), sources: ids(&[1]), after: ids(&[1, 3]) };
        assert_eq!(step(&volumes(2, &[Up, lost, Up]), &record(&[1, 2]), &[]), want);
    }
    let want = Step::Copy { target: id(3), sources: ids(&[1, 2]), after: ids(&[1, 3]) };
    assert_eq!(step(&volumes(2, &[Up, LEAVING, Up]), &record(&[1, 2]), &[]), want);
}

#[test]
fn a_volume_that_nobody_knows_is_gone() {
    let want = Step::Copy { target: id(2), sources: ids(&[1]), after: ids(&[1, 2]) };
    assert_eq!(step(&volumes(2, &[Up, Up]), &record(&[1, 9]), &[]), want);
}

#[test]
fn a_bad_copy_is_made_anew_where_it_was_and_elsewhere_only_if_that_volume_takes_nothing() {
    let mut v = volumes(2, &[Up, Up, Up]);
    let want = Step::Copy { target: id(2), sources: ids(&[1]), after: ids(&[1, 2]) };
    assert_eq!(step(&v, &record(&[1, 2]), &[2]), want);
    v.seen.get_mut(&id(2)).unwrap().place.writable = false;
    let want = Step::Copy { target: id(3), sources: ids(&[1]), after: ids(&[1, 3]) };
    assert_eq!(step(&v, &record(&[1, 2]), &[2]), want);
}

#[test]
fn a_copy_is_never_taken_from_a_bad_or_unreachable_one() {
    assert_eq!(step(&volumes(2, &[Up, Up, Up]), &record(&[1, 2]), &[1, 2]), Step::Unreachable);
    assert_eq!(step(&volumes(2, &[Away, Gone, Up]), &record(&[1, 2]), &[]), Step::Unreachable);
    assert_eq!(step(&volumes(2, &[LEFT, Gone, Up]), &record(&[1, 2]), &[]), Step::Unreachable);
    assert_eq!(step(&volumes(1, &[Up, Up]), &record(&[1]), &[1]), Step::Unreachable, "a single copy that is bad");
}

#[test]
fn with_no_volume_left_for_another_copy_nothing_is_given_up() {
    assert_eq!(step(&volumes(2, &[Up, Gone]), &record(&[1, 2]), &[]), Step::NoPlace);
    assert_eq!(step(&volumes(2, &[Up, LEAVING]), &record(&[1, 2]), &[]), Step::NoPlace);
    let mut v = volumes(2, &[Up, Gone, Up]);
    v.seen.get_mut(&id(3)).unwrap().place.free_bytes = 10;
    assert_eq!(step(&v, &record(&[1, 2]), &[]), Step::NoPlace);
}

#[test]
fn of_several_lost_copies_one_is_replaced_at_a_time_and_the_others_stay_listed() {
    let v = volumes(3, &[Up, Gone, Gone, Up, Up]);
    let Step::Copy { target, sources, after } = step(&v, &record(&[1, 2, 3]), &[]) else { panic!() };
    assert!(ids(&[4, 5]).contains(&target));
    assert_eq!((sources, after.len()), (ids(&[1]), 3));
    let mut next = record(&[]);
    next.replicas = after;
    let Step::Copy { after, .. } = step(&v, &next, &[]) else { panic!() };
    let mut sorted = after;
    sorted.sort();
    assert_eq!(sorted, ids(&[1, 4, 5]));
}

#[test]
fn a_value_with_too_few_replicas_gets_more_and_none_of_them_is_given_up() {
    assert_eq!(step(&volumes(2, &[Up, Up]), &record(&[1]), &[]), Step::Copy { target: id(2), sources: ids(&[1]), after: ids(&[1, 2]) });
}

#[test]
fn surplus_copies_go_those_of_lost_volumes_first_and_two_on_one_host_before_others() {
    assert_eq!(step(&volumes(2, &[Up, Gone, Up]), &record(&[1, 2, 3]), &[]), Step::Drop { after: ids(&[1, 3]) });
    assert_eq!(step(&volumes(2, &[Up, Up, Up]), &record(&[1, 2, 3]), &[2]), Step::Drop { after: ids(&[1, 3]) });
    assert_eq!(step(&volumes(2, &[Up, Away, Up]), &record(&[1, 2, 3]), &[]), Step::Drop { after: ids(&[1, 3]) });
    let mut v = volumes(2, &[Up, Up, Up]);
    v.seen.get_mut(&id(3)).unwrap().place.host = "h1".into();
    let Step::Drop { after } = step(&v, &record(&[1, 2, 3]), &[]) else { panic!() };
    assert!(after.contains(&id(2)) && after.len() == 2, "{after:?}");
}

#[test]
fn a_new_copy_goes_to_another_host_where_there_is_one() {
    let mut v = volumes(2, &[Up, Gone, Up, Up]);
    v.seen.get_mut(&id(3)).unwrap().place.host = "h1".into();
    v.seen.get_mut(&id(4)).unwrap().place.free_bytes = 2 << 20;
    for seed in 0..50 {
        let Step::Copy { target, .. } = v.step(&record(&[1, 2]), &|_| false, &mut StdRng::seed_from_u64(seed)) else { panic!() };
        assert_eq!(target, id(4));
    }
}

#[test]
fn the_fewer_copies_are_safe_the_more_endangered() {
    let v = volumes(3, &[Up, Away, Gone, LEAVING, LEFT]);
    let safe = |replicas: &[u8], bad: &[u8]| v.safe_copies(&record(replicas), &|id| ids(bad).contains(&id));
    assert_eq!((safe(&[1, 2, 4], &[]), safe(&[1, 3, 5], &[]), safe(&[1, 2], &[1]), safe(&[3], &[])), (3, 1, 1, 0));
}

#[test]
fn a_copy_moves_only_between_volumes_that_are_up_and_never_next_to_another_copy() {
    let v = volumes(2, &[Up, Up, Up]);
    let want = Step::Copy { target: id(3), sources: ids(&[1, 2]), after: ids(&[3, 2]) };
    assert_eq!(v.shift(&record(&[1, 2]), id(1), id(3)), Some(want));
    assert_eq!(v.shift(&record(&[1, 2]), id(1), id(2)), None);
    assert_eq!(v.shift(&record(&[1, 2]), id(3), id(1)), None);
    assert_eq!(volumes(2, &[Up, Away, Up]).shift(&record(&[1, 2]), id(1), id(3)), None);
    let mut v = volumes(2, &[Up, Up, Up]);
    v.seen.get_mut(&id(3)).unwrap().place.host = "h2".into();
    assert_eq!(v.shift(&record(&[1, 2]), id(1), id(3)), None, "both copies would be on one host");
    assert!(v.shift(&record(&[1, 2]), id(2), id(3)).is_some(), "it stays on its host");
}

#[test]
fn volumes_are_balanced_when_their_shares_differ_by_no_more_than_the_threshold() {
    let mut v = volumes(2, &[Up, Up, Up]);
    for (n, used, free) in [(1, 60, 40), (2, 50, 50), (3, 0, 100)] {
        let seen = v.seen.get_mut(&id(n)).unwrap();
        (seen.used_bytes, seen.place.free_bytes) = (used * GIB, free * GIB);
    }
    assert_eq!(v.imbalance(0.1), Some((id(1), id(3), 30 * GIB)));
    assert_eq!(v.imbalance(0.7), None);
    v.seen.get_mut(&id(3)).unwrap().standing = LEAVING;
    assert_eq!(v.imbalance(0.1), None);
    assert_eq!(Volumes::default().imbalance(0.1), None);
}
