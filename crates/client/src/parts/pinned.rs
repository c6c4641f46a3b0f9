//! One version of a value, and the replicas that serve it.

use crate::client::Client;
use crate::error::Error;
use crate::info::Info;
use crate::locate::Located;
use crate::retry::Retry;
use crate::source::Progress;
use crate::url;
use kvdb_protocol::Key;
use kvdb_protocol::tree::{ChainingValue, chaining_value_count, root_of};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value of which every part is exactly that of one hash, whichever replica it comes from.
pub(crate) struct Pinned {
    pub(super) client: Client,
    pub(super) key: Key,
    pub(crate) info: Info,
    /// They add up to the value's hash.
    pub(super) subtrees: Vec<ChainingValue>,
    /// Bytes that were found right.
    pub(super) progress: Progress,
    /// Bytes that came and were found right.
    pub(super) fetched: AtomicU64,
    state: Mutex<State>,
    /// One task at a time asks the master where replicas are.
    asking: tokio::sync::Mutex<Retry>,
    /// Whether something right came since the master was asked last.
    pub(super) moved: AtomicBool,
}

#[derive(Default)]
struct State {
    replicas: Vec<Replica>,
    /// How often the master was asked.
    asked: u64,
    /// Why a replica was left last.
    why: Option<Error>,
    /// How often each server sent wrong bytes, by origin.
    wrong: HashMap<String, u32>,
}

struct Replica {
    url: Url,
    /// Parts that are being read from it.
    busy: usize,
    left: bool,
}

/// A replica that a part is being read from.
pub(super) struct Pick {
    pinned: Arc<Pinned>,
    pub(super) url: Url,
    asked: u64,
    at: usize,
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.pinned.change(self, |r| r.busy = r.busy.saturating_sub(1));
    }
}

/// What came of asking for the tree.
enum Tree {
    Values(Vec<ChainingValue>),
    /// The version is not there.
    Gone,
    /// The server does not know the question.
    Unknown,
}

impl Pinned {
    /// Finds a value of at least `from` bytes and fetches its chaining values. None: it is shorter, or this cluster does not serve parts.
    ///
    /// [`Error::Changed`]: it was replaced between the two.
    pub(crate) async fn find(client: &Client, key: &Key, from: u64, progress: &Progress) -> Result<Option<Arc<Self>>, Error> {
        let mut retry = client.retry();
        loop {
            let found = match client.locate(key).await {
                Ok(Some(located)) if located.info.len >= from => Self::open(client, key, located, progress.clone()).await,
                Ok(_) => return Ok(None),
                Err(e) => Err(e),
            };
            match found {
                Ok(pinned) => return Ok(pinned),
                Err(e) => retry.or_give_up(e).await?,
            }
        }
    }

    /// Fetches the chaining values. None: no replica tells them.
    ///
    /// [`Error::Changed`]: the version is not what the key has any more.
    async fn open(client: &Client, key: &Key, located: Located, progress: Progress) -> Result<Option<Arc<Self>>, Error> {
        let Located { info, locations } = located;
        let (mut gone, mut why, mut subtrees) = (false, None, None);
        for at in &locations {
            match tree(client, &info, at).await {
                Ok(Tree::Values(values)) => subtrees = Some(values),
                Ok(Tree::Gone) => gone = true,
                Ok(Tree::Unknown) => {}
                Err(e) => why = Some(e),
            }
            if subtrees.is_some() {
                break;
            }
        }
        let Some(subtrees) = subtrees else {
            return match why {
                _ if gone => Err(Error::Changed(key.clone())),
                Some(e) => Err(e),
                None => Ok(None),
            };
        };
        let replicas = locations.into_iter().map(|url| Replica { url, busy: 0, left: false }).collect();
        Ok(Some(Arc::new(Self {
            client: client.clone(),
            key: key.clone(),
            info,
            subtrees,
            progress,
            fetched: AtomicU64::new(0),
            state: Mutex::new(State { replicas, ..State::default() }),
            asking: tokio::sync::Mutex::new(client.retry()),
            moved: AtomicBool::new(false),
        })))
    }

