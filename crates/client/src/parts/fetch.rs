//! A part of a value from one replica after the other, until all of it is here and right.

use super::pinned::{Pick, Pinned};
use crate::client::Client;
use crate::error::Error;
use crate::get::{header, range_value};
use crate::info::Info;
use crate::transport::not_kvdb;
use crate::url;
use bytes::Bytes;
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_protocol::tree::{subtree_range, verify_subtree};
use reqwest::header::{HeaderMap, IF_MATCH, RANGE};
use reqwest::{Method, Response, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;

/// What is checked and stored in one visit to a blocking thread, in bytes: whole subtrees.
const BATCH_BYTES: usize = 1 << 20;

const _: () = assert!((BATCH_BYTES as u64).is_multiple_of(SUBTREE_BYTES));

/// Where bytes go that were found right.
pub(super) trait Sink: Send + Sync + 'static {
    /// Takes the bytes from `offset` of the value on, on a blocking thread. Gives a buffer to be used again, or an empty one.
    fn take(&self, offset: u64, bytes: Vec<u8>) -> Result<Vec<u8>, Error>;
}

/// How reading from one replica failed.
enum Failed {
    /// Another may do better.
    Replica(Error),
    /// All is over.
    Sink(Error),
}

/// A batch that was checked.
struct Checked {
    /// Subtrees of it that were right, from its first on, and stored.
    right: u64,
    /// A buffer to be used again.
    buffer: Vec<u8>,
    failed: Option<Failed>,
}

/// Fetches these subtrees, in order. Right bytes are never asked for twice.
pub(super) async fn fetch(pinned: Arc<Pinned>, part: Range<u64>, sink: Arc<dyn Sink>) -> Result<(), Error> {
    let mut at = part.start;
    while at < part.end {
        let pick = pinned.pick().await?;
        match read_from(&pinned, &pick, &mut at, part.end, &sink).await {
            Ok(()) => {}
            Err(Failed::Replica(e)) => pinned.leave(&pick, e),
            Err(Failed::Sink(e)) => return Err(e),
        }
    }
    Ok(())
}

/// Reads from subtree `at` on, and moves it over what was stored. The next batch comes while the last one is checked.
async fn read_from(pinned: &Arc<Pinned>, pick: &Pick, at: &mut u64, end: u64, sink: &Arc<dyn Sink>) -> Result<(), Failed> {
    let end = subtree_range(pinned.info.len, end.saturating_sub(1)).map_or(pinned.info.len, |r| r.end);
    let mut asked = *at * SUBTREE_BYTES;
    let mut answer = Answer { response: open(pinned, pick, asked, end).await.map_err(Failed::Replica)?, rest: Bytes::new() };
    let (mut buffer, mut checking, mut result) = (Vec::new(), None, Ok(()));
    while asked < end {
        let want = usize::try_from(end - asked).unwrap_or(usize::MAX).min(BATCH_BYTES);
        result = answer.fill(&pinned.client, &mut buffer, want).await;
        if result.is_err() {
            break;
        }
        let spare = match checking.take() {
            Some(before) => settle(pinned, before, at).await?,
            None => Vec::new(),
        };
        checking = Some(check(pinned, pick, sink, asked, std::mem::replace(&mut buffer, spare)));
        asked += want as u64;
    }
    if let Some(last) = checking {
        settle(pinned, last, at).await?;
    }
    result.map_err(Failed::Replica)
}

/// Waits until a batch was checked and stored. Gives its buffer back.
async fn settle(pinned: &Pinned, checking: JoinHandle<Checked>, at: &mut u64) -> Result<Vec<u8>, Failed> {
    let checked = checking.await.map_err(|e| Failed::Sink(pinned.broken(format!("a task that checks bytes died: {e}"))))?;
    let from = *at * SUBTREE_BYTES;
    *at += checked.right;
    let bytes = (*at * SUBTREE_BYTES).min(pinned.info.len).saturating_sub(from);
    if bytes > 0 {
        pinned.progress.add(bytes);
        pinned.fetched.fetch_add(bytes, Ordering::Relaxed);
        pinned.moved.store(true, Ordering::Relaxed);
    }
    checked.failed.map_or(Ok(checked.buffer), Err)
}

