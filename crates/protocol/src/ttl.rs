//! How long a value is to live, as a client says it: `250ms`, `30s`, `5m`, `2h`, `7d`; a bare number is seconds.

use std::time::Duration;
use thiserror::Error;

/// The header that says it, where the query parameter `ttl` does not; in answers, what is left of it, in milliseconds.
pub const TTL_HEADER: &str = "kvdb-ttl";
/// The header of answers that tells when a value expires, in milliseconds since 1970 by the cluster's clock.
pub const EXPIRES_HEADER: &str = "kvdb-expires";
/// Longest time to live: a hundred years of 365 days.
pub const MAX_TTL: Duration = Duration::from_secs(36_500 * 86_400);

/// Why a time to live is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TtlError {
    /// Not a whole number with a unit.
    #[error("a time to live is a whole number with one of the units ms, s, m, h, d, such as 30s or 250ms; without a unit it is in seconds")]
    Malformed,
    /// Nothing.
    #[error("a time to live of zero would store nothing; give at least 1ms, or none for a value that never expires")]
    Zero,
    /// More than [`MAX_TTL`].
    #[error("a time to live is at most 36500d; give none for a value that never expires")]
    TooLong,
}

/// Parses a time to live: 1 ms to [`MAX_TTL`].
pub fn parse(text: &str) -> Result<Duration, TtlError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(TtlError::Malformed),
    };
    if number.is_empty() {
        return Err(TtlError::Malformed);
    }
    // What does not fit is far beyond the bound.
    let ttl = number.parse().ok().and_then(|n: u64| n.checked_mul(millis)).map(Duration::from_millis).ok_or(TtlError::TooLong)?;
    match ttl {
        Duration::ZERO => Err(TtlError::Zero),
        ttl if ttl > MAX_TTL => Err(TtlError::TooLong),
        ttl => Ok(ttl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_a_bounded_time_or_an_error(text in ".{0,24}", number in any::<u64>()) {
            for text in [text, format!("{number}d"), format!("{number}ms")] {
                prop_assert!(parse(&text).is_ok_and(|t| !t.is_zero() && t <= MAX_TTL) || parse(&text).is_err());
            }
        }
    }

    #[test]
    fn a_time_to_live_is_a_whole_number_with_a_unit() {
        let cases = [("1ms", 1), ("250ms", 250), ("30", 30_000), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("36500d"), Ok(MAX_TTL));
    }

    #[test]
    fn what_is_malformed_zero_or_too_long_is_told_apart() {
        for bad in ["", "s", "-1", "+1", "1.5s", "1 s", " 1", "1S", "1w", "1ms ", "0x10", "1s1s", "\u{FFFD}"] {
            assert_eq!(parse(bad), Err(TtlError::Malformed), "{bad:?}");
        }
        for zero in ["0", "0ms", "000d"] {
            assert_eq!(parse(zero), Err(TtlError::Zero));
        }
        for long in ["36501d", "18446744073709551615", "18446744073709551616", "99999999999999999999999999ms", "18446744073709551615ms"] {
            assert_eq!(parse(long), Err(TtlError::TooLong), "{long}");
        }
    }
}
