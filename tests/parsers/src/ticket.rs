//! Tickets, the links back to a master that the same key signs, and signatures of URLs.

use crate::input::{Input, chosen, flipped};
use crate::sample;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kvdb_protocol::limits::{MAX_KEY_BYTES, MAX_REPLICAS, MAX_TICKET_CHARS};
use kvdb_protocol::signed_url::{SignedUrl, Stamp, UrlRight};
use kvdb_protocol::{ClusterId, ClusterSecret, Key, Ticket, TicketKey, UnixMillis};

const SECRET: &str = "a secret for fuzzing";
/// As docs/protocol.md says.
const CONTEXT: &str = "kvdb 2026-11 ticket key v1";
/// Where a ticket has its cluster: after the format and a length.
const CLUSTER_AT: usize = 2;

fn key() -> TicketKey {
    ClusterSecret::new(SECRET).unwrap().ticket_key()
}

/// As only a server of the cluster can: what is behind the signature is to be read, too.
fn signed(bytes: &[u8]) -> String {
    let mac = blake3::keyed_hash(&blake3::derive_key(CONTEXT, SECRET.as_bytes()), bytes);
    BASE64_URL_SAFE_NO_PAD.encode([bytes, mac.as_bytes()].concat())
}

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (unsigned, bit) = (input.byte() & 1 == 1, usize::from(input.u16()));
    let rest = input.rest();
    if unsigned {
        let Ok(text) = std::str::from_utf8(rest) else { return false };
        if let Some(host) = key().verify_back(text) {
            assert_eq!(key().sign_back(host), text);
        }
        let (urls, keys) = (ClusterSecret::new(SECRET).unwrap().url_key(), [Key::new("k").unwrap()]);
        let url = SignedUrl { cluster: sample::CLUSTER, right: UrlRight::Read, keys: &keys };
        if let Some(stamp) = urls.verify(&url, text) {
            assert_eq!(urls.verify(&url, &urls.sign(&url, stamp)), Some(stamp));
            return true;
        }
        return Ticket::decode(text, &key(), sample::CLUSTER).map(|t| sound(&t, text)).is_ok();
    }
    let text = signed(rest);
    let cluster = rest.get(CLUSTER_AT..CLUSTER_AT + 16).map_or(sample::CLUSTER, |b| ClusterId::from_bytes(b.try_into().unwrap()));
    let Ok(ticket) = Ticket::decode(&text, &key(), cluster) else { return false };
    sound(&ticket, &text);
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
    let altered = BASE64_URL_SAFE_NO_PAD.encode(flipped(&bytes, bit));
    assert!(Ticket::decode(&altered, &key(), cluster).is_err(), "an altered ticket is taken");
    let longer = signed(&[rest, &[0]].concat());
    assert!(Ticket::decode(&longer, &key(), cluster).is_err(), "a byte too many is taken");
    true
}

fn sound(ticket: &Ticket, text: &str) {
    assert!(text.len() <= MAX_TICKET_CHARS);
    assert!((1..=MAX_REPLICAS).contains(&ticket.volumes.len()));
    assert!((1..=MAX_KEY_BYTES).contains(&ticket.key.as_bytes().len()));
    // Numbers may have been written longer than they need to be, never shorter.
    let again = ticket.encode(&key()).unwrap();
    assert!(again.len() <= text.len());
    assert_eq!(Ticket::decode(&again, &key(), ticket.cluster).as_ref(), Ok(ticket));
    assert!(ticket.check_start(ticket.start_by).is_ok());
    assert!(ticket.start_by.0 == u64::MAX || ticket.check_start(UnixMillis(ticket.start_by.0 + 1)).is_err());
    let absent = ticket.condition.holds(None);
    assert!(!absent || ticket.condition.if_match.is_none(), "If-Match holds for what is not there");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let text = |t: &Ticket| t.encode(&key()).unwrap();
    let whole = |t: &Ticket| BASE64_URL_SAFE_NO_PAD.decode(text(t)).unwrap();
    let mut seeds: Vec<_> = sample::tickets().iter().map(|t| chosen(&[0, 9, 0], &whole(t)[..whole(t).len() - 32])).collect();
    seeds.extend(sample::tickets().iter().take(1).map(|t| chosen(&[1, 0, 0], text(t))));
    let (urls, keys) = (ClusterSecret::new(SECRET).unwrap().url_key(), [Key::new("k").unwrap()]);
    let url = SignedUrl { cluster: sample::CLUSTER, right: UrlRight::Read, keys: &keys };
    for by in [None, Some([1, 2, 3, 4, 5, 6, 7, 0xff])] {
        seeds.push(chosen(&[1, 0, 0], urls.sign(&url, Stamp { until: sample::NOW, by })));
    }
    seeds
}
