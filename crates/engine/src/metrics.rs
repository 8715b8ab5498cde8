//! What operators measure of the engine, in Prometheus' conventions. Most of it is read off the engine when
//! somebody asks; what is counted on the way is counted once a batch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canvass_election::ids::{PartitionId, Timestamp};
use canvass_log::{AppendError, Log};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::Engine;
use crate::audit::Audit;
use crate::cluster::Owned;
use crate::partition::Partition;

/// Upper bounds of the buckets of durations, in seconds: from a fast disk to a client's patience.
pub const DURATIONS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often the ends of the log are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A label and its value.
type Label = [(&'static str, String); 1];

/// What is counted of the batches that are appended.
#[derive(Clone, Debug)]
pub(crate) struct Appends {
    duration: Histogram,
    failures: Family<Label, Counter>,
    records: Family<Label, Counter>,
    bytes: Family<Label, Counter>,
}

impl Default for Appends {
    fn default() -> Self {
        let duration = Histogram::new(DURATIONS);
        Self { duration, failures: Family::default(), records: Family::default(), bytes: Family::default() }
    }
}

impl Appends {
    /// Notes what became of a batch that was handed to the log at `since`.
    pub(crate) fn note<T>(
        &self,
        partition: PartitionId,
        (records, bytes): (u32, usize),
        since: Instant,
        appended: &Result<T, AppendError>,
    ) {
        let reason = match appended {
            Ok(_) => {
                let label = [("partition", partition.to_string())];
                self.duration.observe(since.elapsed().as_secs_f64());
                self.records.get_or_create(&label).inc_by(records.into());
                self.bytes.get_or_create(&label).inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
                return;
            }
            Err(AppendError::Full(_)) => "full",
            Err(AppendError::Closed(_)) => "closed",
            Err(AppendError::TooLarge { .. }) => "too-large",
            Err(AppendError::Io { .. }) => "io",
        };
        self.failures.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    fn register(&self, registry: &mut Registry) {
        let help = "How long the log took to make a batch durable";
        registry.register_with_unit("log_append_duration", help, Unit::Seconds, self.duration.clone());
        registry.register("log_append_failures", "Batches that the log did not take", self.failures.clone());
        registry.register(
            "log_appended_records",
            "Records that this process put into the log",
            self.records.clone(),
        );
        registry.register("log_appended_bytes", "Bytes of the batches that it put there", self.bytes.clone());
    }
}

/// Looks at the log's ends until told to stop, so that it is known how far each fold is behind.
pub(crate) async fn watch_ends<L: Log>(
    log: Arc<L>,
    (owned, others): (Owned, BTreeMap<PartitionId, Arc<Partition>>),
    mut stop: watch::Receiver<bool>,
) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = looks.tick() => {}
        }
        for partition in owned.with(&others).values() {
            // A log that does not answer is told of by those who need it.
            if let Ok(end) = log.end(partition.id).await {
                partition.saw_end(end);
            }
        }
    }
}

impl Engine {
    /// Adds what can be measured of the engine to a registry.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        self.ingest.appends().register(registry);
        let help = "How late a publication was done, counted from when it was due";
        registry.register_with_unit("tick_lag", help, Unit::Seconds, self.board.tick_lag().clone());
        registry.register_collector(Box::new(Standing(Arc::clone(self))));
    }
}

/// What is read off an engine when somebody asks.
struct Standing(Arc<Engine>);

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(&mut encoder);
        folds(&self.0, &mut page)?;
        queues(&self.0, &mut page)?;
        if let Some((seq, published)) = self.0.board.last_published() {
            page.one("published_epoch", "Epoch of the last publication", number(seq.epoch))?;
            page.one("published_sequence", "Its number within the epoch", number(seq.seq))?;
            page.one("published_timestamp_seconds", "When it was published", seconds(published))?;
        }
        self.0.audit().map_or(Ok(()), |audit| checkpoints(audit, &mut page))
    }
}

