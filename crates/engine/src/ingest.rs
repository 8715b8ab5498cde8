//! The way in: many small submissions become few large batches, each answered once it is durable and folded.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use canvass_election::Outcome;
use canvass_election::ids::{Offset, PartitionId, RecordId, Timestamp, Topic};
use canvass_log::{AppendError, Batch, Log};
use canvass_protocol::record::{BatchBuilder, Drafts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::audit::Receipts;
use crate::clock::Clock;
use crate::metrics::Appends;

/// Submissions that may wait for one partition's batcher; above that, the caller is told to come back.
pub(crate) const QUEUE_SUBMISSIONS: usize = 16_384;
/// Bytes that may wait for one partition's batcher; a larger submission needs the queue for itself.
pub(crate) const QUEUE_BYTES: u32 = 16 << 20;
/// Records after which a batch is closed even if more wait.
pub(crate) const BATCH_RECORDS: u32 = 16_384;
/// Bytes after which a batch is closed even if more wait.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Where it stands.
    pub record: RecordId,
    /// The time it got.
    pub time: Timestamp,
    /// What it did; nothing where that is not known yet, since another process folds it.
    pub outcome: Option<Outcome>,
}

/// What is waited for before a submission is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// That it is durable. Where it is folded in this process, it is known what it did as well.
    Recorded,
    /// That it is known what it did, for a while at least.
    Judged,
}

/// Why nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Too much waits already.
    #[error("too much waits to be recorded")]
    Overloaded,
    /// The log cannot be written at the moment.
    #[error("{0}")]
    Log(String),
    /// Nothing is taken in here.
    #[error("this process takes no votes and no returns")]
    NoGateway,
    /// The engine stops; whether the records are in the log is open, and a retry will tell.
    #[error("the service is stopping")]
    Stopping,
}

/// What became of a submission.
pub type Answer = Result<Judged, IngestError>;

/// One verdict for each draft of a submission, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The verdicts.
    pub verdicts: Vec<Verdict>,
    /// Receipts for all records of the batch, where the log is published. Those whose outcome is a duplicate are in
    /// the log as well, but it is the first one's receipt that is theirs.
    pub receipts: Option<Arc<Receipts>>,
}

/// Tells whoever submitted, exactly once: dropped untold, it says that the engine stops.
struct Reply(Option<Box<dyn FnOnce(Answer) + Send>>);

impl Reply {
    fn send(mut self, answer: Answer) {
        if let Some(tell) = self.0.take() {
            tell(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(IngestError::Stopping));
        }
    }
}

struct Submission {
    drafts: Drafts,
    until: Until,
    /// The place its bytes take in the queue.
    _room: OwnedSemaphorePermit,
    reply: Reply,
}

/// Takes drafts in for every partition.
#[derive(Clone)]
pub struct Ingest {
    queues: BTreeMap<PartitionId, Queue>,
    appends: Appends,
}

/// What waits for a partition's batcher.
pub(crate) struct Queued {
    pub(crate) submissions: usize,
    /// Theirs, and those of the batch that is on its way to the log.
    pub(crate) bytes: usize,
}

#[derive(Clone)]
struct Queue {
    sender: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
}

impl Ingest {
    /// The way in, and the batchers that are to run behind it until told to stop. `votes_elsewhere`: other processes
    /// fold the votes, and tell what they did on the exchange.
    pub(crate) fn new<L: Log>(
        log: &Arc<L>,
        clock: &Arc<Clock>,
        partitions: Vec<PartitionId>,
        waiting: &Arc<Waiting>,
        stop: &watch::Receiver<bool>,
        votes_elsewhere: bool,
    ) -> (Self, Vec<impl Future<Output = ()> + Send + use<L>>) {
        let mut queues = BTreeMap::new();
        let appends = Appends::default();
        let mut batchers = Vec::new();
        for partition in partitions {
            let (sender, receiver) = mpsc::channel(QUEUE_SUBMISSIONS);
            let room = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
            queues.insert(partition, Queue { sender, room });
            let (log, clock) = (Arc::clone(log), Arc::clone(clock));
            let elsewhere = votes_elsewhere && partition.topic == Topic::Votes;
            let (waiting, appends) = (Arc::clone(waiting), appends.clone());
            let batcher = Batcher { partition, elsewhere, log, clock, waiting, appends };
            batchers.push(batcher.run(receiver, stop.clone()));
        }
        (Ingest { queues, appends }, batchers)
    }

    /// What is counted of the batches that are appended.
    pub(crate) fn appends(&self) -> &Appends {
        &self.appends
    }

