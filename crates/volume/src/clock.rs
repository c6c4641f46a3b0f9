//! The cluster's time, as the master tells it: a volume's own clock may be wrong by years.

use kvdb_protocol::UnixMillis;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

/// The master's time of the last beat, carried on by the monotonic clock; before the first beat, the machine's.
pub(crate) struct ClusterClock {
    last: RwLock<Option<(Instant, UnixMillis)>>,
}

impl ClusterClock {
    pub fn new() -> Self {
        Self { last: RwLock::new(None) }
    }

    pub fn now(&self) -> UnixMillis {
        self.told().unwrap_or_else(UnixMillis::now)
    }

    /// The cluster's time; none before a master's first beat.
    pub fn told(&self) -> Option<UnixMillis> {
        let last = *self.last.read().unwrap_or_else(PoisonError::into_inner);
        last.map(|(at, time)| time.plus(at.elapsed()))
    }

    /// Takes the master's time. It may step back only by what messages take to arrive.
    pub fn set(&self, time: UnixMillis) {
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_master_and_not_the_machine() {
        let clock = ClusterClock::new();
        assert_eq!(clock.told(), None);
        assert!(clock.now() >= UnixMillis(1_700_000_000_000));
        clock.set(UnixMillis(5_000));
        let now = clock.now();
        assert!(now >= UnixMillis(5_000) && now < UnixMillis(1_000_000_000));
    }
}
