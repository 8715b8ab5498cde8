//! Runs the election on a log: takes events in, folds them, and publishes what they add up to.
//!
//! ```text
//! Ingest ──append──► Log ──read──► worker (one a partition) ──partials──► board ──► Published
//!    ▲                                │ verdicts
//!    └────────────────────────────────┘
//! ```
//!
//! Beside it the log is published as trees that only grow ([`Audit`]).
//!
//! The engine sees its log through the `Log` trait only; nothing here knows files or networks of a log.

mod audit;
mod board;
mod clock;
mod cluster;
mod history;
mod ingest;
mod metrics;
mod partition;
mod projection;
mod publications;
mod secret;
mod snapshot;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use canvass_election::ids::{ContestId, Nullifier, PartitionId, RecordId};
use canvass_election::tally::{Cast, HeldReturn, Remembered};
use canvass_election::{Definition, Digest, Record};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use audit::{Audit, AuditError, AuditOptions, Receipts, Shown, WitnessOptions};
pub use board::{Published, PublishedContest};
pub use clock::Clock;
pub use cluster::{ClusterOptions, Roles};
pub use history::{At, Change, ChangeKind, TimelinePoint, changes_of};
pub use ingest::{Answer, Ingest, IngestError, Judged, Until, Verdict};
pub use metrics::DURATIONS;
pub use partition::Progress;
pub use secret::{Secret, votes_partition};
pub use start::{Options, StartError, stored_definition};

use board::Board;
use cluster::Part;
use ingest::Waiting;
use partition::Partition;

/// Looks a record up in the log.
type Lookup = Box<dyn Fn(RecordId) -> BoxFuture<'static, Result<Option<Record>, String>> + Send + Sync>;

/// A running engine.
pub struct Engine {
    definition: Arc<Definition>,
    clock: Arc<Clock>,
    ingest: Ingest,
    /// Those that are folded here for as long as the engine runs.
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
    cluster: Part,
    board: Arc<Board>,
    lookup: Lookup,
    audit: Option<Arc<Audit>>,
    failed: watch::Receiver<Option<String>>,
    stop: tokio::sync::Mutex<Stop>,
}

/// Another process of the cluster knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// And this one does not.
    #[error("another process of the cluster knows it")]
    Unknown,
    /// And has not answered.
    #[error("the process of the cluster that knows it does not answer")]
    Silent,
}

/// The engine's tasks, in the order in which they end.
struct Stop {
    taking: Vec<JoinHandle<()>>,
    stop_taking: watch::Sender<bool>,
    folding: Vec<JoinHandle<()>>,
    stop_folding: watch::Sender<bool>,
    waiting: Arc<Waiting>,
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

    /// Whether projections are made of a contest.
    pub fn is_projected(&self, contest: ContestId) -> bool {
        self.board.is_projected(contest)
    }

    /// The published results as they stood, or none where nothing was published then.
    pub fn results_at(&self, at: At) -> Option<Published> {
        self.board.results_at(at)
    }

    /// The votes of a contest in a unit over time, one point every `step` milliseconds.
    pub fn timeline(&self, query: &history::TimelineQuery) -> Vec<TimelinePoint> {
        self.board.timeline(query)
    }

    /// Runs `f` on every change of the returns: partition by partition, in the order of its records.
    pub fn for_each_change(&self, f: impl FnMut(&Change)) {
        self.board.for_each_change(f);
    }

    /// What a voter has cast, by the partition their nullifier belongs to.
    ///
    /// # Errors
    /// If another process folds that partition.
    pub fn cast(&self, nullifier: &Nullifier) -> Result<Option<Cast>, Elsewhere> {
        let id = self.votes_partition(nullifier);
        // In a cluster, only a gateway has the secret behind nullifiers.
        let owned = || self.cluster.questions.as_ref().and_then(|_| self.cluster.owned.get(id));
        let partition = self.partitions.get(&id).cloned().or_else(owned);
        Ok(partition.ok_or(Elsewhere::Unknown)?.tally().cast(nullifier))
    }

    /// The same, from whichever process knows it.
    ///
    /// # Errors
    /// If this process takes no votes in, or the one that knows does not answer.
    pub async fn cast_anywhere(&self, nullifier: &Nullifier) -> Result<Option<Cast>, Elsewhere> {
        match (self.cast(nullifier), &self.cluster.questions) {
            (Err(Elsewhere::Unknown), Some(questions)) => {
                let place = cluster::place_of(&self.definition, self.votes_partition(nullifier));
                questions.ask(place, *nullifier).await
            }
            (known, _) => known,
        }
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
        if self.definition.partition_ids().all(|id| id != record.partition) {
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
        self.here().iter().map(|(id, partition)| (*id, partition.progress())).collect()
    }

    /// The partitions that are folded in this process at the moment.
    pub(crate) fn here(&self) -> BTreeMap<PartitionId, Arc<Partition>> {
        self.cluster.owned.with(&self.partitions)
    }

    /// What was published of the log, where it is.
    pub fn audit(&self) -> Option<&Arc<Audit>> {
        self.audit.as_ref()
    }

    /// Waits until the engine cannot go on, and says why.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the engine's workers are gone".to_owned(),
        }
    }

    /// Takes nothing more, folds and answers what was taken, and writes snapshots, so that the next start is quick.
    pub async fn stop(&self) {
        let mut stop = self.stop.lock().await;
        // Tasks that failed have said so already; their partitions are replayed at the next start.
        stop.stop_taking.send_replace(true);
        for task in std::mem::take(&mut stop.taking) {
            let _ = task.await;
        }
        // Nothing is appended any more: what the log holds now is all there is to fold.
        stop.stop_folding.send_replace(true);
        for task in std::mem::take(&mut stop.folding) {
            let _ = task.await;
        }
        stop.waiting.close();
    }
}

#[cfg(test)]
impl Engine {
    /// Batches that somebody waits for.
    async fn waiting(&self) -> usize {
        self.stop.lock().await.waiting.len()
    }
}

pub use history::TimelineQuery;
