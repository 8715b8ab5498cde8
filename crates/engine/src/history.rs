//! What was, kept in memory: every value a cell had, and every event that touched the returns.
//!
//! A value is kept when record time leaves a step (see [`step_of`]) and when the board publishes. Both depend on
//! the log and on the list of publications only, so a history rebuilt from them is the same history.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use canvass_election::definition::CountItemType;
use canvass_election::event::{Actor, Cell, Counts, Event, Record};
use canvass_election::ids::{ContestId, Offset, PartitionId, RecordId, Timestamp, Topic, UnitId};
use canvass_election::tally::{CellChange, CellValue, ContestState, Delta, HoldReason, Outcome, Partial};
use canvass_protocol::stream::Seq;
use serde::{Deserialize, Serialize};

/// Votes come in many batches a second: their values are told apart at this distance, in milliseconds.
pub(crate) const VOTES_STEP_MS: u64 = 100;

/// The step that a time lies in. A step ends with a whole multiple of its length, so that the past is exact at
/// such a moment: for returns at any millisecond, since each of them changes its cell anyway.
pub(crate) fn step_of(topic: Topic, time: Timestamp) -> u64 {
    match topic {
        Topic::Votes => time.0.div_ceil(VOTES_STEP_MS),
        Topic::Returns => time.0,
    }
}

/// A moment of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// After every record of this time or earlier. Votes may lag by up to 100 ms, except at whole tenths of a second.
    Time(Timestamp),
    /// As published under this number.
    Seq(Seq),
}

/// How far back to look within one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    Time(Timestamp),
    End(Offset),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Version<T> {
    time: Timestamp,
    end: Offset,
    value: T,
}

fn find<T>(versions: &[Version<T>], limit: Limit) -> Option<&T> {
    let found = match limit {
        Limit::Time(time) => versions.partition_point(|v| v.time <= time),
        Limit::End(end) => versions.partition_point(|v| v.end <= end),
    };
    found.checked_sub(1).map(|i| &versions[i].value)
}

/// What kind of event touched a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// A return was counted.
    Returned,
    /// A return was held for the desk.
    Held,
    /// Counts were corrected.
    Corrected,
    /// A held return was released into the count.
    Released,
    /// A held return was dropped.
    Dropped,
    /// A recount began.
    RecountOpened,
    /// A recount's counts came in.
    Recounted,
    /// A recount's counts became official.
    RecountClosed,
    /// The contest was closed.
    Closed,
    /// The contest was certified.
    Certified,
    /// One of the desk proposed a call.
    CallProposed,
    /// One of the desk proposed to take a call back.
    UncallProposed,
    /// Another one agreed, and the contest was called.
    Called,
    /// Another one agreed, and the call was taken back.
    Uncalled,
    /// A proposal was dropped.
    CallDropped,
}

/// One event that touched a unit, with what it did there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The record.
    pub record: RecordId,
    /// Its time.
    pub time: Timestamp,
    /// What it was.
    pub kind: ChangeKind,
    /// The contest it touched.
    pub contest: ContestId,
    /// The unit it touched; the contest's own where it touched the whole contest.
    pub unit: UnitId,
    /// The cell before and after, where it touched one.
    pub cell: Option<CellChange>,
    /// For a held return: what it said, and of which count type.
    pub stated: Option<(CountItemType, Counts)>,
    /// For a held return: the rule it broke.
    pub held_because: Option<HoldReason>,
    /// For a correction, a release, a recount's return or an answer to a proposal: the record it answers.
    pub answers: Option<RecordId>,
    /// The reason given.
    pub reason: Option<String>,
    /// The key that acted.
    pub actor: Actor,
}

/// A history that one task writes and others read.
pub(crate) type SharedHistory = Arc<RwLock<PartitionHistory>>;

/// Reads a history; whoever writes it waits.
pub(crate) fn read(history: &SharedHistory) -> RwLockReadGuard<'_, PartitionHistory> {
    history.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a history; whoever reads it waits.
pub(crate) fn write(history: &SharedHistory) -> RwLockWriteGuard<'_, PartitionHistory> {
    history.write().unwrap_or_else(PoisonError::into_inner)
}

/// Values that were kept at one moment.
type Kept = (Vec<(Cell, CellValue)>, Vec<(ContestId, ContestState)>);

/// The history of one partition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartitionHistory {
    cells: BTreeMap<Cell, Vec<Version<CellValue>>>,
    contests: BTreeMap<ContestId, Vec<Version<ContestState>>>,
    pub(crate) changes: Vec<Change>,
}