/// Checks a batch that begins with a subtree, and stores what is right of it.
fn check(pinned: &Arc<Pinned>, pick: &Pick, sink: &Arc<dyn Sink>, offset: u64, mut bytes: Vec<u8>) -> JoinHandle<Checked> {
    let (pinned, sink, volume) = (Arc::clone(pinned), Arc::clone(sink), url::origin(&pick.url));
    tokio::task::spawn_blocking(move || {
        let (info, first) = (&pinned.info, offset / SUBTREE_BYTES);
        // A subtree has a length that fits any usize.
        let mut subtrees = (first..).zip(bytes.chunks(SUBTREE_BYTES as usize));
        let wrong = subtrees.find(|(i, b)| !verify_subtree(info.len, &info.etag, &pinned.subtrees, *i, b)).map(|(i, _)| i);
        let failed = wrong.map(|index| {
            let range = subtree_range(info.len, index).unwrap_or_default();
            Failed::Replica(Error::Damaged { key: pinned.key.clone(), first: range.start, end: range.end, url: volume })
        });
        let right = wrong.map_or_else(|| (bytes.len() as u64).div_ceil(SUBTREE_BYTES), |index| index - first);
        bytes.truncate(usize::try_from(right * SUBTREE_BYTES).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Checked { right, buffer: bytes, failed };
        }
        match sink.take(offset, bytes) {
            Ok(buffer) => Checked { right, buffer, failed },
            Err(e) => Checked { right: 0, buffer: Vec::new(), failed: Some(Failed::Sink(e)) },
        }
    })
}

/// Asks a replica for bytes `first..end`. Redirects are not followed: they lead away from what was pinned.
async fn open(pinned: &Pinned, pick: &Pick, first: u64, end: u64) -> Result<Response, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, range_value(first, Some(end.saturating_sub(1)))?);
    headers.insert(IF_MATCH, header(&pinned.info.etag.etag())?);
    let transport = &pinned.client.transport;
    let response = transport.send_to_one_of_several(transport.request(Method::GET, pick.url.clone(), &headers)).await?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        status if status.is_redirection() || matches!(status.as_u16(), 404 | 412) => {
            return Err(Error::Interrupted { url: url::origin(&pick.url), reason: "it does not have this version (any more)".into() });
        }
        status if status.is_success() => return Err(not_kvdb(&response, format!("status {status} to a range"))),
        _ => return Err(transport.refusal(Some(&pinned.key), response).await),
    }
    let (info, from, count) = Info::of_part(&response)?;
    if info.etag != pinned.info.etag || from != first || count != end - first {
        return Err(not_kvdb(&response, "it sent another part than was asked for".into()));
    }
    Ok(response)
}

/// The body of an answer, cut anew.
struct Answer {
    response: Response,
    rest: Bytes,
}

impl Answer {
    /// Replaces what is in the buffer by the next `want` bytes.
    async fn fill(&mut self, client: &Client, buffer: &mut Vec<u8>, want: usize) -> Result<(), Error> {
        buffer.clear();
        buffer.reserve_exact(want);
        while buffer.len() < want {
            if self.rest.is_empty() {
                let Some(next) = client.transport.next_chunk(&mut self.response).await? else {
                    let reason = "it ended before the part did".into();
                    return Err(Error::Interrupted { url: url::origin(self.response.url()), reason });
                };
                self.rest = next;
            }
            let now = self.rest.split_to(self.rest.len().min(want - buffer.len()));
            buffer.extend_from_slice(&now);
        }
        Ok(())
    }
}
