//! Storing a value: ask the master without a body, send the bytes to the volume, check what it stored.

use crate::batch;
use crate::client::Client;
use crate::error::Error;
use crate::info::Info;
use crate::source::{Opened, Progress, Sent, Source};
use crate::transaction;
use crate::transport::{self, ANNOUNCED_LENGTH, MAX_HOPS, redirect, too_many_hops};
use crate::url;
use kvdb_protocol::message::Resolved;
use kvdb_protocol::ticket::{Condition, Tags};
use kvdb_protocol::ttl::TTL_HEADER;
use kvdb_protocol::{ContentHash, Key, TxnId, VersionId};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, Response, StatusCode, Url};
use std::time::Duration;

/// How often a key is looked up after a lost answer, before the value is sent again.
const LOOKS: u32 = 3;
/// Wait before the first look; each further one waits twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// How a value is stored.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Only if the key does not exist; else [`Error::Exists`].
    pub create_only: bool,
    /// Content type to store with it.
    pub content_type: Option<String>,
    /// What must hold of the present value; else [`Error::PreconditionFailed`].
    pub condition: Condition,
    /// How long the value is to live, from when the master takes the request: 1 ms to 36,500 days, in whole milliseconds; none: it never
    /// expires. A try that is repeated begins it anew.
    pub ttl: Option<Duration>,
    /// The transaction that it is put into; see [`crate::Transaction::put`].
    pub txn: Option<TxnId>,
    /// Is told the number of bytes that were handed to the network.
    pub progress: Progress,
}

/// A value that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    /// Whether the key is new; none where the answer was lost and the value was then found stored, and in a transaction.
    pub created: Option<bool>,
    /// Its BLAKE3.
    pub etag: ContentHash,
    /// Its version, where a server said it.
    pub version: Option<VersionId>,
}

/// Where the master sends a value.
struct Permit {
    volume: Url,
    /// The version that the value will have, where the master says it.
    version: Option<VersionId>,
}

/// A try whose outcome is not known.
struct Doubt {
    hash: ContentHash,
    version: Option<VersionId>,
    /// What permitted it.
    ticket: Option<String>,
}

impl Doubt {
    fn of(permit: &Permit, hash: ContentHash) -> Self {
        Self { hash, version: permit.version, ticket: url::ticket(&permit.volume).map(String::from) }
    }
}

/// What the master says of a try in doubt.
enum Resolution {
    Stored(PutOutcome),
    Refused(Error),
}

/// How a try failed.
enum Failed {
    /// Nothing was stored by it.
    Surely(Error),
    /// It may have been stored, or may still be.
    Perhaps(Error, Doubt),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Surely(e)
    }
}

impl Client {
    /// Stores a value, durably when it returns.
    ///
    /// What can pass by itself is tried again. A try that broke off before its last byte was handed to the
    /// network stored nothing. When the answer is lost after that, the master is asked what became of the write:
    /// it was stored, or it never will be, and is sent again. So it takes effect once.
    ///
    /// Only where the master cannot be asked, or was asked too late to know, the key is looked up: if it has the
    /// version that the master had announced, the value is stored. If it does not (yet), the value is sent
    /// again; of two such tries of a create or of a conditional write at most one can win, and it is then
    /// looked up which. Where this cannot be told, the result is [`Error::OutcomeUnknown`]. A plain write that was sent
    /// again in this way may take effect twice, with the same bytes: if another writer's value was committed between
    /// the two, the later one may replace it.
    pub async fn put(&self, key: &Key, source: impl Into<Source>, options: PutOptions) -> Result<PutOutcome, Error> {
        let source = Opened::new(source.into()).await?;
        let (mut retry, mut doubts) = (self.retry(), Vec::new());
        loop {
            let failed = match self.try_put(key, &source, &options).await {
                Ok(outcome) => return Ok(outcome),
                Err(Failed::Perhaps(e, doubt)) => match self.told(key, &doubt).await? {
                    Some(Resolution::Stored(outcome)) => return Ok(outcome),
                    // It was not done, and never will be.
                    Some(Resolution::Refused(refusal)) => Failed::Surely(refusal),
                    None => Failed::Perhaps(e, doubt),
                },
                Err(surely) => surely,
            };
            let error = match failed {
                Failed::Surely(e) => {
                    let of_the_present_value = matches!(e, Error::Exists(_) | Error::PreconditionFailed(_));
                    if !doubts.is_empty() && of_the_present_value {
                        return self.resolve_refused(key, &doubts).await;
                    }
                    e
                }
                // Put again, it replaces what may be there.
                Failed::Perhaps(e, _) if options.txn.is_some() => {
                    Error::Interrupted { url: url::origin(&self.transport.base), reason: e.to_string() }
                }
                Failed::Perhaps(e, doubt) => {
                    doubts.push(doubt);
                    if let Some(outcome) = self.resolve_lost(key, &doubts, &options).await? {
                        return Ok(outcome);
                    }
                    // Whatever it was, it is worth another try.
                    Error::Interrupted { url: url::origin(&self.transport.base), reason: e.to_string() }
                }
            };
            let reason = error.to_string();
            let again = if source.can_start().await { retry.or_give_up(error).await } else { Err(error) };
            again.map_err(|e| if doubts.is_empty() { e } else { Error::OutcomeUnknown { key: key.clone(), reason } })?;
        }
    }

