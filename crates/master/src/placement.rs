//! Which volumes take a value, and which of its volumes serves a read. Pure: no I/O, no clock.
//!
//! A place is found by two random choices, weighted by free space, of which the less busy one is taken:
//! volumes fill in proportion to their space, and load evens out without anyone having to know it exactly.

use kvdb_protocol::VolumeId;
use rand::Rng;
use thiserror::Error;

/// A volume that may take a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The volume.
    pub id: VolumeId,
    /// The host it runs on: replicas go to different ones where there are enough.
    pub host: String,
    /// Bytes that it can still take.
    pub free_bytes: u64,
    /// Requests in flight that carry a value's bytes.
    pub busy: u64,
    /// Whether it takes writes.
    pub writable: bool,
}

/// Fewer volumes can take the value than it needs replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{needed} volumes are needed and {found} can take the value; start more volumes or make room on them")]
pub struct TooFew {
    /// Replicas asked for.
    pub needed: usize,
    /// Volumes that could take one.
    pub found: usize,
}

/// Chooses `replicas` different volumes, none of `exclude`: on different hosts as far as there are
/// enough, and only such as take writes and have room for `value_len` bytes (unknown: for anything).
pub fn choose(
    candidates: &[Candidate],
    replicas: usize,
    value_len: Option<u64>,
    exclude: &[VolumeId],
    rng: &mut impl Rng,
) -> Result<Vec<VolumeId>, TooFew> {
    // A volume without a free byte takes nothing, not even an empty value: its footer needs room.
    let room = value_len.unwrap_or(0).max(1);
    let mut open: Vec<&Candidate> = candidates.iter().filter(|c| c.writable && c.free_bytes >= room && !exclude.contains(&c.id)).collect();
    let found = open.len();
    let mut chosen: Vec<&Candidate> = Vec::with_capacity(replicas);
    while chosen.len() < replicas {
        let elsewhere: Vec<&Candidate> = open.iter().copied().filter(|c| chosen.iter().all(|t| t.host != c.host)).collect();
        let pool = if elsewhere.is_empty() { &open } else { &elsewhere };
        let taken = better_of_two(pool, rng).ok_or(TooFew { needed: replicas, found })?;
        open.retain(|c| c.id != taken.id);
        chosen.push(taken);
    }
    Ok(chosen.iter().map(|c| c.id).collect())
}

fn better_of_two<'a>(pool: &[&'a Candidate], rng: &mut impl Rng) -> Option<&'a Candidate> {
    let (a, b) = (weighted(pool, rng)?, weighted(pool, rng)?);
    Some(if b.busy < a.busy { b } else { a })
}

fn weighted<'a>(pool: &[&'a Candidate], rng: &mut impl Rng) -> Option<&'a Candidate> {
    let total: u128 = pool.iter().map(|c| u128::from(c.free_bytes)).sum();
    let mut at = if total == 0 { 0 } else { rng.random_range(0..total) };
    for candidate in pool {
        match at.checked_sub(u128::from(candidate.free_bytes)) {
            Some(rest) => at = rest,
            None => return Some(candidate),
        }
    }
    pool.last().copied()
}

/// A live replica of a value, and how busy its volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The volume.
    pub id: VolumeId,
    /// Requests in flight that carry a value's bytes.
    pub busy: u64,
}

