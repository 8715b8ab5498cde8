//! What is still open: a cell is a unit that is not final, or many alike where there are too many to draw each.

use crate::baseline::{Baseline, Seen, total};
use crate::design::Design;
use crate::fit::Posterior;
use crate::model::{Model, PART};

/// Beyond so many open units, units of an area with the same levels are drawn together.
pub const MAX_CELLS: usize = 4_096;
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
    /// Two-party votes at the last election.
    pub(crate) votes: f64,
    /// Two-party votes and margin in votes that are counted already.
    pub(crate) counted: (f64, f64),
    /// The margin at the end, from -1 to 1.
    pub(crate) margin: Linear,
    /// Logarithm of the votes at the end over those of the last election.
    pub(crate) turnout: Linear,
}

/// A unit that reported a part: what it tells, and how far it is from the whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) unit: usize,
    /// What is lacking, as a share of the whole.
    pub(crate) lack: f64,
    /// Whether a source said so; if not, the part says nothing of the turnout.
    pub(crate) told: bool,
}

impl Part {
    pub(crate) fn new(unit: usize, fraction: f64, told: bool) -> Self {
        Part { unit, lack: 1.0 - fraction.clamp(FRACTIONS.0, FRACTIONS.1), told }
    }

    pub(crate) fn margin_variance(&self) -> f64 {
        (PART.margin * self.lack) * (PART.margin * self.lack)
    }

    pub(crate) fn turnout_variance(&self) -> f64 {
        (PART.turnout * self.lack) * (PART.turnout * self.lack)
    }
}

/// Everything that cells are made from.
pub(crate) struct Night<'a> {
    pub(crate) model: &'a Model,
    pub(crate) baseline: &'a Baseline,
    pub(crate) seen: &'a [Seen],
    pub(crate) design: &'a Design,
    pub(crate) flip: f64,
    pub(crate) margin: &'a Posterior,
    pub(crate) turnout: &'a Posterior,
}

impl Night<'_> {
    fn level(&self, unit: usize) -> Option<usize> {
        self.baseline.local.map(|local| self.baseline.units[unit].levels[local])
    }

    /// Columns behind those of the design: how late units differ, everywhere and locally.
    fn late(&self, unit: usize, share: f64) -> Vec<(usize, f64)> {
        let first = self.design.columns.len();
        let local = self.level(unit).map(|level| (first + 1 + level, share));
        std::iter::once((first, share)).chain(local).collect()
    }

    /// A unit of which nothing is known.
    fn open(&self, unit: usize) -> Cell {
        let known = &self.baseline.units[unit];
        let votes = total(known.votes);
        let entries: Vec<_> = self.design.rows[unit].iter().copied().chain(self.late(unit, 1.0)).collect();
        let sd = |variance: f64, scale: f64| libm::sqrt(variance * scale);
        let (margin, turnout) = (self.model.unit_margin.of(votes), self.model.unit_turnout.of(votes));
        let base = self.flip * crate::baseline::margin(known.votes);
        Cell {
            area: known.area,
            unit,
            votes,
            counted: (0.0, 0.0),
            margin: Linear { offset: base, entries: entries.clone(), sd: sd(margin, self.margin.scale) },
            turnout: Linear { offset: 0.0, entries, sd: sd(turnout, self.turnout.scale) },
        }
    }

    /// A unit of which a part is known: its own deviation is partly known too.
    fn partial(&self, part: Part) -> Cell {
        let mut cell = self.open(part.unit);
        let votes = self.seen[part.unit].votes();
        let margin = self.flip * crate::baseline::margin(votes);
        let [first, second] = votes.map(crate::baseline::float);
        cell.counted = (first + second, self.flip * (first - second));
        self.learn(&mut cell.margin, part, margin, part.margin_variance());
        if part.told {
            let seen = libm::log(total(votes) / ((1.0 - part.lack) * cell.votes));
            self.learn(&mut cell.turnout, part, seen, part.turnout_variance());
        }
        cell
    }

    /// Given `value = whole + order + noise of the part`, the whole is a mixture of what is expected and what was seen.
    fn learn(&self, linear: &mut Linear, part: Part, value: f64, noise: f64) {
        let own = linear.sd * linear.sd;
        let trust = own / (own + noise);
        let design = self.design.columns.len();
        for (column, entry) in &mut linear.entries {
            *entry *= if *column >= design { part.lack } else { 1.0 - trust };
        }
        let order = self.design.order_entries(self.level(part.unit), part.lack);
        linear.entries.extend(order.into_iter().map(|(column, entry)| (column, -trust * entry)));
        linear.offset += trust * (value - linear.offset);
        linear.sd = libm::sqrt(own * (1.0 - trust));
    }

    /// All open units that can be predicted.
    pub(crate) fn cells(&self, parts: &[Part]) -> Vec<Cell> {
        let open =
            self.seen.iter().enumerate().filter(|(unit, seen)| {
                **seen == Seen::Nothing && total(self.baseline.units[*unit].votes) > 0.0
            });
        let mut cells: Vec<Cell> = open.map(|(unit, _)| self.open(unit)).collect();
        if cells.len() > MAX_CELLS {
            cells = self.merge(cells, MAX_CELLS);
        }
        let partial = parts.iter().map(|part| self.partial(*part)).collect::<Vec<_>>();
        let partial = if partial.len() > MAX_CELLS { self.merge(partial, MAX_CELLS) } else { partial };
        cells.extend(partial);
        cells
    }

    /// Puts units of one area with the same levels together, those of a like margin first.
    fn merge(&self, mut cells: Vec<Cell>, most: usize) -> Vec<Cell> {
        let levels = |cell: &Cell| &self.baseline.units[cell.unit].levels;
        cells.sort_by(|a, b| {
            let by_place = a.area.cmp(&b.area).then_with(|| levels(a).cmp(levels(b)));
            by_place.then_with(|| a.margin.offset.total_cmp(&b.margin.offset)).then(a.unit.cmp(&b.unit))
        });
        let size = cells.len().div_ceil(most);
        let alike = |a: &Cell, b: &Cell| a.area == b.area && levels(a) == levels(b);
        let groups = cells.chunk_by(alike).flat_map(|group| group.chunks(size.max(1)));
        groups.map(join).collect()
    }
}

/// One cell for many: votes add up, the rest is weighted by them.
fn join(cells: &[Cell]) -> Cell {
    let mut whole = cells[0].clone();
    whole.votes = cells.iter().map(|cell| cell.votes).sum();
    whole.counted = cells.iter().fold((0.0, 0.0), |sum, c| (sum.0 + c.counted.0, sum.1 + c.counted.1));
    let weigh = |part: fn(&Cell) -> &Linear| {
        let mut sum = Linear { offset: 0.0, entries: Vec::new(), sd: 0.0 };
        for cell in cells {
            let (weight, linear) = (cell.votes / whole.votes, part(cell));
            sum.offset += weight * linear.offset;
            sum.sd += weight * weight * linear.sd * linear.sd;
            sum.entries.extend(linear.entries.iter().map(|(column, value)| (*column, weight * value)));
        }
        sum.sd = libm::sqrt(sum.sd);
        sum.entries.sort_by_key(|(column, _)| *column);
        sum.entries.dedup_by(|from, into| {
            let same = from.0 == into.0;
            into.1 += if same { from.1 } else { 0.0 };
            same
        });
        sum
    };
    (whole.margin, whole.turnout) = (weigh(|cell| &cell.margin), weigh(|cell| &cell.turnout));
    whole
}
