//! Random elections and random events, made from plain bytes so that a failure shrinks well.

use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Eligibility, Partitions, Parts, Selection, Threshold,
    Unit, VotePolicy, Voting,
};
use canvass_election::event::{
    Actor, CallAnswer, CallProposal, Cell, Choices, ContestAct, Correction, Counts, HeldAnswer, MAX_COUNT,
    RecountClosing, RecountOpening, RecountReturn, Return, Vote,
};
use canvass_election::ids::{
    ContestId, Nullifier, Offset, PartitionId, RecordId, RequestId, SelectionId, Timestamp, Topic, UnitId,
};
use canvass_election::{Definition, Event, Outcome, Record, Tally};
use proptest::prelude::*;

use crate::naive::{Naive, Setting};

/// What an election and a run of events are made from.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    units: Vec<u8>,
    contests: Vec<[u8; 5]>,
    partitions: (u8, u8),
    pub(crate) events: Vec<[u8; 12]>,
}

pub(crate) fn seed(events: usize) -> impl Strategy<Value = Seed> {
    let units = prop::collection::vec(any::<u8>(), 0..12);
    let contests = prop::collection::vec(any::<[u8; 5]>(), 1..4);
    let events = prop::collection::vec(any::<[u8; 12]>(), 0..events);
    (units, contests, (1u8..4, 1u8..4), events).prop_map(|(units, contests, partitions, events)| Seed {
        units,
        contests,
        partitions,
        events,
    })
}

fn pick<T: Copy>(from: &[T], by: u8) -> T {
    from[usize::from(by) % from.len()]
}

fn contest(i: usize, raw: [u8; 5], units: u8) -> Contest {
    let [kind, unit, selections, counting, detail] = raw;
    let selections = 1 + selections % 4;
    let threshold = Threshold { numerator: 3, denominator: 5, exclusive: detail % 2 == 0 };
    let kind = match kind % 5 {
        0 => ContestKind::SingleChoice,
        1 => ContestKind::AudiencePoll,
        2 => ContestKind::BallotMeasure { threshold },
        _ => ContestKind::NOfM { n: u16::from(1 + detail % 3) },
    };
    let window = |bit: u8, at| (detail & bit != 0).then_some(Timestamp(at));
    let voting = |policy| {
        let (opens, closes) = (window(4, 40), window(8, 200));
        Counting::Votes(Voting { opens, closes, policy, eligibility: Eligibility::Open })
    };
    let counting = match counting % 8 {
        0 => voting(VotePolicy::One),
        1 => voting(VotePolicy::Replace),
        2 => voting(VotePolicy::UpTo(2)),
        3 | 4 => Counting::Returns { count_types: vec![CountItemType::Total] },
        _ => Counting::Returns { count_types: vec![CountItemType::Early, CountItemType::ElectionDay] },
    };
    let name = |i: usize| Selection { id: i.to_string(), name: i.to_string(), party: None };
    let selections = (0..usize::from(selections)).map(name).collect();
    let unit = UnitId(u32::from(unit % 3 % units));
    Contest { id: i.to_string(), name: i.to_string(), kind, unit, selections, counting, baseline: None }
}

impl Seed {
    pub(crate) fn definition(&self) -> Definition {
        let mut units = vec![unit(0, None, None)];
        for (i, raw) in (1u32..).zip(&self.units) {
            // Most units hang below the first few, so that some have many children and some lie deep.
            let parent = UnitId(u32::from(raw % 16) % i.min(if raw % 2 == 0 { i } else { 3 }));
            units.push(unit(i, Some(parent), (raw / 32 == 0).then_some(700)));
        }
        let count = u8::try_from(units.len()).expect("few");
        let contests = self.contests.iter().enumerate().map(|(i, raw)| contest(i, *raw, count)).collect();
        Definition::from(Parts {
            id: "random".into(),
            name: "Random".into(),
            is_test: true,
            partitions: Partitions { votes: self.partitions.0.into(), returns: self.partitions.1.into() },
            parties: Vec::new(),
            units,
            contests,
        })
    }
}

