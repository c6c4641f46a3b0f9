//! How fast the scrub goes: evenly over its period, and never faster than its rate.

use kvdb_protocol::UnixMillis;
use std::time::Duration;

/// How long it is until what comes after `share` (0 to 1) of a pass is due, where a pass takes `every`.
pub(super) fn until_due(began: UnixMillis, every: Duration, share: f64, now: UnixMillis) -> Duration {
    began.plus(every.mul_f64(share.clamp(0.0, 1.0))).since(now)
}

/// Bytes a second, counted against any clock that only goes forward.
pub(super) struct Rate {
    bytes_per_second: f64,
    free_at: Duration,
}

impl Rate {
    // For pacing a rounded number does.
    #[allow(clippy::cast_precision_loss)]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1) as f64, free_at: Duration::ZERO }
    }

    /// `bytes` were read from `now` on. Time in which nothing was read is not made up for.
    #[allow(clippy::cast_precision_loss)]
    pub fn spent(&mut self, now: Duration, bytes: u64) {
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
    }

    /// How long to wait before the next read.
    pub fn wait(&self, now: Duration) -> Duration {
        self.free_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pass_is_spread_evenly_over_its_period_and_catches_up_when_late() {
        let began = UnixMillis(1_000_000);
        let wait = |share, after: Duration| until_due(began, WEEK, share, began.plus(after));
        assert_eq!(wait(0.0, Duration::ZERO), Duration::ZERO);
        assert_eq!(wait(0.5, Duration::ZERO), WEEK / 2);
        assert_eq!(wait(0.5, WEEK / 4), WEEK / 4);
        assert_eq!(wait(0.5, WEEK / 2), Duration::ZERO);
        // It was down for days: it goes on at once.
        assert_eq!(wait(0.1, WEEK / 2), Duration::ZERO);
        // More was removed than there is left.
        assert_eq!(wait(7.0, Duration::ZERO), WEEK);
    }

    #[test]
    fn no_second_sees_more_than_the_rate_and_idle_time_is_not_made_up_for() {
        let mut rate = Rate::new(64 << 20);
        let mut now = Duration::from_secs(100);
        let (begin, mut read) = (now, 0u64);
        while read < 640 << 20 {
            now += rate.wait(now);
            read += 1 << 20;
            rate.spent(now, 1 << 20);
        }
        now += rate.wait(now);
        let took = now - begin;
        assert!(took >= SECOND * 10 - SECOND / 1000 && took <= SECOND * 10 + SECOND / 1000, "{took:?}");
        now += SECOND * 3600;
        assert_eq!(rate.wait(now), Duration::ZERO);
        rate.spent(now, 64 << 20);
        assert_eq!(rate.wait(now), SECOND);
    }
}
