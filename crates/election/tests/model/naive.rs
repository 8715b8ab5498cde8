//! The fold once more, slow and obvious: it keeps the list of all records and counts them anew for every
//! question. Nothing here is taken from the crate but the shapes of its data.

use std::collections::BTreeMap;

use canvass_election::definition::{Contest, ContestKind, CountItemType, Counting, VotePolicy};
use canvass_election::event::{Cell, Choices, Counts, MAX_COUNT, RecountReturn, Return, Vote};
use canvass_election::ids::{ContestId, RecordId, Timestamp, UnitId};
use canvass_election::tally::{ContestState, HoldReason, Outcome, Reason};
use canvass_election::{Definition, Event, Record};

/// An outcome without its delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Counted,
    Duplicate(RecordId),
    Held(HoldReason),
    Rejected(Reason),
}

impl From<&Outcome> for Fate {
    fn from(outcome: &Outcome) -> Fate {
        match outcome {
            Outcome::Counted(_) => Fate::Counted,
            Outcome::Duplicate { first } => Fate::Duplicate(*first),
            Outcome::Held(hold) => Fate::Held(*hold),
            Outcome::Rejected(reason) => Fate::Rejected(*reason),
        }
    }
}

/// One moment at which a cell's official counts were set.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) cell: Cell,
    pub(crate) counts: Counts,
    pub(crate) record: RecordId,
    stated: RecordId,
}

/// One partition: all of its records with what they did.
pub(crate) struct Naive {
    pub(crate) definition: Definition,
    pub(crate) past: Vec<(Record, Fate)>,
}

/// Whether `unit` is `above` or below it, by climbing.
pub(crate) fn within(definition: &Definition, unit: UnitId, above: UnitId) -> bool {
    let mut at = Some(unit);
    while let Some(u) = at {
        if u == above {
            return true;
        }
        at = definition.units[u.index()].parent;
    }
    false
}

pub(crate) fn is_leaf(definition: &Definition, unit: UnitId) -> bool {
    definition.units.iter().all(|u| u.parent != Some(unit))
}

pub(crate) fn add(sum: &mut Option<Counts>, counts: &Counts) {
    let sum = sum.get_or_insert_with(|| Counts { votes: vec![0; counts.votes.len()], ..Counts::default() });
    for (i, n) in counts.votes.iter().enumerate() {
        sum.votes[i] += n;
    }
    sum.overvotes += counts.overvotes;
    sum.undervotes += counts.undervotes;
    if let Some(n) = counts.ballots {
        sum.ballots = Some(sum.ballots.unwrap_or(0) + n);
    }
}

impl Naive {
    pub(crate) fn new(definition: Definition) -> Self {
        Naive { definition, past: Vec::new() }
    }

    pub(crate) fn apply(&mut self, record: &Record) -> Fate {
        let fate = self.fate(record);
        self.past.push((record.clone(), fate.clone()));
        fate
    }

    pub(crate) fn counted(&self) -> impl Iterator<Item = &Record> {
        self.past.iter().filter(|(_, fate)| *fate == Fate::Counted).map(|(record, _)| record)
    }

    fn defined(&self) -> bool {
        self.counted().any(|r| matches!(r.event, Event::ElectionDefined(_)))
    }

    fn fate(&self, record: &Record) -> Fate {
        let is_definition = matches!(record.event, Event::ElectionDefined(_));
        match (self.defined(), is_definition) {
            (false, true) => return Fate::Counted,
            (false, false) => return Fate::Rejected(Reason::NotDefined),
            (true, true) => return Fate::Rejected(Reason::AlreadyDefined),
            (true, false) => {}
        }
        if let Event::VoteCast(vote) = &record.event {
            return self.vote_fate(record, vote);
        }
        let earlier = self.past.iter().find(|(r, fate)| {
            let remembered = !matches!(fate, Fate::Duplicate(_) | Fate::Rejected(Reason::NotDefined));
            let of_desk = !matches!(r.event, Event::VoteCast(_) | Event::ElectionDefined(_));
            of_desk && remembered && r.request == record.request
        });
        if let Some((first, _)) = earlier {
            return Fate::Duplicate(first.id);
        }
        match self.refusal(record) {
            None => Fate::Counted,
            Some(fate) => fate,
        }
    }