fn unit(i: u32, parent: Option<UnitId>, registered: Option<u64>) -> Unit {
    Unit { id: i.to_string(), name: i.to_string(), kind: "unit".into(), parent, registered }
}

/// One partition with its fold, its slow double and all of its records.
pub(crate) struct Part {
    pub(crate) tally: Tally,
    pub(crate) naive: Naive,
    pub(crate) records: Vec<Record>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// An election that runs.
pub(crate) struct World {
    pub(crate) definition: Definition,
    pub(crate) parts: Vec<Part>,
    requests: u64,
}

fn actor() -> Actor {
    Actor("someone".into())
}

impl World {
    /// All partitions, each with its definition unless `late` leaves it out for now.
    pub(crate) fn new(definition: Definition, late: bool) -> Self {
        let part = |id| Part {
            tally: Tally::new(id),
            naive: Naive::new(definition.clone()),
            records: Vec::new(),
            outcomes: Vec::new(),
        };
        let parts = definition.partition_ids().map(part).collect();
        let mut world = World { definition, parts, requests: 0 };
        if !late {
            world.define();
        }
        world
    }

    /// Runs all events of a seed.
    pub(crate) fn run(seed: &Seed) -> Self {
        let mut world = World::new(seed.definition(), false);
        seed.events.iter().for_each(|raw| world.step(*raw));
        world
    }

    pub(crate) fn define(&mut self) {
        let event = Event::ElectionDefined(self.definition.clone());
        self.broadcast(|_| true, Timestamp(0), &event, 0);
    }

    fn broadcast(&mut self, to: impl Fn(PartitionId) -> bool, time: Timestamp, event: &Event, cut: u8) {
        for i in 0..self.parts.len() {
            if to(self.parts[i].tally.partition()) {
                self.requests += 1;
                let request = request(self.requests);
                self.append(i, time, request, event.clone(), cut);
            }
        }
    }

    /// Appends to a partition, at the end of its last batch or as a new one, and compares the two folds.
    fn append(&mut self, i: usize, time: Timestamp, request: RequestId, event: Event, cut: u8) {
        let part = &mut self.parts[i];
        let partition = part.tally.partition();
        let id = match part.records.last().map(|r| r.id) {
            Some(last) if !cut.is_multiple_of(4) => RecordId { position: last.position + 1, ..last },
            Some(last) => RecordId { partition, offset: last.offset.next(), position: 0 },
            None => RecordId { partition, offset: Offset(0), position: 0 },
        };
        let record = Record { id, time, request, event };
        let outcome = part.tally.apply(&record);
        assert_eq!(crate::naive::Fate::from(&outcome), part.naive.apply(&record), "{record:?}");
        part.records.push(record);
        part.outcomes.push(outcome);
    }

    fn partition(&self, id: PartitionId) -> usize {
        let found = self.parts.iter().position(|part| part.tally.partition() == id);
        found.expect("a partition of the election")
    }

    /// One event, as the bytes say.
    pub(crate) fn step(&mut self, raw: [u8; 12]) {
        let [kind, a, b, c, how, time, cut, ..] = raw;
        let time = Timestamp(time.into());
        let contest = ContestId(u16::from(a) % (u16::try_from(self.definition.contests.len()).expect("few")));
        // Now and then a contest that does not exist.
        let contest = if how == 255 { ContestId(9999) } else { contest };
        let act = || ContestAct { contest, reason: String::new(), actor: actor() };
        let control = |id: PartitionId| b % 4 > 0 || id == PartitionId::CONTROL;
        match kind % 32 {
            0..9 => self.vote_or_return(raw, contest, time),
            9..17 => self.report(raw, contest, time),
            17 | 18 => self.correct(raw, time),
            19 | 20 => self.answer(raw, time),
            21 => self.open_recount(raw, contest, time),
            22..25 => self.report_recount(raw, time),
            25 => self.close_recount(raw, time),
            26 | 27 => self.retry(raw),
            28 if c % 4 == 0 => self.broadcast(control, time, &Event::ContestClosed(act()), cut),
            28 => self.define(),
            29 if c % 4 == 0 => self.broadcast(control, time, &Event::ContestCertified(act()), cut),
            30 => {
                let winners = (how % 3 > 0).then(|| self.choices(contest, c));
                let reason = String::new();
                let call = CallProposal { contest, winners, reason, projection: None, actor: actor() };
                self.broadcast(control, time, &Event::CallProposed(call), cut);
            }
            31 => self.answer_call(raw, contest, time),
            _ => self.report(raw, contest, time),
        }
    }

