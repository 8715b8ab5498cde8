//! Writes down what happens in the night: returns bit by bit, slips and their corrections, a recount, the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canvass_election::definition::{Contest, CountItemType};
use canvass_election::event::Counts;
use canvass_election::ids::UnitId;
use canvass_election::results::leaders;
use canvass_election::tally::{DOUBLING_ODDS, REPLAY_ODDS, odds};
use canvass_protocol::api::{CountsRequest, ReturnRequest};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::numbers::{bell, float, part, split};
use super::places::{Precinct, SEATS, State};
use super::{Action, COUNCIL, GOVERNOR, MEASURE, Step};

/// Minutes after the polls close.
const FIRST_ELECTION_DAY: f64 = 35.0;
const LAST_ELECTION_DAY: f64 = 330.0;
const PROVISIONAL: f64 = 345.0;
const CALLS: f64 = 392.0;
const RECOUNT: f64 = 400.0;
const RECOUNT_LASTS: f64 = 40.0;
const LAST_CALL: f64 = 455.0;
const CERTIFICATION: f64 = 475.0;
/// Slips of a source that are corrected later.
const SLIPS: usize = 7;
/// Shares of a unit's ballots that are counted when it reports, before the last. None is near half of the next:
/// that would be a doubling by chance.
const SHARES: [&[f64]; 3] = [&[0.62], &[0.4, 0.7], &[0.31, 0.53, 0.77]];

/// Each count type with its share of the ballots and how much it likes the first party more.
const TYPES: [(CountItemType, f64, f64); 4] = [
    (CountItemType::Absentee, 0.17, 0.07),
    (CountItemType::Early, 0.31, 0.04),
    (CountItemType::ElectionDay, 0.505, -0.05),
    (CountItemType::Provisional, 0.015, 0.02),
];

/// One cell's way to its final counts.
struct Story<'a> {
    contest: &'a Contest,
    precinct: &'a Precinct,
    count_type: CountItemType,
    /// What it reports, each with its minute; the last is final.
    reports: Vec<(f64, Counts)>,
}

