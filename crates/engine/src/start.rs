//! Starting: the definition into the log, snapshots and log into tallies, and the workers on their way.

use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::event::Event;
use canvass_election::ids::{ContestId, Offset, PartitionId, RecordId, RequestId};
use canvass_election::{Definition, Record};
use canvass_log::kafka::KafkaOpenError;
use canvass_log::{AppendError, Batch, Entry, Log, ReadError};
use canvass_protocol::record::{BatchBuilder, BatchReader, DecodeError, Drafts, decode};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::{Audit, AuditError, AuditOptions, Promises, Recent, partition_key};
use crate::board::{Board, Projecting};
use crate::clock::{Clock, system_time};
use crate::cluster::{Audience, Owned, Part};
use crate::ingest::{Ingest, Waiting};
use crate::metrics::watch_ends;
use crate::partition::{Partition, Snapshots};
use crate::projection::Projector;
use crate::publications::{List, Past};
use crate::{Engine, Stop, snapshot};

/// How an engine is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for snapshots, the list of publications and a driven clock; none keeps nothing.
    pub folder: Option<PathBuf>,
    /// The time between two publications.
    pub tick: Duration,
    /// How the log is to be published, where it is; the trees lie in the folder.
    pub audit: Option<AuditOptions>,
    /// What the voters' secret is known by: see [`crate::Secret::sign`].
    pub secret: Option<RequestId>,
    /// Whether what the folder holds is read, and nothing there is written.
    pub only_read: bool,
    /// Texts of baseline files, by the contests' text ids.
    pub baselines: BTreeMap<String, String>,
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log has an election, and the one given differs.
    #[error(
        "the log belongs to another definition: {0}. Start without a definition to go on counting, or use an empty folder"
    )]
    OtherDefinition(String),
    /// Voters would get other pseudonyms than those in the log.
    #[error(
        "the log was begun with another voters.secret than this data folder's, and every voter could vote again; copy \
         the file from where the log was begun"
    )]
    OtherSecret,
    /// The number of partitions differs.
    #[error(
        "the log was begun with {there} partitions of votes and returns, the definition has {given}; a change would \
         break one-person-one-vote, so it is refused. Use the old numbers, or an empty folder"
    )]
    OtherPartitions {
        /// Votes and returns, as in the log.
        there: String,
        /// Votes and returns, as given.
        given: String,
    },
    /// There is no election to count.
    #[error("the log is empty and no definition was given; name one with --election FILE")]
    NoDefinition,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The definition cannot be written to the log.
    #[error("the definition cannot be written to the log: {0}")]
    Append(#[from] AppendError),
    /// What the log holds cannot be decoded.
    #[error("{0}")]
    Decode(String),
    /// A baseline does not fit its contest.
    #[error("the baseline of the contest `{contest}` does not fit:\n{faults}")]
    Baseline {
        /// The contest's text id.
        contest: String,
        /// What is wrong, a line each.
        faults: String,
    },
    /// The log cannot be published.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The groups of the cluster cannot be joined.
    #[error(transparent)]
    Join(#[from] KafkaOpenError),
    /// The engine's own files cannot be read or written.
    #[error("the data folder cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// The definition that a log begins with, if it has one.
pub async fn stored_definition<L: Log>(log: &L) -> Result<Option<Definition>, StartError> {
    Ok(first_record(log).await?.map(|(definition, _)| definition))
}

/// The definition and the request of the first record.
async fn first_record<L: Log>(log: &L) -> Result<Option<(Definition, RequestId)>, StartError> {
    let Some(entry) = log.entry(PartitionId::CONTROL, Offset(0)).await? else { return Ok(None) };
    match record_of(&entry, 0).map_err(|e| StartError::Decode(e.to_string()))? {
        Some(Record { event: Event::ElectionDefined(definition), request, .. }) => {
            Ok(Some((definition, request)))
        }
        _ => Err(StartError::Decode("the log does not begin with a definition".to_owned())),
    }
}

/// One record of a batch; those before it are passed over unread.
fn record_of(entry: &Entry, position: u32) -> Result<Option<Record>, DecodeError> {
    let id = RecordId { partition: entry.partition, offset: entry.offset, position };
    let bytes = BatchReader::new(&entry.batch.bytes)?.nth(usize::try_from(position).unwrap_or(usize::MAX));
    bytes.map(|bytes| decode(id, bytes?)).transpose()
}

/// Settles which election is counted, and writes it as the first record of every partition that is empty, under a
/// request that tells the voters' secret. A log that was begun without is taken on trust.
pub(crate) async fn define<L: Log>(
    log: &L,
    given: Option<Definition>,
    secret: Option<RequestId>,
) -> Result<Definition, StartError> {
    const UNKNOWN: RequestId = RequestId([0; 16]);
    let definition = match (first_record(log).await?, given) {
        (None, None) => return Err(StartError::NoDefinition),
        (None, Some(given)) => given,
        (Some((_, begun)), _) if begun != UNKNOWN && secret.is_some_and(|secret| secret != begun) => {
            return Err(StartError::OtherSecret);
        }
        (Some((stored, _)), None) => stored,
        (Some((stored, _)), Some(given)) => {
            compare(&stored, &given)?;
            stored
        }
    };
    let draft = Drafts::one(secret.unwrap_or(UNKNOWN), &Event::ElectionDefined(definition.clone()));
    for partition in definition.partition_ids() {
        if log.end(partition).await? == Offset(0) {
            let mut builder = BatchBuilder::new(0, system_time());
            builder.push(&draft);
            let (count, bytes) = builder.finish();
            log.append(partition, Batch { count, bytes }).await?;
        }
    }
    Ok(definition)
}

fn compare(stored: &Definition, given: &Definition) -> Result<(), StartError> {
    let text = |d: &Definition| format!("{} and {}", d.partitions.votes, d.partitions.returns);
    if stored.partitions != given.partitions {
        return Err(StartError::OtherPartitions { there: text(stored), given: text(given) });
    }
    if stored == given {
        return Ok(());
    }
    let (stored, given) =
        (canvass_protocol::definition::to_value(stored), canvass_protocol::definition::to_value(given));
    let patch = canvass_protocol::patch::diff(&stored, &given).unwrap_or_default();
    let keys = patch.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>().join(", "));
    Err(StartError::OtherDefinition(format!("they differ in {}", keys.unwrap_or_default())))
}

/// What every task of an engine has: when one of them fails, all of it does.
#[derive(Clone)]
pub(crate) struct Tasks {
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) fail: watch::Sender<Option<String>>,
}

