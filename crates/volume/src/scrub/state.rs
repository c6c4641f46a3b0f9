//! How far the scrub is, kept over restarts: `scrub.json` in the volume's directory.

use super::pace::until_due;
use crate::disk::{self, Context as _, DiskError, Op};
use kvdb_protocol::message::ScrubStatus;
use kvdb_protocol::{Key, UnixMillis, VersionId, VolumeId};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// Name of the file.
pub(super) const STATE_FILE: &str = "scrub.json";
const FORMAT: u32 = 1;
const MODE: u32 = 0o640;
/// Most bytes of the file that are read.
const MAX_BYTES: u64 = 64 << 10;
/// What looking at a value costs besides its bytes, in bytes, so that passes over small values are spread, too.
const VALUE_COST_BYTES: u64 = 4096;
/// A pass that began later than this from now did so by another clock.
const MAX_AHEAD: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// When the pass under way began, or else the last one; by the cluster's time.
    pub began: Option<UnixMillis>,
    pub ended: Option<UnixMillis>,
    pub running: bool,
    /// The pass under way was asked for: it goes at full rate.
    pub asked: bool,
    /// A pass was asked for and has not begun.
    pub wanted: bool,
    /// The last value that was looked at.
    pub cursor: Option<(Key, VersionId)>,
    /// Counters of the pass.
    pub values: u64,
    pub bytes: u64,
    /// Found by all passes.
    pub bad: u64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    volume: VolumeId,
    state: State,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look at the next value.
    Look,
    /// Nothing for so long.
    Rest(Duration),
}

impl State {
    /// What was kept; anew where that is damaged, or another volume's.
    pub fn read(dir: &Path, volume: VolumeId) -> Self {
        let path = dir.join(STATE_FILE);
        let mut bytes = Vec::new();
        let read = disk::open_regular(&path).and_then(|f| f.take(MAX_BYTES).read_to_end(&mut bytes).at(Op::Read, &path));
        let why = match read {
            Err(e) if e.is_not_found() => return Self::default(),
            Err(e) => e.to_string(),
            Ok(_) => match serde_json::from_slice::<Kept>(&bytes) {
                Ok(kept) if kept.format == FORMAT && kept.volume == volume => return kept.state,
                Ok(kept) => format!("it is of format {} and volume {}", kept.format, kept.volume),
                Err(e) => e.to_string(),
            },
        };
        tracing::warn!(path = %path.display(), why, "where the scrub was is not known: it begins anew");
        Self::default()
    }

    pub fn write(&self, dir: &Path, volume: VolumeId) -> Result<(), DiskError> {
        let path = dir.join(STATE_FILE);
        let kept = Kept { format: FORMAT, volume, state: self.clone() };
        let text = serde_json::to_vec(&kept).map_err(std::io::Error::from).at(Op::Write, &path)?;
        disk::replace_file(&path, &text, MODE)
    }

    /// What is to be done at `now`, where a pass is to take `every` (none: only what is asked for) and so many values
    /// of so many bytes are held. Begins a pass whose time has come.
    pub fn next(&mut self, now: UnixMillis, every: Option<Duration>, held: (u64, u64)) -> Next {
        // By a clock that is not the cluster's any more.
        let began = self.began.filter(|b| *b <= now.plus(MAX_AHEAD));
        if self.wanted && !(self.running && self.asked) {
            self.wanted = false;
            self.begin(now, true);
        }
        if self.running {
            return match (every, began) {
                (Some(every), Some(began)) if !self.asked => match until_due(began, every, self.share(held), now) {
                    Duration::ZERO => Next::Look,
                    rest => Next::Rest(rest),
                },
                _ => Next::Look,
            };
        }
        match (every, began) {
            (None, _) => Next::Rest(Duration::MAX),
            (Some(every), Some(began)) if began.plus(every) > now => Next::Rest(began.plus(every).since(now)),
            _ => {
                self.begin(now, false);
                Next::Look
            }
        }
    }

    fn begin(&mut self, now: UnixMillis, asked: bool) {
        *self = Self { began: Some(now), running: true, asked, wanted: false, cursor: None, values: 0, bytes: 0, ..*self };
    }

    pub fn end(&mut self, now: UnixMillis) {
        self.running = false;
        self.asked = false;
        self.cursor = None;
        self.ended = Some(now);
    }

