//! Reading a value: from the volume that the master picks, on from another one when that breaks off.

use crate::client::Client;
use crate::error::Error;
use crate::info::Info;
use crate::retry::Retry;
use crate::transport::not_kvdb;
use crate::url;
use bytes::Bytes;
use futures_util::{Stream, stream};
use kvdb_protocol::{ContentHash, ErrorCode, Key};
use reqwest::header::{HeaderMap, HeaderValue, IF_MATCH, RANGE};
use reqwest::{Method, Response, StatusCode};
use std::ops::{Bound, RangeBounds};

/// The bytes of a value as they arrive.
///
/// When the connection breaks off, the rest is asked for at the master, which names another replica, and only
/// of exactly the same bytes. A whole value is checked against its BLAKE3: its last bytes are handed over only
/// if all are right, else there is [`Error::Corrupt`]. Ranges are checked by the volume, not here.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    key: Key,
    info: Info,
    /// The answer that is being read; none: the next one has to be asked for.
    response: Option<Response>,
    /// Place in the value of the next byte.
    at: u64,
    /// Place after the last byte that was asked for.
    end: u64,
    /// None for a range.
    hasher: Option<blake3::Hasher>,
    retry: Retry,
    failed: bool,
}

impl Client {
    /// Begins to read a value.
    pub async fn get(&self, key: &Key) -> Result<Reader, Error> {
        self.open(key, None).await
    }

    /// Begins to read a part of a value. A range that reaches beyond the value ends with it; one that begins
    /// there is [`Error::OutOfRange`], and so is an empty one.
    pub async fn get_range(&self, key: &Key, range: impl RangeBounds<u64>) -> Result<Reader, Error> {
        let none = || Error::OutOfRange(key.clone());
        let first = match range.start_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n.checked_add(1).ok_or_else(none)?,
            Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(n) => Some(*n),
            Bound::Excluded(n) => Some(n.checked_sub(1).ok_or_else(none)?),
            Bound::Unbounded => None,
        };
        if last.is_some_and(|l| l < first) {
            return Err(none());
        }
        self.open(key, Some((first, last))).await
    }

    async fn open(&self, key: &Key, range: Option<(u64, Option<u64>)>) -> Result<Reader, Error> {
        let mut retry = self.retry();
        loop {
            match self.open_once(key, range).await {
                Ok(reader) => return Ok(reader),
                Err(e) => retry.or_give_up(e).await?,
            }
        }
    }

    async fn open_once(&self, key: &Key, range: Option<(u64, Option<u64>)>) -> Result<Reader, Error> {
        let mut headers = HeaderMap::new();
        if let Some((first, last)) = range {
            headers.insert(RANGE, range_value(first, last)?);
        }
        let response = self.ask(key, &headers).await?;
        let (info, at, end) = match range {
            None if response.status() == StatusCode::OK => {
                let info = Info::of_whole(&response)?;
                let len = info.len;
                (info, 0, len)
            }
            Some((first, _)) if response.status() == StatusCode::PARTIAL_CONTENT => {
                let (info, at, count) = Info::of_part(&response)?;
                if at != first {
                    return Err(not_kvdb(&response, "it sent another part than was asked for".into()));
                }
                (info, at, at + count)
            }
            _ => return Err(not_kvdb(&response, format!("status {} to a read", response.status()))),
        };
        let hasher = range.is_none().then(blake3::Hasher::new);
        let (client, key, retry) = (self.clone(), key.clone(), self.retry());
        let mut reader = Reader { client, key, info, response: Some(response), at, end, hasher, retry, failed: false };
        reader.check_if_complete()?;
        Ok(reader)
    }

    /// Asks for a value or a part of it: a success or an error.
    async fn ask(&self, key: &Key, headers: &HeaderMap) -> Result<Response, Error> {
        let at = url::of_key(&self.transport.base, key)?;
        let response = self.transport.follow(Method::GET, at, headers).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.transport.refusal(Some(key), response).await) }
    }
}

