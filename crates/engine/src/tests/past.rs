//! Any past moment, against a slow recount of the log up to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use canvass_election::event::{Correction, HeldAnswer, RecountClosing, RecountOpening, RecountReturn};
use canvass_election::ids::{ContestId, PartitionId, RecordId, Timestamp, UnitId};
use canvass_election::{Definition, Event, Outcome, Record, Results};
use canvass_log::MemoryLog;
use proptest::prelude::*;

use super::world::{
    MAYOR, POLL, SONG, act, actor, cell, counts, definition, digests, publish, records, recount, reported,
    start, submit, vote,
};
use crate::history::VOTES_STEP_MS;
use crate::{At, Engine, Published, TimelineQuery};

/// Steps of the clock: within a millisecond, within a tenth of a second, onto its end, beyond it.
const STEPS: [u64; 8] = [0, 0, 1, 37, 63, 100, 101, 999];

struct World {
    log: Arc<MemoryLog>,
    folder: tempfile::TempDir,
    engine: Engine,
    definition: Definition,
    time: u64,
    requests: u64,
    /// What was published and can still be asked for.
    published: Vec<Arc<Published>>,
    counted: Vec<RecordId>,
    recounts: Vec<RecordId>,
    epoch: u64,
}

impl World {
    async fn new() -> Self {
        let log = Arc::new(MemoryLog::new());
        let folder = tempfile::tempdir().unwrap();
        let engine = start(&log, Some(folder.path())).await.unwrap();
        let time = engine.clock().drive(Timestamp(1_000_000)).unwrap().0;
        let definition = definition();
        let (published, counted, recounts) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = World {
            log,
            folder,
            engine,
            definition,
            time,
            requests: 0,
            published,
            counted,
            recounts,
            epoch: 0,
        };
        world.started();
        world
    }

    fn started(&mut self) {
        let first = self.engine.published().borrow().clone();
        assert!(first.seq.epoch > self.epoch, "epochs only grow");
        self.epoch = first.seq.epoch;
        self.published.push(first);
    }

    async fn step(&mut self, raw: [u8; 8]) {
        let [kind, clock, ..] = raw;
        let step = STEPS[usize::from(clock) % STEPS.len()];
        if step > 0 {
            self.time += step;
            self.engine.clock().drive(Timestamp(self.time)).unwrap();
        }
        match kind % 32 {
            0..10 => self.cast(raw).await,
            10..18 => self.report(raw).await,
            18..20 => self.correct(raw).await,
            20..22 => self.answer(raw).await,
            22..25 => self.recount(raw).await,
            25 => self.contest_act(raw).await,
            26..29 => {
                let published = publish(&self.engine);
                if self.published.last().is_none_or(|last| last.seq != published.seq) {
                    self.published.push(published);
                }
            }
            _ => self.restart(raw).await,
        }
    }

    async fn record(&mut self, partition: PartitionId, event: Event) {
        self.requests += 1;
        let opens = matches!(event, Event::RecountOpened(_));
        let verdict = submit(&self.engine, self.requests, (partition, event)).await;
        if let Some(Outcome::Counted(_)) = verdict.outcome {
            if opens { &mut self.recounts } else { &mut self.counted }.push(verdict.record);
        }
    }

    async fn cast(&mut self, [_, _, contest, voter, choice, ..]: [u8; 8]) {
        let contest = if contest % 2 == 0 { SONG } else { POLL };
        let (partition, event) = vote(contest, u64::from(voter % 8), u16::from(choice % 3));
        self.record(partition, event).await;
    }

    async fn report(&mut self, [_, _, unit, early, a, b, ..]: [u8; 8]) {
        let cell = cell(3 + u32::from(unit % 3), early % 2 == 0);
        let event = Event::ReturnReported(reported(cell, counts([a.into(), b.into(), 1])));
        self.record(self.definition.returns_partition(cell.unit), event).await;
    }

    async fn correct(&mut self, [_, _, which, _, a, b, ..]: [u8; 8]) {
        let Some(corrects) = self.counted.iter().rev().nth(usize::from(which) % 6).copied() else { return };
        let correction = Correction {
            corrects,
            reason: String::new(),
            actor: actor(),
            counts: counts([a.into(), 0, b.into()]),
        };
        self.record(corrects.partition, Event::ReturnCorrected(correction)).await;
    }

