//! Projections of contests from what is counted: a pure function of results, baseline and model.

use std::collections::BTreeMap;

use canvass_election::Definition;
use canvass_election::definition::{Contest, ContestKind};
use canvass_election::ids::{ContestId, SelectionId, UnitId};
use canvass_election::results::ContestResults;
use canvass_forecast::{
    Area, Baseline, BaselineError, DRAWS, Factor, Model, Past, Seen, Unit, project, project_each,
};
use canvass_protocol::baseline::ContestBaseline;
use canvass_protocol::projection::{AreaProjection, NotYet, Projection, Range, SelectionProjection};
use canvass_protocol::stream::Seq;

/// Units directly below the district of which a projection speaks, at most.
const MAX_AREAS: usize = 100;
/// From so many units with votes at both elections on, a baseline teaches its own model.
const LEARN_FROM: usize = 200;
/// Below this share of the expected vote, nothing is projected: one part in so many.
const LEAST_COUNTED: f64 = 0.01;
/// Fewest units that must have reported something, unless there are fewer.
const LEAST_UNITS: usize = 3;
/// What a recommendation takes: this chance …
const CALL_CHANCE: f64 = 0.995;
/// … this share of the expected vote counted …
const CALL_COUNTED: f64 = 0.10;
/// … and a share of the outstanding vote that is needed by who is behind, and lies above this part of the draws.
const CALL_NEEDED: f64 = 0.9975;

/// Projects one contest.
#[derive(Debug)]
pub(crate) struct Projector {
    contest: ContestId,
    selections: Vec<SelectionId>,
    units: Vec<UnitId>,
    /// The units that areas stand for; the first is the district.
    areas: Vec<UnitId>,
    model: Model,
    baseline: Baseline,
    /// Votes of each selection at the last election, unit by unit.
    last: Vec<Vec<u64>>,
    hash: String,
    seed: u64,
}

/// Final votes of each selection in each draw.
type Draws = Vec<Vec<f64>>;

/// How every area may end.
struct Drawn {
    areas: Vec<Draws>,
    /// Units of each area that are not final.
    open: Vec<usize>,
}

/// What is counted in a unit of the projected selections, and whether it is all.
type Counted = (Vec<u64>, bool);

impl Projector {
    /// Prepares the projections of a contest; `file` is the text of the baseline.
    pub(crate) fn new(
        definition: &Definition,
        contest: ContestId,
        baseline: &ContestBaseline,
        file: &str,
    ) -> Result<Self, BaselineError> {
        let district = definition.contests[contest.index()].unit;
        let areas = areas(definition, district, baseline);
        let own = forecast_baseline(definition, baseline, &areas);
        own.check()?;
        let model = model(baseline, &own)?;
        let last = baseline.units.iter().map(|unit| unit.votes.clone()).collect();
        let mut hasher = blake3::Hasher::new_derive_key("canvass projection v1");
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.update(model.to_string().as_bytes());
        hasher.update(file.as_bytes());
        let hash = hasher.finalize().to_hex().to_string();
        let name = format!("{} {}", definition.id, definition.contests[contest.index()].id);
        let seed = blake3::derive_key("canvass projection seed v1", name.as_bytes());
        // Below 2^48, so that any reader of JSON keeps it whole.
        let seed = seed.iter().take(6).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let units = baseline.units.iter().map(|u| u.unit).collect();
        let selections = baseline.selections.clone();
        Ok(Projector { contest, selections, units, areas, model, baseline: own, last, hash, seed })
    }

