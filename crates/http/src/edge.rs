//! Answers prepared once a publication and sent to everyone who asks.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use canvass_election::ids::{ContestId, UnitId};
use canvass_engine::{Engine, Published};
use canvass_protocol::document::{By, document};
use canvass_protocol::stream::Seq;
use serde_json::Value;
use tokio::sync::watch;

/// Most prepared answers that are kept; above that, all are dropped and prepared again when asked for.
const MAX_PREPARED: usize = 4_096;
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

/// The documents and pages of the present publication, each prepared when first asked for.
pub struct Edge {
    published: watch::Receiver<Arc<Published>>,
    documents: Mutex<HashMap<DocumentKey, Arc<Document>>>,
    pages: Mutex<HashMap<String, (Seq, Arc<Body>)>>,
}

impl Edge {
    /// Follows the engine's publications.
    pub fn new(engine: &Engine) -> Self {
        Edge { published: engine.published(), documents: Mutex::default(), pages: Mutex::default() }
    }

    /// The latest publication.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// The present document; it is the same until its contest changes.
    pub fn document(&self, engine: &Engine, key: DocumentKey) -> Arc<Document> {
        let published = self.published();
        let stamp = &published.contests[key.contest.index()].stamp;
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = documents.get(&key).filter(|d| d.seq == stamp.seq) {
            return Arc::clone(found);
        }
        // Built under the lock: whoever else asks for it now waits, and does not build it a second time.
        let document = Arc::new(build(engine, &published, key));
        if documents.len() >= MAX_PREPARED {
            documents.clear();
        }
        documents.insert(key, Arc::clone(&document));
        document
    }

    /// The answer prepared under `name` for the present publication, or a new one by `prepare`.
    pub fn prepared<E>(
        &self,
        name: &str,
        prepare: impl FnOnce(&Published) -> Result<Arc<Body>, E>,
    ) -> Result<Arc<Body>, E> {
        let published = self.published();
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, body)) = pages.get(name).filter(|(seq, _)| *seq == published.seq) {
            return Ok(Arc::clone(body));
        }
        let body = prepare(&published)?;
        if pages.len() >= MAX_PREPARED {
            pages.clear();
        }
        pages.insert(name.to_owned(), (published.seq, Arc::clone(&body)));
        Ok(body)
    }
}

/// Builds the document of a publication.
pub(crate) fn build(engine: &Engine, published: &Published, key: DocumentKey) -> Document {
    let contest = &published.contests[key.contest.index()];
    let value =
        document(engine.definition(), &contest.results, &contest.stamp, (key.contest, key.unit, key.by));
    let body = Body::new("application/json", value.to_string());
    Document { seq: contest.stamp.seq, value, body }
}