    /// One try, from the master to the volume's answer.
    async fn try_put(&self, key: &Key, source: &Opened, options: &PutOptions) -> Result<PutOutcome, Failed> {
        let mut ask_at = match options.txn {
            Some(txn) => transaction::of_key(self, key, txn)?,
            None => url::of_key(&self.transport.base, key)?,
        };
        for _ in 0..MAX_HOPS {
            let permit = self.permit(key, ask_at, source.len, options).await?;
            let (response, sent) = self.send_value(key, &permit, source, options).await?;
            match redirect(&response)? {
                // The volume cannot take it: the master is asked again, at the place that names the volume to avoid.
                Some(next) if source.can_start().await => ask_at = next,
                Some(_) => {
                    let reason = "it cannot take the value, and too much of the stream was used to send it elsewhere".into();
                    return Err(Error::Interrupted { url: url::origin(response.url()), reason }.into());
                }
                None => return self.outcome(key, &permit, response, &sent).await,
            }
        }
        Err(too_many_hops(&url::of_key(&self.transport.base, key)?).into())
    }

    /// Asks the master, without a body, where the value goes.
    async fn permit(&self, key: &Key, mut at: Url, len: Option<u64>, options: &PutOptions) -> Result<Permit, Error> {
        let mut headers = headers(options)?;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        if let Some(n) = len {
            headers.insert(ANNOUNCED_LENGTH, HeaderValue::from(n));
        }
        for _ in 0..MAX_HOPS {
            let response = self.transport.send(self.transport.request(method(options), at.clone(), &headers)).await?;
            match redirect(&response)? {
                Some(next) if url::carries_ticket(&next) => {
                    return Ok(Permit { volume: next, version: transport::version(&response) });
                }
                Some(next) => at = next,
                None if response.status().is_success() => {
                    return Err(transport::not_kvdb(&response, "it took a write without naming a volume".into()));
                }
                None => return Err(self.transport.refusal(Some(key), response).await),
            }
        }
        Err(too_many_hops(&at))
    }

