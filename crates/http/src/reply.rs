//! Answers: problems, prepared bodies, and what every answer carries.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body as AxumBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use canvass_protocol::problem::{Code, Problem};
use rand::RngCore;
use serde::Serialize;

use crate::App;
use crate::auth::hex;
use crate::body::plain;
use crate::edge::Body;

/// For what changes with each publication.
pub(crate) const LIVE: &str = "public, max-age=1, stale-while-revalidate=10, stale-if-error=600";
/// For what never changes.
pub(crate) const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// For answers to one person.
pub(crate) const PRIVATE: &str = "no-store";

/// Seconds after which a client that was turned away should come back.
const RETRY_AFTER: &str = "1";

/// A problem as an answer. Its body is written by [`finish`], which knows the trace id.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(pub(crate) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal(problem)
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Refusal(code.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What handlers answer.
pub(crate) type Answer = Result<Response, Refusal>;

/// A JSON answer that no cache keeps.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|_| Code::Internal)?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, PRIVATE)];
    Ok((status, headers, body).into_response())
}

/// In which form a client gets a prepared body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// Compressed.
    Gzip,
    /// Not at all: the client has it already.
    NotModified,
}

/// The form that the headers of a request ask for.
pub(crate) fn form(if_none_match: Option<&[u8]>, accept_encoding: Option<&[u8]>, body: &Body) -> Form {
    let known = if_none_match.and_then(plain).is_some_and(|list| {
        list.split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == body.etag || tag == "*")
    });
    if known {
        return Form::NotModified;
    }
    let takes_gzip = accept_encoding.and_then(plain).is_some_and(|list| list.contains("gzip"));
    if takes_gzip && body.gzip().is_some() { Form::Gzip } else { Form::Plain }
}

/// Goes with an answer that is the same for everyone, for lanes to keep.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<Body>);

/// A prepared body, compressed where the client takes that, or 304 where it has it already.
pub(crate) fn prepared(request: &HeaderMap, body: &Arc<Body>, cache_control: &'static str) -> Response {
    let asked = |name| request.get(name).map(HeaderValue::as_bytes);
    let form = form(asked(header::IF_NONE_MATCH), asked(header::ACCEPT_ENCODING), body);
    let content = match form {
        Form::NotModified => None,
        Form::Plain => Some(body.bytes.clone()),
        Form::Gzip => body.gzip(),
    };
    let mut response = match content {
        None => StatusCode::NOT_MODIFIED.into_response(),
        Some(bytes) => {
            let content_type = HeaderValue::from_static(body.content_type);
            ([(header::CONTENT_TYPE, content_type)], AxumBody::from(bytes)).into_response()
        }
    };
    let headers = response.headers_mut();
    if form == Form::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::from_str(&body.etag) {
        headers.insert(header::ETAG, etag);
    }
    response.extensions_mut().insert(Shared(Arc::clone(body)));
    response
}

/// The trace id of a request: that of its `traceparent` (W3C Trace Context), or a new one.
fn trace_id(traceparent: Option<&[u8]>) -> String {
    match traceparent.and_then(plain).and_then(|v| v.split('-').nth(1)) {
        Some(id) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => id.to_owned(),
        _ => {
            let mut bytes = [0; 16];
            rand::rng().fill_bytes(&mut bytes);
            hex(&bytes)
        }
    }
}

/// A problem as it goes over the wire.
pub(crate) struct Refused {
    pub(crate) status: u16,
    /// Those of its own; what every answer carries comes on top.
    pub(crate) headers: Vec<(HeaderName, &'static str)>,
    pub(crate) body: Vec<u8>,
}

/// Writes a problem with the trace id of its request, and tells the server's log of it if the server is at fault.
pub(crate) fn refuse(problem: Problem, path: &str, traceparent: Option<&[u8]>) -> Refused {
    let trace = trace_id(traceparent);
    // A 503 turns work away, which the limits and the log have said already.
    if problem.status == 500 {
        let (code, detail) = (problem.code.as_str(), problem.detail.as_deref());
        tracing::warn!(code, path, trace, detail, "a request failed");
    }
    let problem = problem.trace_id(trace);
    let mut headers =
        vec![(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, PRIVATE)];
    match problem.status {
        429 | 503 => headers.push((header::RETRY_AFTER, RETRY_AFTER)),
        404 if problem.code == Code::NotPublished => headers.push((header::RETRY_AFTER, RETRY_AFTER)),
        401 => headers.push((header::WWW_AUTHENTICATE, "Bearer")),
        _ => {}
    }
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Refused { status: problem.status, headers, body }
}

/// What the router refuses in plain text before a handler sees it: a path that is not text.
fn unreadable(response: &Response) -> Option<Refusal> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let plain = content_type.is_some_and(|v| v.as_bytes().starts_with(b"text/plain"));
    let refused = plain && response.status() == StatusCode::BAD_REQUEST;
    refused.then(|| Problem::new(Code::BadParameter).detail("the path is not valid UTF-8").into())
}

/// Writes the body of a problem with its trace id, and what every answer carries.
pub(crate) async fn finish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (since, method) = (Instant::now(), request.method().clone());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let traceparent = request.headers().get("traceparent").cloned();
    // Shares its bytes: nothing is copied for the few requests that fail.
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    let refusal = response.extensions_mut().remove::<Refusal>().or_else(|| unreadable(&response));
    if let Some(Refusal(problem)) = refusal {
        let refused = refuse(problem, uri.path(), traceparent.as_ref().map(HeaderValue::as_bytes));
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        for (name, value) in refused.headers {
            headers.insert(name, HeaderValue::from_static(value));
        }
        *response.body_mut() = AxumBody::from(refused.body);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    app.metrics.answered(path.as_ref(), &method, response.status(), since);
    response
}
