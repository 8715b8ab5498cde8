//! The board: merges what the workers have, and publishes it under a number.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use canvass_election::ids::{ContestId, Offset, PartitionId, Timestamp};
use canvass_election::results::ContestResults;
use canvass_election::{Definition, Merge};
use canvass_protocol::document::Stamp;
use canvass_protocol::projection::Projection;
use canvass_protocol::stream::Seq;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

mod projecting;

pub(crate) use projecting::Projecting;

use crate::clock::system_time;
use crate::history::{
    self, At, Change, Limit, PartitionHistory, SharedHistory, TimelinePoint, TimelineQuery, read,
};
use crate::metrics::DURATIONS;
use crate::partition::Partition;
use crate::publications::{List, Past, Projected, Publication};

/// What readers see: the results of every contest, whole, under one number.
#[derive(Debug, Clone)]
pub struct Published {
    /// The number.
    pub seq: Seq,
    /// The contests, in the definition's order.
    pub contests: Vec<PublishedContest>,
}

/// One contest of a publication.
#[derive(Debug, Clone)]
pub struct PublishedContest {
    /// Where in the sequence it last changed.
    pub stamp: Arc<Stamp>,
    /// Its results.
    pub results: Arc<ContestResults>,
    /// How they may end, as far as it was known.
    pub projection: Option<Arc<Projection>>,
}

pub(crate) struct Board {
    pub(crate) definition: Arc<Definition>,
    histories: BTreeMap<PartitionId, SharedHistory>,
    merge: Mutex<Merge>,
    publications: RwLock<Vec<Publication>>,
    list: Mutex<Option<List>>,
    published: watch::Sender<Arc<Published>>,
    /// Told of whatever was taken in, also where it changed no contest.
    heard: watch::Sender<()>,
    pub(crate) projecting: Projecting,
    tick_lag: Histogram,
}

impl Board {
    /// A board on which nothing was published yet.
    pub(crate) fn new(
        definition: &Arc<Definition>,
        histories: BTreeMap<PartitionId, SharedHistory>,
        past: Past,
        list: Option<List>,
    ) -> Self {
        let nothing = Published { seq: Seq::default(), contests: Vec::new() };
        Board {
            definition: Arc::clone(definition),
            histories,
            merge: Mutex::new(Merge::new(Arc::clone(definition))),
            publications: RwLock::new(past.publications),
            list: Mutex::new(list),
            published: watch::Sender::new(Arc::new(nothing)),
            heard: watch::Sender::default(),
            projecting: Projecting::default(),
            tick_lag: Histogram::new(DURATIONS),
        }
    }

    /// Tells of whatever is taken in from another process.
    pub(crate) fn heard(&self) -> &watch::Sender<()> {
        &self.heard
    }

    /// Publishes the present state of these partitions as the first of a new epoch.
    pub(crate) fn start(
        definition: &Arc<Definition>,
        partitions: &[Arc<Partition>],
        projecting: Projecting,
        past: Past,
        list: Option<List>,
    ) -> io::Result<Self> {
        // Later than any before, even if the list of publications was lost.
        let epoch = past.epoch.saturating_add(1).max(system_time().0 / 1000);
        let histories = partitions.iter().map(|p| (p.id, p.shared_history())).collect();
        let board = Board { projecting, ..Self::new(definition, histories, past, list) };
        let mut merge = board.merge();
        partitions.iter().for_each(|partition| drop(merge.merge(&partition.take_partial())));
        board.begin(epoch, system_time(), merge)?;
        // The epoch is on disk before anybody sees it: no other run may take it.
        board.list().as_ref().map_or(Ok(()), List::sync)?;
        Ok(board)
    }

    /// Publishes every contest as the first of an epoch.
    pub(crate) fn begin(
        &self,
        epoch: u64,
        published: Timestamp,
        merge: MutexGuard<'_, Merge>,
    ) -> io::Result<()> {
        let all = self.definition.contest_ids().map(|(id, _)| id).collect();
        self.issue(merge, Seq { epoch, seq: 1 }, published, all)
    }