    async fn answer(&mut self, [_, _, which, how, ..]: [u8; 8]) {
        let held = self.engine.held();
        let Some((held, _)) = held.get(usize::from(which) % held.len().max(1)) else { return };
        let answer = HeldAnswer { held: *held, reason: String::new(), actor: actor() };
        let event = if how % 2 == 0 { Event::ReturnReleased(answer) } else { Event::ReturnRejected(answer) };
        self.record(held.partition, event).await;
    }

    async fn recount(&mut self, [_, _, how, unit, a, b, which, _]: [u8; 8]) {
        let recount = self.recounts.iter().rev().nth(usize::from(which) % 2).copied();
        let (reason, actor) = (String::new(), actor());
        match (how % 3, recount) {
            (0, _) | (_, None) => {
                let unit = UnitId(1 + u32::from(unit % 5));
                let event = Event::RecountOpened(RecountOpening { contest: MAYOR, unit, reason, actor });
                self.record(self.definition.returns_partition(unit), event).await;
            }
            (1, Some(recount)) => {
                let cell = cell(3 + u32::from(unit % 3), a % 2 == 0);
                let reported = reported(cell, counts([a.into(), b.into(), 2]));
                self.record(recount.partition, Event::RecountReported(RecountReturn { recount, reported }))
                    .await;
            }
            (_, Some(recount)) => {
                let event = Event::RecountClosed(RecountClosing { recount, reason, actor });
                self.record(recount.partition, event).await;
            }
        }
    }

    async fn contest_act(&mut self, [_, _, contest, certify, ..]: [u8; 8]) {
        let act = act(ContestId(u16::from(contest % 3)));
        let event = if certify % 4 == 0 { Event::ContestCertified(act) } else { Event::ContestClosed(act) };
        for partition in self.definition.partition_ids() {
            self.record(partition, event.clone()).await;
        }
    }

    /// An orderly end or none at all; the next start finds everything, or has lost what can be lost.
    async fn restart(&mut self, [_, _, how, ..]: [u8; 8]) {
        let remove =
            |path: &Path| drop(std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path)));
        if how % 2 == 0 {
            self.engine.stop().await;
        }
        if how & 12 == 4 {
            remove(&self.folder.path().join("snapshots"));
        }
        if how & 48 == 16 {
            remove(&self.folder.path().join("publications.ndjson"));
            self.published.clear();
            // Without the list, epochs grow by the second, and this test is faster.
            self.epoch = 0;
        }
        self.engine = start(&self.log, Some(self.folder.path())).await.unwrap();
        assert_eq!(self.engine.clock().now(), Timestamp(self.time), "a driven clock stays where it was");
        self.started();
    }
}

/// The slow recount at any moment; it is another one only where there are records in between.
struct Recounts<'a> {
    records: &'a BTreeMap<PartitionId, Vec<Record>>,
    times: BTreeSet<u64>,
    known: BTreeMap<Option<u64>, Results>,
}

impl<'a> Recounts<'a> {
    fn new(records: &'a BTreeMap<PartitionId, Vec<Record>>) -> Self {
        let times = records.values().flatten().map(|r| r.time.0).collect();
        Recounts { records, times, known: BTreeMap::new() }
    }

    fn at(&mut self, time: u64) -> &Results {
        let last = self.times.range(..=time).next_back().copied();
        self.known.entry(last).or_insert_with(|| recount(self.records, |r| Some(r.time.0) <= last))
    }
}

fn compare_numbers(world: &World, records: &BTreeMap<PartitionId, Vec<Record>>) {
    for published in &world.published {
        let then = world.engine.results_at(At::Seq(published.seq)).expect("it was published");
        assert_eq!(then.seq, published.seq);
        for (i, (then, shown)) in then.contests.iter().zip(&published.contests).enumerate() {
            assert_eq!(then.stamp, shown.stamp, "contest {i} at {}", published.seq);
            assert_eq!(then.results, shown.results, "contest {i} at {}", published.seq);
            let before = |r: &Record| r.id.offset < then.stamp.watermark[&r.id.partition];
            assert_eq!(
                then.results,
                recount(records, before).contests[i],
                "contest {i} at {}",
                published.seq
            );
        }
    }
    let next = canvass_protocol::stream::Seq { epoch: world.epoch, seq: u64::MAX };
    assert!(world.engine.results_at(At::Seq(next)).is_none());
}