    /// What waits for each partition.
    pub(crate) fn queued(&self) -> BTreeMap<PartitionId, Queued> {
        let queued = |queue: &Queue| Queued {
            submissions: queue.sender.max_capacity() - queue.sender.capacity(),
            bytes: (QUEUE_BYTES as usize).saturating_sub(queue.room.available_permits()),
        };
        self.queues.iter().map(|(id, queue)| (*id, queued(queue))).collect()
    }

    /// No way in.
    pub(crate) fn closed() -> Self {
        Ingest { queues: BTreeMap::new(), appends: Appends::default() }
    }

    /// Records `drafts` in one partition, in order and in one batch, and waits for what they did.
    pub async fn submit(&self, partition: PartitionId, drafts: Drafts, until: Until) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.submit_then(partition, drafts, until, move |answer| {
            // Whoever hung up can ask again with the same key.
            let _ = reply.send(answer);
        });
        answer.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Records `drafts` in one partition, in order and in one batch, and tells `then` what they did: exactly once,
    /// from whatever thread knows it, which may be this one before the call returns. `then` must not block.
    pub fn submit_then(
        &self,
        partition: PartitionId,
        drafts: Drafts,
        until: Until,
        then: impl FnOnce(Answer) + Send + 'static,
    ) {
        let reply = Reply(Some(Box::new(then)));
        let Some(queue) = self.queues.get(&partition) else { return reply.send(Err(IngestError::NoGateway)) };
        let bytes = u32::try_from(drafts.size()).unwrap_or(QUEUE_BYTES).min(QUEUE_BYTES);
        let Ok(room) = Arc::clone(&queue.room).try_acquire_many_owned(bytes) else {
            return reply.send(Err(IngestError::Overloaded));
        };
        match queue.sender.try_send(Submission { drafts, until, _room: room, reply }) {
            // A closed queue drops the reply, which says so.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(back)) => back.reply.send(Err(IngestError::Overloaded)),
        }
    }
}

/// Callers whose batch has been handed to the log, by the batch's tag.
pub(crate) struct Waiting {
    next_tag: AtomicU64,
    /// None once nobody answers any more.
    batches: Mutex<Option<HashMap<u64, Vec<Waiter>>>>,
}

struct Waiter {
    records: u32,
    until: Until,
    /// None once it was told.
    reply: Option<Reply>,
}

/// Marks the tag of a batch about which somebody waits to hear from another process.
pub(crate) const WANTED: u64 = 1 << 63;

/// How long whoever wants to know what a record did waits for another process to tell, before they are told that it
/// is recorded.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a batch stands, and the time of its records.
#[derive(Debug, Clone, Copy)]
struct Stored {
    partition: PartitionId,
    offset: Offset,
    time: Timestamp,
}

impl Waiting {
    /// Tags of another run, in batches that are replayed, are no tags of this one: they start elsewhere.
    pub(crate) fn new(first_tag: u64) -> Self {
        Waiting { next_tag: AtomicU64::new(first_tag), batches: Mutex::new(Some(HashMap::new())) }
    }

