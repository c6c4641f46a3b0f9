//! Results on standard output, and how numbers and times are shown.

use kvdb_client::{Key, UnixMillis};
use std::io::{self, Write};

/// Writes one line; a closed pipe is an error of its own kind, not a panic.
pub fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes what is left over and finds out whether it arrived.
pub fn flush() -> io::Result<()> {
    io::stdout().lock().flush()
}

/// Says that a server is up, to whoever reads it.
pub fn greet(text: &str) {
    if let Err(error) = line(text).and_then(|()| flush()) {
        // Whoever started us does not read it; the servers run all the same.
        tracing::debug!(%error, "the greeting could not be printed");
    }
}

/// Bytes of a key or prefix for people and JSON, as [`kvdb_client::Key::display`] shows them.
pub fn bytes(b: &[u8]) -> String {
    // A prefix may be empty or begin like a reserved key, which a key may not.
    Key::new(b).map_or_else(|_| String::from_utf8_lossy(b).escape_default().to_string(), |k| k.display())
}

/// A time in UTC, as in RFC 3339, to the second.
pub fn time(t: UnixMillis) -> String {
    let seconds = t.0 / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    // Whole cycles of 400 years first, so that no input takes long.
    let mut year = 1970 + 400 * (days / 146_097);
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_the_calendar_has_them() {
        let at = |seconds: u64| time(UnixMillis(seconds * 1000));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn the_last_time_of_all_is_shown_too() {
        assert!(time(UnixMillis(u64::MAX)).ends_with('Z'));
    }
}
