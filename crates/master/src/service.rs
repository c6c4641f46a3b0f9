//! What the master answers to which request.

use crate::access::{self, Leave};
use crate::node::Node;
use crate::tokens::Right;
use crate::{batch, delete_all, export, list, locate, orders, outcome, peer_calls, read, several, status, transaction, write};
use http::{HeaderMap, HeaderValue, Method, header};
use kvdb_protocol::message::path;
use kvdb_protocol::signed_url::{self, UrlRight};
use kvdb_protocol::{ErrorCode, Key, Problem, TicketOp, key, operator};
use kvdb_server::body::Response;
use kvdb_server::guard::Request;
use kvdb_server::query::Query;
use kvdb_server::{RequestContext, pages, problem_response};
use std::sync::Arc;

const METHODS: &str = "GET, HEAD, PUT, POST, DELETE";

pub(crate) struct MasterService {
    pub node: Arc<Node>,
}

/// What a request of a client asks for.
enum Asked {
    List(Vec<u8>),
    ListValues(Vec<u8>),
    Get(Vec<Key>),
    Newest(Vec<Key>),
    Locate(Key),
    Read(Key),
    Write(Key, TicketOp),
    Delete(Key),
    /// The second half of a delete for which no volume is up.
    DeleteByTicket(Key, String),
    DeleteAll(Vec<u8>),
    Batch,
    /// A transaction as a whole.
    Transaction,
    NotAllowed,
}

impl Asked {
    fn of(method: &Method, path: &str, query: &Query) -> Result<Self, Problem> {
        let prefix = || key::decode(path.strip_prefix('/').unwrap_or(path));
        let key = || Key::from_path(path);
        if query.has(transaction::NAME) && (path == "/" || !transaction::may_name(method, query)) {
            return Ok(Self::Transaction);
        }
        Ok(match *method {
            Method::GET if query.has("list") && query.has("values") => Self::ListValues(prefix()?),
            Method::GET if query.has("list") => Self::List(prefix()?),
            Method::POST if path == "/" && query.has("batch") => Self::Batch,
            Method::POST if query.has("delete-all") => Self::DeleteAll(prefix()?),
            Method::GET if path == "/" && query.has("get") => Self::Get(several::keys(query)?),
            Method::GET | Method::HEAD if path == "/" && query.has("newest") => Self::Newest(several::keys(query)?),
            Method::GET if query.has("locate") => Self::Locate(key()?),
            Method::GET | Method::HEAD => Self::Read(key()?),
            Method::PUT => Self::Write(key()?, TicketOp::Replace),
            Method::POST => Self::Write(key()?, TicketOp::Create),
            Method::DELETE => match query.get_str("ticket").filter(|_| !query.has(transaction::NAME)) {
                Some(ticket) => Self::DeleteByTicket(key()?, ticket.to_string()),
                None => Self::Delete(key()?),
            },
            _ => Self::NotAllowed,
        })
    }

    /// Whether whoever asks may have it. Nothing is done, and the catalog is not looked at, before this was asked.
    fn permitted(&self, node: &Node, headers: &HeaderMap, query: &Query) -> Result<Leave, Problem> {
        let token = |rights: &[(Right, &[u8])]| access::by_token(node, headers, rights);
        let url = |right, keys| access::by_url(node, headers, query, right, keys);
        match self {
            Self::List(prefix) => token(&[(Right::List, prefix)]),
            Self::ListValues(prefix) => token(&[(Right::List, prefix), (Right::Read, prefix)]),
            Self::Get(keys) | Self::Newest(keys) => url(UrlRight::Read, keys),
            Self::Locate(key) | Self::Read(key) => url(UrlRight::Read, std::slice::from_ref(key)),
            Self::Write(key, _) => url(UrlRight::Write, std::slice::from_ref(key)),
            Self::Delete(key) => token(&[(Right::Delete, key.as_bytes())]),
            Self::DeleteAll(prefix) => token(&[(Right::Delete, prefix)]),
            // Its operations are known once it has arrived, and need a right each: `access::batch`.
            Self::Batch => token(&[]),
            // So are the members of a transaction: `access::members`. Whoever may change nothing has no use for one.
            Self::Transaction => access::of_a_writer(node, headers),
            // What it may do stands in the ticket.
            Self::DeleteByTicket(..) | Self::NotAllowed => Ok(Leave::OPEN),
        }
    }
}

