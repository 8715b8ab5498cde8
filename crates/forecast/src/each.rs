//! Projections of contests with any number of selections: each against those behind it, shares that add up to one.

use crate::baseline::{Baseline, Seen, float};
use crate::design::Known;
use crate::field::Field;
use crate::model::Model;
use crate::night;
use crate::project::{ProjectError, check};
use crate::summary::{LEAST_CHANCE, Range};

/// Most selections of a contest that is projected; each takes a fit of its own.
pub const MAX_SELECTIONS: usize = 64;

/// How every area may end, selection by selection, in the order they were given in.
#[derive(Debug, Clone, PartialEq)]
pub struct Each {
    /// Votes of each selection in each draw, whole numbers: `areas[area][selection][draw]`.
    pub areas: Vec<Vec<Vec<f64>>>,
    /// Seats of each selection in each draw: `seats[selection][draw]`. An area that is even gives them to nobody.
    pub seats: Vec<Vec<u32>>,
    /// Votes of each selection that are counted in each area, with all its parts.
    pub counted: Vec<Vec<f64>>,
    /// Units of each area, with all its parts, that are not final.
    pub open: Vec<usize>,
    /// Share of each area's baseline votes that lies in final units.
    pub baseline_in: Vec<f64>,
    /// What the fit expects of each unit: votes of each selection. None without a baseline.
    pub expected: Vec<Option<Vec<f64>>>,
    /// How far each final unit is from what the fit says of it, in standard deviations: the margin of the selection, of
    /// all but the last, that is farthest off.
    pub residuals: Vec<Option<f64>>,
}

/// How an area may end.
#[derive(Debug, Clone, PartialEq)]
pub struct EachSummary {
    /// Votes of all selections at the end.
    pub votes: Range,
    /// Share of each selection at the end, from 0 to 1.
    pub shares: Vec<Range>,
    /// Lead of each selection over the best of the others, as a share of all votes, from -1 to 1.
    pub leads: Vec<Range>,
    /// How likely each selection ends first, from 0 to 1: exactly 0 or 1 only where all is in.
    pub chances: Vec<f64>,
    /// Units that are not final.
    pub open: usize,
    /// Share of the baseline votes that lies in final units.
    pub baseline_in: f64,
}

/// Projects every area of a contest with any number of selections.
///
/// `last` holds each unit's votes at the last comparable election, one number a selection: 0 for one that did not stand.
/// The two numbers of [`Unit::votes`](crate::Unit::votes) and [`Unit::before`](crate::Unit::before) are not looked at.
///
/// With two selections this is [`project`](crate::project) of units whose `before` is not known.
///
/// # Errors
/// The baseline does not fit together, there is not one observation for each unit, or not the same number of
/// selections everywhere.
pub fn project_each(
    model: &Model,
    baseline: &Baseline,
    last: &[Vec<u64>],
    seen: &[Seen<Vec<u64>>],
    seed: u64,
    draws: usize,
) -> Result<Each, ProjectError> {
    check(baseline, seen.len(), draws)?;
    check(baseline, last.len(), draws)?;
    let selections = last.first().map_or(0, Vec::len);
    let even = |votes: &[u64]| votes.len() == selections && votes.iter().all(|v| *v <= crate::MAX_VOTES);
    let told = |seen: &Seen<Vec<u64>>| match seen {
        Seen::Nothing => true,
        Seen::Part { votes, .. } | Seen::Final(votes) => even(votes),
    };
    if !(2..=MAX_SELECTIONS).contains(&selections) || !last.iter().all(|v| even(v)) || !seen.iter().all(told)
    {
        return Err(ProjectError::Selections);
    }
    let field = Field::new(baseline, order(last, seen, selections), last.iter(), seen);
    let known = Known {
        votes: (0..field.units()).map(|unit| field.before(unit)).collect(),
        margin: (0..field.units()).map(|unit| Field::split_of(field.last(unit), 0).1).collect(),
        trend: vec![0.0; field.units()],
    };
    let night = night::run(model, &field, &known, seed, draws);
    let back = Back(&field.order);
    let areas: Vec<_> = night.areas.into_iter().map(|rows| back.turn(rows)).collect();
    let farthest = |unit: usize| {
        night.residuals.iter().filter_map(|of| of[unit]).max_by(|a, b| a.abs().total_cmp(&b.abs()))
    };
    Ok(Each {
        seats: seats(baseline, &areas, selections, draws),
        areas,
        counted: night::counted(&field).into_iter().map(|votes| back.turn(votes)).collect(),
        open: night::open(&field),
        baseline_in: night::baseline_in(&field),
        residuals: (0..field.units()).map(farthest).collect(),
        expected: night.expected.into_iter().map(|unit| unit.map(|of| back.turn(taken(of)))).collect(),
    })
}

