//! What the content of a value must be, where a limit says so.

use crate::error::{ErrorCode, Problem};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Largest value whose content is checked, in bytes (4 MiB): whoever checks it holds all of it.
pub const MAX_CHECKED_BYTES: u64 = 4 << 20;

/// What a value's bytes must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentRule {
    /// One JSON object (RFC 8259) in UTF-8, with nothing but white space around it. It may be nested to any depth, and a name may
    /// be in it more than once.
    JsonObject,
}

impl ContentRule {
    /// Whether a whole value is as it must be; else [`ErrorCode::ContentInvalid`].
    pub fn check(self, value: &[u8]) -> Result<(), Problem> {
        let Self::JsonObject = self;
        let invalid = |why: String| Problem::new(ErrorCode::ContentInvalid, format!("the value must be a JSON object: {why}"));
        let text = std::str::from_utf8(value).map_err(|e| invalid(format!("it is not UTF-8 from byte {} on", e.valid_up_to())))?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(invalid("it does not begin with {".into()));
        }
        serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|e| invalid(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_object(value: &[u8]) -> bool {
        ContentRule::JsonObject.check(value).is_ok()
    }

    #[test]
    fn only_one_whole_json_object_is_one() {
        for good in [
            &b"{}"[..],
            b" \n\t{\"a\":[1,2.5e3,null,{\"b\":\"\\u00e9\\n\"}]} ",
            b"{\"a\":1,\"a\":2}",
            "{\"\u{e9}\":\"\u{1F600}\"}".as_bytes(),
        ] {
            assert!(is_object(good), "{}", good.escape_ascii());
        }
        let bad = [
            &b""[..],
            b" ",
            b"[]",
            b"1",
            b"null",
            b"\"{}\"",
            b"{",
            b"{}}",
            b"{} {}",
            b"{a:1}",
            b"{\"a\":1,}",
            b"{'a':1}",
            b"{\"a\":01}",
            b"{\"a\":NaN}",
            b"{\"a\":\"\x01\"}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\" 1}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\\x\"}",
            b"{}\0",
            b"{\"a\":tru}",
        ];
        for bad in bad {
            let problem = ContentRule::JsonObject.check(bad).unwrap_err();
            assert_eq!((problem.code, problem.status), (ErrorCode::ContentInvalid, 422), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = usize::try_from(MAX_CHECKED_BYTES).unwrap() / 2 - 4;
        let nested = |close: usize| format!("{{\"a\":{}{}}}", "[".repeat(deep), "]".repeat(close));
        assert!(is_object(nested(deep).as_bytes()));
        assert!(!is_object(nested(deep - 1).as_bytes()));
    }

    proptest! {
        #[test]
        fn it_says_of_any_text_what_a_full_reading_of_it_says(text in "[{}\\[\\]\":,a1\\\\ .\u{e9}-]{0,12}") {
            let read = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(is_object(text.as_bytes()), read.is_ok_and(|v| v.is_object()));
        }
    }
}