    /// Counted votes that are kept under this voter's pseudonym.
    fn votes_of<'a>(&'a self, vote: &'a Vote) -> impl Iterator<Item = (&'a Record, &'a Vote)> {
        self.votes().filter(|(_, cast)| cast.nullifier == vote.nullifier)
    }

    pub(crate) fn votes(&self) -> impl Iterator<Item = (&Record, &Vote)> {
        self.counted().filter_map(|r| match &r.event {
            Event::VoteCast(vote) => Some((r, vote)),
            _ => None,
        })
    }

    fn vote_fate(&self, record: &Record, vote: &Vote) -> Fate {
        if let Some((first, _)) = self.votes_of(vote).find(|(r, _)| r.request == record.request) {
            return Fate::Duplicate(first.id);
        }
        if let Some(reason) = self.vote_refusal(record.time, vote) {
            return Fate::Rejected(reason);
        }
        let Some((last, cast)) = self.votes_of(vote).last() else { return Fate::Counted };
        let number = self.votes_of(vote).count();
        if cast.contest != vote.contest {
            return Fate::Rejected(Reason::UnknownContest);
        }
        match self.definition.contests[vote.contest.index()].voting().expect("votes").policy {
            VotePolicy::One => Fate::Rejected(Reason::AlreadyVoted { first: last.id }),
            VotePolicy::UpTo(n) if number >= n as usize => {
                Fate::Rejected(Reason::VotesUsedUp { last: last.id })
            }
            VotePolicy::UpTo(_) | VotePolicy::Replace => Fate::Counted,
        }
    }

    fn vote_refusal(&self, time: Timestamp, vote: &Vote) -> Option<Reason> {
        let Some(contest) = self.definition.contests.get(vote.contest.index()) else {
            return Some(Reason::UnknownContest);
        };
        let Counting::Votes(voting) = &contest.counting else { return Some(Reason::UnknownContest) };
        if !good_choices(contest, &vote.choices) {
            return Some(Reason::BadChoices);
        }
        if !known_choices(contest, &vote.choices) {
            return Some(Reason::UnknownSelection);
        }
        let state = self.state(vote.contest);
        match () {
            () if voting.opens.is_some_and(|opens| time < opens) => Some(Reason::NotOpen),
            () if voting.closes.is_some_and(|closes| time >= closes) => Some(Reason::Closed),
            () if state.closed.is_some() => Some(Reason::Closed),
            () if state.certified.is_some() => Some(Reason::Certified),
            () => None,
        }
    }

    /// What stands in the way of an event of the desk or of a return.
    fn refusal(&self, record: &Record) -> Option<Fate> {
        let reason = match &record.event {
            Event::ContestClosed(act) => {
                self.act_refusal(act.contest, |s| s.closed.is_some().then_some(Reason::AlreadyClosed))
            }
            Event::ContestCertified(act) => self.act_refusal(act.contest, |s| {
                let done = s.certified.is_some() && !s.corrected_since;
                let open = (!s.recounts.is_empty()).then_some(Reason::RecountOpen);
                if done { Some(Reason::Certified) } else { open }
            }),
            Event::CallProposed(proposal) => self.proposal_refusal(proposal),
            Event::ContestCalled(answer) => self.call_refusal(answer, Some(true)),
            Event::ContestUncalled(answer) => self.call_refusal(answer, Some(false)),
            Event::CallDropped(answer) => self.call_refusal(answer, None),
            Event::ReturnReported(reported) => return self.return_refusal(reported),
            Event::ReturnCorrected(c) => self.correction_refusal(c.corrects, &c.counts),
            Event::ReturnReleased(answer) => self.release_refusal(answer.held),
            Event::ReturnRejected(answer) => {
                self.held().iter().all(|(id, ..)| *id != answer.held).then_some(Reason::NotHeld)
            }
            Event::RecountOpened(o) => self.opening_refusal(o.contest, o.unit),
            Event::RecountReported(counted) => self.recount_refusal(counted),
            Event::RecountClosed(c) => {
                self.open_recounts().iter().all(|(id, ..)| *id != c.recount).then_some(Reason::NoSuchRecount)
            }
            Event::ElectionDefined(_) | Event::VoteCast(_) => unreachable!("told before"),
        };
        reason.map(Fate::Rejected)
    }

    fn act_refusal(
        &self,
        contest: ContestId,
        refuse: impl Fn(&ContestState) -> Option<Reason>,
    ) -> Option<Reason> {
        if contest.index() >= self.definition.contests.len() {
            return Some(Reason::UnknownContest);
        }
        refuse(&self.state(contest))
    }

    fn bad_return(&self, reported: &Return) -> Option<Reason> {
        let Cell { contest, unit, count_type } = reported.cell;
        let Some(contest) = self.definition.contests.get(contest.index()) else {
            return Some(Reason::UnknownContest);
        };
        let Counting::Returns { count_types } = &contest.counting else {
            return Some(Reason::UnknownContest);
        };
        let known = unit.index() < self.definition.units.len();
        if !known || !is_leaf(&self.definition, unit) || !within(&self.definition, unit, contest.unit) {
            return Some(Reason::UnknownUnit);
        }
        if !count_types.contains(&count_type) {
            return Some(Reason::UnknownCountType);
        }
        (!good_counts(contest, &reported.counts)).then_some(Reason::BadCounts)
    }

    fn return_refusal(&self, reported: &Return) -> Option<Fate> {
        if let Some(reason) = self.bad_return(reported) {
            return Some(Fate::Rejected(reason));
        }
        if self.state(reported.cell.contest).certified.is_some() {
            return Some(Fate::Rejected(Reason::Certified));
        }
        if let Some(recount) = self.recount_over(reported.cell) {
            return Some(Fate::Held(HoldReason::UnderRecount { recount }));
        }
        self.hold(reported).map(Fate::Held)
    }

    fn correction_refusal(&self, corrects: RecordId, counts: &Counts) -> Option<Reason> {
        let standing = self.standing();
        let Some(setting) = standing.iter().find(|s| s.record == corrects) else {
            return Some(Reason::NotStanding);
        };
        if !good_counts(&self.definition.contests[setting.cell.contest.index()], counts) {
            return Some(Reason::BadCounts);
        }
        self.recount_over(setting.cell).map(|_| Reason::RecountOpen)
    }

    fn release_refusal(&self, held: RecordId) -> Option<Reason> {
        let all = self.held();
        let Some((_, reported, _)) = all.iter().find(|(id, ..)| *id == held) else {
            return Some(Reason::NotHeld);
        };
        let newer = |s: &Setting| s.cell == reported.cell && s.stated > held;
        match () {
            () if self.state(reported.cell.contest).certified.is_some() => Some(Reason::Certified),
            () if self.standing().iter().any(newer) => Some(Reason::Superseded),
            () => self.recount_over(reported.cell).map(|_| Reason::RecountOpen),
        }
    }

    fn opening_refusal(&self, id: ContestId, unit: UnitId) -> Option<Reason> {
        let Some(contest) = self.definition.contests.get(id.index()) else {
            return Some(Reason::UnknownContest);
        };
        if contest.voting().is_some() {
            return Some(Reason::UnknownContest);
        }
        if unit.index() >= self.definition.units.len() || !within(&self.definition, unit, contest.unit) {
            return Some(Reason::UnknownUnit);
        }
        if self.state(id).certified.is_some() {
            return Some(Reason::Certified);
        }
        let overlaps = |(_, c, u): &(RecordId, ContestId, UnitId)| {
            *c == id && (within(&self.definition, unit, *u) || within(&self.definition, *u, unit))
        };
        self.open_recounts().iter().any(overlaps).then_some(Reason::RecountOpen)
    }

    fn recount_refusal(&self, counted: &RecountReturn) -> Option<Reason> {
        let cell = counted.reported.cell;
        if let Some(reason) = self.bad_return(&counted.reported) {
            return Some(reason);
        }
        let open = self.open_recounts();
        let Some((.., unit)) = open.iter().find(|(id, c, _)| *id == counted.recount && *c == cell.contest)
        else {
            return Some(Reason::NoSuchRecount);
        };
        (!within(&self.definition, cell.unit, *unit)).then_some(Reason::OutsideRecount)
    }

    /// The hard rules, in the order in which they are told.
    fn hold(&self, reported: &Return) -> Option<HoldReason> {
        let Return { cell, counts, stated_total, .. } = reported;
        let contest = &self.definition.contests[cell.contest.index()];
        let choices = match contest.kind {
            ContestKind::NOfM { n } => u64::from(n),
            _ => 1,
        };
        let total: u64 = counts.votes.iter().sum();
        if stated_total.is_some_and(|stated| stated != total) {
            return Some(HoldReason::PartsNotTotal);
        }
        if counts.ballots.is_some_and(|b| b * choices < total + counts.overvotes + counts.undervotes) {
            return Some(HoldReason::VotesAboveBallots);
        }
        let standing = self.standing();
        if let Some(registered) = self.definition.units[cell.unit.index()].registered {
            let mut all = Some(counts.clone());
            let beside =
                |s: &&Setting| s.cell != *cell && s.cell.unit == cell.unit && s.cell.contest == cell.contest;
            standing.iter().filter(beside).for_each(|s| add(&mut all, &s.counts));
            let all = all.expect("at least its own");
            if all.votes.iter().sum::<u64>() > registered * choices || all.ballots > Some(registered) {
                return Some(HoldReason::AboveRegistered);
            }
        }
        if let Some(before) = standing.iter().find(|s| s.cell == *cell) {
            let fewer = counts.votes.iter().zip(&before.counts.votes).any(|(now, then)| now < then);
            let fewer_ballots = counts.ballots.is_some() && counts.ballots < before.counts.ballots;
            if fewer || fewer_ballots {
                return Some(HoldReason::LowerCount { standing: before.record });
            }
            if counts.votes == before.counts.votes {
                return None;
            }
            let doubled: Vec<u64> = before.counts.votes.iter().map(|n| 2 * n).collect();
            if counts.votes == doubled && chance(counts) >= 100_000.0 {
                return Some(HoldReason::Doubling { standing: before.record });
            }
        }
        if chance(counts) < 100_000.0 {
            return None;
        }
        self.parent_total(&standing, reported).or_else(|| self.replayed(reported))
    }

    fn parent_total(&self, standing: &[Setting], reported: &Return) -> Option<HoldReason> {
        let Return { cell, counts, .. } = reported;
        let mut above = self.definition.units[cell.unit.index()].parent;
        while let Some(unit) = above {
            let (mut with, mut without, mut others) = (None, None, 0);
            for s in standing.iter().filter(|s| {
                let same = s.cell.contest == cell.contest && s.cell.count_type == cell.count_type;
                same && within(&self.definition, s.cell.unit, unit)
            }) {
                add(&mut with, &s.counts);
                if s.cell != *cell {
                    add(&mut without, &s.counts);
                    others += 1;
                }
            }
            let same = |sum: &Option<Counts>| sum.as_ref().is_some_and(|sum| sum.votes == counts.votes);
            if others >= 3 && (same(&with) || same(&without)) {
                return Some(HoldReason::ParentTotal { unit });
            }
            above = self.definition.units[unit.index()].parent;
        }
        None
    }

    fn replayed(&self, reported: &Return) -> Option<HoldReason> {
        let Return { cell, counts, .. } = reported;
        if chance(counts) < 10_000_000_000.0 {
            return None;
        }
        let settings = self.settings();
        let first = settings.iter().find(|s| {
            let same = s.cell.contest == cell.contest && s.cell.count_type == cell.count_type;
            same && s.counts.votes == counts.votes
        })?;
        (first.cell.unit != cell.unit).then_some(HoldReason::Replayed { of: first.record })
    }

    fn recount_over(&self, cell: Cell) -> Option<RecordId> {
        let open = self.open_recounts();
        let over = |(_, contest, unit): &&(RecordId, ContestId, UnitId)| {
            *contest == cell.contest && within(&self.definition, cell.unit, *unit)
        };
        open.iter().find(over).map(|(id, ..)| *id)
    }

    /// Every time that official counts were set, in order.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::new();
        for record in self.counted() {
            let id = record.id;
            match &record.event {
                Event::ReturnReported(Return { cell, counts, .. }) => {
                    settings.push(Setting { cell: *cell, counts: counts.clone(), record: id, stated: id });
                }
                Event::ReturnCorrected(c) => {
                    let old = settings.iter().find(|s| s.record == c.corrects).expect("it stood");
                    let (cell, counts) = (old.cell, c.counts.clone());
                    settings.push(Setting { cell, counts, record: id, stated: id });
                }
                Event::ReturnReleased(answer) => {
                    let (held, _) = self.past.iter().find(|(r, _)| r.id == answer.held).expect("it was held");
                    let Event::ReturnReported(Return { cell, counts, .. }) = &held.event else {
                        panic!("only returns are held")
                    };
                    let (cell, counts) = (*cell, counts.clone());
                    settings.push(Setting { cell, counts, record: id, stated: answer.held });
                }
                Event::RecountClosed(c) => settings.extend(self.recounted(c.recount).into_values()),
                _ => {}
            }
        }
        settings
    }

    /// What a recount has counted, by cell.
    fn recounted(&self, recount: RecordId) -> BTreeMap<Cell, Setting> {
        let of_recount = |r: &Record| match &r.event {
            Event::RecountReported(counted) if counted.recount == recount => {
                let Return { cell, counts, .. } = counted.reported.clone();
                Some((cell, Setting { cell, counts, record: r.id, stated: r.id }))
            }
            _ => None,
        };
        self.counted().filter_map(of_recount).collect()
    }

    /// The last setting of every cell.
    pub(crate) fn standing(&self) -> Vec<Setting> {
        let last: BTreeMap<Cell, Setting> = self.settings().into_iter().map(|s| (s.cell, s)).collect();
        last.into_values().collect()
    }

    /// The counts of open recounts.
    pub(crate) fn provisional(&self) -> Vec<Setting> {
        self.open_recounts().iter().flat_map(|(id, ..)| self.recounted(*id).into_values()).collect()
    }

    pub(crate) fn held(&self) -> Vec<(RecordId, Return, HoldReason)> {
        let answered = |id: RecordId| {
            self.counted().any(|r| match &r.event {
                Event::ReturnReleased(a) | Event::ReturnRejected(a) => a.held == id,
                _ => false,
            })
        };
        let held = self.past.iter().filter_map(|(r, fate)| match (&r.event, fate) {
            (Event::ReturnReported(reported), Fate::Held(why)) => Some((r.id, reported.clone(), *why)),
            _ => None,
        });
        held.filter(|(id, ..)| !answered(*id)).collect()
    }

    pub(crate) fn open_recounts(&self) -> Vec<(RecordId, ContestId, UnitId)> {
        let closed = |id: RecordId| {
            self.counted().any(|r| matches!(&r.event, Event::RecountClosed(c) if c.recount == id))
        };
        let opened = self.counted().filter_map(|r| match &r.event {
            Event::RecountOpened(o) => Some((r.id, o.contest, o.unit)),
            _ => None,
        });
        opened.filter(|(id, ..)| !closed(*id)).collect()
    }

    pub(crate) fn state(&self, contest: ContestId) -> ContestState {
        let mut state = ContestState::default();
        let settings = self.settings();
        for record in self.counted() {
            match &record.event {
                Event::ContestClosed(act) if act.contest == contest => state.closed = Some(record.time),
                Event::ContestCertified(act) if act.contest == contest => {
                    state.certified = Some(record.time);
                    state.corrected_since = false;
                }
                Event::ReturnCorrected(_) if state.certified.is_some() => {
                    let of_contest = |s: &Setting| s.record == record.id && s.cell.contest == contest;
                    state.corrected_since |= settings.iter().any(of_contest);
                }
                _ => {}
            }
        }
        let of_contest = self.open_recounts().into_iter().filter(|(_, c, _)| *c == contest);
        state.recounts = of_contest.map(|(id, _, unit)| (id, unit)).collect();
        (state.called, state.proposal) = (self.called(contest), self.proposal(contest));
        state
    }

    /// Counts of a live vote: every voter's last vote, or all of them under `up_to`.
    pub(crate) fn live(&self, id: ContestId) -> Option<Counts> {
        let contest = &self.definition.contests[id.index()];
        let policy = contest.voting()?.policy;
        let cast: Vec<&Vote> = self.votes().map(|(_, v)| v).filter(|v| v.contest == id).collect();
        let counts = |(i, vote): (usize, &&Vote)| {
            let again = cast[i + 1..].iter().any(|later| later.nullifier == vote.nullifier);
            matches!(policy, VotePolicy::UpTo(_)) || !again
        };
        let kept: Vec<&Vote> = cast.iter().enumerate().filter(|x| counts(*x)).map(|(_, v)| *v).collect();
        let votes = (0..contest.selections.len())
            .map(|i| kept.iter().filter(|v| v.choices.iter().any(|c| c.index() == i)).count() as u64)
            .collect();
        let ballots = Some(kept.len() as u64);
        (!kept.is_empty()).then_some(Counts { votes, ballots, ..Counts::default() })
    }

    /// Official counts, what stands in their place during a recount, and held returns, of one cell.
    pub(crate) fn cell(&self, cell: Cell) -> (Option<Counts>, Option<Counts>, u32) {
        let contest = &self.definition.contests[cell.contest.index()];
        if contest.voting().is_some() {
            let here = cell.unit == contest.unit && cell.count_type == CountItemType::Total;
            let counts = self.live(cell.contest).filter(|_| here);
            return (counts.clone(), counts, 0);
        }
        let of_cell =
            |all: Vec<Setting>| all.into_iter().find(|s| s.cell == cell).map(|setting| setting.counts);
        let (official, provisional) = (of_cell(self.standing()), of_cell(self.provisional()));
        let held = self.held().iter().filter(|(_, reported, _)| reported.cell == cell).count();
        (official.clone(), provisional.or(official), u32::try_from(held).expect("few"))
    }
}

pub(crate) fn good_choices(contest: &Contest, choices: &Choices) -> bool {
    let most = match contest.kind {
        ContestKind::NOfM { n } => usize::from(n),
        _ => 1,
    };
    let ascends = (1..choices.len()).all(|i| choices[i - 1] < choices[i]);
    (1..=most).contains(&choices.len()) && ascends
}

pub(crate) fn known_choices(contest: &Contest, choices: &Choices) -> bool {
    choices.iter().all(|c| c.index() < contest.selections.len())
}

fn good_counts(contest: &Contest, counts: &Counts) -> bool {
    let total: u128 = counts.votes.iter().map(|n| u128::from(*n)).sum();
    counts.votes.len() == contest.selections.len()
        && total <= u128::from(MAX_COUNT)
        && [counts.overvotes, counts.undervotes, counts.ballots.unwrap_or(0)].iter().all(|n| *n <= MAX_COUNT)
}

/// One in how many returns has just these votes, by the size of its numbers.
fn chance(counts: &Counts) -> f64 {
    let mut chance = 1.0;
    for votes in &counts.votes {
        if *votes > 1 {
            chance *= *votes as f64;
        }
    }
    chance
}
