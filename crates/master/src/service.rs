//! What the master answers to which request.

use crate::node::Node;
use crate::{batch, delete_all, export, list, locate, orders, outcome, peer_calls, read, several, status, transaction, write};
use http::{HeaderValue, Method, header};
use kvdb_protocol::message::path;
use kvdb_protocol::operator;
use kvdb_protocol::{ErrorCode, Key, Problem, TicketOp};
use kvdb_server::body::Response;
use kvdb_server::guard::Request;
use kvdb_server::query::Query;
use kvdb_server::{RequestContext, pages, problem_response};
use std::sync::Arc;

const METHODS: &str = "GET, HEAD, PUT, POST, DELETE";

pub(crate) struct MasterService {
    pub node: Arc<Node>,
}

impl kvdb_server::serve::Service for MasterService {
    async fn call(&self, request: Request, cx: RequestContext) -> Result<Response, Problem> {
        let path = request.uri().path();
        if path.starts_with("/-/") {
            let path = path.to_string();
            return Box::pin(self.own_page(request, &path)).await;
        }
        let query = Query::parse(request.uri().query())?;
        let method = request.method().clone();
        if query.has(transaction::NAME) && (path == "/" || !transaction::may_name(&method, &query)) {
            return Box::pin(transaction::call(&self.node, request, &query)).await;
        }
        if method == Method::GET && query.has("list") {
            if query.has("values") {
                return Box::pin(several::list(&self.node, path, &query)).await;
            }
            return Box::pin(list::list(&self.node, path, &query)).await;
        }
        if method == Method::POST && path == "/" && query.has("batch") {
            return Box::pin(batch::post(&self.node, request, &cx)).await;
        }
        if method == Method::POST && query.has("delete-all") {
            return Box::pin(delete_all::post(&self.node, path, &query)).await;
        }
        if path == "/"
            && let Some(answer) = Box::pin(several::of_several(&self.node, &method, request.headers(), &query)).await
        {
            return answer;
        }
        let key = Key::from_path(path)?;
        // The others are boxed, so that the future of a lookup, which is moved about, stays small.
        match method {
            Method::GET if query.has("locate") => Box::pin(locate::locate(&self.node, request.headers(), &key, &query)).await,
            Method::GET | Method::HEAD => read::read(&self.node, request.headers(), &key, &query).await,
            Method::PUT => Box::pin(write::write(&self.node, request, key, TicketOp::Replace, &query, &cx)).await,
            Method::POST => Box::pin(write::write(&self.node, request, key, TicketOp::Create, &query, &cx)).await,
            Method::DELETE => Box::pin(write::delete(&self.node, request, key, &query, &cx)).await,
            _ => Ok(not_allowed(&cx)),
        }
    }
}

impl MasterService {
    async fn own_page(&self, request: Request, path: &str) -> Result<Response, Problem> {
        if let Some(page) = pages::common(path, request.method(), || status::ready(&self.node)) {
            return Ok(page);
        }
        match (request.method(), path) {
            (&Method::GET, "/-/status") => Ok(status::page(&self.node)),
            (&Method::POST, path::COMMIT) => peer_calls::commit(&self.node, request).await,
            (&Method::POST, path::BAD) => peer_calls::bad(&self.node, request).await,
            (&Method::POST, operator::path::ORDER) => orders::order(&self.node, request).await,
            (&Method::POST, operator::path::EXPORT) => export::export(&self.node, request).await,
            (&Method::POST, operator::path::RECORDS) => export::records(&self.node, request).await,
            (&Method::POST, operator::path::LOOK) => export::look(&self.node, request).await,
            (&Method::POST, operator::path::UNWANTED) => export::unwanted(&self.node, request).await,
            (&Method::POST, path::OUTCOME) => outcome::outcome(&self.node, request).await,
            (&Method::POST, path::SETTLE) => peer_calls::settle(&self.node, request).await,
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
