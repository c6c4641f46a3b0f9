//! The `Range` header (RFC 9110 §14): one range of bytes, or none.

use kvdb_protocol::lab::{self, Bug};

/// What a `Range` header asks of a value of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranged {
    /// Everything: no range, several, a unit that is not bytes, or one that is malformed.
    Whole,
    /// From `first` up to and including `last`, both inside the value.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// No byte of the value is in the range: 416.
    Unsatisfiable,
}

/// Reads a header. Several ranges are answered with the whole, so that no request multiplies work.
pub fn parse(header: &str, len: u64) -> Ranged {
    let Some((unit, set)) = header.split_once('=') else { return Ranged::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Ranged::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Ranged::Whole };
    match (number(first), number(last)) {
        (Some(None), Some(Some(suffix))) => match suffix.min(len) {
            0 => Ranged::Unsatisfiable,
            n => Ranged::Part { first: len - n, last: len - 1 },
        },
        (Some(Some(first)), Some(last)) => {
            let last = last.unwrap_or(u64::MAX);
            if last < first {
                Ranged::Whole
            } else if first >= len {
                Ranged::Unsatisfiable
            } else {
                let last = last.min(len - 1);
                Ranged::Part { first, last: if lab::has(Bug::RangeOffByOne) && last > first { last - 1 } else { last } }
            }
        }
        _ => Ranged::Whole,
    }
}

/// Digits as a number (too many: the largest), nothing as none; `None` where it is neither.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|b| b.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u64, last: u64) -> Ranged {
        Ranged::Part { first, last }
    }

    #[test]
    fn each_form_of_a_range_has_its_answer() {
        for (header, want) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=-5", part(5, 9)),
            ("bytes=5-", part(5, 9)),
            ("bytes=0-18446744073709551615", part(0, 9)),
            ("bytes=0-99999999999999999999999", part(0, 9)),
            ("Bytes = 2-3", part(2, 3)),
            ("bytes=-100", part(0, 9)),
            ("bytes=-0", Ranged::Unsatisfiable),
            ("bytes=10-", Ranged::Unsatisfiable),
            ("bytes=99999999999999999999999-", Ranged::Unsatisfiable),
            ("bytes=5-2", Ranged::Whole),
            ("items=0-1", Ranged::Whole),
            ("bytes=0-1,3-4", Ranged::Whole),
            ("bytes=-", Ranged::Whole),
            ("bytes=a-b", Ranged::Whole),
            ("bytes=+1-2", Ranged::Whole),
            ("bytes", Ranged::Whole),
        ] {
            assert_eq!(parse(header, 10), want, "{header}");
        }
        for header in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(parse(header, 0), Ranged::Unsatisfiable, "{header} of an empty value");
        }
    }

    proptest! {
        #[test]
        fn a_part_always_lies_inside_the_value(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", len in 0u64..1000) {
            if let Ranged::Part { first, last } = parse(&header, len) {
                prop_assert!(first <= last && last < len);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(header in ".{0,60}", len in any::<u64>()) {
            parse(&header, len);
        }
    }
}