/// Writes families of numbers.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn family(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        rows: impl Iterator<Item = ([(&'static str, String); 1], f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (label, value) in rows {
            let mut row = family.encode_family(&label)?;
            match kind {
                MetricType::Counter => {
                    row.encode_counter::<Label, _, f64>(&value, None)?;
                }
                _ => row.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn partitions(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (PartitionId, f64)>,
    ) -> fmt::Result {
        let rows = rows.map(|(id, value)| ([("partition", id.to_string())], value));
        self.family((name, help), MetricType::Gauge, rows)
    }

    fn one(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }
}

/// A number as Prometheus has them: exact up to 2^53.
fn number(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
    {
        n as f64
    }
}

fn count(n: usize) -> f64 {
    number(u64::try_from(n).unwrap_or(u64::MAX))
}

fn seconds(time: Timestamp) -> f64 {
    number(time.0) / 1_000.0
}

fn folds(engine: &Engine, page: &mut Page<'_, '_>) -> fmt::Result {
    let (progress, here) = (engine.progress(), engine.here());
    let lags: BTreeMap<_, _> = here.iter().map(|(id, p)| (*id, p.lag())).collect();
    let each = || progress.iter().map(|(id, progress)| (*id, progress));
    page.partitions(
        "fold_offset",
        "Offset behind the last batch that is counted",
        each().map(|(id, p)| (id, number(p.end.0))),
    )?;
    page.partitions(
        "log_end_offset",
        "Offset behind the last batch of the log, as last looked at",
        lags.iter().map(|(id, lag)| (*id, number(lag.end.0))),
    )?;
    page.partitions(
        "fold_lag_batches",
        "Batches of the log that are not counted yet",
        lags.iter().map(|(id, lag)| (*id, number(lag.batches))),
    )?;
    page.partitions(
        "fold_lag_seconds",
        "Age of the oldest batch that is not counted yet",
        lags.iter().map(|(id, lag)| (*id, lag.age.as_secs_f64())),
    )?;
    page.family(
        ("folded_records", "Records counted since the start"),
        MetricType::Counter,
        each().map(|(id, p)| ([("partition", id.to_string())], number(p.records))),
    )?;
    page.partitions("voters", "Voters who have voted", each().map(|(id, p)| (id, count(p.voters))))?;
    page.partitions(
        "held_returns",
        "Returns that wait for the desk",
        each().map(|(id, p)| (id, count(p.held))),
    )?;
    page.partitions(
        "snapshot_timestamp_seconds",
        "When the partition's snapshot was written",
        here.iter().filter_map(|(id, partition)| Some((*id, seconds(partition.saved()?)))),
    )
}

fn queues(engine: &Engine, page: &mut Page<'_, '_>) -> fmt::Result {
    let queued = engine.ingest.queued();
    page.partitions(
        "ingest_queue_submissions",
        "Submissions that wait to be recorded",
        queued.iter().map(|(id, queued)| (*id, count(queued.submissions))),
    )?;
    page.partitions(
        "ingest_queue_bytes",
        "Bytes of the submissions that wait, or are on their way to the log",
        queued.iter().map(|(id, queued)| (*id, count(queued.bytes))),
    )
}

fn checkpoints(audit: &Audit, page: &mut Page<'_, '_>) -> fmt::Result {
    page.one("witness_quorum", "Witnesses that make a checkpoint good", count(audit.quorum()))?;
    let Some(shown) = audit.newest_shown() else { return Ok(()) };
    page.one("checkpoint_size", "Leaves of the newest checkpoint", number(shown.checkpoint.size()))?;
    page.one("checkpoint_timestamp_seconds", "When it was published", seconds(shown.published))?;
    page.one("checkpoint_cosignatures", "Witnesses that have cosigned it", count(shown.cosignatures.len()))?;
    page.partitions(
        "checkpoint_offset",
        "Offset behind the last batch that it speaks of",
        shown.covers.iter().map(|(id, end)| (*id, number(end.0))),
    )?;
    let witnesses = audit.cosigned_sizes().into_iter();
    page.family(
        ("witness_cosigned_size", "Leaves of the newest checkpoint that a witness has cosigned"),
        MetricType::Gauge,
        witnesses.map(|(witness, size)| ([("witness", witness)], number(size))),
    )
}