impl Tasks {
    /// Runs a task that ends with the engine only. If it fails or panics the engine has failed, and nobody is left
    /// waiting for an answer.
    pub(crate) fn spawn(
        &self,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> JoinHandle<()> {
        let Tasks { waiting, fail } = self.clone();
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if let Err(reason) = ended.unwrap_or_else(|_| Err("a task of the engine panicked".to_owned())) {
                tracing::error!(%reason, "the count cannot go on");
                fail.send_replace(Some(reason));
                waiting.close();
            }
        })
    }
}

impl Engine {
    /// Starts on a log: settles the definition, recovers every partition, and publishes the first results.
    /// Returns once everything in the log has been folded.
    pub async fn start<L: Log>(
        log: Arc<L>,
        definition: Option<Definition>,
        options: Options,
    ) -> Result<Engine, StartError> {
        let definition = Arc::new(define(&*log, definition, options.secret).await?);
        if let Some(folder) = &options.folder {
            std::fs::create_dir_all(folder)?;
        }
        let in_folder = |name: &str| options.folder.as_ref().map(|f| f.join(name));
        let clock = Arc::new(Clock::new(in_folder("clock").filter(|_| definition.is_test))?);
        let mut ends = BTreeMap::new();
        for id in definition.partition_ids() {
            ends.insert(id, log.end(id).await?);
        }
        // The first batch holds the moment it was written: no other log begins with the same.
        let first = log.entry(PartitionId::CONTROL, Offset(0)).await?;
        let identity = first.map_or(0, |entry| crc32c::crc32c(&entry.batch.bytes));
        let (past, list) = match in_folder("publications.ndjson") {
            Some(path) => {
                let past = Past::read(&path, identity, &ends)?;
                let list = (!options.only_read).then(|| List::open(&path, identity));
                (past, list.transpose()?)
            }
            None => (Past::default(), None),
        };
        let (stop_taking, taking_stopped) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (fail, failed) = watch::channel(None);
        let waiting = Arc::new(Waiting::new(system_time().0 << 20));
        let tasks = Tasks { waiting: Arc::clone(&waiting), fail };
        let snapshots = in_folder("snapshots").filter(|_| !options.only_read).map(Snapshots::new);
        let partitions = load(&*log, &definition, snapshots.as_ref(), &past).await?;
        let audit = in_folder("proof").zip(options.audit);
        let recent = Recent::default();
        let mut folding = Vec::new();
        for partition in partitions.values() {
            let (log, audience) = (Arc::clone(&log), Audience::Here(Arc::clone(&waiting)));
            let signing = audit.as_ref().filter(|(_, audit)| audit.promises);
            let promises = signing.map(|(_, audit)| Promises {
                key: Arc::new(partition_key(&audit.key, partition.id)),
                recent: recent.clone(),
            });
            let run = Arc::clone(partition).run(log, audience, snapshots.clone(), promises, stopped.clone());
            folding.push(tasks.spawn(run));
        }
        recovered(&partitions, &ends, failed.clone()).await.map_err(StartError::Decode)?;
        partitions.values().for_each(|p| clock.recorded(p.tally().time()));
        let all: Vec<_> = partitions.values().cloned().collect();
        let projecting = Projecting::new(projectors(&definition, &options.baselines)?);
        let board = Arc::new(Board::start(&definition, &all, projecting, past, list)?);
        folding.push(tasks.spawn(Arc::clone(&board).project(stopped.clone()).map(Ok)));
        let watched = (Owned::default(), partitions.clone());
        folding.push(tasks.spawn(watch_ends(Arc::clone(&log), watched, stopped.clone()).map(Ok)));
        folding.push(tasks.spawn(Arc::clone(&board).run(all, options.tick, stopped.clone()).map(Ok)));
        let ids: Vec<_> = definition.partition_ids().collect();
        let audit = match audit {
            Some((folder, options)) => {
                let (audit, publisher, witnesses) =
                    Audit::open(&log, folder, options, ids.clone(), recent, stopped.clone()).await?;
                folding.push(tasks.spawn(publisher.run()));
                let asking =
                    witnesses.into_iter().map(|w| tasks.spawn(w.run(Arc::clone(&audit), stopped.clone())));
                folding.extend(asking);
                Some(audit)
            }
            None => None,
        };
        let (ingest, batchers) = Ingest::new(&log, &clock, ids, &waiting, &taking_stopped, false);
        let taking = batchers.into_iter().map(|batcher| tasks.spawn(batcher.map(Ok))).collect();
        let lookup = move |record| look_up(Arc::clone(&log), record).boxed();
        let stop = Stop { taking, stop_taking, folding, stop_folding: stop, waiting };
        let (lookup, stop, cluster) = (Box::new(lookup), tokio::sync::Mutex::new(stop), Part::default());
        Ok(Engine { definition, clock, ingest, partitions, cluster, board, lookup, audit, failed, stop })
    }
}