    /// The model and baseline by their hash.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// Projects the contest from its results as they were published under a number. `before` is whom the projection
    /// before this one would let the desk call.
    pub(crate) fn project(
        &self,
        definition: &Definition,
        results: &ContestResults,
        snapshot: Seq,
        before: Option<SelectionId>,
    ) -> Projection {
        let contest = &definition.contests[self.contest.index()];
        let counted: Vec<Counted> =
            self.units.iter().map(|unit| self.counted(definition, contest, results, *unit)).collect();
        let mut projection = Projection {
            snapshot,
            model: self.hash.clone(),
            seed: self.seed,
            areas: Err(NotYet::TooLittle),
            meets: None,
            recommended: None,
        };
        if counted.iter().all(|(_, complete)| *complete) {
            projection.areas = Err(NotYet::Complete);
            return projection;
        }
        let some = counted.iter().filter(|(votes, _)| votes.iter().any(|n| *n > 0)).count();
        if some < LEAST_UNITS.min(counted.len()) {
            return projection;
        }
        let Some(drawn) = self.draw(&counted) else { return projection };
        let whole = self.area(contest, &drawn, 0, &counted);
        if (whole.counted as f64) < LEAST_COUNTED * whole.votes.middle as f64 {
            return projection;
        }
        if results.unit(contest.unit).held == 0 {
            projection.meets = self.meets(contest, &drawn, &counted, &whole);
        }
        projection.recommended = projection.meets.filter(|winner| before == Some(*winner));
        let below = definition.children(contest.unit);
        let shown = self.areas.iter().enumerate().skip(1).filter(|(_, unit)| below.contains(unit));
        let below = shown.take(MAX_AREAS).map(|(i, unit)| (*unit, self.area(contest, &drawn, i, &counted)));
        projection.areas = Ok(std::iter::once((contest.unit, whole)).chain(below).collect());
        projection
    }

    /// Votes of the projected selections in a unit, and whether they are all.
    fn counted(
        &self,
        definition: &Definition,
        contest: &Contest,
        results: &ContestResults,
        unit: UnitId,
    ) -> Counted {
        let total = results.unit(unit).total(contest.selections.len());
        let votes = self.selections.iter().map(|s| total.votes[s.index()]).collect();
        (votes, results.is_complete(definition, contest, unit))
    }

    /// Draws every area; two selections know more of each other than several do.
    fn draw(&self, counted: &[Counted]) -> Option<Drawn> {
        if let [_, _] = self.selections[..] {
            let two = |votes: &[u64]| [votes[0], votes[1]];
            let seen: Vec<Seen> = counted.iter().map(|(votes, all)| seen(two(votes), *all)).collect();
            let drawn = project(&self.model, &self.baseline, &seen, self.seed, DRAWS).ok()?;
            let areas = drawn.areas.iter().map(|area| {
                let of = |sign: f64| {
                    area.votes
                        .iter()
                        .zip(&area.lead)
                        .map(|(votes, lead)| (votes + sign * lead) / 2.0)
                        .collect()
                };
                vec![of(1.0), of(-1.0)]
            });
            return Some(Drawn { areas: areas.collect(), open: drawn.open });
        }
        let seen: Vec<_> = counted.iter().map(|(votes, all)| seen(votes.clone(), *all)).collect();
        let drawn = project_each(&self.model, &self.baseline, &self.last, &seen, self.seed, DRAWS).ok()?;
        Some(Drawn { areas: drawn.areas, open: drawn.open })
    }

    /// The sums of what is counted in an area.
    fn sums(&self, area: usize, counted: &[Counted]) -> Vec<u64> {
        let mut sums = vec![0; self.selections.len()];
        for (unit, (votes, _)) in self.baseline.units.iter().zip(counted) {
            let mut above = Some(unit.area);
            while let Some(here) = above {
                if here == area {
                    sums.iter_mut().zip(votes).for_each(|(sum, n)| *sum += n);
                }
                above = self.baseline.areas[here].parent;
            }
        }
        sums
    }