    fn fresh(&mut self) -> RequestId {
        self.requests += 1;
        request(self.requests)
    }

    fn choices(&self, contest: ContestId, bits: u8) -> Choices {
        if bits >= 250 {
            return [SelectionId(1), SelectionId(1)].into_iter().collect();
        }
        let selections = self.definition.contest(contest).map_or(1, |c| c.selections.len());
        let within = usize::from(bits / 8) % selections;
        let chosen = match bits % 8 {
            0..6 => vec![within],
            6 => vec![within, within + 1],
            _ => vec![0, within, within + 2],
        };
        chosen.into_iter().map(|i| SelectionId(u16::try_from(i).expect("few"))).collect()
    }

    fn vote_or_return(&mut self, raw: [u8; 12], contest: ContestId, time: Timestamp) {
        let voting = self.definition.contest(contest).is_some_and(|c| c.voting().is_some());
        if !voting && raw[4] < 250 {
            return self.report(raw, contest, time);
        }
        let [_, _, voter, choices, how, _, cut, own, ..] = raw;
        // A voter has a few pseudonyms, of which one is used in any contest.
        let of_contest = if own == 0 { 0xff } else { u8::try_from(contest.0 % 250).expect("small") };
        let nullifier = Nullifier([voter % 6; 16].map(|b| b ^ of_contest.rotate_left(3)));
        let choices = self.choices(contest, choices);
        let request = if how < 40 { RequestId([voter % 6 + how % 3 * 16 + 128; 16]) } else { self.fresh() };
        let index = u16::from(voter % 6) % self.definition.partitions.votes;
        let vote = Event::VoteCast(Vote { contest, nullifier, choices });
        self.append(self.partition(PartitionId::votes(index)), time, request, vote, cut);
    }

    fn counts(&self, contest: ContestId, bytes: [u8; 6]) -> Counts {
        const SMALL: [u64; 8] = [0, 1, 2, 5, 100, 200, 300, 400];
        const LARGE: [u64; 4] = [MAX_COUNT, MAX_COUNT + 1, u64::MAX, 600];
        let [a, b, c, d, over, ballots] = bytes;
        let n = |byte: u8| if byte >= 252 { pick(&LARGE, byte) } else { pick(&SMALL, byte) };
        let selections = self.definition.contest(contest).map_or(2, |c| c.selections.len());
        let length = if over == 255 { selections + 1 } else { selections };
        let votes: Vec<u64> = [n(a), n(b), n(c), n(d), 0].into_iter().take(length).collect();
        let overvotes = if over < 20 { n(over) } else { 0 };
        let undervotes = if over > 240 { n(ballots) } else { 0 };
        let sum = votes.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let ballots = match ballots % 8 {
            0 => Some(sum),
            1 => Some(sum / 2),
            2 => Some(1000),
            3 if ballots > 250 => Some(u64::MAX),
            _ => None,
        };
        Counts { votes, overvotes, undervotes, ballots }
    }