fn compare_moments(world: &World, recounts: &mut Recounts<'_>) {
    let times = recounts.times.clone().into_iter().filter(|t| *t <= world.time);
    let around = |t: u64| [t - 1, t, t + 1, t.div_ceil(VOTES_STEP_MS) * VOTES_STEP_MS];
    for time in times.flat_map(around).collect::<BTreeSet<u64>>() {
        let then = world.engine.results_at(At::Time(Timestamp(time))).expect("any moment can be asked for");
        let then = |contest: ContestId| &then.contests[contest.index()].results;
        let earlier = recounts.at(time / VOTES_STEP_MS * VOTES_STEP_MS).clone();
        let slow = recounts.at(time);
        let slow = |contest: ContestId| &slow.contests[contest.index()];
        assert_eq!(then(MAYOR), slow(MAYOR), "at {time}");
        for contest in [SONG, POLL] {
            assert_eq!(then(contest).state, slow(contest).state, "at {time}");
            if time % VOTES_STEP_MS == 0 {
                assert_eq!(then(contest), slow(contest), "at {time}");
            }
            let ballots = |r: &canvass_election::results::ContestResults| {
                r.unit(UnitId(0)).total(3).ballots.unwrap_or(0)
            };
            assert!(ballots(then(contest)) <= ballots(slow(contest)), "at {time}");
            assert!(ballots(then(contest)) >= ballots(&earlier.contests[contest.index()]), "at {time}");
        }
    }
}

fn compare_timelines(world: &World, recounts: &mut Recounts<'_>) {
    let definition = definition();
    for (contest, unit, step) in
        [(MAYOR, 0, 37), (MAYOR, 1, 250), (MAYOR, 5, 1_000), (SONG, 0, 100), (POLL, 0, 300)]
    {
        let inside = |u: UnitId| definition.is_within(u, UnitId(unit));
        let query = |from, to, limit| {
            let query = TimelineQuery { contest, selections: 3, inside: &inside, step, from, to, limit };
            world.engine.timeline(&query)
        };
        let mut slow = |time: u64| recounts.at(time).contests[contest.index()].unit(UnitId(unit)).total(3);
        let all = query(None, None, 10_000);
        for point in &all {
            assert_eq!(point.time.0 % step, 0);
            assert_eq!(
                point.counts.votes,
                slow(point.time.0).votes,
                "{contest:?} in {unit} at {:?}",
                point.time
            );
        }
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            assert_eq!(slow(u64::MAX).total(), 0);
            continue;
        };
        assert!(all.windows(2).all(|pair| pair[1].time.0 == pair[0].time.0 + step));
        assert_eq!(
            slow(first.time.0.saturating_sub(step)).total(),
            0,
            "nothing changed before the first point"
        );
        assert_eq!(slow(last.time.0).votes, slow(u64::MAX).votes, "nothing changed after the last point");
        let middle = all[all.len() / 2].time;
        assert_eq!(query(Some(middle), Some(middle), 10), all[all.len() / 2..=all.len() / 2]);
        assert_eq!(query(Some(middle), None, 2), all[all.len() / 2..][..2.min(all.len() - all.len() / 2)]);
    }
}

/// What is left when only the log is: the same count and the same past, but for the numbers.
async fn compare_with_log_alone(world: &World, records: &BTreeMap<PartitionId, Vec<Record>>) {
    let alone = start(&world.log, None).await.unwrap();
    assert_eq!(world.engine.digests(), alone.digests());
    assert_eq!(world.engine.digests(), digests(records));
    let (shown, again) = (world.engine.published().borrow().clone(), alone.published().borrow().clone());
    for (shown, again) in shown.contests.iter().zip(&again.contests) {
        assert_eq!(shown.results, again.results);
    }
    let changes = |engine: &Engine| {
        let mut changes = Vec::new();
        engine.for_each_change(|change| changes.push(change.clone()));
        changes
    };
    assert_eq!(changes(&world.engine), changes(&alone));
}

async fn run(events: Vec<[u8; 8]>) {
    let mut world = World::new().await;
    for raw in events {
        world.step(raw).await;
    }
    let published = publish(&world.engine);
    if world.published.last().is_none_or(|last| last.seq != published.seq) {
        world.published.push(published);
    }
    let records = records(&*world.log).await;
    compare_numbers(&world, &records);
    let mut recounts = Recounts::new(&records);
    compare_moments(&world, &mut recounts);
    compare_timelines(&world, &mut recounts);
    compare_with_log_alone(&world, &records).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_past_moment_is_what_the_log_held_then(events in prop::collection::vec(any::<[u8; 8]>(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(events));
    }
}
