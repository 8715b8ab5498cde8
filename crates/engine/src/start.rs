//! Starting: the definition into the log, snapshots and log into tallies, and the workers on their way.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::event::Event;
use canvass_election::ids::{Offset, PartitionId, RecordId, RequestId};
use canvass_election::{Definition, Record};
use canvass_log::{AppendError, Batch, Entry, Log, ReadError};
use canvass_protocol::record::{BatchBuilder, BatchReader, Draft};
use futures_util::FutureExt;
use tokio::sync::watch;

use crate::board::{Board, read_publications};
use crate::clock::{Clock, system_time};
use crate::ingest::{Ingest, Waiting};
use crate::partition::Partition;
use crate::{Engine, snapshot};

/// How an engine is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for snapshots, the list of publications and a driven clock; none keeps nothing.
    pub folder: Option<PathBuf>,
    /// The time between two publications.
    pub tick: Duration,
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log has an election, and the one given differs.
    #[error(
        "the log belongs to another definition: {0}. Start without a definition to go on counting, or use an empty folder"
    )]
    OtherDefinition(String),
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
    /// The engine's own files cannot be read or written.
    #[error("the data folder cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// The definition that a log begins with, if it has one.
pub async fn stored_definition<L: Log>(log: &L) -> Result<Option<Definition>, StartError> {
    let Some(entry) = log.entry(PartitionId::CONTROL, Offset(0)).await? else { return Ok(None) };
    match record_of(&entry, 0).map_err(StartError::Decode)?.map(|r| r.event) {
        Some(Event::ElectionDefined(definition)) => Ok(Some(definition)),
        _ => Err(StartError::Decode("the log does not begin with a definition".to_owned())),
    }
}

fn record_of(entry: &Entry, position: usize) -> Result<Option<Record>, String> {
    let reader = BatchReader::new(&entry.batch.bytes).map_err(|e| e.to_string())?;
    let record = reader.records(entry.partition, entry.offset).nth(position);
    record.transpose().map_err(|e| e.to_string())
}

/// Settles which election is counted, and writes it as the first record of every partition that is empty.
async fn define<L: Log>(log: &L, given: Option<Definition>) -> Result<Definition, StartError> {
    let definition = match (stored_definition(log).await?, given) {
        (None, None) => return Err(StartError::NoDefinition),
        (None, Some(given)) => given,
        (Some(stored), None) => stored,
        (Some(stored), Some(given)) => {
            compare(&stored, &given)?;
            stored
        }
    };
    let draft = Draft::new(RequestId([0; 16]), &Event::ElectionDefined(definition.clone()));
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

impl Engine {
    /// Starts on a log: settles the definition, recovers every partition, and publishes the first results.
    /// Returns once everything in the log has been folded.
    pub async fn start<L: Log>(
        log: Arc<L>,
        definition: Option<Definition>,
        options: Options,
    ) -> Result<Engine, StartError> {
        let definition = Arc::new(define(&*log, definition).await?);
        if let Some(folder) = &options.folder {
            std::fs::create_dir_all(folder)?;
        }
        let in_folder = |name: &str| options.folder.as_ref().map(|f| f.join(name));
        let snapshots = in_folder("snapshots");
        let list = in_folder("publications.ndjson");
        let publications = list.as_deref().map_or_else(|| Ok(Vec::new()), read_publications)?;
        let clock = Arc::new(Clock::new(in_folder("clock").filter(|_| definition.is_test)));
        let (stop, stopped) = watch::channel(false);
        let (fail, failed) = watch::channel(None);
        let waiting = Arc::new(Waiting::new(system_time().0 << 20));
        let mut tasks = Vec::new();
        let mut partitions = BTreeMap::new();
        let mut ends = Vec::new();
        let loading = definition.partition_ids().map(|id| {
            let folder = snapshots.clone();
            (id, tokio::task::spawn_blocking(move || folder.and_then(|folder| snapshot::load(&folder, id))))
        });
        for (id, loading) in loading.collect::<Vec<_>>() {
            let end = log.end(id).await?;
            let snapshot = loading.await.map_err(|e| StartError::Decode(e.to_string()))?;
            let snapshot = snapshot.filter(|s| s.tally.end() <= end);
            let marks = publications.iter().filter_map(|p| p.watermark.get(&id).copied());
            let mut marks: Vec<Offset> = marks.collect();
            marks.sort_unstable();
            marks.dedup();
            let partition = Arc::new(Partition::new(id, snapshot, marks));
            let run = Arc::clone(&partition).run(
                Arc::clone(&log),
                Arc::clone(&waiting),
                snapshots.clone(),
                stopped.clone(),
            );
            let fail = fail.clone();
            tasks.push(tokio::spawn(async move {
                if let Err(reason) = run.await {
                    tracing::error!(%reason, "a partition cannot be counted any further");
                    fail.send_replace(Some(reason));
                }
            }));
            ends.push((Arc::clone(&partition), end));
            partitions.insert(id, partition);
        }
        recovered(ends, failed.clone()).await.map_err(StartError::Decode)?;
        partitions.values().for_each(|p: &Arc<Partition>| clock.recorded(p.tally().time()));
        let board =
            Board::start(&definition, partitions.values().cloned().collect(), publications, list.as_deref())?;
        let board = Arc::new(board);
        tasks.push(tokio::spawn(Arc::clone(&board).run(options.tick, stopped)));
        let ingest = Ingest::start(&log, &clock, definition.partition_ids(), &waiting);
        let lookup = move |record| look_up(Arc::clone(&log), record).boxed();
        let (lookup, tasks) = (Box::new(lookup), tokio::sync::Mutex::new(tasks));
        Ok(Engine { definition, clock, ingest, partitions, board, lookup, failed, stop, tasks })
    }
}

/// Waits until every partition has folded what was in the log at the start.
async fn recovered(
    ends: Vec<(Arc<Partition>, Offset)>,
    mut failed: watch::Receiver<Option<String>>,
) -> Result<(), String> {
    for (partition, end) in ends {
        tokio::select! {
            () = partition.reached(end) => {}
            reason = failed.wait_for(Option::is_some) => {
                return Err(reason.ok().and_then(|r| r.clone()).unwrap_or_default());
            }
        }
    }
    Ok(())
}

async fn look_up<L: Log>(log: Arc<L>, record: RecordId) -> Result<Option<Record>, String> {
    let entry = log.entry(record.partition, record.offset).await.map_err(|e| e.to_string())?;
    let position = usize::try_from(record.position).map_err(|e| e.to_string())?;
    entry.map_or(Ok(None), |entry| record_of(&entry, position))
}
