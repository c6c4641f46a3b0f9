//! The cluster's clock and the versions made from it.
//!
//! Both stay below a durable lease: all times and versions given out so far are before it. At opening
//! the clock starts at the stored lease, so neither can go back across a crash. When the lease is not
//! extended in time, the clock stands still: what was decided by it ("too late") then stays decided.
//!
//! Values expire by a second clock, which follows the machine's: after a crash the first one is up to a lease ahead, and
//! would end short lives early. The second one goes on at the machine's time, unless that was evidently set back.

use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::{UnixMillis, VersionId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How far ahead of the clock the lease is set. After a crash the clock may start this much ahead.
pub(super) const LEASE_AHEAD: Duration = Duration::from_secs(10);
/// The lease is extended when less than this is left of it.
const LEASE_LOW: Duration = Duration::from_secs(5);
/// Random bits of a version, after its counter of 26 bits.
const RANDOM_BITS: u32 = 32;
/// Bits at the end of a version that it shares with those made at about the same time. Volumes keep a file in the directory that they
/// name: so files that are written together share a directory, and the syncs of its names.
const DIRECTORY_BITS: u32 = 16;
/// How long versions share them, as the binary logarithm of milliseconds: 4 s. All directories have had their turn after 75 hours.
const DIRECTORY_TIME_SHIFT: u32 = 12;
const COUNTER_LIMIT: u64 = 1 << (74 - RANDOM_BITS - DIRECTORY_BITS);

/// What the machine's clocks say, in milliseconds: the wall clock, and a clock that only goes forward.
pub(super) type Clocks = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

pub(super) struct Clock {
    clocks: Clocks,
    /// Cluster time less the forward clock; only grows, when the wall clock is ahead.
    offset: AtomicU64,
    /// The same for the clock that values expire by.
    expiry_offset: AtomicU64,
    /// Exclusive bound of what may be given out; only grows.
    lease: AtomicU64,
    /// Time and counter of the last version.
    last: Mutex<(u64, u64)>,
    /// Told when the lease stands in the way.
    low: Notify,
}

/// The machine's own clocks.
pub(super) fn machine_clocks() -> Clocks {
    let start = Instant::now();
    Box::new(move || (UnixMillis::now().0, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)))
}

impl Clock {
    /// A clock that starts at the stored lease or the wall clock, whichever is later. It stands still
    /// until [`Clock::extend`] is called.
    pub(super) fn new(clocks: Clocks, stored_lease: u64) -> Self {
        let (wall, forward) = clocks();
        let stored = if lab::has(Bug::ClockGoesBack) { 0 } else { stored_lease };
        let offset = AtomicU64::new(stored.max(wall).saturating_sub(forward));
        let expiry_offset = AtomicU64::new(wall.saturating_sub(forward));
        Self { clocks, offset, expiry_offset, lease: AtomicU64::new(stored_lease), last: Mutex::new((0, 0)), low: Notify::new() }
    }

    /// Takes up the clock that values expire by where it was, `bound` being at most [`LEASE_AHEAD`] after its last known time.
    pub(super) fn resume_expiry(self, bound: u64) -> Self {
        let (wall, forward) = (self.clocks)();
        if UnixMillis(wall).plus(LEASE_AHEAD).0 < bound {
            self.expiry_offset.fetch_max(bound.saturating_sub(forward), Ordering::SeqCst);
        }
        self
    }

    /// What values expire by.
    pub(super) fn expiry_now(&self) -> UnixMillis {
        UnixMillis(self.following(&self.expiry_offset))
    }

    /// The bound to keep with a lease, for [`Clock::resume_expiry`].
    pub(super) fn expiry_bound(&self) -> u64 {
        self.expiry_now().plus(LEASE_AHEAD).0
    }

    pub(super) fn now(&self) -> UnixMillis {
        let (raw, lease) = (self.raw(), self.lease.load(Ordering::SeqCst));
        if raw >= lease {
            self.low.notify_one();
        }
        UnixMillis(raw.min(lease.saturating_sub(1)))
    }

    fn raw(&self) -> u64 {
        self.following(&self.offset)
    }

    /// Both parts only grow, so their sum does.
    fn following(&self, offset: &AtomicU64) -> u64 {
        let (wall, forward) = (self.clocks)();
        let ahead = wall.saturating_sub(forward);
        let known = offset.load(Ordering::SeqCst);
        // Written only when the machine's clock went forward: all threads read it.
        let offset = if ahead > known { offset.fetch_max(ahead, Ordering::SeqCst).max(ahead) } else { known };
        offset.saturating_add(forward)
    }

    pub(super) fn next_version(&self) -> VersionId {
        let now = self.now().0;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = match *last {
            (time, _) if now > time => (now, 0),
            (time, counter) if counter + 1 < COUNTER_LIMIT => (time, counter + 1),
            // 67 million versions in a millisecond: only when the clock has long stood still, and then
            // nothing that these versions are for can be committed.
            (time, _) => (time + 1, 0),
        };
        let random = u64::from(rand::random::<u32>());
        let directory = (last.0 >> DIRECTORY_TIME_SHIFT) % (1 << DIRECTORY_BITS);
        let counted = u128::from(last.1) << (RANDOM_BITS + DIRECTORY_BITS);
        VersionId::from_parts(last.0, counted | u128::from((random << DIRECTORY_BITS) | directory))
    }

    /// The lease to make durable now, if little is left of the present one.
    pub(super) fn wanted_lease(&self) -> Option<u64> {
        let (raw, lease) = (UnixMillis(self.raw()), self.lease.load(Ordering::SeqCst));
        (lease < raw.plus(LEASE_LOW).0).then(|| raw.plus(LEASE_AHEAD).0)
    }

