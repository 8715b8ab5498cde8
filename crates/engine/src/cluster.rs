//! Many processes that count one election: the log and what they tell each other are on Kafka.
//!
//! ```text
//! gateway ──append──► log ──read──► tally ──partials──► board ──results──► every process
//!    ▲                                │ verdicts
//!    └────────────────────────────────┘
//! ```
//!
//! Every process reads the results and keeps what a board in one process would keep, so each can be asked for them and
//! says the same. A gateway folds the returns as well, which are few: so it can answer the desk by itself.

mod board;
mod follow;
mod messages;
mod questions;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canvass_election::Definition;
use canvass_election::ids::{Offset, PartitionId, RequestId, Topic};
use canvass_log::kafka::{Exchange, From, Group, Member, Subject};
use canvass_log::{Entry, Log};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::Receipts;
use crate::board::Board;
use crate::clock::Clock;
use crate::ingest::{Ingest, Verdict, WANTED, Waiting};
use crate::metrics::watch_ends;
use crate::partition::{Partition, Snapshots};
use crate::publications::Past;
use crate::start::{StartError, Tasks, define, look_up, recovered};
use crate::{Engine, Stop};

pub(crate) use messages::Flush;
use messages::{Answer, Verdicts, encode};
pub(crate) use questions::Questions;

/// What a process of a cluster does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// Takes votes and returns in.
    pub gateway: bool,
    /// Folds partitions of the log.
    pub tally: bool,
    /// Publishes results, or is ready to.
    pub board: bool,
}

/// How a process of a cluster is to run.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// What it does.
    pub roles: Roles,
    /// Its name among those of the cluster; the same when it starts again.
    pub name: String,
    /// What the voters' secret is known by, where this process takes votes in.
    pub secret: Option<RequestId>,
    /// The folder for snapshots of partitions, which all tallies may share.
    pub snapshots: PathBuf,
    /// The folder for a driven clock.
    pub folder: PathBuf,
    /// The time between two publications of a partition, and of the board.
    pub tick: Duration,
}

/// How soon the log is looked at again that no gateway has begun.
const PAUSE: Duration = Duration::from_millis(200);

/// The place of a partition among the partitions of the exchange.
pub(crate) fn place_of(definition: &Definition, partition: PartitionId) -> u16 {
    match partition.topic {
        Topic::Votes => partition.index,
        Topic::Returns => definition.partitions.votes.saturating_add(partition.index),
    }
}

/// Those who wait to hear what records did.
pub(crate) enum Audience {
    /// In this process.
    Here(Arc<Waiting>),
    /// In the gateways of the cluster. Batches before `from` were answered by an earlier owner of the partition.
    Gateways { exchange: Exchange, place: u16, from: Offset },
}

impl Audience {
    pub(crate) fn waits(&self, entry: &Entry, tag: u64) -> bool {
        match self {
            Audience::Here(waiting) => waiting.waits(tag),
            Audience::Gateways { from, .. } => tag & WANTED != 0 && entry.offset >= *from,
        }
    }

    pub(crate) fn answer(
        &self,
        entry: &Entry,
        tag: u64,
        verdicts: Vec<Verdict>,
        receipts: Option<&Arc<Receipts>>,
    ) {
        match self {
            Audience::Here(waiting) => waiting.answer(tag, verdicts, receipts),
            Audience::Gateways { exchange, place, .. } => {
                let Some(time) = verdicts.first().map(|verdict| verdict.time) else { return };
                let outcomes = verdicts.into_iter().filter_map(|verdict| verdict.outcome).collect();
                let said = Verdicts { tag, partition: entry.partition, offset: entry.offset, time, outcomes };
                match encode(&Answer::Verdicts(said)) {
                    Ok(bytes) => exchange.mention(Subject::Verdicts, *place, &bytes),
                    Err(error) => tracing::error!(%error, "verdicts cannot be told"),
                }
            }
        }
    }
}

/// The partitions that this process folds at the moment because they are its share.
#[derive(Clone, Default)]
pub(crate) struct Owned(Arc<Mutex<BTreeMap<PartitionId, Arc<Partition>>>>);

