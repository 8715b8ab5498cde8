//! What is still open: a cell is a unit that is not final, or many alike where there are too many to draw each.

use std::collections::BTreeMap;

use crate::design::Design;
use crate::field::{Field, Split, State};
use crate::fit::Posterior;
use crate::model::{Both, Model, PART, UnitVariance};

/// Beyond so many open units, units of an area with the same levels are drawn together.
pub const MAX_CELLS: usize = 2_048;
/// A part is never taken to be all but nothing, nor all.
const FRACTIONS: (f64, f64) = (0.02, 0.975);

/// A linear function of the effects, and noise: `offset + entries · effects + sd · normal`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Linear {
    pub(crate) offset: f64,
    pub(crate) entries: Vec<(usize, f64)>,
    pub(crate) sd: f64,
}

/// What one or more open units will add.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub(crate) area: usize,
    /// Place of the first unit: what its noise is drawn by.
    pub(crate) unit: usize,
    /// Votes at the last election.
    pub(crate) votes: f64,
    /// Votes of each selection that are counted already.
    pub(crate) counted: Vec<f64>,
    /// Logarithm of the votes at the end over those of the last election.
    pub(crate) turnout: Linear,
    /// The margin of each split at the end, from -1 to 1.
    pub(crate) margins: Vec<Linear>,
}

/// A unit that reported a part: what it tells, and how far it is from the whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// What is lacking, as a share of the whole.
    pub(crate) lack: f64,
    /// Whether a source said so; if not, the part says nothing of the turnout.
    pub(crate) told: bool,
}

impl Part {
    pub(crate) fn new(fraction: f64, told: bool) -> Self {
        let fraction = if fraction.is_nan() { FRACTIONS.0 } else { fraction };
        Part { lack: 1.0 - fraction.clamp(FRACTIONS.0, FRACTIONS.1), told }
    }

    pub(crate) fn margin_variance(&self) -> f64 {
        (PART.margin * self.lack) * (PART.margin * self.lack)
    }

    pub(crate) fn turnout_variance(&self) -> f64 {
        (PART.turnout * self.lack) * (PART.turnout * self.lack)
    }
}

/// One split, and what the night says of it.
pub(crate) struct Fitted {
    pub(crate) split: Split,
    pub(crate) posterior: Posterior,
}

/// Everything that cells are made from.
pub(crate) struct Night<'a> {
    pub(crate) model: &'a Model,
    pub(crate) field: &'a Field<'a>,
    pub(crate) design: &'a Design,
    pub(crate) turnout: &'a Posterior,
    pub(crate) splits: &'a [Fitted],
    pub(crate) parts: &'a [Option<Part>],
}

/// What is expected of one unit, before the effects: how much of them it has, and what a part of it tells.
struct Expected {
    offset: f64,
    variance: f64,
    /// How far the part that was seen is believed, from 0 to 1.
    trust: f64,
    lack: f64,
    /// How much of what late units have in addition this one has.
    late: f64,
}

impl Expected {
    /// Given `value = whole + order + noise of the part`, the whole is a mixture of what is expected and what was seen.
    fn of(offset: f64, variance: f64, part: Option<Part>, seen: Option<(f64, f64)>) -> Self {
        let (lack, late) = part.map_or((0.0, 1.0), |part| (part.lack, part.lack));
        let Some((value, noise)) = seen else { return Expected { offset, variance, trust: 0.0, lack, late } };
        let trust = variance / (variance + noise);
        let offset = offset + trust * (value - offset);
        Expected { offset, variance: variance * (1.0 - trust), trust, lack, late }
    }
}

