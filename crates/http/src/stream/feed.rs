//! One document as it changes, and the way of each client to where it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use canvass_engine::At;
use canvass_protocol::patch;
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::stream::{Frame, ResetReason, Seq};

use super::carrier::Carriers;
use super::follower::Follower;
use super::{Encoded, MAX_FEEDS, encode};
use crate::App;
use crate::edge::{Document, DocumentKey, build};
use crate::server::Slot;

/// One document as it changes, for everyone who follows it.
pub(super) struct Feed {
    pub(super) key: DocumentKey,
    current: Mutex<Current>,
    carriers: Arc<Carriers>,
}

/// From one state of a document to the next.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) encoded: Encoded,
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
pub(crate) struct Feeds(Mutex<Followed>);

#[derive(Default)]
struct Followed {
    feeds: HashMap<DocumentKey, Weak<Feed>>,
    /// Started when somebody first follows something.
    carriers: Option<Arc<Carriers>>,
}

impl Feeds {
    /// The feed of a document, started where nobody follows it yet.
    pub(super) fn follow(&self, app: &Arc<App>, key: DocumentKey) -> Result<Arc<Feed>, Problem> {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = followed.feeds.get(&key).and_then(Weak::upgrade) {
            return Ok(feed);
        }
        followed.feeds.retain(|_, feed| feed.strong_count() > 0);
        if followed.feeds.len() >= MAX_FEEDS {
            return Err(Problem::new(Code::Overloaded).detail("too many different documents are followed"));
        }
        let carriers = match &followed.carriers {
            Some(carriers) => Arc::clone(carriers),
            None => {
                let started = Carriers::start().map(Arc::new);
                let started = started.map_err(|e| Problem::new(Code::Overloaded).detail(e.to_string()))?;
                Arc::clone(followed.carriers.insert(started))
            }
        };
        let current = Mutex::new(Current::new(app.edge.document(&app.engine, key)));
        let feed = Arc::new(Feed { key, current, carriers });
        followed.feeds.insert(key, Arc::downgrade(&feed));
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
    fn current(&self) -> MutexGuard<'_, Current> {
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
        let encoded =
            encode(&Frame::Delta { epoch: to.epoch, from: from.seq, to: to.seq, patch: &patch }, to);
        *current = Current::new(document);
        // Sent under the lock: who joins gets either this delta or the document it leads to.
        self.carriers.deliver(self.key, &Delta { from: from.seq, to: to.seq, encoded });
    }

    /// Sees to it that the streams end when the server stops.
    pub(super) fn end_with(&self, slot: &Slot) {
        self.carriers.end_with(slot);
    }

    /// Lets a client follow, which first gets `head` and then what brings it from where it is to the present.
    pub(super) fn join(self: Arc<Self>, app: &App, from: Option<Seq>, mut follower: Follower, head: Bytes) {
        let feed = Arc::clone(&self);
        let mut current = self.current();
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
        follower.begin(head, &frames, now.seq);
        self.carriers.take(feed, follower);
    }

    /// The frames for a client that fell too far behind, and the number it has then.
    pub(super) fn rejoin(&self) -> ([Encoded; 2], u64) {
        let current = self.current();
        let Seq { epoch, seq } = current.document.seq;
        let reset = encode(&Frame::Reset { reason: ResetReason::Gap, epoch }, Seq::default());
        ([reset, current.snapshot.clone()], seq)
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