/// The largest at the last election first, then the largest of tonight, then as given.
fn order(last: &[Vec<u64>], seen: &[Seen<Vec<u64>>], selections: usize) -> Vec<usize> {
    let mut sums = vec![(0.0, 0.0); selections];
    for (last, seen) in last.iter().zip(seen) {
        let now = match seen {
            Seen::Nothing => None,
            Seen::Part { votes, .. } | Seen::Final(votes) => Some(votes),
        };
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum = (sum.0 + float(last[place]), sum.1 + now.map_or(0.0, |votes| float(votes[place])));
        }
    }
    let mut order: Vec<usize> = (0..selections).collect();
    order.sort_by(|a, b| {
        let (a, b) = (sums[*a], sums[*b]);
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    order
}

/// Votes that each selection takes of all, in the order of the field.
fn taken((votes, margins): (f64, Vec<f64>)) -> Vec<f64> {
    let mut rest = votes;
    let take = |margin: f64| {
        let taken = rest * (1.0 + margin) / 2.0;
        rest -= taken;
        taken
    };
    let mut all: Vec<f64> = margins.into_iter().map(take).collect();
    all.push(rest);
    all
}

/// From the order of the field to that of the caller.
struct Back<'a>(&'a [usize]);

impl Back<'_> {
    fn turn<T: Default>(&self, of: Vec<T>) -> Vec<T> {
        let mut turned: Vec<T> = of.iter().map(|_| T::default()).collect();
        for (place, value) in self.0.iter().zip(of) {
            turned[*place] = value;
        }
        turned
    }
}

fn seats(baseline: &Baseline, areas: &[Vec<Vec<f64>>], selections: usize, draws: usize) -> Vec<Vec<u32>> {
    let mut seats = vec![vec![0_u32; draws]; selections];
    for (area, rows) in baseline.areas.iter().zip(areas).filter(|(area, _)| area.seats > 0) {
        let winners = (0..draws).map(|draw| match leaders(rows, draw)[..] {
            [winner] => Some(winner),
            _ => None,
        });
        for (draw, winner) in winners.enumerate().filter_map(|(draw, winner)| winner.map(|w| (draw, w))) {
            seats[winner][draw] = seats[winner][draw].saturating_add(area.seats);
        }
    }
    seats
}

/// Who has most in a draw; several where they are even.
fn leaders(rows: &[Vec<f64>], draw: usize) -> Vec<usize> {
    let most = rows.iter().map(|row| row[draw]).fold(0.0, f64::max);
    (0..rows.len()).filter(|place| rows[*place][draw] == most).collect()
}

impl Each {
    /// What is said of an area of the baseline.
    ///
    /// # Panics
    /// There is no such area.
    pub fn summary(&self, area: usize) -> EachSummary {
        let rows = &self.areas[area];
        let draws = rows[0].len();
        let all: Vec<f64> = (0..draws).map(|draw| rows.iter().map(|row| row[draw]).sum()).collect();
        let share = |votes: f64, draw: usize| if all[draw] > 0.0 { votes / all[draw] } else { 0.0 };
        let shares = rows.iter().map(|row| (0..draws).map(|draw| share(row[draw], draw)).collect());
        let lead = |place: usize, draw: usize| {
            let others = rows.iter().enumerate().filter(|(other, _)| *other != place);
            let best = others.map(|(_, row)| row[draw]).fold(0.0, f64::max);
            share(rows[place][draw] - best, draw)
        };
        let leads = (0..rows.len()).map(|place| (0..draws).map(|draw| lead(place, draw)).collect());
        let mut chances = vec![0.0; rows.len()];
        for draw in 0..draws {
            let leaders = leaders(rows, draw);
            leaders.iter().for_each(|place| chances[*place] += 1.0 / leaders.len() as f64);
        }
        let open = self.open[area];
        for chance in &mut chances {
            *chance /= draws as f64;
            if open > 0 {
                *chance = chance.clamp(LEAST_CHANCE, 1.0 - LEAST_CHANCE);
            }
        }
        EachSummary {
            shares: shares.map(Range::of).collect(),
            leads: leads.map(Range::of).collect(),
            votes: Range::of(all),
            chances,
            open,
            baseline_in: self.baseline_in[area],
        }
    }
}