    fn area(&self, contest: &Contest, drawn: &Drawn, area: usize, counted: &[Counted]) -> AreaProjection {
        let finals = &drawn.areas[area];
        let (sums, open) = (self.sums(area, counted), drawn.open[area] > 0);
        let totals = totals(finals);
        let chances = chances(contest, &self.selections, finals);
        let shares: Draws = finals
            .iter()
            .map(|votes| {
                votes.iter().zip(&totals).map(|(n, all)| if *all > 0.0 { n / all } else { 0.0 }).collect()
            })
            .collect();
        let mut order: Vec<usize> = (0..finals.len()).collect();
        let middle = |i: usize| range(shares[i].clone(), 1e6).middle;
        order.sort_by_key(|i| (std::cmp::Reverse(middle(*i)), *i));
        let (first, second) = (order[0], order[1]);
        let margins = shares[first].iter().zip(&shares[second]).map(|(a, b)| a - b).collect();
        let selections = self.selections.iter().enumerate().map(|(i, selection)| SelectionProjection {
            selection: *selection,
            share: within(range(shares[i].clone(), 10_000.0), open),
            chance: thousandths(chances[i], open),
        });
        AreaProjection {
            counted: sums.iter().sum(),
            votes: range(totals, 1.0),
            ahead: [self.selections[first], self.selections[second]],
            margin: range(margins, 10_000.0),
            selections: selections.collect(),
        }
    }

    /// Whom the desk could call, as far as these results go (FORECAST, point 10).
    fn meets(
        &self,
        contest: &Contest,
        drawn: &Drawn,
        counted: &[Counted],
        whole: &AreaProjection,
    ) -> Option<SelectionId> {
        let finals = &drawn.areas[0];
        let sums = self.sums(0, counted);
        let chances = chances(contest, &self.selections, finals);
        let winner = (0..chances.len()).find(|i| chances[*i] >= CALL_CHANCE)?;
        if (whole.counted as f64) < CALL_COUNTED * whole.votes.middle as f64 {
            return None;
        }
        let totals = totals(finals);
        let all_counted: u64 = sums.iter().sum();
        for behind in (0..sums.len()).filter(|i| *i != winner) {
            // Of the outstanding vote, who is behind needs half of it and half of the lead.
            let lead = sums[winner] as f64 - sums[behind] as f64;
            let mut spare: Vec<f64> = totals
                .iter()
                .zip(finals[behind].iter().zip(&finals[winner]))
                .filter(|(total, _)| **total > all_counted as f64)
                .map(|(total, (own, others))| {
                    let open = total - all_counted as f64;
                    let gain = (own - sums[behind] as f64) - (others - sums[winner] as f64);
                    gain / open - lead / open
                })
                .collect();
            spare.sort_unstable_by(f64::total_cmp);
            let place = quantile(spare.len(), CALL_NEEDED);
            if spare.get(place).is_some_and(|spare| *spare >= 0.0) {
                return None;
            }
        }
        Some(self.selections[winner])
    }
}

fn quantile(count: usize, part: f64) -> usize {
    let last = count.saturating_sub(1);
    (0..=last).rev().find(|place| *place as f64 <= last as f64 * part).unwrap_or(0)
}

/// The district and every unit between it and a unit of the baseline.
fn areas(definition: &Definition, district: UnitId, baseline: &ContestBaseline) -> Vec<UnitId> {
    let mut areas = vec![district];
    for unit in &baseline.units {
        let above = definition.ancestry(unit.unit).skip(1);
        areas.extend(above.take_while(|above| *above != district && definition.is_within(*above, district)));
    }
    // The district comes first, since a parent stands before its children.
    areas.sort_unstable();
    areas.dedup();
    areas
}

/// The baseline in the form of the model, with the first two selections.
fn forecast_baseline(definition: &Definition, baseline: &ContestBaseline, areas: &[UnitId]) -> Baseline {
    let place: BTreeMap<UnitId, usize> = areas.iter().enumerate().map(|(i, unit)| (*unit, i)).collect();
    let above = |unit: UnitId| definition.ancestry(unit).skip(1).find_map(|above| place.get(&above).copied());
    let units = baseline.units.iter().map(|unit| Unit {
        area: above(unit.unit).unwrap_or(0),
        votes: [unit.votes[0], unit.votes[1]],
        before: unit.before.as_ref().map(|votes| [votes[0], votes[1]]),
        covariates: unit.covariates.clone(),
        levels: unit.levels.clone(),
    });
    let factor = |(name, levels): &(String, usize)| Factor { name: name.clone(), levels: *levels };
    Baseline {
        areas: areas.iter().map(|unit| Area { parent: above(*unit), seats: 0 }).collect(),
        units: units.collect(),
        covariates: baseline.covariates.clone(),
        factors: baseline.groups.iter().map(factor).collect(),
        local: baseline.local,
    }
}

