//! One request and its answer.

use crate::access::{Entry, Observed};
use crate::body::{self, Response};
use crate::checks;
use crate::context::{self, REQUEST_ID_HEADER, RequestContext};
use crate::guard::{GuardedBody, Request};
use crate::leftover::Leftover;
use crate::problem;
use crate::sendfile::FileSender;
use crate::serve::{ServeOptions, Service};
use crate::socket::Phase;
use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use http_body::Body as _;
use hyper::body::Incoming;
use kvdb_protocol::{ErrorCode, Problem};
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const SERVER: HeaderValue = HeaderValue::from_static("kvdb");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What all connections of a server share.
pub(crate) struct Shared<S> {
    pub options: ServeOptions,
    service: Arc<S>,
    places: Arc<Semaphore>,
    /// What services spawn and wait for belongs to it, whichever thread polls them.
    home: Handle,
}

impl<S: Service> Shared<S> {
    pub fn new(options: ServeOptions, service: Arc<S>, home: Handle) -> Self {
        let places = Arc::new(Semaphore::new(options.max_requests.min(Semaphore::MAX_PERMITS)));
        Self { options, service, places, home }
    }
}

/// The requests of one connection.
pub(crate) struct Exchanges<S> {
    pub shared: Arc<Shared<S>>,
    pub phase: Arc<Phase>,
    pub files: FileSender,
    pub remote: SocketAddr,
    pub local: SocketAddr,
}

impl<S: Service> Exchanges<S> {
    /// Answers one request, always.
    pub async fn run(&self, request: hyper::Request<Incoming>) -> hyper::Response<Observed> {
        self.phase.begin_request();
        let cx = RequestContext::new(request.headers(), self.remote, self.local, self.files.clone());
        let entry = Entry::new(&self.shared.options, &request, &cx);
        let head_only = request.method() == Method::HEAD;
        // Most requests have no body, and so nothing to leave.
        let leftover = (!request.body().is_end_stream()).then(Arc::<Leftover>::default);
        let request = self.guard(request, leftover.as_ref());

        let (answer, place) = match self.admit(request) {
            Ok((request, place)) => (self.call(request, &cx).await, place),
            Err(problem) => (Err(problem), None),
        };

        let mut response = problem::named(answer.unwrap_or_else(problem::unnamed), &cx);
        if head_only {
            response = without_body(response);
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, SERVER);
        if let Ok(id) = HeaderValue::from_str(&cx.request_id) {
            headers.insert(REQUEST_ID_HEADER, id);
        }
        if let Some(leftover) = leftover
            && !leftover.settle().await
        {
            headers.insert(header::CONNECTION, CLOSE);
        }
        Observed::wrap(response, entry, Arc::clone(&self.phase), place)
    }

    fn guard(&self, request: hyper::Request<Incoming>, leftover: Option<&Arc<Leftover>>) -> Request {
        // hyper sends 100 Continue on the same condition.
        let expects = request.version() == http::Version::HTTP_11 && request.headers().contains_key(header::EXPECT);
        request.map(|body| GuardedBody::new(body, leftover.cloned(), self.shared.options.body, expects))
    }

    /// Checks a request, and takes a place for it. The servers' own pages need none: they are asked for when it matters,
    /// and requests in flight may wait for calls between servers.
    fn admit(&self, mut request: Request) -> Result<(Request, Option<OwnedSemaphorePermit>), Problem> {
        checks::check(&mut request)?;
        if request.uri().path().starts_with("/-/") {
            return Ok((request, None));
        }
        let place = Arc::clone(&self.shared.places).try_acquire_owned();
        let place = place.map_err(|_| Problem::new(ErrorCode::Busy, "too many requests are in flight; try again in a second"))?;
        Ok((request, Some(place)))
    }

    /// Calls the service. What it logs names the request; a panic, too, which the hook has logged.
    async fn call(&self, request: Request, cx: &RequestContext) -> Result<Response, Problem> {
        let answer = async { self.shared.service.call(request, cx.clone()).await };
        let mut answer = pin!(AssertUnwindSafe(answer).catch_unwind());
        let answer = poll_fn(|task| {
            let _named = context::name_lines(&cx.request_id);
            let _home = self.shared.home.enter();
            answer.as_mut().poll(task)
        });
        answer.await.unwrap_or_else(|_| {
            Err(Problem::new(ErrorCode::Internal, "the server failed on this request; its log has the reason under the request id"))
        })
    }
}

/// The answer to HEAD: the length that GET would have, and no body.
fn without_body(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| body::empty());
    if let Some(length @ 1..) = length {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response
}
