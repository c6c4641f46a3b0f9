//! Digests that a sender announces: `Content-MD5` (RFC 1864), `Repr-Digest` and `Content-Digest` (RFC 9530).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::{ErrorCode, Problem};
use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha512};

/// Checks announced digests while a value arrives.
#[derive(Default)]
pub struct DigestCheck {
    md5: Option<(Md5, Vec<u8>)>,
    sha256: Option<(Sha256, Vec<u8>)>,
    sha512: Option<(Sha512, Vec<u8>)>,
}

impl DigestCheck {
    /// Reads the headers. Algorithms that are not known are ignored, as RFC 9530 asks.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut check = Self::default();
        for text in texts(headers, "content-md5") {
            let text = text?;
            let want = BASE64_STANDARD.decode(text.trim()).ok().filter(|w| w.len() == 16);
            announce(&mut check.md5, "Content-MD5", want.ok_or_else(|| malformed("Content-MD5"))?)?;
        }
        for name in ["repr-digest", "content-digest"] {
            // The lines of a dictionary are one.
            let text = texts(headers, name).collect::<Result<Vec<_>, _>>()?.join(",");
            let dictionary: sfv::Dictionary = sfv::Parser::new(&text).parse().map_err(|_| malformed(name))?;
            for (algorithm, entry) in &dictionary {
                let sfv::ListEntry::Item(item) = entry else { return Err(malformed(name)) };
                let sfv::BareItem::ByteSequence(want) = &item.bare_item else { return Err(malformed(name)) };
                match algorithm.as_str() {
                    "sha-256" => announce(&mut check.sha256, "sha-256", want.clone())?,
                    "sha-512" => announce(&mut check.sha512, "sha-512", want.clone())?,
                    _ => {}
                }
            }
        }
        Ok(check)
    }

    /// Takes bytes of the value. Costs nothing where no digest was announced.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some((h, _)) = &mut self.md5 {
            h.update(bytes);
        }
        if let Some((h, _)) = &mut self.sha256 {
            h.update(bytes);
        }
        if let Some((h, _)) = &mut self.sha512 {
            h.update(bytes);
        }
    }

    /// Whether all that arrived has the digests that were announced.
    pub fn finish(self) -> Result<(), Problem> {
        compare("Content-MD5", self.md5.map(|(h, w)| (h.finalize().to_vec(), w)))?;
        compare("sha-256", self.sha256.map(|(h, w)| (h.finalize().to_vec(), w)))?;
        compare("sha-512", self.sha512.map(|(h, w)| (h.finalize().to_vec(), w)))
    }
}

fn compare(name: &str, digests: Option<(Vec<u8>, Vec<u8>)>) -> Result<(), Problem> {
    match digests {
        Some((have, want)) if have != want && !lab::has(Bug::DigestNotCompared) => {
            let detail = format!(
                "the {name} of the bytes that arrived is {}, not {}; nothing was stored",
                BASE64_STANDARD.encode(have),
                BASE64_STANDARD.encode(want)
            );
            Err(Problem::new(ErrorCode::DigestMismatch, detail))
        }
        _ => Ok(()),
    }
}

/// Two announcements that differ cannot both be right: neither may hide the other.
fn announce<D: Default>(slot: &mut Option<(D, Vec<u8>)>, name: &str, want: Vec<u8>) -> Result<(), Problem> {
    if slot.as_ref().is_some_and(|(_, before)| *before != want) {
        return Err(Problem::new(ErrorCode::BadRequest, format!("two different digests by {name} are announced")));
    }
    *slot = Some((D::default(), want));
    Ok(())
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = Result<&'a str, Problem>> {
    headers.get_all(name).into_iter().map(move |v| v.to_str().map_err(|_| malformed(name)))
}

fn malformed(name: &str) -> Problem {
    Problem::new(ErrorCode::BadRequest, format!("the {name} header is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, value: &str, body: &[u8]) -> Result<(), Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let mut c = DigestCheck::from_headers(&headers)?;
        c.update(body);
        c.finish()
    }

    #[test]
    fn the_right_digest_passes_and_a_wrong_one_does_not() {
        let sha = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(b"value")));
        let md5 = BASE64_STANDARD.encode(Md5::digest(b"value"));
        check("repr-digest", &sha, b"value").unwrap();
        check("content-md5", &md5, b"value").unwrap();
        for (name, value) in [("repr-digest", &sha), ("content-digest", &sha), ("content-md5", &md5)] {
            assert_eq!(check(name, value, b"valuE").unwrap_err().code, ErrorCode::DigestMismatch);
        }
    }

    #[test]
    fn every_digest_that_is_announced_is_checked() {
        let good = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(b"value")));
        let bad = format!("sha-256=:{}:", BASE64_STANDARD.encode([0; 32]));
        for names in [["repr-digest", "content-digest"], ["content-digest", "repr-digest"], ["repr-digest", "repr-digest"]] {
            let mut headers = HeaderMap::new();
            headers.append(names[0], good.parse().unwrap());
            headers.append(names[1], bad.parse().unwrap());
            let passed = DigestCheck::from_headers(&headers).and_then(|mut c| {
                c.update(b"value");
                c.finish()
            });
            assert!(passed.is_err(), "{names:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append("content-md5", BASE64_STANDARD.encode(Md5::digest(b"value")).parse().unwrap());
        headers.append("content-md5", BASE64_STANDARD.encode([0; 16]).parse().unwrap());
        assert!(DigestCheck::from_headers(&headers).is_err());
    }

    #[test]
    fn malformed_digests_are_refused_and_unknown_algorithms_ignored() {
        assert_eq!(check("content-md5", "zz", b"").unwrap_err().code, ErrorCode::BadRequest);
        assert_eq!(check("repr-digest", "sha-256=5", b"").unwrap_err().code, ErrorCode::BadRequest);
        check("repr-digest", "crc32=:AAAAAA==:", b"x").unwrap();
    }
}
