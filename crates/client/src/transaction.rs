//! Transactions: values uploaded one by one, which become visible together.

use crate::batch::{self, Applied};
use crate::client::Client;
use crate::error::Error;
use crate::put::{PutOptions, PutOutcome, header_value};
use crate::source::Source;
use crate::url;
use bytes::Bytes;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{Key, TxnId, UnixMillis};
use reqwest::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, Url};
use serde::Deserialize;
use std::time::Duration;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A transaction. What is put into it and deleted in it becomes visible when it is committed, all at once; if it is not, nothing of it
/// does. Cheap to clone; whoever knows its id can go on with it, see [`Client::transaction`].
#[derive(Clone, Debug)]
pub struct Transaction {
    client: Client,
    id: TxnId,
}

#[derive(Deserialize)]
struct Begun {
    txn: TxnId,
    expires: UnixMillis,
}

impl Client {
    /// Begins a transaction that ends by itself after this time (1 s to 24 h; none: 1 h), and tells when that is, by the master's clock.
    /// Where an answer was lost another one is begun, and the first ends by itself.
    pub async fn begin(&self, ttl: Option<Duration>) -> Result<(Transaction, UnixMillis), Error> {
        let ttl = ttl.map(|t| format!("&ttl={}ms", t.as_millis())).unwrap_or_default();
        let mut at = self.transport.base.clone();
        at.set_query(Some(&format!("txn{ttl}")));
        let mut retry = self.retry();
        loop {
            let error = match self.begin_once(at.clone()).await {
                Ok(begun) => return Ok((self.transaction(begun.txn), begun.expires)),
                Err(e) if e.leaves_doubt() => Error::Interrupted { url: url::origin(&at), reason: e.to_string() },
                Err(e) => e,
            };
            retry.or_give_up(error).await?;
        }
    }

    /// A transaction that was begun before, by whomever.
    pub fn transaction(&self, id: TxnId) -> Transaction {
        Transaction { client: self.clone(), id }
    }

    async fn begin_once(&self, at: Url) -> Result<Begun, Error> {
        let response = self.transport.send(self.transport.request(Method::POST, at, &HeaderMap::new())).await?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(None, response).await);
        }
        let (status, shown) = (response.status().as_u16(), url::shown(response.url()));
        let answer = self.transport.read_small(response, MAX_ANSWER_BYTES).await?;
        let unread = |e| Error::NotKvdb { url: shown, reason: format!("the transaction cannot be read: {e}"), status };
        serde_json::from_slice(&answer).map_err(unread)
    }
}

impl Transaction {
    /// Its id. Whoever has it can put into it, commit it and give it up.
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// Uploads a value, durably when it returns, which is seen when the transaction is committed. One put before under the same key is
    /// replaced. The conditions are looked at now and again at the commit. Whether the key is new is known only then.
    ///
    /// # Errors
    /// As with [`Client::put`]; the value may or may not be in the transaction after an error that can pass by itself. Put it again, or
    /// give the transaction up.
    pub async fn put(&self, key: &Key, source: impl Into<Source>, options: PutOptions) -> Result<PutOutcome, Error> {
        self.client.put(key, source, PutOptions { txn: Some(self.id), ..options }).await
    }

    /// The key is to be absent once the transaction is committed; it may be so already. Replaces what was put under it before.
    pub async fn delete(&self, key: &Key, condition: &Condition) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        for (name, tags) in [(IF_MATCH, &condition.if_match), (IF_NONE_MATCH, &condition.if_none_match)] {
            if let Some(text) = batch::tags(tags.as_ref()) {
                headers.insert(name, header_value(&text)?);
            }
        }
        let at = of_key(&self.client, key, self.id)?;
        self.settled(Method::DELETE, at, &headers, Some(key)).await
    }

    /// Makes all of it visible, or nothing; what became of each key, in order of the keys. A commit whose answer was lost is asked for
    /// again, and takes effect once.
    ///
    /// # Errors
    /// One whose problem has `keys` names those whose preconditions do not hold: the transaction is open still. After any error but
    /// [`Error::BatchUnknown`] nothing was changed.
    pub async fn commit(&self) -> Result<Vec<Applied>, Error> {
        self.client.all_or_none(&self.at("&commit"), &HeaderMap::new(), &Bytes::new()).await
    }

    /// Gives it up: nothing of it becomes visible, and the space comes back.
    pub async fn abort(&self) -> Result<(), Error> {
        self.settled(Method::POST, self.at("&abort"), &HeaderMap::new(), None).await
    }

    fn at(&self, what: &str) -> Url {
        let mut at = self.client.transport.base.clone();
        at.set_query(Some(&format!("txn={}{what}", self.id)));
        at
    }

    /// Asks until there is an answer: twice is as good as once.
    async fn settled(&self, method: Method, at: Url, headers: &HeaderMap, key: Option<&Key>) -> Result<(), Error> {
        let transport = &self.client.transport;
        let mut retry = self.client.retry();
        loop {
            let error = match transport.send(transport.request(method.clone(), at.clone(), headers)).await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => transport.refusal(key, response).await,
                Err(e) => e,
            };
            let error = if error.leaves_doubt() { Error::Interrupted { url: url::origin(&at), reason: error.to_string() } } else { error };
            retry.or_give_up(error).await?;
        }
    }
}

/// The URL of a key at the master, as a part of a transaction.
pub(crate) fn of_key(client: &Client, key: &Key, txn: TxnId) -> Result<Url, Error> {
    let mut at = url::of_key(&client.transport.base, key)?;
    at.set_query(Some(&format!("txn={txn}")));
    Ok(at)
}
