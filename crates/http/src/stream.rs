//! Live results: WebSocket and SSE, fed with the same frames, each encoded once for everyone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Extension;
use axum::body::Body as AxumBody;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canvass_engine::At;
use canvass_protocol::patch;
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::stream::{Frame, ResetReason, Seq};
use tokio::sync::broadcast;

use crate::App;
use crate::edge::{Document, DocumentKey, build};
use crate::reads::{Params, key_of, known_only};
use crate::reply::Answer;
use crate::server::Slot;

/// Frames that a slow client may lag behind before it is reset.
const MAX_LAG: usize = 64;
/// Most documents that are followed at a time.
const MAX_FEEDS: usize = 10_000;
/// A silent connection is pinged after this time, so that dead ones are noticed.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Largest message taken from a WebSocket client; nothing is expected of it.
const MAX_MESSAGE: usize = 4_096;
/// What a client may ask for.
const PARAMS: &[&str] = &["contest", "unit", "by", "from"];

/// A frame in both forms.
#[derive(Debug, Clone)]
struct Encoded {
    /// For WebSocket.
    text: Utf8Bytes,
    /// For SSE.
    event: Bytes,
}

fn encode(frame: &Frame<'_>, to: Seq) -> Encoded {
    let text = frame.to_json();
    let event = Bytes::from(format!("id: {to}\nevent: {}\ndata: {text}\n\n", frame.name()));
    Encoded { text: text.into(), event }
}

/// One document as it changes, for everyone who follows it.
struct Feed {
    key: DocumentKey,
    current: Mutex<Current>,
    deltas: broadcast::Sender<Encoded>,
}

struct Current {
    document: Arc<Document>,
    snapshot: Encoded,
    /// Ways from older sequence numbers to this one, for clients that resume.
    ways: HashMap<Seq, Option<Encoded>>,
}

impl Current {
    fn new(document: Arc<Document>) -> Self {
        let Seq { epoch, seq } = document.seq;
        let snapshot = encode(&Frame::Snapshot { epoch, seq, data: &document.value }, document.seq);
        Current { document, snapshot, ways: HashMap::new() }
    }
}

/// All documents that somebody follows.
#[derive(Default)]
pub(crate) struct Feeds(Mutex<HashMap<DocumentKey, Weak<Feed>>>);