impl kvdb_server::serve::Service for MasterService {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        let path = request.uri().path();
        if path.starts_with("/-/") {
            let path = path.to_string();
            return Box::pin(self.own_page(request, &path)).await;
        }
        let query = Query::parse(request.uri().query())?;
        let asked = Asked::of(request.method(), path, &query)?;
        let leave = match asked.permitted(&self.node, request.headers(), &query) {
            Ok(leave) => leave,
            Err(problem) => return access::challenged(Err(problem)),
        };
        let node = &self.node;
        // The others are boxed, so that the future of a lookup, which is moved about, stays small.
        match asked {
            Asked::Read(key) => read::read(node, request.headers(), &key, &query, &leave).await,
            Asked::Locate(key) => Box::pin(locate::locate(node, request.headers(), &key, &query, &leave)).await,
            Asked::List(_) => Box::pin(list::list(node, path, &query)).await,
            Asked::ListValues(_) => Box::pin(several::list(node, path, &query)).await,
            Asked::Get(keys) => Box::pin(several::get(node, keys, &query)).await,
            Asked::Newest(keys) => Box::pin(several::newest(node, request.headers(), &keys, &query, &leave)).await,
            Asked::Write(key, op) => Box::pin(write::write(node, request, key, op, &query, &leave, &cx)).await,
            Asked::Delete(key) => Box::pin(write::delete(node, request, key, &query, &cx)).await,
            Asked::DeleteByTicket(key, ticket) => Box::pin(write::delete_here(node, &key, &ticket)).await,
            Asked::DeleteAll(_) => Box::pin(delete_all::post(node, path, &query)).await,
            Asked::Batch => access::challenged(Box::pin(batch::post(node, request, &cx)).await),
            Asked::Transaction => access::challenged(Box::pin(transaction::call(node, request, &query)).await),
            Asked::NotAllowed => Ok(not_allowed(&cx)),
        }
    }
}

impl MasterService {
    async fn own_page(&self, request: Request, path: &str) -> Result<Response, Problem> {
        let node = &self.node;
        // What they tell of all keys together is for who may do everything. Health is for everybody.
        if matches!(path, pages::METRICS | operator::path::STATUS_PAGE)
            && let Err(problem) = access::by_token(node, request.headers(), &[(Right::Admin, b"")])
        {
            return access::challenged(Err(problem));
        }
        if let Some(page) = pages::common(path, request.method(), || status::ready(node)) {
            return Ok(page);
        }
        match (request.method(), path) {
            (&Method::GET, operator::path::STATUS_PAGE) => Ok(status::page(node)),
            (&Method::GET, operator::path::CLUSTER) => Ok(status::cluster(node)),
            (&Method::POST, signed_url::PATH) => access::challenged(access::sign::post(node, request).await),
            (&Method::POST, path::COMMITS) => peer_calls::commits(node, request).await,
            (&Method::POST, path::BAD) => peer_calls::bad(node, request).await,
            (&Method::POST, operator::path::STATUS) => status::signed(node, request).await,
            (&Method::POST, operator::path::ORDER) => orders::order(node, request).await,
            (&Method::POST, operator::path::EXPORT) => export::export(node, request).await,
            (&Method::POST, operator::path::RECORDS) => export::records(node, request).await,
            (&Method::POST, operator::path::LOOK) => export::look(node, request).await,
            (&Method::POST, operator::path::UNWANTED) => export::unwanted(node, request).await,
            (&Method::POST, path::OUTCOME) => outcome::outcome(node, request).await,
            (&Method::POST, path::SETTLE) => peer_calls::settle(node, request).await,
            _ => Err(Problem::new(ErrorCode::BadKey, "keys beginning with '-/' are reserved, and the master has no such page")),
        }
    }
}

fn not_allowed(cx: &RequestContext) -> Response {
    let problem = Problem::new(ErrorCode::MethodNotAllowed, format!("use one of {METHODS}"));
    let mut response = problem_response(&problem, cx);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}