impl Reader {
    /// What is known of the value. For a range its `len` is still the whole value's.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.end - self.at
    }

    /// The next bytes; none at the end, and only if all were right. After an error there is nothing more to read.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.failed {
            return Err(self.broken_off("the reader has failed before"));
        }
        let result = self.next().await;
        self.failed = result.is_err();
        result
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.at < self.end {
            let broken = match self.receive().await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => self.broken_off("it ended before the value did"),
                Err(e) => e,
            };
            self.response = None;
            self.retry.or_give_up(broken).await?;
        }
        Ok(None)
    }

    /// Some bytes of the answer that is open, or of a new one.
    async fn receive(&mut self) -> Result<Option<Bytes>, Error> {
        let mut response = match self.response.take() {
            Some(open) => open,
            None => self.resume().await?,
        };
        let chunk = self.client.transport.next_chunk(&mut response).await?;
        let Some(bytes) = chunk else { return Ok(None) };
        let after = self.at + bytes.len() as u64;
        if after > self.end {
            return Err(not_kvdb(&response, "it sent more than it had announced".into()));
        }
        if let Some(h) = &mut self.hasher {
            h.update(&bytes);
        }
        self.at = after;
        self.check_if_complete()?;
        self.response = Some(response);
        self.retry.reset();
        Ok(Some(bytes))
    }

    /// Asks for the rest of the same bytes.
    async fn resume(&self) -> Result<Response, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range_value(self.at, Some(self.end - 1))?);
        headers.insert(IF_MATCH, header(&self.info.etag.etag())?);
        let response = match self.client.ask(&self.key, &headers).await {
            Err(Error::PreconditionFailed(k) | Error::NotFound(k)) => return Err(Error::Changed(k)),
            other => other?,
        };
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(not_kvdb(&response, format!("status {} to a range", response.status())));
        }
        let (info, first, count) = Info::of_part(&response)?;
        if info.etag != self.info.etag {
            return Err(Error::Changed(self.key.clone()));
        }
        if first != self.at || first + count != self.end {
            return Err(not_kvdb(&response, "it sent another part than was asked for".into()));
        }
        Ok(response)
    }

    /// Checks the hash when the last byte is here.
    fn check_if_complete(&mut self) -> Result<(), Error> {
        if self.at < self.end {
            return Ok(());
        }
        let Some(actual) = self.hasher.take().map(|h| ContentHash::from(h.finalize())) else { return Ok(()) };
        if actual == self.info.etag {
            return Ok(());
        }
        let hint = "what was received must not be used; read it again";
        Err(Error::Corrupt { key: self.key.clone(), expected: self.info.etag, actual, hint })
    }

    fn broken_off(&self, reason: &str) -> Error {
        Error::Interrupted { url: self.info.volume.clone(), reason: reason.into() }
    }

    /// Reads the rest into memory; [`Error::TooLong`] when it is more than `max` bytes.
    pub async fn read_all(mut self, max: u64) -> Result<Bytes, Error> {
        let too_long = || Error::TooLong { key: self.key.clone(), max };
        if self.remaining() > max {
            return Err(too_long());
        }
        let mut all = Vec::with_capacity(usize::try_from(self.remaining()).map_err(|_| too_long())?);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    /// As a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.chunk().await {
                Ok(chunk) => chunk.map(|c| (Ok(c), Some(reader))),
                Err(e) => Some((Err(e), None)),
            }
        })
    }
}

pub(crate) fn range_value(first: u64, last: Option<u64>) -> Result<HeaderValue, Error> {
    header(&last.map_or_else(|| format!("bytes={first}-"), |l| format!("bytes={first}-{l}")))
}

pub(crate) fn header(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| {
        let problem = kvdb_protocol::Problem::new(ErrorCode::BadRequest, format!("{text:?} cannot be a header"));
        Error::Problem { problem: Box::new(problem), retry_after: None }
    })
}