    fn reported(&self, raw: [u8; 12], contest: ContestId) -> Return {
        let [_, _, unit, stated, how, _, _, a, b, c, over, ballots] = raw;
        let units = u32::try_from(self.definition.units.len()).expect("few");
        let leaves: Vec<UnitId> = (0..units)
            .map(UnitId)
            .filter(|u| {
                let district = self.definition.contest(contest).map_or(UnitId(0), |c| c.unit);
                self.definition.children(*u).is_empty() && self.definition.is_within(*u, district)
            })
            .collect();
        let unit = if how % 32 == 0 { UnitId(u32::from(unit) % (units + 1)) } else { pick(&leaves, unit) };
        let types = self.definition.contest(contest).map_or(&CountItemType::ALL[..], |c| c.count_types());
        let count_type = if how % 32 == 1 { CountItemType::Absentee } else { pick(types, how / 32) };
        let mut counts = self.counts(contest, [a, b, c, a, over, ballots]);
        let cell = Cell { contest, unit, count_type };
        if stated >= 80 {
            self.build_upon(cell, &mut counts, stated >= 230);
        }
        let stated_total = match stated {
            0..20 => Some(counts.total()),
            20..25 => Some(u64::MAX),
            _ => None,
        };
        Return { cell, counts, stated_total, source: actor() }
    }

    /// Adds what stands, as a cumulative count does; or says what all units together have, as a mistake does.
    fn build_upon(&self, cell: Cell, counts: &mut Counts, all: bool) {
        let standing = self.parts[self.home(cell.unit)].naive.standing();
        let same = |s: &&Setting| {
            s.cell.contest == cell.contest
                && s.cell.count_type == cell.count_type
                && (all || s.cell.unit == cell.unit)
        };
        if all {
            counts.votes.fill(0);
        }
        for setting in standing.iter().filter(same) {
            for (n, more) in counts.votes.iter_mut().zip(&setting.counts.votes) {
                *n = n.saturating_add(*more);
            }
        }
    }

    /// The partition of a unit's returns, also for units that do not exist.
    fn home(&self, unit: UnitId) -> usize {
        self.partition(self.definition.returns_partition(unit))
    }

    fn report(&mut self, raw: [u8; 12], contest: ContestId, time: Timestamp) {
        if raw[4] < 220 && self.definition.contest(contest).is_some_and(|c| c.voting().is_some()) {
            return self.vote_or_return(raw, contest, time);
        }
        let reported = self.reported(raw, contest);
        let home = self.home(reported.cell.unit);
        let request = self.fresh();
        self.append(home, time, request, Event::ReturnReported(reported), raw[6]);
    }

    /// Any record, mostly of the returns.
    fn any_record(&self, by: u8, partition: usize) -> RecordId {
        let records = &self.parts[partition].records;
        let some = RecordId { partition: PartitionId::votes(7), offset: Offset(3), position: 1 };
        records.get(usize::from(by) % (records.len() + 1)).map_or(some, |r| r.id)
    }

    fn some_partition(&self, by: u8, of_returns: bool) -> usize {
        let fits = |p: &Part| !of_returns || p.tally.partition().topic == Topic::Returns;
        let parts: Vec<usize> = (0..self.parts.len()).filter(|i| fits(&self.parts[*i])).collect();
        pick(&parts, by)
    }

    fn correct(&mut self, raw: [u8; 12], time: Timestamp) {
        let [_, a, b, c, how, _, cut, counts @ ..] = raw;
        let at = self.some_partition(a, true);
        let standing = self.parts[at].naive.standing();
        let setting = if standing.is_empty() { None } else { standing.get(usize::from(b) % standing.len()) };
        let (corrects, contest) = match setting {
            Some(setting) if how >= 50 => (setting.record, setting.cell.contest),
            _ => (self.any_record(b, self.some_partition(c, false)), ContestId(0)),
        };
        let [x, y, z, over, ballots] = counts;
        let counts = self.counts(contest, [x, y, z, x, over, ballots]);
        let correction = Correction { corrects, reason: String::new(), actor: actor(), counts };
        let request = self.fresh();
        self.append(at, time, request, Event::ReturnCorrected(correction), cut);
    }