impl PartitionHistory {
    /// Keeps what a partial says.
    pub(crate) fn keep(&mut self, partial: &Partial) {
        let (time, end) = (partial.time, partial.end);
        for (cell, value) in &partial.cells {
            let version = Version { time, end, value: value.clone() };
            self.cells.entry(*cell).or_default().push(version);
        }
        for (contest, state) in &partial.contests {
            let version = Version { time, end, value: state.clone() };
            self.contests.entry(*contest).or_default().push(version);
        }
    }

    /// Every value that was kept beyond an offset, in the order in which they were.
    pub(crate) fn since(&self, partition: PartitionId, known: Offset) -> Vec<Partial> {
        let mut kept: BTreeMap<(Offset, Timestamp), Kept> = BTreeMap::new();
        for (cell, versions) in &self.cells {
            for v in versions.iter().filter(|v| v.end > known) {
                kept.entry((v.end, v.time)).or_default().0.push((*cell, v.value.clone()));
            }
        }
        for (contest, versions) in &self.contests {
            for v in versions.iter().filter(|v| v.end > known) {
                kept.entry((v.end, v.time)).or_default().1.push((*contest, v.value.clone()));
            }
        }
        let partial = |((end, time), (cells, contests))| Partial { partition, end, time, cells, contests };
        kept.into_iter().map(partial).collect()
    }

    /// The partition's partial as it was.
    pub(crate) fn partial_at(&self, partition: PartitionId, limit: Limit) -> Partial {
        let cells = self.cells.iter().filter_map(|(c, v)| Some((*c, find(v, limit)?.clone())));
        let contests = self.contests.iter().filter_map(|(c, v)| Some((*c, find(v, limit)?.clone())));
        let (end, time) = match limit {
            Limit::Time(time) => (Offset(0), time),
            Limit::End(end) => (end, Timestamp(0)),
        };
        Partial { partition, end, time, cells: cells.collect(), contests: contests.collect() }
    }

    /// Every step of the contest's cells for which `inside` holds: when, and what it took and gave.
    fn steps<'a>(
        &'a self,
        contest: ContestId,
        inside: impl Fn(UnitId) -> bool + 'a,
    ) -> impl Iterator<Item = (Timestamp, Option<&'a Counts>, Option<&'a Counts>)> {
        let cells = self.cells.iter().filter(move |(c, _)| c.contest == contest && inside(c.unit));
        cells.flat_map(|(_, versions)| {
            let before = std::iter::once(None).chain(versions.iter().map(|v| v.value.official.as_ref()));
            before.zip(versions).map(|(before, v)| (v.time, before, v.value.official.as_ref()))
        })
    }
}

/// What a timeline is asked for.
pub struct TimelineQuery<'a> {
    /// The contest.
    pub contest: ContestId,
    /// How many selections it has.
    pub selections: usize,
    /// Which units' cells are summed.
    pub inside: &'a dyn Fn(UnitId) -> bool,
    /// Distance of the points in milliseconds, at least 1.
    pub step: u64,
    /// First moment that is shown; the first change where none is given.
    pub from: Option<Timestamp>,
    /// Last moment that is shown; the last change where none is given.
    pub to: Option<Timestamp>,
    /// Most points; the answer ends there.
    pub limit: usize,
}

/// The sums at one moment of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePoint {
    /// The moment: sums include every record of this time or earlier.
    pub time: Timestamp,
    /// The sums.
    pub counts: Counts,
}