    /// Sends the value to the volume and waits for its answer, watching that both go on.
    async fn send_value(
        &self,
        key: &Key,
        permit: &Permit,
        source: &Opened,
        options: &PutOptions,
    ) -> Result<(Response, std::sync::Arc<Sent>), Failed> {
        let mut headers = headers(options)?;
        if let Some(n) = source.len {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(n));
        }
        let (body, sent) = source.body(options.progress.clone()).await?;
        let mut request = self.transport.request(method(options), permit.volume.clone(), &headers);
        *request.body_mut() = Some(body);
        let answer = self.watched(request, &sent).await;
        if let Some(error) = sent.take_failure() {
            return Err(source.failed(error).into());
        }
        match (answer, sent.whole()) {
            (Ok(response), _) => Ok((response, sent)),
            (Err(e), Some(hash)) if !matches!(e, Error::Unreachable { .. }) => {
                tracing::debug!(%key, error = %e, "the answer to a write was lost");
                Err(Failed::Perhaps(e, Doubt::of(permit, hash)))
            }
            (Err(e), _) => Err(e.into()),
        }
    }

    /// Sends a request; an error when nothing moves for too long and it is not the source that is slow.
    async fn watched(&self, request: reqwest::Request, sent: &Sent) -> Result<Response, Error> {
        let at = request.url().clone();
        let answer = self.transport.http.execute(request);
        tokio::pin!(answer);
        let mut mark = sent.mark();
        loop {
            let limit: Duration = if mark.1 { self.transport.answer_timeout } else { self.transport.stall_timeout };
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(response) => return response.map_err(|e| transport::broken(&at, &e)),
                Err(_) if sent.mark() == mark && !sent.is_waiting_for_source() => return Err(transport::silent(&at, limit)),
                Err(_) => mark = sent.mark(),
            }
        }
    }

    /// Reads the volume's answer.
    async fn outcome(&self, key: &Key, permit: &Permit, response: Response, sent: &Sent) -> Result<PutOutcome, Failed> {
        if !response.status().is_success() {
            let error = self.transport.refusal(Some(key), response).await;
            return Err(match sent.whole() {
                Some(hash) if error.leaves_doubt() => Failed::Perhaps(error, Doubt::of(permit, hash)),
                _ => Failed::Surely(error),
            });
        }
        let actual = transport::etag(&response).ok_or_else(|| transport::not_kvdb(&response, "its ETag is not a BLAKE3".into()))?;
        let Some(expected) = sent.whole() else {
            return Err(transport::not_kvdb(&response, "it answered before the value's last byte".into()).into());
        };
        if actual != expected {
            return Err(damaged(key, expected, actual).into());
        }
        let version = transport::version(&response).or(permit.version);
        let created = (response.status() != StatusCode::ACCEPTED).then(|| response.status() == StatusCode::CREATED);
        Ok(PutOutcome { created, etag: actual, version })
    }

    /// After a lost answer: what the master says, if it can tell.
    async fn told(&self, key: &Key, doubt: &Doubt) -> Result<Option<Resolution>, Error> {
        let Some(ticket) = &doubt.ticket else { return Ok(None) };
        let (version, created) = match self.outcome_of(ticket).await {
            Some(Resolved::Committed { version, created }) => (version, created),
            Some(Resolved::Staged { version }) => {
                return Ok(Some(Resolution::Stored(PutOutcome { created: None, etag: doubt.hash, version: Some(version) })));
            }
            Some(Resolved::Refused { problem }) => return Ok(Some(Resolution::Refused(transport::named(Some(key), problem, None)))),
            None => return Ok(None),
        };
        // The lost answer would have told what is stored. The value may have been replaced since; then nothing can be told.
        if let Ok(found) = self.stat(key).await
            && found.version == Some(version)
            && found.etag != doubt.hash
        {
            return Err(damaged(key, doubt.hash, found.etag));
        }
        Ok(Some(Resolution::Stored(PutOutcome { created: Some(created), etag: doubt.hash, version: Some(version) })))
    }

    /// After a lost answer that the master could not tell of: whether one of the tries in doubt is stored. None: not, or not yet.
    async fn resolve_lost(&self, key: &Key, doubts: &[Doubt], options: &PutOptions) -> Result<Option<PutOutcome>, Error> {
        let plain = !options.create_only && options.condition == Condition::default();
        for look in 0..LOOKS {
            // A commit runs to its end without its client; this gives it the time.
            tokio::time::sleep(FIRST_LOOK * (1 << look)).await;
            let found = match self.stat(key).await {
                Ok(info) => info,
                Err(Error::NotFound(_)) => continue,
                Err(e) => return Err(unknown(key, format!("the answer was lost, and looking the key up failed: {e}"))),
            };
            // A plain write whose bytes are there is done, whoever stored them: that is all that was asked.
            if doubts.iter().any(|d| is_surely(d, &found) || (plain && d.hash == found.etag)) {
                return Ok(Some(found_stored(&found)));
            }
        }
        Ok(None)
    }

    /// After a refusal because of the key's present value: whether that value is one of the tries in doubt.
    async fn resolve_refused(&self, key: &Key, doubts: &[Doubt]) -> Result<PutOutcome, Error> {
        match self.stat(key).await {
            Ok(found) if doubts.iter().any(|d| is_surely(d, &found)) => Ok(found_stored(&found)),
            Ok(_) => {
                let reason = "its answer was lost, and whether it stood before the value that the key has now cannot be told";
                Err(unknown(key, reason.into()))
            }
            Err(e) => Err(unknown(key, format!("the answer was lost, and looking the key up failed: {e}"))),
        }
    }
}

fn damaged(key: &Key, expected: ContentHash, actual: ContentHash) -> Error {
    Error::Corrupt { key: key.clone(), expected, actual, hint: "it was damaged on its way and stored so; store it again" }
}

fn unknown(key: &Key, reason: String) -> Error {
    Error::OutcomeUnknown { key: key.clone(), reason }
}

fn is_surely(doubt: &Doubt, found: &Info) -> bool {
    doubt.version.is_some() && doubt.version == found.version
}

fn found_stored(found: &Info) -> PutOutcome {
    PutOutcome { created: None, etag: found.etag, version: found.version }
}

fn method(options: &PutOptions) -> Method {
    if options.create_only { Method::POST } else { Method::PUT }
}

/// The headers that both the master and the volume get.
fn headers(options: &PutOptions) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = &options.content_type {
        headers.insert(CONTENT_TYPE, header_value(content_type)?);
    }
    if let Some(ttl) = options.ttl {
        headers.insert(HeaderName::from_static(TTL_HEADER), header_value(&format!("{}ms", ttl.as_millis()))?);
    }
    let tags: [(HeaderName, &Option<Tags>); 2] =
        [(IF_MATCH, &options.condition.if_match), (IF_NONE_MATCH, &options.condition.if_none_match)];
    for (name, tags) in tags {
        if let Some(text) = batch::tags(tags.as_ref()) {
            headers.insert(name, header_value(&text)?);
        }
    }
    Ok(headers)
}

pub(crate) fn header_value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|e| Error::Source {
        what: format!("the option {text:?}"),
        error: std::io::Error::new(std::io::ErrorKind::InvalidInput, e),
    })
}
