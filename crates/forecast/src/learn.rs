//! Learns the prior spreads from pairs of past elections, by expectation maximisation.

use std::collections::BTreeMap;

use nalgebra::{Cholesky, DMatrix};

use crate::baseline::{Baseline, BaselineError, margin, total};
use crate::design::{Design, Known, groups};
use crate::fit::{Equation, solve};
use crate::model::{Both, LEAST, Model, UnitVariance};

/// A past election, complete: what was known before it, and how it ended in each unit.
#[derive(Debug, Clone)]
pub struct Past {
    /// What was known before.
    pub baseline: Baseline,
    /// Votes of the two selections in each unit, in the order of the baseline.
    pub finals: Vec<[u64; 2]>,
}

/// Rounds of expectation maximisation; the spreads move by less than a percent after so many.
const ROUNDS: usize = 30;
/// No spread is believed to be less than this: the next election may move what the last did not.
const LEAST_SPREAD: f64 = 0.002;
/// Squared deviations beyond so many variances are cut, so that a few odd units do not widen all.
const CUT: f64 = 9.0;

/// Spreads of one pair, for the margin or the turnout.
struct Spreads {
    groups: BTreeMap<String, f64>,
    unit: UnitVariance,
}

impl Model {
    /// Learns from pairs of past elections. With none, this is the default model.
    ///
    /// The variance of each group of effects, and of units, is the mean over the pairs, times `1 + 0.5 / pairs` since few
    /// pairs have not seen everything.
    ///
    /// # Errors
    /// A baseline does not fit together.
    ///
    /// # Panics
    /// Never: a pair with another number of finals than of units is read as far as both go.
    pub fn learn(pairs: &[Past]) -> Result<Model, BaselineError> {
        let mut model = Model::default();
        if pairs.is_empty() {
            return Ok(model);
        }
        pairs.iter().try_for_each(|pair| pair.baseline.check())?;
        let of = |value: fn(&[u64; 2], &[u64; 2]) -> f64| {
            mean(pairs.iter().map(|pair| spreads(pair, value)).collect())
        };
        let margins = of(|last, now| margin(*now) - margin(*last));
        let turnouts = of(|last, now| libm::log(total(*now) / total(*last)));
        for (name, sd) in &margins.groups {
            let turnout = turnouts.groups.get(name).copied().unwrap_or(*sd);
            model.groups.insert(name.clone(), Both { margin: *sd, turnout });
        }
        for (name, least) in LEAST {
            let learned = model.groups.entry(name.to_owned()).or_insert(least);
            learned.margin = learned.margin.max(least.margin);
            learned.turnout = learned.turnout.max(least.turnout);
        }
        (model.unit_margin, model.unit_turnout) = (margins.unit, turnouts.unit);
        Ok(model)
    }
}

fn mean(all: Vec<Spreads>) -> Spreads {
    let pairs = all.len() as f64;
    let inflation = 1.0 + 0.5 / pairs;
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (name, sd) in all.iter().flat_map(|s| &s.groups) {
        let sum = sums.entry(name.clone()).or_default();
        *sum = (sum.0 + sd * sd, sum.1 + 1.0);
    }
    let sd = |(sum, count): (f64, f64)| libm::sqrt(sum / count * inflation).max(LEAST_SPREAD);
    let unit = |part: fn(&UnitVariance) -> f64| all.iter().map(|s| part(&s.unit)).sum::<f64>() / pairs;
    Spreads {
        groups: sums.into_iter().map(|(name, sum)| (name, sd(sum))).collect(),
        unit: UnitVariance { base: unit(|u| u.base), sampling: unit(|u| u.sampling) },
    }
}

fn spreads(pair: &Past, value: fn(&[u64; 2], &[u64; 2]) -> f64) -> Spreads {
    let design = Design::new(&pair.baseline, &Known::of(&pair.baseline, 1.0));
    let mut equations = Vec::new();
    let mut votes = Vec::new();
    for (place, (unit, now)) in pair.baseline.units.iter().zip(&pair.finals).enumerate() {
        if total(unit.votes) > 0.0 && total(*now) > 0.0 {
            let value = value(&unit.votes, now);
            equations.push(Equation { value, own: 0.0, part: 0.0, entries: design.row(place).into() });
            votes.push(total(unit.votes));
        }
    }
    let mut unit = UnitVariance { base: 0.001, sampling: 1.0 };
    let mut sds: BTreeMap<&str, f64> = design.columns.iter().map(|name| (name.as_str(), 0.03)).collect();
    for _ in 0..ROUNDS {
        for (equation, votes) in equations.iter_mut().zip(&votes) {
            equation.own = unit.of(*votes);
        }
        let prior: Vec<f64> = design.columns.iter().map(|name| sds[name.as_str()]).collect();
        let posterior = solve(&equations, &prior, &vec![1.0; equations.len()], 1.0);
        let covariance = inverse(posterior.factor);
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (column, name) in design.columns.iter().enumerate() {
            let effect = posterior.mean[column];
            let sum = sums.entry(name.as_str()).or_default();
            *sum = (sum.0 + effect * effect + covariance[(column, column)], sum.1 + 1.0);
        }
        sds =
            sums.into_iter().map(|(name, (sum, count))| (name, libm::sqrt(sum / count).max(1e-4))).collect();
        let squares = equations.iter().zip(&votes).map(|(equation, votes)| {
            let residual = equation.value - dot(&equation.entries, &posterior.mean);
            (*votes, residual * residual + quadratic(&equation.entries, &covariance))
        });
        unit = variance(&squares.collect::<Vec<_>>(), unit);
    }
    let groups = sds.into_iter().filter(|(name, _)| ![groups::ORDER, groups::ORDER_LOCAL].contains(name));
    Spreads { groups: groups.map(|(name, sd)| (name.to_owned(), sd)).collect(), unit }
}

fn inverse(factor: DMatrix<f64>) -> DMatrix<f64> {
    Cholesky::pack_dirty(factor).inverse()
}

fn dot(entries: &[(usize, f64)], mean: &[f64]) -> f64 {
    entries.iter().map(|(column, value)| value * mean[*column]).sum()
}

fn quadratic(entries: &[(usize, f64)], covariance: &DMatrix<f64>) -> f64 {
    let row = |(column, value): &(usize, f64)| {
        let sum: f64 = entries.iter().map(|(other, v)| v * covariance[(*column, *other)]).sum();
        sum * value
    };
    entries.iter().map(row).sum()
}

/// Weighted least squares of squared deviations on 1 and 1 / votes.
fn variance(squares: &[(f64, f64)], last: UnitVariance) -> UnitVariance {
    let (mut aa, mut ab, mut bb, mut ya, mut yb) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (votes, square) in squares {
        let expected = last.of(*votes);
        let (weight, b) = (1.0 / (expected * expected), 1.0 / votes.max(1.0));
        let square = square.min(CUT * expected);
        aa += weight;
        ab += weight * b;
        bb += weight * b * b;
        ya += weight * square;
        yb += weight * square * b;
    }
    let determinant = aa * bb - ab * ab;
    if determinant <= 1e-9 * aa * bb {
        return UnitVariance { base: (ya / aa).max(1e-6), sampling: 0.0 };
    }
    let base = (ya * bb - yb * ab) / determinant;
    let sampling = (yb * aa - ya * ab) / determinant;
    if base < 1e-6 {
        return UnitVariance { base: 1e-6, sampling: (yb / bb).max(0.0) };
    }
    if sampling < 0.0 {
        return UnitVariance { base: (ya / aa).max(1e-6), sampling: 0.0 };
    }
    UnitVariance { base, sampling }
}