struct Script<'a> {
    state: &'a State,
    rng: StdRng,
    steps: Vec<Step>,
    /// Final counts of each cell, by contest.
    finals: BTreeMap<(&'a str, UnitId, CountItemType), Counts>,
    /// What has been reported by anyone.
    payloads: BTreeSet<(&'a str, CountItemType, Vec<u64>)>,
}

/// The whole night, in order of time.
pub(super) fn write(state: &State, seed: u64) -> Vec<Step> {
    let rng = StdRng::seed_from_u64(seed ^ 2);
    let mut script =
        Script { state, rng, steps: Vec::new(), finals: BTreeMap::new(), payloads: BTreeSet::new() };
    let stories = script.stories();
    let slips = script.slips(&stories);
    for (i, story) in stories.iter().enumerate() {
        script.tell(story, slips.contains(&i));
    }
    script.doubling(&stories);
    script.lower_count(&stories);
    script.recount();
    script.end();
    let mut steps = script.steps;
    // Stable: what was written first also happens first.
    steps.sort_by_key(|step| step.after);
    steps
}

fn after(minutes: f64) -> Duration {
    Duration::from_millis(super::numbers::whole(minutes * 60_000.0))
}

impl<'a> Script<'a> {
    fn step(&mut self, minutes: f64, key: String, action: Action) {
        self.steps.push(Step { after: after(minutes), key, action });
    }

    fn stories(&mut self) -> Vec<Story<'a>> {
        let state = self.state;
        let mut by_size: Vec<u64> = state.precincts.iter().map(|p| p.registered).collect();
        by_size.sort_unstable();
        let mut stories = Vec::new();
        for precinct in &state.precincts {
            let rank = by_size.partition_point(|size| *size < precinct.registered);
            let size = float(rank.try_into().unwrap_or(0)) / float(by_size.len().try_into().unwrap_or(1));
            let ballots = part(precinct.registered, precinct.turnout);
            for (count_type, share, shift) in TYPES {
                let ballots = part(ballots, share * (1.0 + 0.05 * bell(&mut self.rng)));
                // One unit reports all its contests at the same moments.
                let times = self.times(count_type, size);
                for contest in &state.definition.contests {
                    let Some(counts) = self.counts(contest, precinct, ballots, shift) else { continue };
                    let reports = times.iter().map(|(at, share)| {
                        let counts = scaled(&counts, *share, contest);
                        (*at, self.distinct(contest, count_type, counts))
                    });
                    let reports = reports.collect();
                    stories.push(Story { contest, precinct, count_type, reports });
                }
            }
        }
        stories
    }

    /// The minutes at which a unit reports, and the share it has counted then. Large units are late.
    fn times(&mut self, count_type: CountItemType, size: f64) -> Vec<(f64, f64)> {
        let rng = &mut self.rng;
        match count_type {
            CountItemType::Absentee => vec![(rng.random_range(1.0..25.0), 1.0)],
            CountItemType::Early => vec![(rng.random_range(4.0..50.0), 1.0)],
            CountItemType::Provisional => vec![(rng.random_range(PROVISIONAL..PROVISIONAL + 35.0), 1.0)],
            _ => {
                let first = FIRST_ELECTION_DAY + 60.0 * size * rng.random::<f64>();
                let spread = LAST_ELECTION_DAY - FIRST_ELECTION_DAY - 60.0;
                let last = (first + 15.0 + spread * size * rng.random_range(0.6..1.0)).min(LAST_ELECTION_DAY);
                let shares = SHARES[rng.random_range(0..SHARES.len())];
                let partial = shares.iter().map(|share| share + rng.random_range(-0.02..0.02));
                let shares: Vec<f64> = partial.chain([1.0]).collect();
                shares.into_iter().map(|share| (first + (last - first) * share, share)).collect()
            }
        }
    }

    /// Final counts of a precinct's ballots of one type; none where the contest is not on them.
    fn counts(&mut self, contest: &Contest, precinct: &Precinct, ballots: u64, shift: f64) -> Option<Counts> {
        let lean = precinct.lean + shift;
        let (weights, blank) = match contest.id.as_str() {
            GOVERNOR => (vec![0.445 + lean, 0.44 - lean, 0.08, 0.035], 0.015),
            MEASURE => (vec![0.59 + lean / 2.0, 0.41 - lean / 2.0], 0.06),
            COUNCIL if precinct.county == 0 => {
                let half = lean / 3.0;
                (vec![0.18 + half, 0.16 + half, 0.175 - half, 0.155 - half, 0.13, 0.11, 0.09], 0.14)
            }
            _ => return None,
        };
        let choices = ballots * u64::from(contest.max_choices());
        let undervotes = part(choices, blank * self.rng.random_range(0.7..1.3));
        let overvotes = part(choices, 0.002 * self.rng.random::<f64>());
        let votes = split(&mut self.rng, choices - undervotes - overvotes, &weights, 0.03);
        Some(Counts { votes, overvotes, undervotes, ballots: Some(ballots) })
    }

    /// The counts, with a vote less for the first selection until no other unit reports the same: two units with
    /// equal numbers would be taken for a file that was sent twice.
    fn distinct(&mut self, contest: &'a Contest, of: CountItemType, mut counts: Counts) -> Counts {
        while odds(&counts) >= REPLAY_ODDS
            && !self.payloads.insert((contest.id.as_str(), of, counts.votes.clone()))
            && counts.votes[0] > 0
        {
            counts.votes[0] -= 1;
            counts.undervotes += 1;
        }
        counts
    }

    /// The stories of which the last report has a slip.
    fn slips(&mut self, stories: &[Story<'_>]) -> BTreeSet<usize> {
        let may =
            |story: &Story<'_>| story.count_type == CountItemType::ElectionDay && story.contest.id != COUNCIL;
        let may: Vec<usize> = stories.iter().enumerate().filter(|(_, s)| may(s)).map(|(i, _)| i).collect();
        (0..SLIPS).map(|_| may[self.rng.random_range(0..may.len())]).collect()
    }

    /// Reports of one cell; with a slip, the last one has some votes too many, and is corrected later.
    fn tell(&mut self, story: &Story<'a>, slip: bool) {
        let last = story.reports.len().saturating_sub(1);
        for (i, (minutes, counts)) in story.reports.iter().enumerate() {
            let key = self.key(story, &(i + 1).to_string());
            if !(slip && i == last) {
                self.report(*minutes, key, story, counts);
                continue;
            }
            let mut wrong = counts.clone();
            let extra = story.precinct.registered / 40 + 7;
            let place = self.rng.random_range(0..wrong.votes.len());
            wrong.votes[place] += extra;
            let mut wrong = self.distinct(story.contest, story.count_type, wrong);
            wrong.ballots = wrong.ballots.map(|ballots| ballots + extra);
            self.report(*minutes, key.clone(), story, &wrong);
            let counts = CountsRequest::from_counts(story.contest, counts);
            let reason = "A slip in the transcript: the count on the tape is lower.".to_owned();
            let at = minutes + self.rng.random_range(12.0..40.0);
            self.step(at, format!("{key}/correction"), Action::Correct { of: key, counts, reason });
        }
        if let Some((_, counts)) = story.reports.last() {
            let cell = (story.contest.id.as_str(), story.precinct.unit, story.count_type);
            self.finals.insert(cell, counts.clone());
        }
    }

    fn key(&self, story: &Story<'_>, what: &str) -> String {
        let unit = &self.state.definition.units[story.precinct.unit.index()].id;
        format!("night/{}/{unit}/{}/{what}", story.contest.id, story.count_type.as_str())
    }

    fn report(&mut self, minutes: f64, key: String, story: &Story<'_>, counts: &Counts) {
        let request = self.request(story.contest, story.precinct.unit, story.count_type, counts);
        self.step(minutes, key.clone(), Action::Return(ReturnRequest { key: Some(key), ..request }));
    }

    fn request(&self, contest: &Contest, unit: UnitId, of: CountItemType, counts: &Counts) -> ReturnRequest {
        ReturnRequest {
            contest: contest.id.clone(),
            unit: self.state.definition.units[unit.index()].id.clone(),
            count_type: of.as_str().to_owned(),
            counts: CountsRequest::from_counts(contest, counts),
            total: Some(counts.total()),
            key: None,
        }
    }

    /// One unit's first partial count is sent again, added to itself; it is held, and the desk drops it.
    fn doubling(&mut self, stories: &[Story<'a>]) {
        let partial = |story: &&Story<'_>| {
            let first = story.reports.first().map_or(0, |(_, counts)| odds(counts));
            story.contest.id == GOVERNOR && story.reports.len() > 2 && first >= DOUBLING_ODDS
        };
        let Some(story) = stories.iter().find(partial) else { return };
        let [(first, counts), (second, _), ..] = story.reports.as_slice() else { return };
        let mut twice = counts.clone();
        twice.add(counts);
        let key = self.key(story, "again");
        self.report(first + (second - first) / 3.0, key.clone(), story, &twice);
        let reason = "The file was read twice; the unit confirms its earlier count.".to_owned();
        let at = first + (second - first) * 0.8;
        self.step(at, format!("{key}/rejection"), Action::Reject { of: key, reason });
    }

    /// One unit states a lower number without calling it a correction; it is held, and the desk counts it.
    fn lower_count(&mut self, stories: &[Story<'a>]) {
        let large = |story: &&Story<'_>| {
            let votes = story.reports.last().map_or(0, |(_, counts)| counts.total());
            story.contest.id == MEASURE && story.count_type == CountItemType::Early && votes > 400
        };
        let Some(story) = stories.iter().rev().find(large) else { return };
        let Some((minutes, counts)) = story.reports.last() else { return };
        let mut lower = counts.clone();
        lower.votes[0] -= 3;
        lower.undervotes += 3;
        let lower = self.distinct(story.contest, story.count_type, lower);
        let key = self.key(story, "lower");
        self.report(minutes + 22.0, key.clone(), story, &lower);
        let reason = "The unit confirms by telephone: three ballots are blank on this question.".to_owned();
        self.step(minutes + 37.0, format!("{key}/release"), Action::Release { of: key, reason });
        self.finals.insert((story.contest.id.as_str(), story.precinct.unit, story.count_type), lower);
    }

    /// The county where the race for governor is closest is counted again.
    fn recount(&mut self) {
        let state = self.state;
        let Some(contest) = state.definition.contests.iter().find(|c| c.id == GOVERNOR) else { return };
        let in_county = |precinct: &&Precinct, county: usize| precinct.county == county;
        let margin = |county: usize| {
            let mut sum = Counts::zero(contest.selections.len());
            for precinct in state.precincts.iter().filter(|p| in_county(p, county)) {
                TYPES
                    .iter()
                    .filter_map(|t| self.finals.get(&(GOVERNOR, precinct.unit, t.0)))
                    .for_each(|c| sum.add(c));
            }
            sum.votes[0].abs_diff(sum.votes[1])
        };
        let Some(county) = (0..state.counties.len()).min_by_key(|county| margin(*county)) else { return };
        let unit = state.definition.units[state.counties[county].index()].id.clone();
        let of = format!("night/{GOVERNOR}/{unit}/recount");
        let reason = "The margin is below the limit at which the law asks for a recount.".to_owned();
        let opening = Action::OpenRecount { contest: GOVERNOR.to_owned(), unit, reason };
        self.step(RECOUNT, of.clone(), opening);
        for precinct in state.precincts.iter().filter(|p| in_county(p, county)) {
            let at = RECOUNT + self.rng.random_range(2.0..RECOUNT_LASTS);
            for (count_type, ..) in TYPES {
                let Some(mut counts) = self.finals.get(&(GOVERNOR, precinct.unit, count_type)).cloned()
                else {
                    continue;
                };
                // A second look moves a vote here and there.
                if self.rng.random_range(0..4) == 0 && counts.votes[0] > 0 {
                    counts.votes[0] -= 1;
                    counts.votes[1] += 1;
                }
                let request = self.request(contest, precinct.unit, count_type, &counts);
                let key = format!("{of}/{}/{}", request.unit, request.count_type);
                let found = ReturnRequest { key: Some(key.clone()), ..request };
                self.step(at, key, Action::Recount { of: of.clone(), found });
                self.finals.insert((GOVERNOR, precinct.unit, count_type), counts);
            }
        }
        let reason = "Every unit of the county was counted again.".to_owned();
        self.step(RECOUNT + RECOUNT_LASTS + 3.0, format!("{of}/close"), Action::CloseRecount { of, reason });
    }

    /// Calls, the closest race last, and certification.
    fn end(&mut self) {
        let state = self.state;
        let moments = [(MEASURE, CALLS), (COUNCIL, CALLS + 3.0), (GOVERNOR, LAST_CALL)];
        for (i, (id, minutes)) in (0u32..).zip(moments) {
            let Some(contest) = state.definition.contests.iter().find(|c| c.id == id) else { continue };
            let mut sum = Counts::zero(contest.selections.len());
            self.finals.iter().filter(|((c, ..), _)| *c == id).for_each(|(_, counts)| sum.add(counts));
            let winners =
                leaders(contest, &sum).into_iter().map(|w| contest.selections[w.index()].id.clone());
            let reason = "The votes that are left cannot change who leads.".to_owned();
            let key = format!("night/{id}/call");
            let call = Action::ProposeCall { contest: id.to_owned(), winners: winners.collect(), reason };
            self.step(minutes, key.clone(), call);
            let reason = "The numbers were looked at by a second person.".to_owned();
            self.step(minutes + 1.0, format!("{key}/confirm"), Action::ConfirmCall { of: key, reason });
            let reason = "The board of the state has signed the canvass.".to_owned();
            let certify = Action::Certify { contest: id.to_owned(), reason };
            self.step(CERTIFICATION + 2.0 * f64::from(i), format!("night/{id}/certify"), certify);
        }
    }
}

/// What is known when `share` of the ballots is counted; never more than at a larger share.
fn scaled(counts: &Counts, share: f64, contest: &Contest) -> Counts {
    if share >= 1.0 {
        return counts.clone();
    }
    let votes: Vec<u64> = counts.votes.iter().map(|n| part(*n, share)).collect();
    let (overvotes, undervotes) = (part(counts.overvotes, share), part(counts.undervotes, share));
    let given = votes.iter().sum::<u64>() + overvotes + undervotes;
    let choices = if contest.id == COUNCIL { u64::from(SEATS) } else { 1 };
    Counts { votes, overvotes, undervotes, ballots: Some(given.div_ceil(choices)) }
}