    /// What was merged so far; nothing is published while it is held.
    pub(crate) fn merge(&self) -> MutexGuard<'_, Merge> {
        self.merge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The history of a partition, for whoever writes it.
    pub(crate) fn history(&self, partition: PartitionId) -> Option<&SharedHistory> {
        self.histories.get(&partition)
    }

    fn list(&self) -> MutexGuard<'_, Option<List>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// How late publications are done.
    pub(crate) fn tick_lag(&self) -> &Histogram {
        &self.tick_lag
    }

    /// The number of the last publication, and when it came; none before the first.
    pub(crate) fn last_published(&self) -> Option<(Seq, Timestamp)> {
        let publications = self.publications.read().unwrap_or_else(PoisonError::into_inner);
        publications.last().map(|last| (last.number(), last.published))
    }

    /// Publishes every `tick` what has changed in these partitions, until told to stop.
    pub(crate) async fn run(
        self: Arc<Self>,
        partitions: Vec<Arc<Partition>>,
        tick: Duration,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut failing = false;
        loop {
            let due = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                due = ticks.tick() => due,
            };
            let published = self.publish(&partitions);
            self.tick_lag.observe(due.elapsed().as_secs_f64());
            // Said once: a full disk refuses every line.
            if let (Err(error), false) = (&published, failing) {
                tracing::error!(%error, "the list of publications cannot be written; results are published all the same");
            }
            failing = published.is_err();
        }
    }

    /// Merges what is new and publishes it, with the projections that wait. Publishes nothing where nothing has changed.
    pub(crate) fn publish(&self, partitions: &[Arc<Partition>]) -> io::Result<()> {
        let mut merge = self.merge();
        let mut changed = Vec::new();
        for partition in partitions {
            changed.extend(merge.merge(&partition.take_partial()));
        }
        // Half a batch is nothing that the log says; the engine is about to end.
        if partitions.iter().any(|partition| partition.is_broken()) {
            return Ok(());
        }
        let Seq { epoch, seq } = self.published.borrow().seq;
        self.issue(merge, Seq { epoch, seq: seq + 1 }, system_time(), changed)
    }

    /// Publishes what was merged under a number, unless no contest has changed.
    pub(crate) fn issue(
        &self,
        merge: MutexGuard<'_, Merge>,
        number: Seq,
        published: Timestamp,
        mut changed: Vec<ContestId>,
    ) -> io::Result<()> {
        let projections = self.projecting.take();
        changed.extend(projections.keys());
        changed.sort_unstable();
        changed.dedup();
        if changed.is_empty() {
            return Ok(());
        }
        let before = self.published.borrow().clone();
        let results = merge.results();
        let publication = Publication {
            epoch: number.epoch,
            seq: number.seq,
            published,
            time: results.time,
            watermark: results.watermark.clone(),
            contests: changed,
            projections: projections.values().map(|new| new.made_from.clone()).collect(),
        };
        let stamp = publication.stamp();
        let contests = (0u16..).map(ContestId).zip(&results.contests).map(|(id, results)| {
            let before = before.contests.get(id.index());
            let stamp = match before {
                Some(before) if !publication.contests.contains(&id) => Arc::clone(&before.stamp),
                _ => Arc::clone(&stamp),
            };
            let new = projections.get(&id).map(|new| Arc::clone(&new.projection));
            let projection = new.or_else(|| before.and_then(|before| before.projection.clone()));
            PublishedContest { stamp, results: Arc::clone(results), projection }
        });
        let now = Published { seq: number, contests: contests.collect() };
        drop(merge);
        let written = self.list().as_mut().map_or(Ok(()), |list| list.add(&publication));
        self.publications.write().unwrap_or_else(PoisonError::into_inner).push(publication);
        self.published.send_replace(Arc::new(now));
        written
    }

    /// The results as they stood.
    pub(crate) fn results_at(&self, at: At) -> Option<Published> {
        let publications = self.publications.read().unwrap_or_else(PoisonError::into_inner);
        let (stamps, seq, limits, made) = match at {
            At::Seq(number) => {
                let index = publications.binary_search_by_key(&number, Publication::number).ok()?;
                let stamps = self.stamps_at(&publications, index);
                let limits = publications[index].watermark.clone();
                (stamps, number, Some(limits), self.projections_at(&publications, index))
            }
            At::Time(time) => {
                // The last number that shows nothing later, as far as one is known.
                let index = publications.partition_point(|p| p.time <= time).checked_sub(1);
                let seq = index.map_or(Seq::default(), |index| publications[index].number());
                let stamp = Arc::new(Stamp { seq, time, watermark: BTreeMap::new() });
                let stamps = self.definition.contests.iter().map(|_| Arc::clone(&stamp)).collect();
                (stamps, seq, None, BTreeMap::new())
            }
        };
        drop(publications);
        let results = self.merged(at, limits.as_ref());
        let mut made =
            made.into_iter().map(|(contest, from)| (contest, self.project_again(seq.epoch, &from)));
        let made: BTreeMap<_, _> = made.by_ref().collect();
        let contests = (0u16..).map(ContestId).zip(stamps.into_iter().zip(results));
        let contests = contests.map(|(id, (stamp, results))| PublishedContest {
            stamp,
            results,
            projection: made.get(&id).cloned().flatten(),
        });
        Some(Published { seq, contests: contests.collect() })
    }

    /// What all partitions had, up to a time or to where each of them was.
    fn merged(&self, at: At, limits: Option<&BTreeMap<PartitionId, Offset>>) -> Vec<Arc<ContestResults>> {
        let mut merge = Merge::new(Arc::clone(&self.definition));
        for (id, history) in &self.histories {
            let limit = match at {
                At::Time(time) => Limit::Time(time),
                At::Seq(_) => {
                    let end = limits.and_then(|l| l.get(id)).copied();
                    Limit::End(end.unwrap_or_default())
                }
            };
            merge.merge(&read(history).partial_at(*id, limit));
        }
        merge.results().contests.clone()
    }

    /// For each contest, the last publication up to `index` in which it changed.
    fn stamps_at(&self, publications: &[Publication], index: usize) -> Vec<Arc<Stamp>> {
        let epoch = publications[index].epoch;
        let run = publications[..=index].iter().rev().take_while(|p| p.epoch == epoch);
        let mut stamps: Vec<Option<Arc<Stamp>>> = vec![None; self.definition.contests.len()];
        let mut missing = stamps.len();
        for publication in run {
            for contest in &publication.contests {
                let slot = &mut stamps[contest.index()];
                if slot.is_none() {
                    *slot = Some(publication.stamp());
                    missing -= 1;
                }
            }
            if missing == 0 {
                break;
            }
        }
        stamps.into_iter().map(|s| s.unwrap_or_else(|| publications[index].stamp())).collect()
    }

    /// The results of a contest as they were published under a number.
    pub(crate) fn contest_at(&self, contest: ContestId, number: Seq) -> Option<Arc<ContestResults>> {
        let publications = self.publications.read().unwrap_or_else(PoisonError::into_inner);
        let index = publications.binary_search_by_key(&number, Publication::number).ok()?;
        let limits = publications[index].watermark.clone();
        drop(publications);
        self.merged(At::Seq(number), Some(&limits)).into_iter().nth(contest.index())
    }

    /// For each contest, what the last projection up to `index` was made from.
    fn projections_at(&self, publications: &[Publication], index: usize) -> BTreeMap<ContestId, Projected> {
        let mut made = BTreeMap::new();
        let epoch = publications[index].epoch;
        let run = publications[..=index].iter().rev().take_while(|p| p.epoch == epoch);
        for projected in run.flat_map(|publication| &publication.projections) {
            made.entry(projected.contest).or_insert_with(|| projected.clone());
            if made.len() == self.projecting.projectors.len() {
                break;
            }
        }
        made
    }

    pub(crate) fn timeline(&self, query: &TimelineQuery<'_>) -> Vec<TimelinePoint> {
        let each = |f: &mut dyn FnMut(&PartitionHistory)| self.histories.values().for_each(|h| f(&read(h)));
        history::timeline(each, query)
    }

    pub(crate) fn for_each_change(&self, mut f: impl FnMut(&Change)) {
        for history in self.histories.values() {
            read(history).changes.iter().for_each(&mut f);
        }
    }
}
