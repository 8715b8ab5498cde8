//! From what was seen to a projection, of a contest between two.

use thiserror::Error;

use crate::baseline::{Baseline, BaselineError, Seen, margin, total};
use crate::design::Known;
use crate::draws::{AreaDraws, Rows};
use crate::field::Field;
use crate::model::Model;
use crate::night;

/// Draws where nobody asks for another number.
pub const DRAWS: usize = 2_000;
/// Most draws of one projection.
pub const MAX_DRAWS: usize = 100_000;
/// Fewest draws: below, an outer quantile means nothing.
pub const MIN_DRAWS: usize = 100;

/// Why there is no projection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProjectError {
    /// The baseline does not fit together.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// Not one observation for each unit.
    #[error("{seen} observations of {units} units")]
    Length {
        /// How many there are.
        seen: usize,
        /// How many units there are.
        units: usize,
    },
    /// Too few or too many draws.
    #[error("{0} draws, and {MIN_DRAWS} to {MAX_DRAWS} are possible")]
    Draws(usize),
    /// Fewer than two selections or more than [`MAX_SELECTIONS`](crate::MAX_SELECTIONS), or not the same number
    /// everywhere.
    #[error("every unit needs one number for each of 2 to {most} selections", most = crate::MAX_SELECTIONS)]
    Selections,
}

/// How every area may end.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// The draws of each area of the baseline.
    pub areas: Vec<AreaDraws>,
    /// Seats of the first selection in each draw; a draw that is even gives them to nobody.
    pub seats: Vec<u32>,
    /// Two-party votes and lead of the first selection that are counted in each area, with all its parts.
    pub counted: Vec<(f64, f64)>,
    /// Units of each area, with all its parts, that are not final.
    pub open: Vec<usize>,
    /// Share of each area's baseline votes that lies in final units.
    pub baseline_in: Vec<f64>,
    /// What the fit expects of each unit: two-party votes, and margin from -1 to 1. None without a baseline.
    pub expected: Vec<Option<[f64; 2]>>,
    /// The night's unit variance of the margin, as a multiple of the learned one.
    pub unit_scale: f64,
    /// How far each final unit's margin is from what the fit says of it, in standard deviations; none for others.
    pub residuals: Vec<Option<f64>>,
}

/// Projects every area from what was seen of each unit.
///
/// The same arguments give the same bytes, in any process and on any machine.
///
/// # Errors
/// The baseline does not fit together, or there is not one observation for each unit.
pub fn project(
    model: &Model,
    baseline: &Baseline,
    seen: &[Seen],
    seed: u64,
    draws: usize,
) -> Result<Projection, ProjectError> {
    check(baseline, seen.len(), draws)?;
    let flip = orientation(baseline);
    let field = between_two(baseline, seen, flip);
    let night = night::run(model, &field, &Known::of(baseline, flip), seed, draws);
    let areas: Vec<AreaDraws> = night.areas.into_iter().map(|rows| area(rows, flip)).collect();
    let votes_and_lead = |votes: &Vec<f64>| (votes[0] + votes[1], flip * (votes[0] - votes[1]) + 0.0);
    let residuals = night.residuals.into_iter().next().unwrap_or_default();
    let expected = night.expected.into_iter();
    Ok(Projection {
        seats: seats(baseline, &areas),
        areas,
        counted: night::counted(&field).iter().map(votes_and_lead).collect(),
        open: night::open(&field),
        baseline_in: night::baseline_in(&field),
        expected: expected.map(|unit| unit.map(|(votes, margins)| [votes, flip * margins[0]])).collect(),
        unit_scale: night.unit_scale,
        residuals: residuals.into_iter().map(|residual| residual.map(|off| flip * off)).collect(),
    })
}

pub(crate) fn check(baseline: &Baseline, seen: usize, draws: usize) -> Result<(), ProjectError> {
    baseline.check()?;
    if seen != baseline.units.len() {
        return Err(ProjectError::Length { seen, units: baseline.units.len() });
    }
    if !(MIN_DRAWS..=MAX_DRAWS).contains(&draws) {
        return Err(ProjectError::Draws(draws));
    }
    Ok(())
}

pub(crate) fn between_two<'a>(baseline: &'a Baseline, seen: &[Seen], flip: f64) -> Field<'a> {
    let order = if flip < 0.0 { vec![1, 0] } else { vec![0, 1] };
    Field::new(baseline, order, baseline.units.iter().map(|unit| unit.votes), seen)
}

/// The model always looks from the side that led before, so that changing the two mirrors every draw.
pub(crate) fn orientation(baseline: &Baseline) -> f64 {
    let lead = |votes: [u64; 2]| margin(votes) * total(votes);
    let whole: f64 = baseline.units.iter().map(|unit| lead(unit.votes)).sum();
    let units =
        baseline.units.iter().flat_map(|unit| std::iter::once(lead(unit.votes)).chain(unit.before.map(lead)));
    let first = std::iter::once(whole).chain(units).find(|lead| *lead != 0.0);
    if first.is_some_and(|lead| lead < 0.0) { -1.0 } else { 1.0 }
}

/// Adding 0 keeps a lead of nothing from being -0.
fn area(rows: Rows, flip: f64) -> AreaDraws {
    let mut rows = rows.into_iter();
    let (mut votes, mut lead) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    for (first, second) in votes.iter_mut().zip(&mut lead) {
        (*first, *second) = (*first + *second, flip * (*first - *second) + 0.0);
    }
    AreaDraws { votes, lead }
}

fn seats(baseline: &Baseline, areas: &[AreaDraws]) -> Vec<u32> {
    let draws = areas.first().map_or(0, |area| area.lead.len());
    let mut seats = vec![0_u32; draws];
    for (area, drawn) in baseline.areas.iter().zip(areas).filter(|(area, _)| area.seats > 0) {
        for (seats, lead) in seats.iter_mut().zip(&drawn.lead) {
            *seats = seats.saturating_add(if *lead > 0.0 { area.seats } else { 0 });
        }
    }
    seats
}