    fn answer(&mut self, raw: [u8; 12], time: Timestamp) {
        let [_, a, b, c, how, _, cut, ..] = raw;
        let at = self.some_partition(a, true);
        let held = self.parts[at].naive.held();
        let held = match held.len() {
            0 => self.any_record(b, at),
            _ if how < 40 => self.any_record(b, self.some_partition(c, false)),
            n => held[usize::from(b) % n].0,
        };
        let answer = HeldAnswer { held, reason: String::new(), actor: actor() };
        let event = if how % 2 == 0 { Event::ReturnReleased(answer) } else { Event::ReturnRejected(answer) };
        let request = self.fresh();
        self.append(at, time, request, event, cut);
    }

    fn answer_call(&mut self, raw: [u8; 12], contest: ContestId, time: Timestamp) {
        let [_, a, b, c, how, _, cut, ..] = raw;
        let at = self.some_partition(a, true);
        let proposals = self.parts[at].naive.proposals(contest);
        let last = proposals.last();
        let proposal = last.filter(|_| how > 20).map_or_else(|| self.any_record(b, at), |last| last.record);
        let actor = if how % 5 == 0 { actor() } else { Actor("another".into()) };
        let answer = CallAnswer { contest, proposal, reason: String::new(), actor };
        let calls = last.is_some_and(|last| last.stated.winners.is_some());
        let event = match c % 8 {
            0 => Event::CallDropped(answer),
            1 => Event::ContestUncalled(answer),
            _ if calls => Event::ContestCalled(answer),
            _ => Event::ContestUncalled(answer),
        };
        let request = self.fresh();
        self.append(at, time, request, event, cut);
    }

    fn open_recount(&mut self, raw: [u8; 12], contest: ContestId, time: Timestamp) {
        let [_, _, unit, _, how, _, cut, ..] = raw;
        let units = u32::try_from(self.definition.units.len()).expect("few");
        let unit = UnitId(u32::from(unit) % (units + u32::from(how % 8 == 0)));
        let opening = RecountOpening { contest, unit, reason: String::new(), actor: actor() };
        let home = self.parts[self.home(unit)].tally.partition();
        // A recount of what spans several partitions is opened in all of them.
        let all = unit == UnitId(0);
        let to = |id: PartitionId| id == home || (all && id.topic == Topic::Returns);
        self.broadcast(to, time, &Event::RecountOpened(opening), cut);
    }

    fn report_recount(&mut self, raw: [u8; 12], time: Timestamp) {
        let [_, a, b, c, how, _, cut, ..] = raw;
        let at = self.some_partition(a, true);
        let open = self.parts[at].naive.open_recounts();
        let (recount, contest) = match open.len() {
            0 => (self.any_record(b, at), ContestId(0)),
            _ if how < 20 => (self.any_record(c, at), open[0].1),
            n => (open[usize::from(b) % n].0, open[usize::from(b) % n].1),
        };
        // Any byte may choose the unit but the one that chose the recount.
        let mut raw = raw;
        raw[2] = raw[7];
        let reported = self.reported(raw, contest);
        let request = self.fresh();
        self.append(at, time, request, Event::RecountReported(RecountReturn { recount, reported }), cut);
    }

    fn close_recount(&mut self, raw: [u8; 12], time: Timestamp) {
        let [_, a, b, _, how, _, cut, ..] = raw;
        let at = self.some_partition(a, true);
        let open = self.parts[at].naive.open_recounts();
        let recount = match open.len() {
            0 => self.any_record(b, at),
            _ if how < 20 => self.any_record(b, at),
            n => open[usize::from(b) % n].0,
        };
        let closing = RecountClosing { recount, reason: String::new(), actor: actor() };
        let request = self.fresh();
        self.append(at, time, request, Event::RecountClosed(closing), cut);
    }

    fn retry(&mut self, raw: [u8; 12]) {
        let [_, a, b, _, how, time, cut, ..] = raw;
        let at = self.some_partition(a, how % 2 == 0);
        let records = &self.parts[at].records;
        if let Some(first) = records.get(usize::from(b) % records.len().max(1)).cloned() {
            self.append(at, Timestamp(time.into()), first.request, first.event, cut);
        }
    }
}

fn request(n: u64) -> RequestId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    RequestId(bytes)
}
