//! Follows the log, grows the trees, and publishes them every second.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::ids::{Offset, PartitionId};
use canvass_log::{Log, ReadError};
use canvass_protocol::record::{BatchReader, DecodeError};
use canvass_tlog::{Hash, OpenError, TreeError, record_hash};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::trees::Trees;
use super::{Audit, AuditError};

/// The time between two checkpoints.
const PERIOD: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
/// Batches that are hashed and wait for their tree.
const QUEUE_BATCHES: usize = 64;
/// The time before files are opened again that could not be written, or a log is read again that could not be read.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });

/// The leaf hashes of a partition's next batch, or why there are none.
type Leaves = (PartitionId, Result<Vec<Hash>, String>);

/// Why a run ended before it was told to stop.
enum Fault {
    /// The trees must be opened again.
    Files(TreeError),
    /// For good.
    Final(String),
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Io(_) | TreeError::Broken => Fault::Files(error),
            error => Fault::Final(format!("the log cannot be published: {error}")),
        }
    }
}

/// Follows the log and publishes it.
pub(crate) struct Publisher<L> {
    pub(super) audit: Arc<Audit>,
    pub(super) log: Arc<L>,
    pub(super) trees: Trees,
    pub(super) stop: watch::Receiver<bool>,
    /// Files could not be written, which has been said.
    pub(super) failing: bool,
}

impl<L: Log> Publisher<L> {
    /// Publishes until told to stop, then publishes all that is in the log. Trees whose files cannot be written are
    /// opened again and again; the count goes on meanwhile. A `stop` that is gone ends it at once.
    ///
    /// # Errors
    /// Where the log contradicts what was published of it, or cannot be read.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        loop {
            let runtime = Handle::current();
            // Writing and syncing block: this thread is for nothing else.
            let blocking = tokio::task::spawn_blocking(move || {
                let ended = runtime.block_on(self.publish());
                (self, ended)
            });
            let ended;
            (self, ended) = blocking.await.map_err(|e| e.to_string())?;
            match ended {
                Ok(()) => return Ok(()),
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Files(error)) if !self.failing => {
                    tracing::error!(%error, "no checkpoints are published; the count goes on");
                    self.failing = true;
                }
                Err(Fault::Files(_)) => {}
            }
            if !self.reopen().await.map_err(|e| e.to_string())? {
                return Ok(());
            }
        }
    }

    /// Opens the trees again, as often as that takes; false when told to stop meanwhile.
    async fn reopen(&mut self) -> Result<bool, AuditError> {
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return Ok(false),
                () = tokio::time::sleep(PAUSE) => {}
            }
            match self.audit.reopen(&*self.log).await {
                Err(AuditError::Open { source: OpenError::Io(_), .. }) => {}
                opened => {
                    self.trees = opened?;
                    return Ok(true);
                }
            }
        }
    }

    /// Grows the trees from where they are, and publishes them.
    async fn publish(&mut self) -> Result<(), Fault> {
        let (sender, mut leaves) = mpsc::channel(QUEUE_BATCHES);
        let mut followers = JoinSet::new();
        for (id, next) in self.trees.next() {
            followers.spawn(follow(Arc::clone(&self.log), id, Offset(next), sender.clone()));
        }
        drop(sender);
        let mut stop = self.stop.clone();
        let mut last: Option<BTreeMap<PartitionId, u64>> = None;
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while last.as_ref().is_none_or(|ends| !self.trees.have_reached(ends)) {
            tokio::select! {
                biased;
                told = async { stop.wait_for(|stop| *stop).await.is_ok() }, if last.is_none() => {
                    if !told {
                        return Ok(());
                    }
                    last = Some(self.ends().await?);
                }
                _ = ticks.tick() => self.checkpoint()?,
                next = leaves.recv() => {
                    let (partition, hashes) = next.ok_or(Fault::Final("the log was closed".to_owned()))?;
                    self.trees.append(partition, &hashes.map_err(Fault::Final)?)?;
                }
            }
        }
        self.checkpoint()
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        if self.trees.publish()? {
            self.audit.show(&self.trees);
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("checkpoints are published again");
        }
        Ok(())
    }

    /// Where the log ends.
    async fn ends(&self) -> Result<BTreeMap<PartitionId, u64>, Fault> {
        let mut ends = BTreeMap::new();
        for (id, _) in self.trees.next() {
            let end = self.log.end(id).await.map_err(|e| Fault::Final(e.to_string()))?;
            ends.insert(id, end.0);
        }
        Ok(ends)
    }
}

/// Hashes a partition's batches from an offset on and hands them over, until nobody takes them.
async fn follow<L: Log>(log: Arc<L>, id: PartitionId, mut next: Offset, leaves: mpsc::Sender<Leaves>) {
    let mut entries = pin!(log.read(id, next));
    while let Some(entry) = entries.next().await {
        let hashes = match entry {
            Ok(entry) => {
                next = entry.offset.next();
                hashes(&entry.batch.bytes).map_err(|e| format!("{id}, batch {}: {e}", entry.offset))
            }
            // What it lacks, such as a free descriptor, comes back; otherwise the count fails as well.
            Err(ReadError::Io(error)) => {
                tracing::warn!(partition = %id, %error, "the log cannot be read to be published; trying again");
                tokio::time::sleep(PAUSE).await;
                entries.set(log.read(id, next));
                continue;
            }
            Err(error) => Err(error.to_string()),
        };
        if leaves.send((id, hashes)).await.is_err() {
            return;
        }
    }
}

/// The leaf hashes of a batch.
fn hashes(batch: &[u8]) -> Result<Vec<Hash>, DecodeError> {
    BatchReader::new(batch)?.map(|record| record.map(record_hash)).collect()
}