    fn batches(&self) -> MutexGuard<'_, Option<HashMap<u64, Vec<Waiter>>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, tag: u64) -> Option<Vec<Waiter>> {
        self.batches().as_mut()?.remove(&tag)
    }

    /// The tag for a batch of these waiters; none, and they are told, where nobody answers any more.
    fn register(&self, waiters: Vec<Waiter>, wanted: bool) -> Option<u64> {
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed) & !WANTED | if wanted { WANTED } else { 0 };
        self.batches().as_mut()?.insert(tag, waiters);
        Some(tag)
    }

    /// Whether somebody waits for the batch with this tag.
    pub(crate) fn waits(&self, tag: u64) -> bool {
        self.batches().as_ref().is_some_and(|batches| batches.contains_key(&tag))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.batches().as_ref().map_or(0, HashMap::len)
    }

    /// Tells everybody who waits, now or later, that no answer will come. What they sent may be in the log.
    pub(crate) fn close(&self) {
        // A reply that is dropped says so.
        drop(self.batches().take());
    }

    /// Answers everybody who waits for the batch with this tag.
    pub(crate) fn answer(&self, tag: u64, verdicts: Vec<Verdict>, receipts: Option<&Arc<Receipts>>) {
        let Some(waiters) = self.take(tag) else { return };
        let mut verdicts = verdicts.into_iter();
        for waiter in waiters {
            // Collecting all that is left takes the vector itself: a batch of one submission is not copied.
            let records = usize::try_from(waiter.records).unwrap_or(usize::MAX);
            let own = if verdicts.len() == records {
                std::mem::take(&mut verdicts).collect()
            } else {
                verdicts.by_ref().take(records).collect()
            };
            if let Some(reply) = waiter.reply {
                reply.send(Ok(Judged { verdicts: own, receipts: receipts.cloned() }));
            }
        }
    }

    /// Tells those who wait for no more than that the batch is stored; and all others as well, where nobody will
    /// tell them more.
    fn stored(&self, tag: u64, stored: Stored, all: bool) {
        let mut batches = self.batches();
        let Some(waiters) = batches.as_mut().and_then(|batches| batches.get_mut(&tag)) else { return };
        let mut told = Vec::new();
        let mut position = 0;
        for waiter in waiters.iter_mut() {
            let positions = position..position + waiter.records;
            position = positions.end;
            if all || waiter.until == Until::Recorded {
                told.extend(waiter.reply.take().map(|reply| (reply, positions)));
            }
        }
        if waiters.iter().all(|waiter| waiter.reply.is_none()) {
            batches.as_mut().map(|batches| batches.remove(&tag));
        }
        drop(batches);
        let Stored { partition, offset, time } = stored;
        for (reply, positions) in told {
            let record = |position| RecordId { partition, offset, position };
            let verdict = |position| Verdict { record: record(position), time, outcome: None };
            reply.send(Ok(Judged { verdicts: positions.map(verdict).collect(), receipts: None }));
        }
    }

    fn refuse(&self, tag: u64, error: &IngestError) {
        for waiter in self.take(tag).into_iter().flatten() {
            if let Some(reply) = waiter.reply {
                reply.send(Err(error.clone()));
            }
        }
    }
}

struct Batcher<L> {
    partition: PartitionId,
    /// Another process folds it.
    elsewhere: bool,
    log: Arc<L>,
    clock: Arc<Clock>,
    waiting: Arc<Waiting>,
    appends: Appends,
}

impl<L: Log> Batcher<L> {
    /// Makes batches until told to stop; what still waits in the queue then is dropped, and its callers told.
    async fn run(self, mut queue: mpsc::Receiver<Submission>, mut stop: watch::Receiver<bool>) {
        loop {
            let submission = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                submission = queue.recv() => submission,
            };
            let Some(submission) = submission else { return };
            // While the last batch was on its way to the disk, more has come in: that is the next batch.
            let mut waiters = Vec::new();
            let mut drafts = Vec::new();
            let (mut records, mut bytes) = (0, 0);
            let mut take = |submission: Submission| {
                let count = submission.drafts.count();
                records += count;
                bytes += submission.drafts.size();
                let (until, reply) = (submission.until, Some(submission.reply));
                waiters.push(Waiter { records: count, until, reply });
                drafts.push(submission.drafts);
                records < BATCH_RECORDS && bytes < BATCH_BYTES
            };
            let mut room = take(submission);
            while room {
                match queue.try_recv() {
                    Ok(next) => room = take(next),
                    Err(_) => break,
                }
            }
            self.append(drafts, waiters).await;
        }
    }

    async fn append(&self, drafts: Vec<Drafts>, waiters: Vec<Waiter>) {
        let wanted = self.elsewhere && waiters.iter().any(|waiter| waiter.until == Until::Judged);
        let Some(tag) = self.waiting.register(waiters, wanted) else { return };
        let time = self.clock.stamp();
        let mut builder = BatchBuilder::new(tag, time);
        drafts.iter().for_each(|draft| builder.push(draft));
        let (count, bytes) = builder.finish();
        let (since, size) = (Instant::now(), bytes.len());
        let appended = self.log.append(self.partition, Batch { count, bytes }).await;
        self.appends.note(self.partition, (count, size), since, &appended);
        match appended {
            Ok(offset) if self.elsewhere => {
                let stored = Stored { partition: self.partition, offset, time };
                self.waiting.stored(tag, stored, !wanted);
                if wanted {
                    let waiting = Arc::clone(&self.waiting);
                    tokio::spawn(async move {
                        tokio::time::sleep(PATIENCE).await;
                        waiting.stored(tag, stored, true);
                    });
                }
            }
            // The worker of this partition reads the batch, folds it and answers.
            Ok(_) => {}
            Err(AppendError::Full(_)) => self.waiting.refuse(tag, &IngestError::Overloaded),
            Err(AppendError::Closed(_)) => self.waiting.refuse(tag, &IngestError::Stopping),
            // The log itself says so when it begins to fail and when it is over.
            Err(error) => self.waiting.refuse(tag, &IngestError::Log(error.to_string())),
        }
    }
}
