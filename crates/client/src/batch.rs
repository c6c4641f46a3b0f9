//! Several keys put and deleted together, all or none.

use crate::client::Client;
use crate::error::Error;
use crate::url;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kvdb_protocol::key::{decode, query_escape};
use kvdb_protocol::ticket::{Condition, Tags};
use kvdb_protocol::{ContentHash, Key, VersionId};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most bytes of the answer: a thousand keys of 1024 bytes, percent-encoded, and what became of each.
const MAX_ANSWER_BYTES: usize = 8 << 20;
const ID_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// One key's part in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOperation {
    /// The key gets a value.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// Only if the key does not exist.
        create_only: bool,
        /// Content type to store with it.
        content_type: Option<String>,
        /// What must hold of the present value.
        condition: Condition,
        /// How long the value is to live; none: it never expires.
        ttl: Option<Duration>,
    },
    /// The key is to be absent; it may be so already.
    Delete {
        /// The key.
        key: Key,
        /// What must hold of the present value.
        condition: Condition,
    },
}

impl BatchOperation {
    /// A plain put.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self::Put { key, value: value.into(), create_only: false, content_type: None, condition: Condition::default(), ttl: None }
    }

    /// A put that fails if the key exists.
    pub fn create(key: Key, value: impl Into<Bytes>) -> Self {
        Self::Put { key, value: value.into(), create_only: true, content_type: None, condition: Condition::default(), ttl: None }
    }

    /// A plain delete.
    pub fn delete(key: Key) -> Self {
        Self::Delete { key, condition: Condition::default() }
    }
}

/// What became of a key of a batch or a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The key.
    pub key: Key,
    /// What was done.
    pub change: Change,
    /// The version that was made or removed.
    pub version: Option<VersionId>,
    /// The BLAKE3 of the value that was stored.
    pub etag: Option<ContentHash>,
}

/// What was done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was new.
    Created,
    /// Its value was replaced.
    Replaced,
    /// It was removed.
    Deleted,
    /// There was nothing to remove.
    Absent,
}

#[derive(Serialize)]
struct Document {
    operations: Vec<WireOperation>,
}

#[derive(Default, Serialize)]
struct WireOperation {
    #[serde(skip_serializing_if = "Option::is_none")]
    put: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_none_match: Option<String>,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<WireApplied>,
}

#[derive(Deserialize)]
struct WireApplied {
    key: String,
    status: u16,
    version: Option<VersionId>,
    etag: Option<ContentHash>,
}

impl Client {
    /// Does all of these or none, durably; what became of each, in their order. A key may be there once.
    ///
    /// A batch whose answer was lost is sent again under the same name, by which the master does it once. An error whose problem has
    /// `keys` names the keys whose preconditions do not hold. After any error but [`Error::OutcomeUnknown`] nothing was changed.
    pub async fn batch(&self, operations: &[BatchOperation]) -> Result<Vec<Applied>, Error> {
        let document = Document { operations: operations.iter().map(wire).collect() };
        let document = serde_json::to_vec(&document).map_err(|e| unusable(std::io::Error::other(e)))?;
        self.batch_document(document.into()).await
    }

    /// The same with the document as it goes over the wire, in JSON: see `docs/protocol.md`, *A batch*.
    pub async fn batch_document(&self, document: Bytes) -> Result<Vec<Applied>, Error> {
        let mut at = self.transport.base.clone();
        at.set_query(Some("batch"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let name = kvdb_protocol::id::random_name();
        headers.insert(ID_HEADER, HeaderValue::from_str(&name).map_err(|e| unusable(std::io::Error::other(e)))?);
        self.all_or_none(&at, &headers, &document).await
    }

    /// Sends what may be sent again, until there is an answer, and reads what became of each key.
    pub(crate) async fn all_or_none(&self, at: &Url, headers: &HeaderMap, body: &Bytes) -> Result<Vec<Applied>, Error> {
        let (mut retry, mut doubt) = (self.retry(), false);
        loop {
            let error = match self.post_once(at, headers, body.clone()).await {
                Ok(applied) => return Ok(applied),
                Err(e) => e,
            };
            let lost = error.leaves_doubt() || matches!(error, Error::Interrupted { .. });
            doubt |= lost;
            let reason = error.to_string();
            let error = if lost { Error::Interrupted { url: url::origin(at), reason: reason.clone() } } else { error };
            // What another try would meet is told; if none of them had an answer, that nobody knows.
            retry.or_give_up(error).await.map_err(|e| if doubt && e.is_retryable() { Error::BatchUnknown { reason } } else { e })?;
        }
    }

    async fn post_once(&self, at: &Url, headers: &HeaderMap, body: Bytes) -> Result<Vec<Applied>, Error> {
        let mut request = self.transport.request(Method::POST, at.clone(), headers);
        *request.body_mut() = Some(body.into());
        let response = self.transport.send(request).await?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(None, response).await);
        }
        let (status, shown) = (response.status().as_u16(), url::shown(response.url()));
        let answer = self.transport.read_small(response, MAX_ANSWER_BYTES).await?;
        parse(&answer).map_err(|reason| Error::NotKvdb { url: shown, reason, status })
    }
}