/// Sums over the partitions' histories, at moments that are whole multiples of the step. `each` hands over one
/// history after the other: whoever writes to one of them waits for that one only.
pub(crate) fn timeline(
    each: impl Fn(&mut dyn FnMut(&PartitionHistory)),
    query: &TimelineQuery<'_>,
) -> Vec<TimelinePoint> {
    let mut times: Option<(Timestamp, Timestamp)> = None;
    each(&mut |history| {
        for (time, ..) in history.steps(query.contest, query.inside) {
            let (first, last) = times.unwrap_or((time, time));
            times = Some((first.min(time), last.max(time)));
        }
    });
    let Some((first, last)) = times else { return Vec::new() };
    let step = query.step.max(1);
    let point_of = |time: Timestamp| time.0.div_ceil(step);
    let start = point_of(query.from.unwrap_or(first));
    let after_last = query.to.map_or(point_of(last), |to| to.0 / step).saturating_add(1);
    let end = after_last.min(start.saturating_add(query.limit as u64));
    // What came and what went before each point that is shown: no more than there are points.
    let mut moved: BTreeMap<u64, (Counts, Counts)> = BTreeMap::new();
    each(&mut |history| {
        for (time, before, after) in history.steps(query.contest, query.inside) {
            let point = point_of(time).max(start);
            if point < end {
                let (came, went) = moved.entry(point).or_default();
                after.iter().for_each(|counts| came.add(counts));
                before.iter().for_each(|counts| went.add(counts));
            }
        }
    });
    let mut counts = Counts::zero(query.selections);
    let mut points = Vec::new();
    for point in start..end {
        if let Some((came, went)) = moved.get(&point) {
            counts.add(came);
            counts.subtract(went);
        }
        points.push(TimelinePoint { time: Timestamp(point.saturating_mul(step)), counts: counts.clone() });
    }
    points
}

/// What a record of the returns did, for the history of units; nothing for votes and for what changed nothing.
pub fn changes_of(
    contest_unit: impl Fn(ContestId) -> UnitId,
    record: &Record,
    outcome: &Outcome,
) -> Vec<Change> {
    use ChangeKind as K;
    let whole = |kind, contest: ContestId, unit: UnitId, actor: &Actor, reason: Option<&String>| Change {
        record: record.id,
        time: record.time,
        kind,
        contest,
        unit,
        cell: None,
        stated: None,
        held_because: None,
        answers: None,
        reason: reason.cloned(),
        actor: actor.clone(),
    };
    let cells = |kind, actor: &Actor, reason: Option<&String>, answers: Option<RecordId>| {
        let Outcome::Counted(Delta::Cells(changed)) = outcome else { return Vec::new() };
        let one = |c: &CellChange| Change {
            cell: Some(c.clone()),
            answers,
            ..whole(kind, c.cell.contest, c.cell.unit, actor, reason)
        };
        changed.iter().map(one).collect()
    };
    let counted = matches!(outcome, Outcome::Counted(_));
    match (&record.event, outcome) {
        (Event::ReturnReported(r), Outcome::Held(because)) => vec![Change {
            stated: Some((r.cell.count_type, r.counts.clone())),
            held_because: Some(*because),
            ..whole(K::Held, r.cell.contest, r.cell.unit, &r.source, None)
        }],
        (Event::ReturnReported(r), _) => cells(K::Returned, &r.source, None, None),
        (Event::ReturnCorrected(c), _) => cells(K::Corrected, &c.actor, Some(&c.reason), Some(c.corrects)),
        (Event::ReturnReleased(a), _) => cells(K::Released, &a.actor, Some(&a.reason), Some(a.held)),
        (Event::ReturnRejected(a), _) => cells(K::Dropped, &a.actor, Some(&a.reason), Some(a.held)),
        (Event::RecountReported(r), _) => cells(K::Recounted, &r.reported.source, None, Some(r.recount)),
        (Event::RecountClosed(c), _) => cells(K::RecountClosed, &c.actor, Some(&c.reason), Some(c.recount)),
        (Event::RecountOpened(o), _) if counted => {
            vec![whole(K::RecountOpened, o.contest, o.unit, &o.actor, Some(&o.reason))]
        }
        (Event::CallProposed(p), _) if counted => {
            let kind = if p.winners.is_some() { K::CallProposed } else { K::UncallProposed };
            vec![whole(kind, p.contest, contest_unit(p.contest), &p.actor, Some(&p.reason))]
        }
        (Event::ContestCalled(a) | Event::ContestUncalled(a) | Event::CallDropped(a), _) if counted => {
            let kind = match &record.event {
                Event::ContestCalled(_) => K::Called,
                Event::ContestUncalled(_) => K::Uncalled,
                _ => K::CallDropped,
            };
            let act = whole(kind, a.contest, contest_unit(a.contest), &a.actor, Some(&a.reason));
            vec![Change { answers: Some(a.proposal), ..act }]
        }
        (Event::ContestClosed(a) | Event::ContestCertified(a), _) if counted => {
            let kind = if matches!(record.event, Event::ContestClosed(_)) { K::Closed } else { K::Certified };
            vec![whole(kind, a.contest, contest_unit(a.contest), &a.actor, Some(&a.reason))]
        }
        _ => Vec::new(),
    }
}