impl Feeds {
    /// The feed of a document, started where nobody follows it yet.
    fn follow(&self, app: &Arc<App>, key: DocumentKey) -> Result<Arc<Feed>, Problem> {
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(&key).and_then(Weak::upgrade) {
            return Ok(feed);
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        if feeds.len() >= MAX_FEEDS {
            return Err(Problem::new(Code::Overloaded).detail("too many different documents are followed"));
        }
        let current = Mutex::new(Current::new(app.edge.document(&app.engine, key)));
        let feed = Arc::new(Feed { key, current, deltas: broadcast::Sender::new(MAX_LAG) });
        feeds.insert(key, Arc::downgrade(&feed));
        tokio::spawn(run(Arc::downgrade(app), Arc::downgrade(&feed)));
        Ok(feed)
    }
}

/// Keeps a feed up to date for as long as somebody follows it.
async fn run(app: Weak<App>, feed: Weak<Feed>) {
    let Some(mut published) = app.upgrade().map(|app| app.engine.published()) else { return };
    loop {
        match (app.upgrade(), feed.upgrade()) {
            (Some(app), Some(feed)) => feed.advance(&app),
            _ => return,
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

impl Feed {
    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, app: &App) {
        let document = app.edge.document(&app.engine, self.key);
        let mut current = self.current();
        let (from, to) = (current.document.seq, document.seq);
        if to <= from {
            return;
        }
        // The stamp always differs, so there always is a difference.
        let patch = patch::diff(&current.document.value, &document.value).unwrap_or_default();
        let delta = encode(&Frame::Delta { epoch: to.epoch, from: from.seq, to: to.seq, patch: &patch }, to);
        *current = Current::new(document);
        // Sent under the lock: who subscribes sees either this delta or the document it leads to.
        let _ = self.deltas.send(delta);
    }

    /// Subscribes, and the frames that bring a client from where it says it is to the present.
    fn join(&self, app: &App, from: Option<Seq>) -> (broadcast::Receiver<Encoded>, Vec<Encoded>) {
        let mut current = self.current();
        let deltas = self.deltas.subscribe();
        let now = current.document.seq;
        let mut frames =
            vec![encode(&Frame::Hello { epoch: now.epoch, seq: now.seq }, from.unwrap_or_default())];
        let reset = |reason| encode(&Frame::Reset { reason, epoch: now.epoch }, Seq::default());
        match from {
            None => frames.push(current.snapshot.clone()),
            Some(from) if from == now => {}
            Some(from) if from.epoch != now.epoch => {
                frames.extend([reset(ResetReason::Epoch), current.snapshot.clone()]);
            }
            Some(from) => match current.way(app, self.key, from) {
                Some(way) => frames.push(way),
                None => frames.extend([reset(ResetReason::Gap), current.snapshot.clone()]),
            },
        }
        (deltas, frames)
    }

    /// The frames for a client that fell too far behind, and a fresh subscription.
    fn rejoin(&self) -> (broadcast::Receiver<Encoded>, Vec<Encoded>) {
        let current = self.current();
        let epoch = current.document.seq.epoch;
        let reset = encode(&Frame::Reset { reason: ResetReason::Gap, epoch }, Seq::default());
        (self.deltas.subscribe(), vec![reset, current.snapshot.clone()])
    }
}

impl Current {
    /// One delta from an older document of this epoch to the present one.
    fn way(&mut self, app: &App, key: DocumentKey, from: Seq) -> Option<Encoded> {
        let document = &self.document;
        let make = || {
            let before = build(&app.engine, &app.engine.results_at(At::Seq(from))?, key);
            // A number at which this contest did not change is none that a client can have.
            if from > document.seq || before.seq != from {
                return None;
            }
            let patch = patch::diff(&before.value, &document.value)?;
            let Seq { epoch, seq } = document.seq;
            Some(encode(&Frame::Delta { epoch, from: from.seq, to: seq, patch: &patch }, document.seq))
        };
        self.ways.entry(from).or_insert_with(make).clone()
    }
}

/// Where a client says it is: `?from=epoch:seq`, or the last event id of SSE.
fn resume_from(params: &HashMap<String, String>, headers: &HeaderMap) -> Option<Seq> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    last.or(params.get("from").map(String::as_str))?.parse().ok().filter(|seq| *seq != Seq::default())
}

/// One client's way through a feed.
struct Follower {
    slot: Slot,
    feed: Arc<Feed>,
    deltas: broadcast::Receiver<Encoded>,
    /// Frames that go out before the next delta.
    first: std::vec::IntoIter<Encoded>,
}

impl Follower {
    fn new(app: &App, feed: Arc<Feed>, from: Option<Seq>, slot: Slot) -> Self {
        let (deltas, first) = feed.join(app, from);
        Follower { slot, feed, deltas, first: first.into_iter() }
    }

    /// The next frame; none when the server stops.
    async fn next(&mut self) -> Option<Encoded> {
        loop {
            if let Some(frame) = self.first.next() {
                return Some(frame);
            }
            let delta = tokio::select! {
                delta = self.deltas.recv() => delta,
                () = self.slot.stopped() => return None,
            };
            match delta {
                Ok(delta) => return Some(delta),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (deltas, first) = self.feed.rejoin();
                    self.deltas = deltas;
                    self.first = first.into_iter();
                }
            }
        }
    }
}

/// `GET /api/v1/stream`: WebSocket.
pub(crate) async fn get_stream(
    State((app, feeds)): State<(Arc<App>, Arc<Feeds>)>,
    Extension(slot): Extension<Slot>,
    Query(params): Params,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Answer {
    known_only(&params, PARAMS)?;
    let key = key_of(&app, &params)?;
    let feed = feeds.follow(&app, key)?;
    let from = resume_from(&params, &headers);
    let upgrade = upgrade.map_err(|_| {
        Problem::new(Code::BadHeader).detail("this address speaks WebSocket; for SSE there is /api/v1/events")
    })?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| serve_socket(socket, Follower::new(&app, feed, from, slot))))
}

async fn serve_socket(mut socket: WebSocket, mut follower: Follower) {
    let mut pings = tokio::time::interval(PING_EVERY);
    loop {
        let message = tokio::select! {
            frame = follower.next() => match frame {
                Some(frame) => Message::Text(frame.text),
                None => return,
            },
            received = socket.recv() => match received {
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        // A client that takes nothing for so long is gone, or as good as gone.
        match tokio::time::timeout(PING_EVERY, socket.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

/// `GET /api/v1/events`: server-sent events.
pub(crate) async fn get_events(
    State((app, feeds)): State<(Arc<App>, Arc<Feeds>)>,
    Extension(slot): Extension<Slot>,
    Query(params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, PARAMS)?;
    let key = key_of(&app, &params)?;
    let feed = feeds.follow(&app, key)?;
    let follower = Follower::new(&app, feed, resume_from(&params, &headers), slot);
    let frames = futures_util::stream::unfold(follower, |mut follower| async move {
        let event = match tokio::time::timeout(PING_EVERY, follower.next()).await {
            Ok(frame) => frame?.event,
            Err(_) => Bytes::from_static(b": still here\n\n"),
        };
        Some((Ok::<_, std::convert::Infallible>(event), follower))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok::<Response, _>((headers, AxumBody::from_stream(frames)).into_response())
}
