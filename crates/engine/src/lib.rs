//! Runs the election on a log: takes events in, folds them, and publishes what they add up to.
//!
//! ```text
//! Ingest ──append──► Log ──read──► worker (one a partition) ──partials──► board ──► Published
//!    ▲                                │ verdicts
//!    └────────────────────────────────┘
//! ```
//!
//! The engine sees its log through the `Log` trait only; nothing here knows files or networks of a log.

mod board;
mod clock;
mod history;
mod ingest;
mod partition;
mod secret;
mod snapshot;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;

use canvass_election::ids::{Nullifier, PartitionId, RecordId};
use canvass_election::tally::{Cast, HeldReturn, Remembered};
use canvass_election::{Definition, Digest, Record};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use board::{Publication, Published, PublishedContest};
pub use clock::Clock;
pub use history::{At, Change, ChangeKind, TimelinePoint};
pub use ingest::{Ingest, IngestError, Verdict};
pub use partition::Progress;
pub use secret::Secret;
pub use start::{Options, StartError, stored_definition};

use board::Board;
use partition::Partition;

/// Looks a record up in the log.
type Lookup = Box<dyn Fn(RecordId) -> BoxFuture<'static, Result<Option<Record>, String>> + Send + Sync>;

/// A running engine.
pub struct Engine {
    definition: Arc<Definition>,
    clock: Arc<Clock>,
    ingest: Ingest,
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
    board: Arc<Board>,
    lookup: Lookup,
    failed: watch::Receiver<Option<String>>,
    stop: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Engine {
    /// The election that is counted.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The clock that stamps records.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes events in.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// The latest publication; the receiver is told of each new one.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.board.published()
    }

    /// The published results as they stood, or none where nothing was published then.
    pub fn results_at(&self, at: At) -> Option<Published> {
        self.board.results_at(at)
    }

    /// The votes of a contest in a unit over time, one point every `step` milliseconds.
    pub fn timeline(&self, query: &history::TimelineQuery) -> Vec<TimelinePoint> {
        self.board.timeline(query)
    }

    /// Runs `f` on every change of the returns, in the order of the log.
    pub fn for_each_change(&self, f: impl FnMut(&Change)) {
        self.board.for_each_change(f);
    }

    /// What a voter has cast, by the partition their nullifier belongs to.
    pub fn cast(&self, nullifier: &Nullifier) -> Option<Cast> {
        let partition = self.partitions.get(&self.votes_partition(nullifier))?;
        partition.tally().cast(nullifier)
    }

    /// The partition in which the votes behind a nullifier are counted.
    pub fn votes_partition(&self, nullifier: &Nullifier) -> PartitionId {
        secret::votes_partition(nullifier, self.definition.partitions.votes)
    }

    /// Returns that wait for the desk.
    pub fn held(&self) -> Vec<(RecordId, HeldReturn)> {
        let tallies = self.partitions.values().map(|p| p.tally());
        tallies.flat_map(|t| t.held().map(|(id, held)| (*id, held.clone())).collect::<Vec<_>>()).collect()
    }

    /// What a record of the returns did when it came.
    pub fn outcome_of(&self, record: &RecordId) -> Option<Remembered> {
        self.partitions.get(&record.partition)?.tally().outcome_of(record).copied()
    }

    /// A record of the log; none where there is no such record.
    pub async fn record(&self, record: RecordId) -> Result<Option<Record>, String> {
        if !self.partitions.contains_key(&record.partition) {
            return Ok(None);
        }
        (self.lookup)(record).await
    }

    /// The digest of every partition. Takes time in proportion to the voters.
    pub fn digests(&self) -> BTreeMap<PartitionId, Digest> {
        self.partitions.iter().map(|(id, partition)| (*id, partition.tally().digest())).collect()
    }

    /// How far each partition's fold is.
    pub fn progress(&self) -> BTreeMap<PartitionId, Progress> {
        self.partitions.iter().map(|(id, partition)| (*id, partition.progress())).collect()
    }

    /// Waits until the engine cannot go on, and says why.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the engine's workers are gone".to_owned(),
        }
    }

    /// Stops the workers and writes snapshots, so that the next start is quick.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        for task in self.tasks.lock().await.drain(..) {
            // A worker that panicked has said so already; its partition is replayed at the next start.
            let _ = task.await;
        }
    }
}

pub use history::TimelineQuery;
