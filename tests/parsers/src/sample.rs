//! What seeds are made of. Nothing of it is random: seeds are the same whenever they are made.

use kvdb_protocol::ticket::{Tags, TicketTxn, TicketVolume};
use kvdb_protocol::{ClusterId, Condition, ContentHash, ContentRule, Key, Ticket, TicketOp, TxnId, UnixMillis, VersionId, VolumeId};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0x11; 16]);
pub(crate) const VOLUME: VolumeId = VolumeId::from_bytes([0x22; 16]);
pub(crate) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

pub(crate) fn version() -> VersionId {
    VersionId::from_parts(NOW.0, 7)
}

pub(crate) fn hash() -> ContentHash {
    ContentHash::of(b"value")
}

pub(crate) fn keys() -> Vec<Key> {
    [&b"a/b"[..], b"examplekey", b"../x//y/.", b"\0\xff%", b"k with space+\n", "\u{e9}\u{1f600}".as_bytes()]
        .map(|k| Key::new(k).unwrap())
        .to_vec()
}

pub(crate) fn tickets() -> Vec<Ticket> {
    let plain = Ticket {
        cluster: CLUSTER,
        op: TicketOp::Create,
        key: Key::new("a/b").unwrap(),
        version: version(),
        volumes: vec![TicketVolume { id: VOLUME, address: "localhost:3001".into() }],
        max_bytes: 5 << 30,
        content_type: None,
        content: None,
        expires: None,
        condition: Condition::default(),
        start_by: NOW,
        commit_by: UnixMillis(NOW.0 + 300_000),
        commit_to: "localhost:3000".into(),
        return_to: "http://localhost:3000/a/b".into(),
        request_id: "r".into(),
        txn: None,
    };
    let two = TicketVolume { id: VolumeId::from_bytes([3; 16]), address: "localhost:3002".into() };
    let full = Ticket {
        op: TicketOp::Replace,
        volumes: vec![plain.volumes[0].clone(), two],
        content_type: Some("text/plain".into()),
        content: Some(ContentRule::JsonObject),
        expires: Some(NOW),
        condition: Condition { if_match: Some(Tags::Of(vec![hash()])), if_none_match: Some(Tags::Any) },
        txn: Some(TicketTxn { id: TxnId::from_bytes([9; 16]), ends: NOW }),
        ..plain.clone()
    };
    vec![Ticket { op: TicketOp::Read, ..plain.clone() }, Ticket { op: TicketOp::Delete, ..plain.clone() }, plain, full]
}