impl Owned {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Arc<Partition>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These and some others.
    pub(crate) fn with(
        &self,
        others: &BTreeMap<PartitionId, Arc<Partition>>,
    ) -> BTreeMap<PartitionId, Arc<Partition>> {
        let mut all = self.lock().clone();
        all.extend(others.iter().map(|(id, partition)| (*id, Arc::clone(partition))));
        all
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.lock().get(&id).cloned()
    }
}

/// What an engine has because it is a part of a cluster: nothing, where it is none.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) owned: Owned,
    /// Asks other processes, where this one takes votes in for them.
    pub(crate) questions: Option<Arc<Questions>>,
}

/// A task that ends when this is dropped.
struct Bound(JoinHandle<()>);

impl Bound {
    /// Waits until it has ended by itself.
    async fn ended(mut self) {
        // If it failed, it has said so.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What every task of a process of a cluster has.
struct Process<L> {
    definition: Arc<Definition>,
    log: Arc<L>,
    exchange: Exchange,
    tick: Duration,
    board: Arc<Board>,
    tasks: Tasks,
    owned: Owned,
    snapshots: Arc<Snapshots>,
    stopped: watch::Receiver<bool>,
}

impl Engine {
    /// Joins the cluster on a log: settles the definition, and begins to do what the roles say. Returns once the
    /// results have been read, which waits for a first board.
    ///
    /// # Errors
    /// If the log or the results cannot be read, or this process cannot do what it is to do.
    pub async fn join<L: Log>(
        log: Arc<L>,
        exchange: Exchange,
        definition: Option<Definition>,
        options: ClusterOptions,
    ) -> Result<Engine, StartError> {
        let definition = Arc::new(match options.secret {
            Some(_) => define(&*log, definition, options.secret).await?,
            None => begun(&*log, definition).await?,
        });
        let clock = Arc::new(Clock::new(Some(options.folder.join("clock")).filter(|_| definition.is_test))?);
        let (stop_taking, taking_stopped) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (fail, failed) = watch::channel(None);
        let waiting = Arc::new(Waiting::new(random() << 20));
        let tasks = Tasks { waiting: Arc::clone(&waiting), fail };
        let histories = definition.partition_ids().map(|id| (id, Arc::default())).collect();
        let board = Arc::new(Board::new(&definition, histories, Past::default(), None));
        let owned = Owned::default();
        let process = Arc::new(Process {
            definition: Arc::clone(&definition),
            log: Arc::clone(&log),
            exchange: exchange.clone(),
            tick: options.tick,
            board: Arc::clone(&board),
            tasks: tasks.clone(),
            owned: owned.clone(),
            snapshots: Snapshots::new(options.snapshots.clone()),
            stopped: stopped.clone(),
        });
        let join = |group| Member::join(exchange.address(), group, &options.name).map_err(StartError::Join);
        let mut folding = Vec::new();
        let run = |task| tasks.spawn(until(stopped.clone(), task));
        let (claimed, claims) = watch::channel(0);
        let heard = claims.clone();
        folding.push(run(Arc::clone(&process).follow_results(claimed).boxed()));
        if options.roles.board {
            folding.push(run(Arc::clone(&process).lead(join(Group::Boards)?, claims).boxed()));
        }
        if options.roles.tally {
            folding.push(tasks.spawn(Arc::clone(&process).own(join(Group::Tallies)?)));
        }
        let (mut partitions, mut ingest, mut taking) = (BTreeMap::new(), Ingest::closed(), Vec::new());
        let mut questions = None;
        if options.roles.gateway {
            let asking = questions.insert(Questions::new(exchange.clone()));
            folding.push(run(Arc::clone(&process).follow_verdicts(Arc::clone(asking)).boxed()));
            (partitions, ingest) =
                process.take_in(&clock, (&stopped, &taking_stopped), &mut folding, &mut taking);
            let mut ends = BTreeMap::new();
            for id in partitions.keys() {
                ends.insert(*id, log.end(*id).await?);
            }
            recovered(&partitions, &ends, failed.clone()).await.map_err(StartError::Decode)?;
            partitions.values().for_each(|p| clock.recorded(p.tally().time()));
        }
        begun_to_publish(heard, failed.clone()).await?;
        let watched = (owned.clone(), partitions.clone());
        folding.push(tasks.spawn(watch_ends(Arc::clone(&log), watched, stopped.clone()).map(Ok)));
        let lookup = Box::new(move |record| look_up(Arc::clone(&log), record).boxed());
        let stop = Stop { taking, stop_taking, folding, stop_folding: stop, waiting };
        let stop = tokio::sync::Mutex::new(stop);
        let (audit, cluster) = (None, Part { owned, questions });
        Ok(Engine { definition, clock, ingest, partitions, cluster, board, lookup, audit, failed, stop })
    }
}

/// The definition of a log, which a gateway begins: it has the secret of the voters, by which others know theirs.
async fn begun<L: Log>(log: &L, given: Option<Definition>) -> Result<Definition, StartError> {
    let mut told = false;
    while log.end(PartitionId::CONTROL).await? == Offset(0) {
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for a gateway to begin the log");
        }
        tokio::time::sleep(PAUSE).await;
    }
    define(log, given, None).await
}

/// Waits until all that was published has been read, and for a first board where nothing was.
async fn begun_to_publish(
    mut claims: watch::Receiver<u64>,
    mut failed: watch::Receiver<Option<String>>,
) -> Result<(), StartError> {
    if *claims.borrow() == 0 {
        tracing::info!("waiting for a board to begin");
    }
    tokio::select! {
        _ = claims.wait_for(|claims| *claims != 0) => Ok(()),
        reason = failed.wait_for(Option::is_some) => {
            Err(StartError::Decode(reason.ok().and_then(|r| r.clone()).unwrap_or_default()))
        }
    }
}

/// Runs a task until told to stop.
async fn until(
    mut stop: watch::Receiver<bool>,
    task: futures_util::future::BoxFuture<'static, Result<(), String>>,
) -> Result<(), String> {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        ended = task => ended,
    }
}

