//! URLs in the client: what a user types, and where a redirect leads.

use crate::input::{Input, chosen};
use crate::sample;
use kvdb_client::url::{Url, base, carries_ticket, of_bytes, of_key, of_location, origin, shown};
use kvdb_protocol::Key;

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let kind = input.byte() % 3;
    let rest = input.rest();
    let master = base("localhost:3000").unwrap();
    if kind == 2 {
        return key(&master, rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    if kind == 0 {
        let Ok(url) = base(text) else { return false };
        assert!(["http", "https"].contains(&url.scheme()) && url.has_host() && url.path() == "/" && url.query().is_none());
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url} has more than a host and a port");
        assert_eq!(base(&origin(&url)).unwrap().as_str(), url.as_str());
        return true;
    }
    let Ok(url) = of_location(&master, text) else { return false };
    assert!(["http", "https"].contains(&url.scheme()) && url.has_host());
    assert!(url.username().is_empty() && url.password().is_none(), "what a redirect says of a user is sent on");
    assert!(!shown(&url).split('#').next().unwrap().contains('?'));
    if !text.contains("://") {
        assert_eq!(origin(&url), origin(&master));
    }
    // A location as the servers write it: nothing in it that the URL standard reads in its own way.
    if text.bytes().all(|b| b.is_ascii_graphic() && !b"\\#\"'<>`{}|^".contains(&b)) {
        let target = text.split_once("://").map_or(text, |(_, t)| t.find(['/', '?']).map_or("/", |at| &t[at..]));
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        assert_eq!(url.query(), query);
        assert_eq!(Key::from_path(url.path()), Key::from_path(path), "the key of {text} is lost in {url}");
        assert_eq!(carries_ticket(&url), query.is_some_and(|q| q.starts_with("ticket=") || q.contains("&ticket=")));
    }
    true
}

fn key(master: &Url, bytes: &[u8]) -> bool {
    if let Ok(url) = of_bytes(master, bytes) {
        assert_eq!(kvdb_protocol::key::decode(&url.path()[1..]).unwrap(), bytes);
        assert!(url.query().is_none() && url.fragment().is_none() && origin(&url) == origin(master));
    }
    let Ok(key) = Key::new(bytes) else { return false };
    let Ok(url) = of_key(master, &key) else {
        assert!(bytes == b"." || bytes == b"..");
        return false;
    };
    let moved = of_location(&url, &format!("http://v:1{}?ticket=t", key.to_path())).unwrap();
    assert_eq!((Key::from_path(moved.path()).as_ref(), carries_ticket(&moved)), (Ok(&key), true));
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = ["localhost:3000", "http://10.0.0.1", "https://[::1]:8/"].iter().map(|s| chosen(&[0], s)).collect();
    let to = ["http://v:3001/a/%2E%2E/b?ticket=x&y=1", "/k?v=1", "http://v:3001//a", "https://v/..%2Fa?back=h~0"];
    seeds.extend(to.iter().map(|s| chosen(&[1], s)));
    seeds.extend(sample::keys().iter().map(|k| chosen(&[2], k.as_bytes())));
    seeds
}
