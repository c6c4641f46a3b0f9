//! URLs: keys into paths and back out of redirects, unharmed.
//!
//! The URL standard removes `.` and `..` segments from a path, `%2E` spellings included. Where a key has
//! such a segment its slashes are written `%2F`, so that the whole key is one segment.

use crate::error::Error;
use kvdb_protocol::Key;
use kvdb_protocol::key::query_escape;
pub use reqwest::Url;

/// The master's URL, `scheme://host:port`, from what a user typed; `http://` is added where it is missing.
pub fn base(text: &str) -> Result<Url, Error> {
    let bad = |reason: &str| Error::BaseUrl { url: text.into(), reason: reason.into() };
    let full = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|e| bad(&e.to_string()))?;
    if url.scheme() != "http" && url.scheme() != "https" {
        return Err(bad("only http is spoken"));
    }
    let more = url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some();
    if !url.has_host() || url.path() != "/" || more {
        return Err(bad("it has more than a host and a port"));
    }
    Ok(url)
}

/// The URL of a key at the master.
pub fn of_key(base: &Url, key: &Key) -> Result<Url, Error> {
    of_bytes(base, key.as_bytes())
}

/// The URL of a prefix at the master, which unlike a key may be empty.
pub fn of_bytes(base: &Url, bytes: &[u8]) -> Result<Url, Error> {
    let escaped = query_escape(bytes);
    join(base, &format!("/{}", one_segment_if_needed(&escaped)?))
}

/// The place that a redirect names, which may be relative to `from`.
pub fn of_location(from: &Url, location: &str) -> Result<Url, Error> {
    let bad = || Error::NotKvdb { url: shown(from), reason: "a redirect to nowhere".into(), status: 307 };
    let (origin, target) = match location.split_once("://") {
        Some((scheme, rest)) => {
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at(at);
            (Url::parse(&format!("{scheme}://{authority}")).map_err(|_| bad())?, target)
        }
        None if location.starts_with('/') => (from.clone(), location),
        None => return Err(bad()),
    };
    if origin.scheme() != "http" && origin.scheme() != "https" {
        return Err(bad());
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = one_segment_if_needed(path.strip_prefix('/').unwrap_or(path))?;
    join(&origin, &query.map_or_else(|| format!("/{path}"), |q| format!("/{path}?{q}")))
}

/// Whether a redirect leads to a volume that takes the body, rather than back to a master.
pub fn carries_ticket(url: &Url) -> bool {
    ticket(url).is_some()
}

/// The ticket of such a redirect.
pub fn ticket(url: &Url) -> Option<&str> {
    url.query()?.split('&').find_map(|pair| pair.strip_prefix("ticket="))
}

/// For people and logs: without the query, which may hold a ticket.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// `scheme://host:port`.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn join(origin_of: &Url, target: &str) -> Result<Url, Error> {
    let text = format!("{}{target}", origin(origin_of));
    Url::parse(&text).map_err(|e| Error::BaseUrl { url: shown(origin_of), reason: e.to_string() })
}

fn one_segment_if_needed(path: &str) -> Result<String, Error> {
    let is_dots = |s: &str| matches!(s.replace("%2E", ".").replace("%2e", ".").as_str(), "." | "..");
    if is_dots(path) {
        return Err(Error::Unsendable(path.replace("%2E", ".").replace("%2e", ".")));
    }
    if path.split('/').any(is_dots) { Ok(path.replace('/', "%2F")) } else { Ok(path.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn master() -> Url {
        base("localhost:3000").unwrap()
    }

    #[test]
    fn a_base_url_is_a_host_and_a_port() {
        assert_eq!(base("localhost:3000").unwrap().as_str(), "http://localhost:3000/");
        assert_eq!(base("http://10.0.0.1").unwrap().as_str(), "http://10.0.0.1/");
        for bad in ["http://h/path", "http://h/?q", "ftp://h", "http://u@h", "http://:p@h", "http://h/#f", "", "http://"] {
            assert!(matches!(base(bad), Err(Error::BaseUrl { .. })), "{bad}");
        }
    }

    #[test]
    fn dot_segments_survive_except_alone() {
        let url = |k: &str| of_key(&master(), &Key::new(k).unwrap());
        assert_eq!(url("a/../b").unwrap().path(), "/a%2F..%2Fb");
        assert_eq!(url("../").unwrap().path(), "/..%2F");
        assert_eq!(url("a/b").unwrap().path(), "/a/b");
        assert!(matches!(url(".."), Err(Error::Unsendable(k)) if k == ".."));
        assert!(matches!(url("."), Err(Error::Unsendable(_))));
    }

    #[test]
    fn redirects_keep_their_path_and_query() {
        let to = |l: &str| of_location(&master(), l).unwrap().to_string();
        assert_eq!(to("http://v:3001/a/%2E%2E/b?ticket=x&y=1"), "http://v:3001/a%2F%2E%2E%2Fb?ticket=x&y=1");
        assert_eq!(to("http://v:3001//a"), "http://v:3001//a");
        assert_eq!(to("/k?v=1"), "http://localhost:3000/k?v=1");
        for bad in ["", "k", "gopher://h/k", "http://", "http://[/k"] {
            assert!(of_location(&master(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_url_with_a_ticket_takes_the_body() {
        let url = |t: &str| Url::parse(t).unwrap();
        assert!(carries_ticket(&url("http://v/k?a=1&ticket=x")));
        assert!(!carries_ticket(&url("http://v/k?avoid=x")));
        assert!(!carries_ticket(&url("http://v/ticket=")));
    }

    proptest! {
        #[test]
        fn every_key_arrives_as_it_is(bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let Ok(key) = Key::new(bytes) else { return Ok(()) };
            prop_assume!(key.as_bytes() != b"." && key.as_bytes() != b"..");
            let url = of_key(&master(), &key).unwrap();
            prop_assert_eq!(&Key::from_path(url.path()).unwrap(), &key);
            let moved = of_location(&url, &format!("http://v:1{}?ticket=t", key.to_path())).unwrap();
            prop_assert_eq!(&Key::from_path(moved.path()).unwrap(), &key);
        }

        #[test]
        fn keys_of_dots_and_slashes_arrive_as_they_are(text in "[./%a2E]{1,12}") {
            prop_assume!(text != "." && text != "..");
            let key = Key::new(text).unwrap();
            let url = of_key(&master(), &key).unwrap();
            prop_assert_eq!(&Key::from_path(url.path()).unwrap(), &key);
            let moved = of_location(&url, &format!("http://v:1{}", key.to_path())).unwrap();
            prop_assert_eq!(&Key::from_path(moved.path()).unwrap(), &key);
        }
    }
}