/// A number that no other process has.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

impl<L: Log> Process<L> {
    /// Begins to take in, and to fold the returns. `folding` and `taking` get the tasks.
    fn take_in(
        &self,
        clock: &Arc<Clock>,
        (stopped, taking_stopped): (&watch::Receiver<bool>, &watch::Receiver<bool>),
        folding: &mut Vec<JoinHandle<()>>,
        taking: &mut Vec<JoinHandle<()>>,
    ) -> (BTreeMap<PartitionId, Arc<Partition>>, Ingest) {
        let ids: Vec<_> = self.definition.partition_ids().collect();
        let mut partitions = BTreeMap::new();
        for id in ids.iter().filter(|id| id.topic == Topic::Returns) {
            let partition = Arc::new(Partition::new(*id, None, Vec::new()));
            let audience = Audience::Here(Arc::clone(&self.tasks.waiting));
            let run =
                Arc::clone(&partition).run(Arc::clone(&self.log), audience, None, None, stopped.clone());
            folding.push(self.tasks.spawn(run));
            partitions.insert(*id, partition);
        }
        let (ingest, batchers) =
            Ingest::new(&self.log, clock, ids, &self.tasks.waiting, taking_stopped, true);
        taking.extend(batchers.into_iter().map(|batcher| self.tasks.spawn(batcher.map(Ok))));
        (partitions, ingest)
    }

    /// Answers those who wait in this gateway with what the tallies say.
    async fn follow_verdicts(self: Arc<Self>, questions: Arc<Questions>) -> Result<(), String> {
        let mut said = self.exchange.follow(Subject::Verdicts, None, From::Now).map_err(|e| e.to_string())?;
        loop {
            let next = said.next().await.map_err(|e| e.to_string())?;
            match messages::heard(&next)? {
                None => {}
                Some(Answer::Cast { number, cast }) => questions.told(number, cast),
                Some(Answer::Verdicts(told)) => {
                    let tag = told.tag;
                    if self.tasks.waiting.waits(tag) {
                        self.tasks.waiting.answer(tag, told.verdicts(), None);
                    }
                }
            }
        }
    }
}