fn unusable(error: std::io::Error) -> Error {
    Error::Source { what: "the batch".into(), error }
}

fn wire(operation: &BatchOperation) -> WireOperation {
    match operation {
        BatchOperation::Put { key, value, create_only, content_type, condition, ttl } => {
            let named = Some(query_escape(key.as_bytes()));
            let (put, create) = if *create_only { (None, named) } else { (named, None) };
            WireOperation {
                put,
                create,
                base64: Some(BASE64_STANDARD.encode(value)),
                content_type: content_type.clone(),
                ttl: ttl.map(|t| format!("{}ms", t.as_millis())),
                if_match: tags(condition.if_match.as_ref()),
                if_none_match: tags(condition.if_none_match.as_ref()),
                ..WireOperation::default()
            }
        }
        BatchOperation::Delete { key, condition } => WireOperation {
            delete: Some(query_escape(key.as_bytes())),
            if_match: tags(condition.if_match.as_ref()),
            if_none_match: tags(condition.if_none_match.as_ref()),
            ..WireOperation::default()
        },
    }
}

/// Entity tags as in the headers.
pub(crate) fn tags(tags: Option<&Tags>) -> Option<String> {
    Some(match tags? {
        Tags::Any => "*".to_string(),
        Tags::Of(list) => list.iter().map(|h| h.etag()).collect::<Vec<_>>().join(", "),
    })
}

fn parse(body: &[u8]) -> Result<Vec<Applied>, String> {
    let answer: Results = serde_json::from_slice(body).map_err(|e| format!("what became of the keys cannot be read: {e}"))?;
    let one = |w: WireApplied| {
        let key = decode(&w.key).and_then(Key::new).map_err(|e| format!("its answer has the key {:?}: {e}", w.key))?;
        let change = match (w.status, w.etag.is_some()) {
            (201, _) => Change::Created,
            (200, true) => Change::Replaced,
            (200, false) => Change::Deleted,
            (404, _) => Change::Absent,
            (other, _) => return Err(format!("its answer has the status {other} for a key")),
        };
        Ok(Applied { key, change, version: w.version, etag: w.etag })
    };
    answer.results.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_written_as_the_protocol_has_them() {
        let (a, hash) = (Key::new(b"a/%\xff".to_vec()).unwrap(), ContentHash::of(b"x"));
        let conditional = BatchOperation::Put {
            key: a.clone(),
            value: Bytes::from_static(&[0, 255]),
            create_only: false,
            content_type: Some("a/b".into()),
            condition: Condition { if_match: Some(Tags::Of(vec![hash])), if_none_match: None },
            ttl: Some(Duration::from_millis(1_500)),
        };
        let json = |o: &BatchOperation| serde_json::to_value(wire(o)).unwrap();
        let etag = hash.etag();
        let put = serde_json::json!({"put": "a/%25%FF", "base64": "AP8=", "content_type": "a/b", "ttl": "1500ms", "if_match": etag});
        assert_eq!(json(&conditional), put);
        assert_eq!(json(&BatchOperation::create(a.clone(), "")), serde_json::json!({"create": "a/%25%FF", "base64": ""}));
        assert_eq!(json(&BatchOperation::delete(a)), serde_json::json!({"delete": "a/%25%FF"}));
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_refused() {
        let (version, etag) = (VersionId::from_parts(1, 2), ContentHash::of(b"x"));
        let document = format!(
            r#"{{"results":[{{"key":"a%25","status":201,"version":"{version}","etag":"{etag}"}},{{"key":"b","status":200,"version":"{version}","etag":"{etag}"}},
            {{"key":"c","status":200,"version":"{version}"}},{{"key":"d","status":404}}]}}"#
        );
        let read = parse(document.as_bytes()).unwrap();
        let changes: Vec<Change> = read.iter().map(|a| a.change).collect();
        assert_eq!(changes, [Change::Created, Change::Replaced, Change::Deleted, Change::Absent]);
        assert_eq!((read[0].key.as_bytes(), read[0].version, read[3].version), (&b"a%"[..], Some(version), None));
        for bad in ["", "{}", r#"{"results":[{"key":"","status":201}]}"#, r#"{"results":[{"key":"a","status":500}]}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