/// The less busy of two different replicas taken at random; none if there is none.
pub fn choose_reader(replicas: &[Replica], rng: &mut impl Rng) -> Option<VolumeId> {
    let first = match replicas.len() {
        0 => return None,
        n => rng.random_range(0..n),
    };
    let second = match replicas.len() {
        1 => first,
        n => (first + rng.random_range(1..n)) % n,
    };
    let (a, b) = (replicas.get(first)?, replicas.get(second)?);
    Some(if b.busy < a.busy { b.id } else { a.id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::{HashMap, HashSet};

    const GIB: u64 = 1 << 30;

    fn id(n: u8) -> VolumeId {
        VolumeId::from_bytes([n; 16])
    }

    fn volume(n: u8, host: &str, free_bytes: u64) -> Candidate {
        Candidate { id: id(n), host: host.into(), free_bytes, busy: 0, writable: true }
    }

    fn counts(candidates: &[Candidate], replicas: usize, rounds: u32) -> HashMap<VolumeId, f64> {
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = HashMap::new();
        for _ in 0..rounds {
            for v in choose(candidates, replicas, Some(1), &[], &mut rng).unwrap() {
                *counts.entry(v).or_insert(0.0) += 1.0;
            }
        }
        counts
    }

    #[test]
    fn volumes_with_equal_space_get_equal_shares() {
        let all: Vec<_> = (0..8).map(|n| volume(n, &format!("h{n}"), GIB)).collect();
        for replicas in 1..=3 {
            let counts = counts(&all, replicas, 20_000);
            let share = 20_000.0 * replicas as f64 / 8.0;
            // Five standard deviations of a binomial share.
            let bound = 5.0 * share.sqrt();
            assert!(counts.len() == 8 && counts.values().all(|c| (c - share).abs() < bound), "{replicas}: {counts:?}");
        }
    }

    #[test]
    fn volumes_with_unequal_space_get_shares_in_proportion() {
        let all: Vec<_> = (1..=4).map(|n| volume(n, &format!("h{n}"), u64::from(n) * GIB)).collect();
        let counts = counts(&all, 1, 50_000);
        for n in 1..=4u8 {
            let share = 50_000.0 * f64::from(n) / 10.0;
            assert!((counts[&id(n)] - share).abs() < 5.0 * share.sqrt(), "{n}: {counts:?}");
        }
    }

    #[test]
    fn replicas_are_on_different_hosts_where_there_are_enough_and_always_on_different_volumes() {
        let all = [volume(1, "a", 100 * GIB), volume(2, "a", 100 * GIB), volume(3, "b", GIB), volume(4, "c", GIB)];
        let mut rng = StdRng::seed_from_u64(2);
        let host = |v: &VolumeId| all.iter().find(|c| c.id == *v).unwrap().host.clone();
        for _ in 0..2_000 {
            let three = choose(&all, 3, None, &[], &mut rng).unwrap();
            assert_eq!(three.iter().map(host).collect::<HashSet<_>>().len(), 3);
            let four = choose(&all, 4, None, &[], &mut rng).unwrap();
            assert_eq!(four.iter().collect::<HashSet<_>>().len(), 4);
        }
        assert_eq!(choose(&all, 5, None, &[], &mut rng), Err(TooFew { needed: 5, found: 4 }));
    }

    #[test]
    fn a_volume_that_is_full_excluded_or_read_only_is_never_chosen() {
        let read_only = Candidate { writable: false, ..volume(3, "c", GIB) };
        let all = [volume(1, "a", GIB), volume(2, "b", GIB - 1), read_only, volume(4, "d", 0), volume(5, "e", GIB)];
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..1_000 {
            assert_eq!(choose(&all, 1, Some(GIB), &[id(5)], &mut rng), Ok(vec![id(1)]));
        }
        assert_eq!(choose(&all, 1, Some(0), &[id(1), id(2), id(5)], &mut rng), Err(TooFew { needed: 1, found: 0 }));
        assert_eq!(choose(&all, 2, Some(2 * GIB), &[], &mut rng), Err(TooFew { needed: 2, found: 0 }));
        assert_eq!(choose(&[volume(1, "a", u64::MAX), volume(2, "b", u64::MAX)], 2, None, &[], &mut rng).unwrap().len(), 2);
    }

    #[test]
    fn of_two_choices_the_less_busy_one_is_taken() {
        let busy = Candidate { busy: 9, ..volume(1, "a", GIB) };
        let counts = counts(&[busy, volume(2, "b", GIB)], 1, 20_000);
        // The busy one is taken only when both choices fall on it: one in four.
        assert!((counts[&id(1)] - 5_000.0).abs() < 5.0 * 5_000f64.sqrt(), "{counts:?}");
    }

    #[test]
    fn a_read_goes_to_the_less_busy_of_two_and_evenly_when_none_is() {
        let mut rng = StdRng::seed_from_u64(4);
        let replica = |n, busy| Replica { id: id(n), busy };
        assert_eq!(choose_reader(&[], &mut rng), None);
        assert_eq!(choose_reader(&[replica(1, 5)], &mut rng), Some(id(1)));
        for _ in 0..1_000 {
            assert_eq!(choose_reader(&[replica(1, 5), replica(2, 4)], &mut rng), Some(id(2)));
            assert_ne!(choose_reader(&[replica(1, 5), replica(2, 4), replica(3, 9)], &mut rng), Some(id(3)));
        }
        let mut counts = HashMap::new();
        for _ in 0..30_000 {
            *counts.entry(choose_reader(&[replica(1, 0), replica(2, 0), replica(3, 0)], &mut rng).unwrap()).or_insert(0.0) += 1.0;
        }
        assert!(counts.values().all(|c: &f64| (c - 10_000.0).abs() < 500.0), "{counts:?}");
    }
}
