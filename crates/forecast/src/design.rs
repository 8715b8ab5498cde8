//! What a unit's swing and turnout depend on, as a sparse matrix: a row a unit, a column an effect.

use crate::baseline::{Baseline, margin, total};

/// Standardised covariates are cut off here, so that no single unit holds a lever.
const CLIP: f64 = 3.0;

/// Names of the groups of columns that every design has. The groups of the factors have the factors' names.
pub mod groups {
    /// One column that all units share.
    pub const NATION: &str = "nation";
    /// The name of a factor of the baseline, if it has such a one, that is never taken to be alike.
    pub const REGION: &str = "region";
    /// Covariates, those of the baseline and the three that follow from its votes.
    pub const COVARIATES: &str = "covariates";
    /// Ten parts by votes at the last election.
    pub const SIZE: &str = "size";
    /// Ten parts by margin at the last election.
    pub const LEAN: &str = "lean";
    /// How what is counted first differs from the whole, everywhere.
    pub const ORDER: &str = "order";
    /// How it differs within a level of the local factor.
    pub const ORDER_LOCAL: &str = "order, local";
}

/// Rows and columns for a baseline; the same for swing and turnout.
#[derive(Debug, Clone)]
pub(crate) struct Design {
    /// Name of the group of each column; columns of a group have one prior spread.
    pub(crate) columns: Vec<String>,
    /// Non-zero entries of each unit.
    pub(crate) rows: Vec<Vec<(usize, f64)>>,
    /// The column of the order of counting, everywhere, and the first of those of the local levels.
    pub(crate) order: (usize, Option<usize>),
}

impl Design {
    /// `flip` is -1 where the two selections are looked at the other way round, so that all comes out mirrored.
    pub(crate) fn new(baseline: &Baseline, flip: f64) -> Self {
        let mut columns = Vec::new();
        let mut rows = vec![Vec::new(); baseline.units.len()];
        for (place, factor) in baseline.factors.iter().enumerate() {
            for (row, unit) in rows.iter_mut().zip(&baseline.units) {
                row.push((columns.len() + unit.levels[place], 1.0));
            }
            columns.extend(std::iter::repeat_n(factor.name.clone(), factor.levels));
        }
        for (name, values) in binned(baseline, flip) {
            for (row, bin) in rows.iter_mut().zip(bins(baseline, &values)) {
                row.push((columns.len() + bin, 1.0));
            }
            columns.extend(std::iter::repeat_n(name.to_owned(), BINS));
        }
        let local = baseline.local.map(|local| {
            let first = columns.len();
            let levels = baseline.factors[local].levels;
            columns.extend(std::iter::repeat_n(groups::ORDER_LOCAL.to_owned(), levels));
            first
        });
        let order = (columns.len(), local);
        columns.push(groups::ORDER.to_owned());
        rows.iter_mut().for_each(|row| row.push((columns.len(), 1.0)));
        columns.push(groups::NATION.to_owned());
        for values in covariates(baseline, flip) {
            for (row, value) in rows.iter_mut().zip(values) {
                row.push((columns.len(), value));
            }
            columns.push(groups::COVARIATES.to_owned());
        }
        Design { columns, rows, order }
    }

    /// The entries that say how a unit's part differs from its whole.
    pub(crate) fn order_entries(&self, level: Option<usize>, lack: f64) -> Vec<(usize, f64)> {
        let local = self.order.1.zip(level).map(|(first, level)| (first + level, lack));
        std::iter::once((self.order.0, lack)).chain(local).collect()
    }
}

/// Parts that the units are cut into by size and by margin, each with as many votes as the others.
const BINS: usize = 10;

/// What units are cut into parts by.
fn binned(baseline: &Baseline, flip: f64) -> [(&'static str, Vec<f64>); 2] {
    let of = |value: &dyn Fn([u64; 2]) -> f64| baseline.units.iter().map(|unit| value(unit.votes)).collect();
    [(groups::SIZE, of(&total)), (groups::LEAN, of(&|votes| flip * margin(votes)))]
}

/// The part of each unit; units of one value may fall into two.
fn bins(baseline: &Baseline, values: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|a, b| values[*a].total_cmp(&values[*b]).then(a.cmp(b)));
    let votes = |place: usize| total(baseline.units[place].votes);
    let all: f64 = places.iter().map(|place| votes(*place)).sum();
    let edges: Vec<f64> = (1..BINS).map(|bin| all * bin as f64 / BINS as f64).collect();
    let (mut bins, mut before) = (vec![0; values.len()], 0.0);
    for place in places {
        let middle = before + votes(place) / 2.0;
        bins[place] = edges.partition_point(|edge| *edge <= middle);
        before += votes(place);
    }
    bins
}

/// Each covariate over all units, standardised.
fn covariates(baseline: &Baseline, flip: f64) -> Vec<Vec<f64>> {
    let units = &baseline.units;
    let each = |value: &dyn Fn(usize) -> f64| (0..units.len()).map(value).collect::<Vec<f64>>();
    let mut all = vec![
        each(&|i| flip * margin(units[i].votes)),
        each(&|i| units[i].before.map_or(0.0, |before| flip * (margin(units[i].votes) - margin(before)))),
        each(&|i| libm::log(total(units[i].votes).max(1.0))),
    ];
    all.extend((0..baseline.covariates.len()).map(|place| each(&|i| units[i].covariates[place])));
    all.iter_mut().for_each(|values| standardise(values));
    all
}

fn standardise(values: &mut [f64]) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    let sd = libm::sqrt(variance);
    for value in values {
        *value = if sd > 1e-12 { ((*value - mean) / sd).clamp(-CLIP, CLIP) } else { 0.0 };
    }
}
