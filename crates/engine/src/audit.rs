//! The proof: the log as signed trees that only grow (docs/audit.md), and what is read of it.
//!
//! The publisher follows the log like any other reader, so only what is durable is ever in a tree, and nothing
//! that takes votes waits for it.

mod publisher;
mod receipts;
mod records;
mod shown;
mod trees;
mod witness;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId, RecordId};
use canvass_log::{Entry, Log, ReadError};
use canvass_tlog::witness::Cosignature;
use canvass_tlog::{MetaTiles, OpenError, Proof, PublicKey, SecretKey, SignedCheckpoint, TilePath, Tiles};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::clock::system_time;

use records::LongRecords;
use trees::Trees;
use witness::Witness;

pub(crate) use publisher::Publisher;
pub use receipts::Receipts;
pub(crate) use receipts::{Promises, Recent};
pub use shown::Shown;
pub use witness::WitnessOptions;

/// A newer checkpoint may come while a proof is made; so often is it made again.
const PROOF_TRIES: usize = 5;

/// How the log is to be published.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Signs; its name is that of the log as a whole.
    pub key: SecretKey,
    /// Whether receipts promise that the record is in the log.
    pub promises: bool,
    /// Who is asked to cosign checkpoints.
    pub witnesses: Vec<WitnessOptions>,
    /// How many of them make a checkpoint good.
    pub quorum: usize,
}

/// Why the log cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Files of a tree could not be opened.
    #[error("the tree of {log}: {source}")]
    Open {
        /// The log's name.
        log: String,
        /// The fault.
        source: OpenError,
    },
    /// A witness cannot be asked as it is given.
    #[error("{0}")]
    Witness(String),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log is shorter than what was published of it.
    #[error(
        "the log of {partition} ends at batch {end}, and batches up to {published} were published: it lost records. \
         Put the whole journal back. Without it, nobody who kept a checkpoint will believe this log any more; to \
         begin another in its place, move the folder `proof` and the file `log.secret` away"
    )]
    RolledBack {
        /// The partition.
        partition: PartitionId,
        /// The batches that were published.
        published: u64,
        /// The batches there are.
        end: u64,
    },
}

/// Reads a partition from an offset on.
type Reading = Box<dyn Fn(PartitionId, Offset) -> BoxStream<'static, Result<Entry, ReadError>> + Send + Sync>;

/// What was published, for readers.
pub struct Audit {
    secret: SecretKey,
    folder: PathBuf,
    views: RwLock<Arc<Views>>,
    read: Reading,
    long: BTreeMap<PartitionId, tokio::sync::Mutex<LongRecords>>,
    recent: Recent,
    shown: Mutex<shown::Recent>,
    /// Counts the changes of what is shown.
    changes: watch::Sender<u64>,
    witnesses: Vec<String>,
    quorum: usize,
    promises: bool,
}

/// The trees' published parts. Others take their place when files had to be opened again.
struct Views {
    meta: MetaTiles,
    partitions: BTreeMap<PartitionId, Tiles>,
}

impl Audit {
    /// Opens the trees, or begins them. They must not be ahead of the log.
    pub(crate) async fn open<L: Log>(
        log: &Arc<L>,
        folder: PathBuf,
        options: AuditOptions,
        partitions: Vec<PartitionId>,
        recent: Recent,
        stop: watch::Receiver<bool>,
    ) -> Result<(Arc<Self>, Publisher<L>, Vec<Witness>), AuditError> {
        let witnesses: Result<Vec<_>, _> = options.witnesses.iter().map(Witness::new).collect();
        let witnesses = witnesses.map_err(AuditError::Witness)?;
        if options.quorum > witnesses.len() {
            let fault = format!("{} witnesses cannot make a quorum of {}", witnesses.len(), options.quorum);
            return Err(AuditError::Witness(fault));
        }
        let mut trees = Trees::open(&folder, &options.key, &partitions)?;
        trees.note_ends(&**log).await?;
        let reader = Arc::clone(log);
        let long = partitions.into_iter().map(|id| (id, tokio::sync::Mutex::default())).collect();
        let audit = Audit {
            secret: options.key,
            folder,
            views: RwLock::new(Arc::new(trees.views())),
            read: Box::new(move |partition, from| reader.read(partition, from).boxed()),
            long,
            recent,
            shown: Mutex::default(),
            changes: watch::Sender::new(0),
            witnesses: witnesses.iter().map(|witness| witness.name().to_owned()).collect(),
            quorum: options.quorum,
            promises: options.promises,
        };
        audit.show(&trees);
        let audit = Arc::new(audit);
        let log = Arc::clone(log);
        Ok((Arc::clone(&audit), Publisher { audit, log, trees, stop, failing: false }, witnesses))
    }