/// What the pair of past elections teaches, where the file has one, enough of it, and two selections.
fn model(file: &ContestBaseline, baseline: &Baseline) -> Result<Model, BaselineError> {
    let has_both = |unit: &&Unit| unit.before.is_some_and(|before| before != [0, 0]) && unit.votes != [0, 0];
    if file.selections.len() > 2 || baseline.units.iter().filter(has_both).count() < LEARN_FROM {
        return Ok(Model::default());
    }
    let mut past = baseline.clone();
    for unit in &mut past.units {
        unit.votes = unit.before.take().unwrap_or_default();
    }
    Model::learn(&[Past { baseline: past, finals: baseline.units.iter().map(|u| u.votes).collect() }])
}

fn seen<V: AsRef<[u64]>>(votes: V, complete: bool) -> Seen<V> {
    match (complete, votes.as_ref().iter().any(|n| *n > 0)) {
        (true, _) => Seen::Final(votes),
        (false, false) => Seen::Nothing,
        (false, true) => Seen::Part { votes, fraction: None },
    }
}

fn totals(finals: &Draws) -> Vec<f64> {
    let draws = finals.first().map_or(0, Vec::len);
    (0..draws).map(|draw| finals.iter().map(|votes| votes[draw]).sum()).collect()
}

/// How often each selection wins: for a measure by its threshold, else with the most votes; a tie is shared.
fn chances(contest: &Contest, selections: &[SelectionId], finals: &Draws) -> Vec<f64> {
    let draws = finals.first().map_or(0, Vec::len);
    let mut wins = vec![0.0; finals.len()];
    for draw in 0..draws {
        if let (ContestKind::BallotMeasure { threshold }, [first, second]) = (contest.kind, finals.as_slice())
        {
            let (yes, no) = if selections[0].0 == 0 { (first, second) } else { (second, first) };
            let left = yes[draw] * threshold.denominator as f64;
            let right = (yes[draw] + no[draw]) * threshold.numerator as f64;
            let passes = if threshold.exclusive { left > right } else { left >= right };
            wins[usize::from(passes != (selections[0].0 == 0))] += 1.0;
            continue;
        }
        let most = finals.iter().map(|votes| votes[draw]).fold(0.0, f64::max);
        let ahead: Vec<usize> = (0..finals.len()).filter(|i| finals[*i][draw] >= most).collect();
        ahead.iter().for_each(|i| wins[*i] += 1.0 / ahead.len() as f64);
    }
    wins.iter().map(|wins| if draws > 0 { wins / draws as f64 } else { 0.0 }).collect()
}

/// A range of draws, in whole units of one part in `scale`.
fn range(draws: Vec<f64>, scale: f64) -> Range {
    let range = canvass_forecast::Range::of(draws);
    let whole = |value: f64| round(value * scale);
    Range { middle: whole(range.middle), half: range.half.map(whole), most: range.most.map(whole) }
}

/// A share of which votes are out is neither nothing nor all.
fn within(range: Range, open: bool) -> Range {
    let limit = |share: i64| if open { share.clamp(1, 9_999) } else { share };
    Range { middle: limit(range.middle), half: range.half.map(limit), most: range.most.map(limit) }
}

fn thousandths(chance: f64, open: bool) -> u16 {
    let chance = u16::try_from(round(chance * 1_000.0)).unwrap_or(0);
    if open { chance.clamp(1, 999) } else { chance }
}

/// The nearest whole number; all that is rounded here is below 2^53.
#[expect(clippy::cast_possible_truncation, reason = "it is clamped to what fits")]
fn round(value: f64) -> i64 {
    const MOST: f64 = 9_007_199_254_740_991.0;
    value.round().clamp(-MOST, MOST) as i64
}

#[cfg(test)]
mod tests;
