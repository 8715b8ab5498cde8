//! What a unit's swing and turnout depend on, as a sparse matrix: a row a unit, a column an effect.

use crate::baseline::{Baseline, Unit, margin, total};

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

/// What a design needs to know of the votes at the last elections, one number a unit.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Votes.
    pub(crate) votes: Vec<f64>,
    /// Margin, from the side the model looks from.
    pub(crate) margin: Vec<f64>,
    /// Where the margin went in the election before; 0 if not known.
    pub(crate) trend: Vec<f64>,
}

impl Known {
    /// `flip` is -1 where the two selections are looked at the other way round, so that all comes out mirrored.
    pub(crate) fn of(baseline: &Baseline, flip: f64) -> Self {
        let of = |value: &dyn Fn(&Unit) -> f64| baseline.units.iter().map(value).collect();
        let trend =
            |unit: &Unit| unit.before.map_or(0.0, |before| flip * (margin(unit.votes) - margin(before)));
        Known {
            votes: of(&|unit| total(unit.votes)),
            margin: of(&|unit| flip * margin(unit.votes)),
            trend: of(&trend),
        }
    }
}

/// Rows and columns for a baseline; the same for swing and turnout.
#[derive(Debug, Clone)]
pub(crate) struct Design {
    /// Name of the group of each column; columns of a group have one prior spread.
    pub(crate) columns: Vec<String>,
    /// Non-zero entries, a unit after the other.
    entries: Vec<(usize, f64)>,
    /// Entries of one unit.
    width: usize,
    /// The column of the order of counting, everywhere, and the first of those of the local levels.
    pub(crate) order: (usize, Option<usize>),
}

impl Design {
    pub(crate) fn new(baseline: &Baseline, known: &Known) -> Self {
        let mut columns = Vec::new();
        // Levels of one factor have nothing to do with each other: with the finest factor first, least is filled in when
        // the equations are solved.
        let mut finest: Vec<usize> = (0..baseline.factors.len()).collect();
        finest.sort_by_key(|factor| std::cmp::Reverse(baseline.factors[*factor].levels));
        let mut first = vec![0; finest.len()];
        for place in finest {
            let factor = &baseline.factors[place];
            first[place] = columns.len();
            columns.extend(std::iter::repeat_n(factor.name.clone(), factor.levels));
        }
        let mut parts = Vec::new();
        for (name, values) in [(groups::SIZE, &known.votes), (groups::LEAN, &known.margin)] {
            parts.push((columns.len(), bins(&known.votes, values)));
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
        let nation = columns.len();
        columns.push(groups::NATION.to_owned());
        let covariates = covariates(baseline, known);
        let width = first.len() + parts.len() + 1 + covariates.len();
        let mut entries = Vec::with_capacity(width * baseline.units.len());
        for (place, unit) in baseline.units.iter().enumerate() {
            entries.extend(first.iter().zip(&unit.levels).map(|(first, level)| (first + level, 1.0)));
            entries.extend(parts.iter().map(|(first, bins)| (first + bins[place], 1.0)));
            entries.push((nation, 1.0));
            entries.extend((nation + 1..).zip(&covariates).map(|(column, values)| (column, values[place])));
        }
        columns.extend(std::iter::repeat_n(groups::COVARIATES.to_owned(), covariates.len()));
        Design { columns, entries, width, order }
    }

    /// Non-zero entries of a unit.
    pub(crate) fn row(&self, unit: usize) -> &[(usize, f64)] {
        &self.entries[unit * self.width..][..self.width]
    }

    /// The entries that say how a unit's part differs from its whole.
    pub(crate) fn order_entries(&self, level: Option<usize>, lack: f64) -> Vec<(usize, f64)> {
        let local = self.order.1.zip(level).map(|(first, level)| (first + level, lack));
        std::iter::once((self.order.0, lack)).chain(local).collect()
    }
}

/// Parts that the units are cut into by size and by margin, each with as many votes as the others.
const BINS: usize = 10;

/// The part of each unit; units of one value may fall into two.
fn bins(votes: &[f64], values: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]).then(a.cmp(b)));
    let all: f64 = places.iter().map(|place| votes[*place]).sum();
    let edges: Vec<f64> = (1..BINS).map(|bin| all * bin as f64 / BINS as f64).collect();
    let (mut bins, mut before) = (vec![0; values.len()], 0.0);
    for place in places {
        let middle = before + votes[place] / 2.0;
        bins[place] = edges.partition_point(|edge| *edge <= middle);
        before += votes[place];
    }
    bins
}

/// Each covariate over all units, standardised.
fn covariates(baseline: &Baseline, known: &Known) -> Vec<Vec<f64>> {
    let sizes = known.votes.iter().map(|votes| libm::log(votes.max(1.0))).collect();
    let mut all = vec![known.margin.clone(), known.trend.clone(), sizes];
    let units = &baseline.units;
    let given = |place: usize| units.iter().map(|unit| unit.covariates[place]).collect();
    all.extend((0..baseline.covariates.len()).map(given));
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
