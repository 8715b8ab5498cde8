//! Answers prepared once a publication and sent to everyone who asks.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use canvass_election::ids::{ContestId, UnitId};
use canvass_engine::{Engine, Published};
use canvass_protocol::document::{By, document};
use canvass_protocol::stream::Seq;
use serde_json::Value;
use tokio::sync::watch;

/// Most prepared answers of a kind that are kept; above that, all are dropped and prepared again when asked for.
const MAX_PREPARED: usize = 4_096;
/// Bytes of prepared answers after which the same happens: the past has more documents than any memory holds.
const MAX_PREPARED_BYTES: usize = 256 << 20;
/// A document beside its bytes: its tree takes about so many times as much.
const TREE: usize = 8;
/// Bodies below this size are not worth compressing.
const COMPRESS_FROM: usize = 1_024;

/// Names a result document: which contest, in which unit, with which units listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// The contest.
    pub contest: ContestId,
    /// The unit.
    pub unit: UnitId,
    /// The units listed.
    pub by: By,
}

/// A prepared answer: its bytes, compressed at most once, and its entity tag.
#[derive(Debug)]
pub struct Body {
    /// The media type.
    pub content_type: &'static str,
    /// The bytes as they are.
    pub bytes: Bytes,
    /// The strong entity tag, with its quotes.
    pub etag: String,
    gzip: OnceLock<Option<Bytes>>,
}

impl Body {
    /// Prepares an answer.
    pub fn new(content_type: &'static str, bytes: impl Into<Bytes>) -> Arc<Self> {
        let bytes = bytes.into();
        let hash = blake3::hash(&bytes).to_hex();
        let etag = format!("\"{}\"", &hash[..24]);
        Arc::new(Body { content_type, bytes, etag, gzip: OnceLock::new() })
    }

    /// The bytes in gzip's form, where that is smaller.
    pub fn gzip(&self) -> Option<Bytes> {
        let compress = || {
            if self.bytes.len() < COMPRESS_FROM {
                return None;
            }
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5));
            encoder.write_all(&self.bytes).ok()?;
            encoder.finish().ok().map(Bytes::from)
        };
        self.gzip.get_or_init(compress).clone()
    }
}

/// A result document of one publication.
#[derive(Debug)]
pub struct Document {
    /// The publication in which its contest last changed.
    pub seq: Seq,
    /// The document.
    pub value: Value,
    /// The same as bytes.
    pub body: Arc<Body>,
}

/// What is prepared under some key, with the publication it was prepared for. Whoever asks for it while it is being
/// prepared waits and does not prepare it a second time; who asks for something else does not wait.
struct Prepared<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    /// Bytes prepared since the slots were last dropped, by `size`.
    bytes: AtomicUsize,
    size: fn(&V) -> usize,
}

type Slot<V> = Arc<Mutex<Option<(Version, Arc<V>)>>>;

/// What a page stands on: a publication, and the number of changes of what is shown of the proof.
pub(crate) type Version = (Seq, u64);

impl<K: Eq + std::hash::Hash + Clone, V> Prepared<K, V> {
    fn new(size: fn(&V) -> usize) -> Self {
        Prepared { slots: Mutex::default(), bytes: AtomicUsize::new(0), size }
    }

    fn slot(&self, key: &K) -> Slot<V> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_PREPARED || self.bytes.load(Ordering::Relaxed) > MAX_PREPARED_BYTES {
            slots.clear();
            self.bytes.store(0, Ordering::Relaxed);
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    fn get<E>(
        &self,
        key: &K,
        version: Version,
        prepare: impl FnOnce() -> Result<Arc<V>, E>,
    ) -> Result<Arc<V>, E> {
        let slot = self.slot(key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is newer was prepared by somebody who saw a publication that came in between.
        if let Some((_, found)) = slot.as_ref().filter(|(found, _)| *found >= version) {
            return Ok(Arc::clone(found));
        }
        let value = prepare()?;
        self.bytes.fetch_add((self.size)(&value), Ordering::Relaxed);
        *slot = Some((version, Arc::clone(&value)));
        Ok(value)
    }
}

/// The documents and pages of the present publication, each prepared when first asked for.
pub struct Edge {
    published: watch::Receiver<Arc<Published>>,
    proof: Option<watch::Receiver<u64>>,
    documents: Prepared<DocumentKey, Document>,
    pages: Prepared<String, Body>,
}

impl Edge {
    /// Follows the engine's publications.
    pub fn new(engine: &Engine) -> Self {
        Edge {
            published: engine.published(),
            proof: engine.audit().map(|audit| audit.changes()),
            documents: Prepared::new(|document| document.body.bytes.len() * TREE),
            pages: Prepared::new(|body| body.bytes.len()),
        }
    }

    /// The latest publication.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// What a page stands on that is made now.
    pub(crate) fn version(&self) -> Version {
        (self.published.borrow().seq, self.proof())
    }

    fn proof(&self) -> u64 {
        self.proof.as_ref().map_or(0, |changes| *changes.borrow())
    }

    /// The present document; it is the same until its contest changes.
    pub fn document(&self, engine: &Engine, key: DocumentKey) -> Arc<Document> {
        let published = self.published();
        let seq = published.contests[key.contest.index()].stamp.seq;
        let prepare = || Ok::<_, std::convert::Infallible>(Arc::new(build(engine, &published, key)));
        let Ok(document) = self.documents.get(&key, (seq, 0), prepare);
        document
    }

    /// The answer prepared under `name` for the present publication, or a new one by `prepare`.
    pub fn prepared<E>(
        &self,
        name: &str,
        prepare: impl FnOnce(&Published) -> Result<Arc<Body>, E>,
    ) -> Result<Arc<Body>, E> {
        let (published, proof) = (self.published(), self.proof());
        self.pages.get(&name.to_owned(), (published.seq, proof), || prepare(&published))
    }

    /// The answer prepared under `name` once and for all publications: it never changes.
    pub fn fixed<E>(
        &self,
        name: &str,
        prepare: impl FnOnce() -> Result<Arc<Body>, E>,
    ) -> Result<Arc<Body>, E> {
        self.pages.get(&name.to_owned(), Version::default(), prepare)
    }
}

/// Builds the document of a publication.
pub(crate) fn build(engine: &Engine, published: &Published, key: DocumentKey) -> Document {
    let contest = &published.contests[key.contest.index()];
    let projection = contest.projection.as_deref();
    let value = document(
        engine.definition(),
        &contest.results,
        &contest.stamp,
        projection,
        (key.contest, key.unit, key.by),
    );
    let body = Body::new("application/json", value.to_string());
    Document { seq: contest.stamp.seq, value, body }
}