    fn views(&self) -> Arc<Views> {
        Arc::clone(&self.views.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the trees again after their files could not be written.
    async fn reopen<L: Log>(&self, log: &L) -> Result<Trees, AuditError> {
        let partitions: Vec<_> = self.long.keys().copied().collect();
        let mut trees = Trees::open(&self.folder, &self.secret, &partitions)?;
        trees.note_ends(log).await?;
        *self.views.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trees.views());
        Ok(trees)
    }

    /// The key to pin, under the name of the log as a whole.
    pub fn key(&self) -> PublicKey {
        self.secret.public()
    }

    /// Notes what the trees have published last.
    fn show(&self, trees: &Trees) {
        if let Some(shown) = trees.shown(&self.folder) {
            self.shown().push(shown);
            self.renew();
        }
    }

    /// Notes what witnesses said of a checkpoint.
    fn cosigned(&self, checkpoint: &SignedCheckpoint, cosignatures: Vec<Cosignature>) {
        self.shown().cosigned(checkpoint, cosignatures);
        self.renew();
    }

    fn shown(&self) -> MutexGuard<'_, shown::Recent> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last checkpoint of the log as a whole with what is known of it; none before the first.
    pub(crate) fn newest_shown(&self) -> Option<Shown> {
        self.shown().newest().cloned()
    }

    /// For each witness, the leaves of the newest checkpoint it has cosigned since the start; 0 where it has none.
    pub(crate) fn cosigned_sizes(&self) -> Vec<(String, u64)> {
        let shown = self.shown();
        let size = |name: &String| (name.clone(), shown.cosigned_by(name));
        self.witnesses.iter().map(size).collect()
    }

    /// The last checkpoint of the log as a whole, cosigned or not; none before the first.
    pub fn newest(&self) -> Option<SignedCheckpoint> {
        self.shown().newest().map(|shown| shown.checkpoint.clone())
    }

    /// The checkpoint of the log as a whole that is shown to everybody; none before the first. Where witnesses are
    /// asked, it is the newest that enough of them have cosigned, as long as that is not older than ten seconds.
    pub fn checkpoint(&self) -> Option<Shown> {
        self.shown().best(self.quorum, system_time()).cloned()
    }

    /// Counts the changes of what [`Audit::checkpoint`] says, and of what [`Audit::renew`] tells of.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells that something else changed that is shown beside the checkpoint: how far it is anchored.
    pub fn renew(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The names of the witnesses that are asked.
    pub fn witnesses(&self) -> &[String] {
        &self.witnesses
    }

    /// How many of them make a checkpoint good.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// The log of the partitions' checkpoints.
    pub fn meta(&self) -> MetaTiles {
        self.views().meta.clone()
    }

    /// A partition's log; none where there is no such partition.
    pub fn tiles(&self, partition: PartitionId) -> Option<Tiles> {
        self.views().partitions.get(&partition).cloned()
    }

    /// The bytes of an entry bundle of a partition; none where nothing that was published has it.
    pub async fn bundle(&self, partition: PartitionId, path: TilePath) -> Result<Option<Vec<u8>>, String> {
        let Some(tiles) = self.tiles(partition) else { return Ok(None) };
        let size = tiles.checkpoint().map_or(0, |checkpoint| checkpoint.size());
        if path.level.is_some() || path.end().is_none_or(|end| end > size) {
            return Ok(None);
        }
        let first = tiles.record(path.first()).map_err(text)?;
        let Some((batch, position)) = first else { return Ok(None) };
        let entries = (self.read)(partition, Offset(batch));
        records::bundle(entries, position, path.width.into()).await.map(Some)
    }

    /// The bytes of a record that is too long for a bundle, by their SHA-256; none where none was published.
    pub async fn long_record(
        &self,
        partition: PartitionId,
        sha256: [u8; 32],
    ) -> Result<Option<Bytes>, String> {
        let (Some(tiles), Some(long)) = (self.tiles(partition), self.long.get(&partition)) else {
            return Ok(None);
        };
        let found =
            long.lock().await.find(sha256, tiles.batches(), |from| (self.read)(partition, from)).await?;
        let Some(RecordId { offset, position, .. }) = found else { return Ok(None) };
        let entry = (self.read)(partition, offset).next().await;
        let entry = entry.ok_or("the log ends before its tree")?.map_err(text)?;
        records::of(&entry, position)
    }

    /// The receipts of a batch that is in the log: the same bytes that its senders got, if they got any.
    pub async fn receipts(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<Arc<Receipts>>, String> {
        if !self.promises {
            return Ok(None);
        }
        if let Some(receipts) = self.recent.get(partition, offset) {
            return Ok(Some(receipts));
        }
        let entry = (self.read)(partition, offset).next().await.ok_or("the log has no such batch")?;
        let key = Arc::new(partition_key(&self.secret, partition));
        Ok(Some(self.recent.receipts(entry.map_err(text)?, &key)))
    }

    /// The proof that leads from a record to the last checkpoint of the log as a whole; none as long as no
    /// checkpoint has the record.
    pub fn proof(&self, record: RecordId) -> io::Result<Option<Proof>> {
        let views = self.views();
        let Some(tiles) = views.partitions.get(&record.partition) else { return Ok(None) };
        let Some(leaf) = tiles.leaf(record.offset.0, record.position)? else { return Ok(None) };
        let log = log_name(self.secret.name(), record.partition);
        for _ in 0..PROOF_TRIES {
            let Some(covered) = views.meta.covered(&log) else { return Ok(None) };
            let Some(inner) = tiles.prove(leaf, &covered)? else { return Ok(None) };
            if let Some(mut proof) = views.meta.prove(&inner)? {
                // The same note, with cosignatures where there are some by now.
                if let Some(note) = self.shown().note_of(&proof.checkpoint) {
                    proof.checkpoint = note;
                }
                return Ok(Some(proof));
            }
        }
        Ok(None)
    }
}

/// The name of a partition's log.
fn log_name(name: &str, partition: PartitionId) -> String {
    format!("{name}/{partition}")
}

/// The key under the name of a partition's log.
pub(crate) fn partition_key(key: &SecretKey, partition: PartitionId) -> SecretKey {
    // A valid name with a slash and a word behind it is a valid name.
    key.named(&log_name(key.name(), partition)).expect("the key has a name")
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