    /// How much of the pass is done, 0 to 1 or somewhat more.
    // For pacing a rounded number does.
    #[allow(clippy::cast_precision_loss)]
    fn share(&self, (values, bytes): (u64, u64)) -> f64 {
        let cost = |values: u64, bytes: u64| bytes.saturating_add(values.saturating_mul(VALUE_COST_BYTES)) as f64;
        cost(self.values, self.bytes) / cost(values, bytes).max(1.0)
    }

    pub fn status(&self, of_bytes: u64) -> ScrubStatus {
        ScrubStatus {
            began: self.began.filter(|_| self.running),
            ended: self.ended,
            values: self.values,
            bytes: self.bytes,
            of_bytes,
            bad: self.bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn at(days: f64) -> UnixMillis {
        NOW.plus(DAY.mul_f64(days))
    }

    #[test]
    fn passes_begin_each_period_and_rest_in_between() {
        let mut s = State::default();
        let held = (10, 10 << 20);
        assert_eq!(s.next(NOW, Some(DAY), held), Next::Look);
        (s.values, s.bytes) = (5, 5 << 20);
        assert_eq!(s.next(NOW, Some(DAY), held), Next::Rest(DAY / 2));
        assert_eq!(s.next(at(0.5), Some(DAY), held), Next::Look);
        s.end(at(0.6));
        assert_eq!(s.next(at(0.75), Some(DAY), held), Next::Rest(DAY / 4));
        assert_eq!((s.status(1).began, s.status(1).ended), (None, Some(at(0.6))));
        assert_eq!(s.next(at(1.0), Some(DAY), held), Next::Look);
        assert_eq!((s.began, s.values, s.bytes), (Some(at(1.0)), 0, 0));
    }

    #[test]
    fn a_pass_that_is_asked_for_begins_at_once_does_not_rest_and_the_next_one_follows_it() {
        let mut s = State { wanted: true, ..State::default() };
        assert_eq!(s.next(NOW, None, (10, 100)), Next::Look);
        assert!(s.running && s.asked && !s.wanted);
        s.values = 9;
        assert_eq!(s.next(NOW, None, (10, 100)), Next::Look);
        // Asked again in the middle: not begun anew, which might never end, but once more afterwards.
        s.wanted = true;
        assert_eq!((s.next(NOW, None, (10, 100)), s.values), (Next::Look, 9));
        s.end(NOW);
        assert_eq!((s.next(NOW, None, (10, 100)), s.values, s.wanted), (Next::Look, 0, false));
        s.end(NOW);
        assert_eq!(s.next(NOW, None, (10, 100)), Next::Rest(Duration::MAX));
    }

    #[test]
    fn a_pass_that_is_asked_for_takes_the_place_of_a_slow_one() {
        let mut s = State {
            running: true,
            began: Some(NOW),
            values: 3,
            cursor: Some((Key::new("k").unwrap(), VersionId::from_parts(1, 2))),
            ..State::default()
        };
        s.wanted = true;
        assert_eq!(s.next(at(0.1), Some(DAY), (10, 100)), Next::Look);
        assert_eq!((s.began, s.values, s.cursor), (Some(at(0.1)), 0, None));
    }

    #[test]
    fn a_clock_that_went_back_does_not_stop_the_scrub() {
        let mut s = State { began: Some(at(300.0)), ..State::default() };
        assert_eq!(s.next(NOW, Some(DAY), (1, 1)), Next::Look);
        assert_eq!(s.began, Some(NOW));
        let mut s = State { began: Some(at(300.0)), running: true, ..State::default() };
        assert_eq!(s.next(NOW, Some(DAY), (1, 1)), Next::Look);
    }

    #[test]
    fn the_state_comes_back_and_one_that_is_torn_or_foreign_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16]));
        assert_eq!(State::read(dir.path(), own), State::default());
        let cursor = Some((Key::new(vec![0, 255, b'"']).unwrap(), VersionId::from_parts(7, 8)));
        let state = State { began: Some(NOW), running: true, asked: true, cursor, values: 3, bytes: 4, bad: 5, ..State::default() };
        state.write(dir.path(), own).unwrap();
        assert_eq!(State::read(dir.path(), own), state);
        assert_eq!(State::read(dir.path(), other), State::default());
        let path = dir.path().join(STATE_FILE);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(State::read(dir.path(), own), State::default(), "{len} bytes of it");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(State::read(dir.path(), own), State::default());
    }
}