    /// The replica to read the next part from: of those that sent the fewest wrong bytes, the least busy one.
    ///
    /// Where all were left, the master is asked again, until the tries without progress are used up.
    pub(super) async fn pick(self: &Arc<Self>) -> Result<Pick, Error> {
        loop {
            let asked = {
                let mut state = self.lock();
                let State { replicas, asked, wrong, .. } = &mut *state;
                let asked = *asked;
                let usable = replicas.iter_mut().enumerate().filter(|(_, r)| !r.left);
                let best = usable.min_by_key(|(_, r)| (wrong.get(&url::origin(&r.url)).copied().unwrap_or(0), r.busy));
                if let Some((at, replica)) = best {
                    replica.busy += 1;
                    return Ok(Pick { pinned: Arc::clone(self), url: replica.url.clone(), asked, at });
                }
                asked
            };
            self.ask_again(asked).await?;
        }
    }

    /// Reads no more from a replica until the master names it anew.
    pub(super) fn leave(&self, pick: &Pick, why: Error) {
        tracing::debug!(key = %self.key, volume = url::origin(&pick.url), %why, "a replica is left");
        let mut state = self.lock();
        if matches!(why, Error::Damaged { .. }) {
            *state.wrong.entry(url::origin(&pick.url)).or_default() += 1;
        }
        state.why = Some(why);
        drop(state);
        self.change(pick, |r| r.left = true);
    }

    fn change(&self, pick: &Pick, change: impl FnOnce(&mut Replica)) {
        let mut state = self.lock();
        if state.asked == pick.asked
            && let Some(replica) = state.replicas.get_mut(pick.at)
        {
            change(replica);
        }
    }

    /// Asks the master where the value is now, unless another task has since `asked`.
    async fn ask_again(&self, asked: u64) -> Result<(), Error> {
        let mut retry = self.asking.lock().await;
        let mut why = {
            let mut state = self.lock();
            if state.asked != asked {
                return Ok(());
            }
            state.why.take().unwrap_or_else(|| self.broken("its replicas are left".into()))
        };
        if self.moved.swap(false, Ordering::Relaxed) {
            retry.reset();
        }
        loop {
            // Whatever a replica did wrong, another or a later try may do right.
            if !why.worth_another_try() {
                why = self.broken(why.to_string());
            }
            retry.or_give_up(why).await?;
            match self.client.locate(&self.key).await {
                Ok(Some(now)) if (now.info.etag, now.info.len) == (self.info.etag, self.info.len) => {
                    let mut state = self.lock();
                    state.replicas = now.locations.into_iter().map(|url| Replica { url, busy: 0, left: false }).collect();
                    state.asked += 1;
                    return Ok(());
                }
                Ok(_) => return Err(Error::Changed(self.key.clone())),
                Err(e) if e.worth_another_try() => why = e,
                Err(e) => return Err(e),
            }
        }
    }

    pub(super) fn broken(&self, reason: String) -> Error {
        Error::Interrupted { url: self.info.volume.clone(), reason }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chaining values, as one replica tells them, which add up to the hash.
async fn tree(client: &Client, info: &Info, at: &Url) -> Result<Tree, Error> {
    let count = chaining_value_count(info.len);
    if count == 0 {
        return Ok(Tree::Values(Vec::new()));
    }
    let mut url = at.clone();
    url.set_query(Some(&format!("{}&tree", at.query().unwrap_or_default())));
    let response = client.transport.send_to_one_of_several(client.transport.request(Method::GET, url, &HeaderMap::new())).await?;
    let len = count.saturating_mul(size_of::<ChainingValue>() as u64);
    match response.status() {
        StatusCode::OK if response.content_length() == Some(len) => {}
        StatusCode::OK => return Ok(Tree::Unknown),
        status if status.is_redirection() || matches!(status.as_u16(), 404 | 412) => return Ok(Tree::Gone),
        _ => return Err(client.transport.refusal(None, response).await),
    }
    let bytes = client.transport.read_small(response, usize::try_from(len).unwrap_or(usize::MAX)).await?;
    let (values, _) = bytes.as_chunks::<{ size_of::<ChainingValue>() }>();
    if root_of(info.len, values) != Some(info.etag) {
        let reason = "its chaining values do not add up to the value's hash".into();
        return Err(Error::Interrupted { url: url::origin(at), reason });
    }
    Ok(Tree::Values(values.to_vec()))
}
