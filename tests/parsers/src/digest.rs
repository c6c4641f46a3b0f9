//! Digests that a sender announces.

use crate::input::{Input, chosen, cut};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};
use kvdb_volume::digest::DigestCheck;
use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha512};

const NAMES: [&str; 3] = ["content-md5", "repr-digest", "content-digest"];
const BODY: &[u8] = b"value";

/// Number of headers, then lines of a byte that chooses the name and the value; `5`, `2` or `1` in the place of a value
/// stands for a digest of the body that is right.
pub(crate) fn check(data: &[u8]) -> bool {
    let (mut input, mut headers) = (Input(data), HeaderMap::new());
    while !input.0.is_empty() {
        let name = NAMES[usize::from(input.byte()) % NAMES.len()];
        let given = input.line();
        let value = right(given).map_or_else(|| HeaderValue::from_bytes(given), |text| HeaderValue::from_str(&text));
        let Ok(value) = value else { return false };
        headers.append(name, value);
    }
    let Ok(check) = DigestCheck::from_headers(&headers) else { return false };
    let passed = finish(check, &[BODY]);
    for sizes in [&[1][..], &[2, 3]] {
        let again = DigestCheck::from_headers(&headers).unwrap();
        assert_eq!(finish(again, &cut(BODY, sizes)), passed, "another cut, another result");
    }
    for value in headers.get_all("content-md5") {
        let right = BASE64_STANDARD.decode(value.as_bytes().trim_ascii()).is_ok_and(|d| d == Md5::digest(BODY).as_slice());
        assert!(right || !passed, "a wrong Content-MD5 passes");
    }
    // A dictionary with one algorithm and nothing else can be read without a parser of dictionaries.
    for value in NAMES[1..].iter().flat_map(|n| headers.get_all(*n)) {
        let digest = |name: &str| {
            let text = value.to_str().ok()?.trim().strip_prefix(name)?.strip_prefix("=:")?.strip_suffix(':')?;
            BASE64_STANDARD.decode(text).ok()
        };
        assert!(digest("sha-256").is_none_or(|d| d == Sha256::digest(BODY).as_slice()) || !passed, "a wrong sha-256 passes");
        assert!(digest("sha-512").is_none_or(|d| d == Sha512::digest(BODY).as_slice()) || !passed, "a wrong sha-512 passes");
    }
    if passed && !headers.is_empty() {
        let another = DigestCheck::from_headers(&headers).unwrap();
        let known = ["sha-256=:", "sha-512=:"];
        let text = |n: &str| headers.get(n).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
        let checked = headers.contains_key(NAMES[0]) || NAMES[1..].iter().any(|n| known.iter().any(|k| text(n).trim().starts_with(k)));
        assert!(!(checked && finish(another, &[b"valuE"])), "another value passes");
    }
    passed
}

fn right(given: &[u8]) -> Option<String> {
    match given {
        b"5" => Some(BASE64_STANDARD.encode(Md5::digest(BODY))),
        b"2" => Some(format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(BODY)))),
        b"1" => Some(format!("sha-512=:{}:", BASE64_STANDARD.encode(Sha512::digest(BODY)))),
        _ => None,
    }
}

fn finish(mut check: DigestCheck, parts: &[&[u8]]) -> bool {
    parts.iter().for_each(|p| check.update(p));
    check.finish().is_ok()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let both = format!("\x01{}, {}", right(b"2").unwrap(), right(b"1").unwrap());
    ["\x005", "\x012", "\x021", "\x01crc32c=:AAAAAA==:", "\x005\n\x012\n\x021", &both].map(|s| chosen(&[], s)).to_vec()
}
