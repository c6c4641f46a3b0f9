//! The `Range` header.

use crate::input::{Input, chosen};
use kvdb_volume::range::{Ranged, parse};

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    // Ends of short and of the longest values.
    let len = match input.byte() % 3 {
        0 => u64::from(input.u16()),
        1 => input.u64(),
        _ => u64::MAX - u64::from(input.u16()),
    };
    let Ok(header) = std::str::from_utf8(input.rest()) else { return false };
    let found = parse(header, len);
    assert_eq!(found, expected(header, len), "{header:?} of {len}");
    let Ranged::Part { first, last } = found else { return found == Ranged::Unsatisfiable };
    assert!(first <= last && last < len);
    assert_eq!(parse(&format!("bytes={first}-{last}"), len), found);
    true
}

/// RFC 9110 §14.1, with integers that are large enough for anything. Numbers past 2^64 count as the largest below it.
fn expected(header: &str, len: u64) -> Ranged {
    let number = |digits: &str| {
        let cut = digits.trim_start_matches('0');
        if cut.len() > 20 { u128::from(u64::MAX) } else { cut.parse::<u128>().unwrap_or(0).min(u64::MAX.into()) }
    };
    let Some((unit, set)) = header.split_once('=') else { return Ranged::Whole };
    let set = set.trim();
    let is_spec = set.bytes().all(|b| b.is_ascii_digit() || b == b'-') && set.bytes().filter(|b| *b == b'-').count() == 1 && set.len() > 1;
    if !unit.trim().eq_ignore_ascii_case("bytes") || !is_spec {
        return Ranged::Whole;
    }
    let dash = set.find('-').unwrap();
    let len = u128::from(len);
    let (first, last) = match (&set[..dash], &set[dash + 1..]) {
        ("", suffix) => (len.saturating_sub(number(suffix)), len),
        (first, "") => (number(first), u128::MAX),
        (first, last) if number(last) < number(first) => return Ranged::Whole,
        (first, last) => (number(first), number(last)),
    };
    if first >= len {
        return Ranged::Unsatisfiable;
    }
    Ranged::Part { first: u64::try_from(first).unwrap(), last: u64::try_from(last.min(len - 1)).unwrap() }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let of_ten =
        ["bytes=0-0", "bytes=-5", "bytes=5-", "bytes=10-", "Bytes = 2-3", "bytes=0-18446744073709551615", "bytes=-99999999999999999999999"];
    let mut seeds: Vec<_> = of_ten.iter().map(|h| chosen(&[0, 10, 0], h)).collect();
    seeds.push(chosen(&[1, 1, 0, 0, 0, 1, 0, 0, 0], "bytes=4294967296-4294967296"));
    seeds.push(chosen(&[2, 0, 0], "bytes=18446744073709551613-18446744073709551614"));
    seeds
}
