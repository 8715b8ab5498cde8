//! Live results: WebSocket and SSE, fed with the same frames, each encoded once for everyone.
//!
//! A handler answers with the head of the answer and a [`Following`]; the server then takes the connection out of
//! HTTP's hands, and one of the [`carrier::Carriers`] owns the socket from there on.

mod carrier;
mod feed;
mod follower;
mod input;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body as AxumBody;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::stream::{Frame, Seq};
use tungstenite::handshake::server::{create_response_with_body, write_response};

use crate::App;
use crate::reads::{Params, key_of, known_only};
use crate::reply::Answer;
use crate::server::Slot;
use feed::Feed;
pub(crate) use feed::Feeds;
use follower::{Follower, Form};

/// Frames that a slow client may lag behind before it is reset.
const MAX_LAG: usize = 64;
/// Most documents that are followed at a time.
const MAX_FEEDS: usize = 10_000;
/// What a client may ask for.
const PARAMS: &[&str] = &["contest", "unit", "by", "from"];

/// A frame in all forms, ready to be sent.
#[derive(Debug, Clone)]
struct Encoded {
    /// A WebSocket frame.
    frame: Bytes,
    /// An event of SSE.
    event: Bytes,
    /// The same event as a chunk of HTTP/1.1.
    chunk: Bytes,
}

fn encode(frame: &Frame<'_>, to: Seq) -> Encoded {
    let text = frame.to_json();
    let event = format!("id: {to}\nevent: {}\ndata: {text}\n\n", frame.name());
    let head = format!("{:x}\r\n", event.len());
    let chunk = Bytes::from([head.as_str(), &event, "\r\n"].concat());
    let event = chunk.slice(head.len()..head.len() + event.len());
    Encoded { frame: input::text_frame(text), event, chunk }
}

/// Where a client says it is: `?from=epoch:seq`, or the last event id of SSE.
fn resume_from(params: &HashMap<String, String>, headers: &HeaderMap) -> Option<Seq> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    last.or(params.get("from").map(String::as_str))?.parse().ok().filter(|seq| *seq != Seq::default())
}

/// What a connection is to be used for once its request was answered.
#[derive(Clone)]
pub(crate) struct Following {
    app: Arc<App>,
    feed: Arc<Feed>,
    from: Option<Seq>,
    form: Form,
}

impl Following {
    /// Takes over a connection whose request gets this answer; nothing of it was sent.
    pub(crate) fn begin(self, answer: Response, socket: std::net::TcpStream, slot: Slot) {
        let mut head = Vec::new();
        // Answers are made of headers that can be written.
        if write_response(&mut head, &answer.map(drop)).is_err() {
            return;
        }
        let Following { app, feed, from, form } = self;
        feed.end_with(&slot);
        let follower = Follower::new(socket, form, slot, app.metrics.stream(form.carrier()));
        feed.join(&app, from, follower, head.into());
    }
}

/// `GET /api/v1/stream`: WebSocket.
pub(crate) async fn get_stream(
    State((app, feeds)): State<(Arc<App>, Arc<Feeds>)>,
    Query(params): Params,
    request: Request,
) -> Answer {
    known_only(&params, PARAMS)?;
    let key = key_of(&app, &params)?;
    let feed = feeds.follow(&app, key)?;
    let from = resume_from(&params, request.headers());
    let mut response = create_response_with_body(&request, AxumBody::empty).map_err(|_| {
        Problem::new(Code::BadHeader).detail("this address speaks WebSocket; for SSE there is /api/v1/events")
    })?;
    response.extensions_mut().insert(Following { app, feed, from, form: Form::WebSocket });
    Ok(response)
}

/// `GET /api/v1/events`: server-sent events.
pub(crate) async fn get_events(
    State((app, feeds)): State<(Arc<App>, Arc<Feeds>)>,
    Query(params): Params,
    request: Request,
) -> Answer {
    known_only(&params, PARAMS)?;
    let key = key_of(&app, &params)?;
    let feed = feeds.follow(&app, key)?;
    let from = resume_from(&params, request.headers());
    let mut response = AxumBody::empty().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if request.method() == Method::GET {
        let (form, name, value) = match request.version() {
            Version::HTTP_10 => (Form::Events, header::CONNECTION, "close"),
            _ => (Form::Chunks, header::TRANSFER_ENCODING, "chunked"),
        };
        headers.insert(name, HeaderValue::from_static(value));
        let now = httpdate::fmt_http_date(std::time::SystemTime::now());
        headers.extend(HeaderValue::try_from(now).ok().map(|now| (header::DATE, now)));
        response.extensions_mut().insert(Following { app, feed, from, form });
    }
    Ok(response)
}