/// What projects the contests that have a baseline.
fn projectors(
    definition: &Definition,
    baselines: &BTreeMap<String, String>,
) -> Result<BTreeMap<ContestId, Projector>, StartError> {
    let mut projectors = BTreeMap::new();
    for (id, contest) in definition.contest_ids() {
        let Some(text) = baselines.get(&contest.id) else { continue };
        let fault = |faults: String| StartError::Baseline { contest: contest.id.clone(), faults };
        let baseline = canvass_protocol::baseline::parse(text, definition, id).map_err(|faults| {
            fault(faults.iter().map(|f| format!("  {f}")).collect::<Vec<_>>().join("\n"))
        })?;
        let projector = Projector::new(definition, id, &baseline, text);
        projectors.insert(id, projector.map_err(|e| fault(format!("  {e}")))?);
    }
    Ok(projectors)
}

/// Every partition, as far as its snapshot goes. Snapshots are read side by side.
async fn load<L: Log>(
    log: &L,
    definition: &Definition,
    snapshots: Option<&Arc<Snapshots>>,
    past: &Past,
) -> Result<BTreeMap<PartitionId, Arc<Partition>>, StartError> {
    let loading = definition.partition_ids().map(|id| {
        let folder = snapshots.map(|s| s.folder.clone());
        (id, tokio::task::spawn_blocking(move || folder.and_then(|folder| snapshot::load(&folder, id))))
    });
    let mut partitions = BTreeMap::new();
    for (id, loading) in loading.collect::<Vec<_>>() {
        let snapshot = match loading.await.map_err(|e| StartError::Decode(e.to_string()))? {
            Some(snapshot) => snapshot::of_log(log, snapshot).await?,
            None => None,
        };
        let marks = past.publications.iter().filter_map(|p| p.watermark.get(&id).copied());
        let mut marks: Vec<Offset> = marks.collect();
        marks.sort_unstable();
        marks.dedup();
        partitions.insert(id, Arc::new(Partition::new(id, snapshot, marks)));
    }
    Ok(partitions)
}

/// Waits until every partition has folded what was in the log at the start.
pub(crate) async fn recovered(
    partitions: &BTreeMap<PartitionId, Arc<Partition>>,
    ends: &BTreeMap<PartitionId, Offset>,
    mut failed: watch::Receiver<Option<String>>,
) -> Result<(), String> {
    for (partition, end) in partitions.values().zip(ends.values()) {
        tokio::select! {
            () = partition.reached(*end) => {}
            reason = failed.wait_for(Option::is_some) => {
                return Err(reason.ok().and_then(|r| r.clone()).unwrap_or_default());
            }
        }
    }
    Ok(())
}

pub(crate) async fn look_up<L: Log>(log: Arc<L>, record: RecordId) -> Result<Option<Record>, String> {
    let entry = log.entry(record.partition, record.offset).await.map_err(|e| e.to_string())?;
    entry.map_or(Ok(None), |entry| record_of(&entry, record.position).map_err(|e| e.to_string()))
}
