//! What a volume answers to which request.

use crate::node::Node;
use crate::{chain, delete, fetch, peer_calls, put, read};
use http::{HeaderValue, Method, header};
use kvdb_protocol::message::path;
use kvdb_protocol::{ErrorCode, Key, Problem};
use kvdb_server::body::Response;
use kvdb_server::guard::Request;
use kvdb_server::query::Query;
use kvdb_server::{RequestContext, pages, problem_response};
use std::sync::Arc;

/// Path of a value whose key would not survive clients as a path; the key is in the query.
pub(crate) const BLOB_PATH: &str = "/-/blob";
const METHODS: &str = "GET, HEAD, PUT, POST, DELETE";

pub(crate) struct VolumeService {
    pub node: Arc<Node>,
}

impl kvdb_server::serve::Service for VolumeService {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        let query = Query::parse(request.uri().query())?;
        let path = request.uri().path().to_string();
        // All but reads are boxed, so that the future of a read, which is moved about, stays small.
        if path.starts_with("/-/") && path != BLOB_PATH {
            return Box::pin(self.own_page(request, &path, &query)).await;
        }
        let key = || if path == BLOB_PATH { query_key(&query) } else { Key::from_path(&path).map_err(Problem::from) };
        let method = request.method().clone();
        match method {
            Method::GET | Method::HEAD => read::read(&self.node, request, key()?, &query, &cx.files).await,
            Method::PUT | Method::POST => Box::pin(put::put(&self.node, request, &key()?, ticket(&query)?)).await,
            Method::DELETE => Box::pin(delete::delete(&self.node, &key()?, ticket(&query)?)).await,
            _ => Ok(not_allowed(&cx, METHODS)),
        }
    }
}

impl VolumeService {
    async fn own_page(&self, request: Request, path: &str, query: &Query) -> Result<Response, Problem> {
        let ready = || self.node.membership().map(drop).map_err(|problem| problem.detail);
        if let Some(page) = pages::common(path, request.method(), ready) {
            return Ok(page);
        }
        match (request.method(), path) {
            (&Method::GET, path::IDENTITY) => Ok(peer_calls::identity(&self.node)),
            (&Method::POST, path::ADOPT) => peer_calls::adopt(&self.node, request).await,
            (&Method::POST, path::STATUS) => peer_calls::status(&self.node, request).await,
            (&Method::POST, path::CHAIN) => chain::receive(&self.node, request, query).await,
            (&Method::POST, path::RECLAIM) => peer_calls::reclaim(&self.node, request).await,
            (&Method::GET, path::ENTRIES) => peer_calls::entries(&self.node, request, query).await,
            (&Method::POST, path::SCRUB) => peer_calls::scrub(&self.node, request).await,
            (&Method::POST, path::FETCH) => fetch::fetch(&self.node, request).await,
            (&Method::GET, path::BLOB) => fetch::blob(&self.node, request, query).await,
            (&Method::POST, path::KEEP) => fetch::keep(&self.node, request).await,
            _ => Err(Problem::new(ErrorCode::NotFound, "a volume has no such page")),
        }
    }
}

fn ticket(query: &Query) -> Result<&str, Problem> {
    query.get_str("ticket").ok_or_else(|| {
        Problem::new(
            ErrorCode::Unauthorized,
            "a volume acts only for a ticket of the master; send the request to the master and follow its redirect",
        )
    })
}

fn query_key(query: &Query) -> Result<Key, Problem> {
    let bytes = query.get("key").ok_or_else(|| Problem::new(ErrorCode::BadRequest, "no key"))?;
    Key::new(bytes.to_vec()).map_err(Problem::from)
}

fn not_allowed(cx: &RequestContext, methods: &'static str) -> Response {
    let problem = Problem::new(ErrorCode::MethodNotAllowed, format!("use one of {methods}"));
    let mut response = problem_response(&problem, cx);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