    /// Stops the clock, and gives the lease that suffices for all that was given out: for a clean end.
    pub(super) fn freeze(&self) -> u64 {
        let tight = self.now().0 + 1;
        let lease = self.lease.swap(tight, Ordering::SeqCst);
        // Whoever still saw the old lease had read the time before now.
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).0;
        tight.max(self.raw() + 1).min(lease).max(last + 1)
    }

    /// The lease is durable.
    pub(super) fn extend(&self, lease: u64) {
        self.lease.fetch_max(lease, Ordering::SeqCst);
    }

    /// Returns when the lease stands in the way.
    pub(super) async fn low(&self) {
        self.low.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Machine {
        wall: AtomicU64,
        forward: AtomicU64,
    }

    fn machine(wall: u64) -> (Arc<Machine>, Clocks) {
        let m = Arc::new(Machine { wall: AtomicU64::new(wall), forward: AtomicU64::new(7) });
        let seen = Arc::clone(&m);
        (m, Box::new(move || (seen.wall.load(Ordering::SeqCst), seen.forward.load(Ordering::SeqCst))))
    }

    impl Machine {
        fn pass(&self, ms: u64) {
            self.wall.fetch_add(ms, Ordering::SeqCst);
            self.forward.fetch_add(ms, Ordering::SeqCst);
        }
    }

    const YEAR: u64 = 365 * 86_400_000;

    #[test]
    fn time_goes_on_when_the_machines_clock_is_set_back_and_follows_it_forward() {
        let (m, clocks) = machine(10 * YEAR);
        let clock = Clock::new(clocks, 0);
        clock.extend(u64::MAX);
        assert_eq!(clock.now().0, 10 * YEAR);
        m.wall.fetch_sub(YEAR, Ordering::SeqCst);
        assert_eq!(clock.now().0, 10 * YEAR);
        m.pass(500);
        assert_eq!(clock.now().0, 10 * YEAR + 500);
        m.wall.store(11 * YEAR, Ordering::SeqCst);
        assert_eq!(clock.now().0, 11 * YEAR);
    }

    #[test]
    fn the_clock_and_versions_stay_below_the_lease_until_it_is_extended() {
        let (m, clocks) = machine(1_000_000);
        let clock = Clock::new(clocks, 0);
        clock.extend(clock.wanted_lease().unwrap());
        assert_eq!(clock.wanted_lease(), None);
        m.pass(YEAR);
        assert_eq!(clock.now().0, 1_009_999);
        assert!((0..10).all(|_| clock.next_version().unix_millis() < 1_010_000));
        let lease = clock.wanted_lease().unwrap();
        clock.extend(lease);
        assert_eq!(clock.now().0, 1_000_000 + YEAR);
    }

    #[test]
    fn after_a_restart_with_the_clock_a_year_back_times_and_versions_are_greater_than_before() {
        let (m, clocks) = machine(10 * YEAR);
        let clock = Clock::new(clocks, 0);
        let lease = clock.wanted_lease().unwrap();
        clock.extend(lease);
        m.pass(9_999);
        let (time, version) = (clock.now(), clock.next_version());
        let (_, clocks) = machine(9 * YEAR);
        let clock = Clock::new(clocks, lease);
        clock.extend(clock.wanted_lease().unwrap());
        assert!(clock.now() > time);
        assert!(clock.next_version() > version);
    }

    #[test]
    fn values_expire_by_the_machines_time_after_a_crash_unless_it_was_set_back() {
        let (m, clocks) = machine(10 * YEAR);
        let clock = Clock::new(clocks, 0).resume_expiry(0);
        let (lease, bound) = (clock.wanted_lease().unwrap(), clock.expiry_bound());
        clock.extend(lease);
        m.pass(500);
        assert_eq!(clock.expiry_now().0, 10 * YEAR + 500);
        let (_, clocks) = machine(10 * YEAR + 700);
        let again = Clock::new(clocks, lease).resume_expiry(bound);
        again.extend(u64::MAX);
        assert_eq!((again.now().0, again.expiry_now().0), (lease, 10 * YEAR + 700));
        let (_, clocks) = machine(9 * YEAR);
        assert!(Clock::new(clocks, lease).resume_expiry(bound).expiry_now() > clock.expiry_now());
    }

    #[test]
    fn a_frozen_clock_gives_out_nothing_at_or_above_its_last_lease() {
        let (m, clocks) = machine(1_000_000);
        let clock = Clock::new(clocks, 0);
        clock.extend(2_000_000);
        m.pass(5);
        let version = clock.next_version();
        let lease = clock.freeze();
        assert_eq!(lease, 1_000_006);
        m.pass(50);
        assert!(version.unix_millis() < lease && clock.now().0 < lease && clock.next_version().unix_millis() < lease);
    }

    #[test]
    fn versions_of_the_same_four_seconds_end_alike_and_all_endings_have_their_turn() {
        let (m, clocks) = machine(4_096 * 1_000_000);
        let clock = Clock::new(clocks, 0);
        clock.extend(u64::MAX);
        let ending = || <[u8; 2]>::try_from(&clock.next_version().as_bytes()[14..]).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1 << DIRECTORY_BITS {
            let first = ending();
            m.pass(4_095);
            assert_eq!(ending(), first);
            assert!(seen.insert(first));
            m.pass(1);
        }
        assert!(seen.contains(&ending()), "the first one has its turn again");
    }

    #[test]
    fn versions_grow_from_many_threads_within_one_millisecond() {
        let (_, clocks) = machine(5_000);
        let clock = Clock::new(clocks, 0);
        clock.extend(u64::MAX);
        let mut all: Vec<VersionId> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        let mine: Vec<_> = (0..1_000).map(|_| clock.next_version()).collect();
                        assert!(mine.is_sorted());
                        mine
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4_000);
    }
}