impl Night<'_> {
    fn turnout_of(&self, unit: usize) -> Expected {
        let before = self.field.before(unit);
        let variance = self.model.unit_turnout.of(before) * self.turnout.scale;
        let part = self.parts[unit];
        let seen = part.filter(|part| part.told).map(|part| {
            let value = libm::log(self.field.counted(unit) / ((1.0 - part.lack) * before));
            (value, part.turnout_variance())
        });
        Expected::of(0.0, variance, part, seen)
    }

    fn margin_of(&self, unit: usize, place: usize) -> Expected {
        let Fitted { split, posterior } = &self.splits[place];
        let square = split.scale * split.scale;
        let variance = self.model.unit_margin.of(split.weight[unit]) * posterior.scale * square;
        let part = self.parts[unit];
        let (counted, margin) = Field::split_of(self.field.now(unit), place);
        let seen = part.filter(|_| counted > 0.0).map(|part| (margin, part.margin_variance() * square));
        Expected::of(split.base[unit], variance, part, seen)
    }

    /// All open units that can be predicted; those of an area with the same levels together where there are too many.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut open: Vec<usize> =
            (0..self.field.units()).filter(|unit| self.field.is_drawn(*unit)).collect();
        if open.len() <= MAX_CELLS {
            return open.iter().map(|unit| self.cell(&[*unit])).collect();
        }
        let key = |unit: &usize| {
            let known = &self.field.baseline.units[*unit];
            (known.area, self.field.states[*unit] != State::Nothing, &known.levels)
        };
        let base = &self.splits[0].split.base;
        open.sort_unstable_by(|a, b| {
            key(a).cmp(&key(b)).then_with(|| base[*a].total_cmp(&base[*b])).then(a.cmp(b))
        });
        let size = open.len().div_ceil(MAX_CELLS).max(1);
        let groups = open.chunk_by(|a, b| key(a) == key(b));
        groups.flat_map(|group| group.chunks(size)).map(|units| self.cell(units)).collect()
    }

    /// One cell for some units: votes add up, the rest is weighted by them.
    fn cell(&self, units: &[usize]) -> Cell {
        let votes: f64 = units.iter().map(|unit| self.field.before(*unit)).sum();
        let mut counted = vec![0.0; self.field.selections()];
        for unit in units {
            counted.iter_mut().zip(self.field.now(*unit)).for_each(|(sum, votes)| *sum += votes);
        }
        Cell {
            area: self.field.baseline.units[units[0]].area,
            unit: units[0],
            votes,
            counted,
            turnout: self.linear(units, votes, |unit| self.turnout_of(unit)),
            margins: (0..self.splits.len())
                .map(|place| self.linear(units, votes, |unit| self.margin_of(unit, place)))
                .collect(),
        }
    }

    fn linear(&self, units: &[usize], votes: f64, expected: impl Fn(usize) -> Expected) -> Linear {
        let mut sum = Linear { offset: 0.0, entries: Vec::new(), sd: 0.0 };
        let mut entries: BTreeMap<usize, f64> = BTreeMap::new();
        for unit in units {
            let weight = self.field.before(*unit) / votes;
            let expected = expected(*unit);
            sum.offset += weight * expected.offset;
            sum.sd += weight * weight * expected.variance;
            let mut add = |column: usize, value: f64| match units.len() {
                1 => sum.entries.push((column, value)),
                _ => *entries.entry(column).or_default() += weight * value,
            };
            for (column, value) in self.design.row(*unit) {
                add(*column, value * (1.0 - expected.trust));
            }
            let known = &self.field.baseline.units[*unit];
            let level = self.field.baseline.local.map(|local| known.levels[local]);
            if expected.trust > 0.0 {
                for (column, value) in self.design.order_entries(level, expected.lack) {
                    add(column, -expected.trust * value);
                }
            }
            // Columns behind those of the design: how late units differ, everywhere and locally.
            let late = self.design.columns.len();
            add(late, expected.late);
            if let Some(level) = level {
                add(late + 1 + level, expected.late);
            }
        }
        sum.entries.extend(entries);
        sum.sd = libm::sqrt(sum.sd);
        sum
    }
}

/// The spreads of a split: those of an even one, times its scale.
pub(crate) fn scaled(both: Both, scale: f64) -> f64 {
    both.margin * scale
}

/// Variance of a unit's own deviation in a split.
pub(crate) fn own(variance: UnitVariance, split: &Split, unit: usize) -> f64 {
    variance.of(split.weight[unit]) * split.scale * split.scale
}
