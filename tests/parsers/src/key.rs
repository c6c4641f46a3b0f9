//! Keys: as paths, as query values, in JSON and in binary formats.

use crate::sample;
use kvdb_protocol::limits::MAX_KEY_BYTES;
use kvdb_protocol::{Key, KeyError};

pub(crate) fn check(data: &[u8]) -> bool {
    if let Ok(key) = Key::new(data) {
        assert_eq!(key.as_bytes(), data);
        sound(&key);
    }
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let path = text.strip_prefix('/').unwrap_or(text);
    let plain: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    match Key::from_path(text) {
        Ok(key) => {
            assert_eq!(key.as_bytes(), plain);
            sound(&key);
            true
        }
        Err(KeyError::Empty) => {
            assert!(path.is_empty());
            false
        }
        Err(KeyError::TooLong(n)) => {
            assert!(n > MAX_KEY_BYTES && n == plain.len());
            false
        }
        Err(KeyError::Reserved) => {
            assert!(plain.starts_with(b"-/"));
            false
        }
        Err(KeyError::BadEscape) => {
            let whole = |at: usize| path.as_bytes().get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
            // Escapes do not overlap: a hex digit is no percent sign.
            assert!(path.match_indices('%').any(|(at, _)| !whole(at)), "an escape that is whole is refused");
            false
        }
    }
}

fn sound(key: &Key) {
    assert!((1..=MAX_KEY_BYTES).contains(&key.as_bytes().len()) && !key.as_bytes().starts_with(b"-/"));
    let path = key.to_path();
    assert_eq!(&Key::from_path(&path).unwrap(), key);
    assert!(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\&'".contains(&b)), "{path}");
    assert!(!path.split('/').any(|s| s == "." || s == ".."), "{path}");
    let query = key.to_query();
    assert_eq!(kvdb_protocol::key::decode(&query).unwrap(), key.as_bytes());
    assert!(query.bytes().all(|b| b.is_ascii_graphic() && !b"&=#+".contains(&b)), "{query}");
    assert_eq!(&serde_json::from_slice::<Key>(&serde_json::to_vec(key).unwrap()).unwrap(), key);
    assert_eq!(&postcard::from_bytes::<Key>(&postcard::to_extend(key, Vec::new()).unwrap()).unwrap(), key);
    assert!(!key.display().contains(char::is_control), "a key can forge lines of logs");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let paths = sample::keys().into_iter().map(|k| k.to_path().into_bytes());
    paths.chain(sample::keys().into_iter().map(|k| [b"/", k.to_query().as_bytes()].concat())).collect()
}
