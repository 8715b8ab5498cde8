//! From what was seen of a contest to draws of it, whatever the number of its selections.

use crate::baseline::Baseline;
use crate::cells::{Fitted, Night, Part, own, scaled};
use crate::design::{Design, Known};
use crate::draws::{Rows, Source};
use crate::field::{Field, State};
use crate::fit::{Equation, Posterior, fit};
use crate::model::{Both, Model};

/// What a night comes to; selections in the order of the field.
pub(crate) struct Outcome {
    pub(crate) areas: Vec<Rows>,
    /// What the fit expects of each unit: votes, and the margin of each split. None without a baseline.
    pub(crate) expected: Vec<Option<(f64, Vec<f64>)>>,
    /// How far each final unit's margin of a split is from what the fit says of it, in standard deviations.
    pub(crate) residuals: Vec<Vec<Option<f64>>>,
    /// The night's unit variance of the first split, as a multiple of the learned one.
    pub(crate) unit_scale: f64,
}

/// Everything that the night says, before any draw.
pub(crate) struct Fits {
    pub(crate) design: Design,
    pub(crate) turnout: Posterior,
    /// What each partial unit tells.
    pub(crate) parts: Vec<Option<Part>>,
    pub(crate) splits: Vec<Fitted>,
}

/// Fits turnout and splits.
pub(crate) fn fits(model: &Model, field: &Field<'_>, known: &Known) -> Fits {
    let design = Design::new(field.baseline, known);
    let evidence = Evidence { model, field, design: &design };
    let turnout = evidence.turnout();
    let parts = evidence.parts(&turnout);
    let splits = (0..field.selections() - 1).map(|place| evidence.split(place, &parts)).collect();
    Fits { design, turnout, parts, splits }
}

/// Fits, and draws.
pub(crate) fn run(model: &Model, field: &Field<'_>, known: &Known, seed: u64, draws: usize) -> Outcome {
    let Fits { design, turnout, parts, splits } = &fits(model, field, known);
    let cells = Night { model, field, design, turnout, splits, parts }.cells();
    let source = Source { model, field, turnout, splits, cells: &cells, seed, draws };
    let areas = source.draw(&certain(field));
    let evidence = Evidence { model, field, design };
    Outcome {
        areas,
        expected: evidence.expected(turnout, splits),
        residuals: splits.iter().enumerate().map(|(place, of)| evidence.residuals(place, of)).collect(),
        unit_scale: splits[0].posterior.scale,
    }
}

struct Evidence<'a> {
    model: &'a Model,
    field: &'a Field<'a>,
    design: &'a Design,
}

impl Evidence<'_> {
    fn prior(&self, part: impl Fn(Both) -> f64) -> Vec<f64> {
        self.design.columns.iter().map(|name| part(self.model.spread(name))).collect()
    }

    /// Final units with votes then and now.
    fn finals(&self) -> impl Iterator<Item = usize> {
        let field = self.field;
        (0..field.units()).filter(|unit| {
            field.states[*unit] == State::Final && field.before(*unit) > 0.0 && field.counted(*unit) > 0.0
        })
    }

    fn with_order(&self, unit: usize, lack: f64) -> Vec<(usize, f64)> {
        let baseline = self.field.baseline;
        let level = baseline.local.map(|local| baseline.units[unit].levels[local]);
        let order = self.design.order_entries(level, lack);
        self.design.row(unit).iter().copied().chain(order).collect()
    }

    fn turnout(&self) -> Posterior {
        let field = self.field;
        let mut equations: Vec<Equation<'_>> = self
            .finals()
            .map(|unit| Equation {
                value: libm::log(field.counted(unit) / field.before(unit)),
                own: self.model.unit_turnout.of(field.before(unit)),
                part: 0.0,
                entries: self.design.row(unit).into(),
            })
            .collect();
        for unit in (0..field.units()).filter(|unit| field.is_part(*unit)) {
            let State::Part(Some(fraction)) = field.states[unit] else { continue };
            let part = Part::new(fraction, true);
            equations.push(Equation {
                value: libm::log(field.counted(unit) / ((1.0 - part.lack) * field.before(unit))),
                own: self.model.unit_turnout.of(field.before(unit)),
                part: part.turnout_variance(),
                entries: self.with_order(unit, part.lack).into(),
            });
        }
        fit(&equations, &self.prior(|both| both.turnout))
    }

    /// Partial units. Where no source says how much of a unit is in, the expected turnout does.
    fn parts(&self, turnout: &Posterior) -> Vec<Option<Part>> {
        let part = |unit: usize| {
            let State::Part(fraction) = self.field.states[unit] else { return None };
            let expected = self.field.before(unit) * libm::exp(turnout.at(self.design.row(unit)));
            let fraction_now = fraction.unwrap_or(self.field.counted(unit) / expected);
            self.field.is_part(unit).then(|| Part::new(fraction_now, fraction.is_some()))
        };
        (0..self.field.units()).map(part).collect()
    }

    fn split(&self, place: usize, parts: &[Option<Part>]) -> Fitted {
        let split = self.field.split(place);
        let square = split.scale * split.scale;
        let mut equations = Vec::new();
        for unit in self.finals() {
            let (all, margin) = Field::split_of(self.field.now(unit), place);
            if all > 0.0 {
                equations.push(Equation {
                    value: margin - split.base[unit],
                    own: own(self.model.unit_margin, &split, unit),
                    part: 0.0,
                    entries: self.design.row(unit).into(),
                });
            }
        }
        for (unit, part) in parts.iter().enumerate().filter_map(|(unit, part)| part.map(|part| (unit, part)))
        {
            let (all, margin) = Field::split_of(self.field.now(unit), place);
            if all > 0.0 {
                equations.push(Equation {
                    value: margin - split.base[unit],
                    own: own(self.model.unit_margin, &split, unit),
                    part: part.margin_variance() * square,
                    entries: self.with_order(unit, part.lack).into(),
                });
            }
        }
        let posterior = fit(&equations, &self.prior(|both| scaled(both, split.scale)));
        Fitted { split, posterior }
    }

    fn expected(&self, turnout: &Posterior, splits: &[Fitted]) -> Vec<Option<(f64, Vec<f64>)>> {
        let of = |unit: usize| {
            let (before, row) = (self.field.before(unit), self.design.row(unit));
            let margin = |of: &Fitted| (of.split.base[unit] + of.posterior.at(row)).clamp(-1.0, 1.0);
            (before > 0.0).then(|| (before * libm::exp(turnout.at(row)), splits.iter().map(margin).collect()))
        };
        (0..self.field.units()).map(of).collect()
    }

    fn residuals(&self, place: usize, of: &Fitted) -> Vec<Option<f64>> {
        let mut residuals = vec![None; self.field.units()];
        for unit in self.finals() {
            let (all, margin) = Field::split_of(self.field.now(unit), place);
            if all > 0.0 {
                let sd = libm::sqrt(own(self.model.unit_margin, &of.split, unit) * of.posterior.scale);
                let off = margin - of.split.base[unit] - of.posterior.at(self.design.row(unit));
                residuals[unit] = Some(off / sd);
            }
        }
        residuals
    }
}

/// Votes of units that the draws do not touch, in their own area.
fn certain(field: &Field<'_>) -> Vec<Vec<f64>> {
    sums(field, |unit| !field.is_drawn(unit))
}

fn sums(field: &Field<'_>, takes: impl Fn(usize) -> bool) -> Vec<Vec<f64>> {
    let mut areas = vec![vec![0.0; field.selections()]; field.baseline.areas.len()];
    for unit in (0..field.units()).filter(|unit| takes(*unit)) {
        let area = &mut areas[field.baseline.units[unit].area];
        area.iter_mut().zip(field.now(unit)).for_each(|(sum, votes)| *sum += votes);
    }
    areas
}

/// Votes of each selection that are counted in each area, with all its parts.
pub(crate) fn counted(field: &Field<'_>) -> Vec<Vec<f64>> {
    let mut areas = sums(field, |_| true);
    roll_up(field.baseline, &mut areas, |into, from| {
        into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
    });
    areas
}

/// Units of each area, with all its parts, that are not final.
pub(crate) fn open(field: &Field<'_>) -> Vec<usize> {
    let mut areas = vec![0; field.baseline.areas.len()];
    for (unit, state) in field.baseline.units.iter().zip(&field.states) {
        areas[unit.area] += usize::from(*state != State::Final);
    }
    roll_up(field.baseline, &mut areas, |into, from| *into += from);
    areas
}

/// Share of each area's baseline votes that lies in final units.
pub(crate) fn baseline_in(field: &Field<'_>) -> Vec<f64> {
    let mut areas = vec![(0.0, 0.0); field.baseline.areas.len()];
    for unit in 0..field.units() {
        let votes = field.before(unit);
        let area: &mut (f64, f64) = &mut areas[field.baseline.units[unit].area];
        let is_in = if field.states[unit] == State::Final { votes } else { 0.0 };
        *area = (area.0 + votes, area.1 + is_in);
    }
    roll_up(field.baseline, &mut areas, |into, from| *into = (into.0 + from.0, into.1 + from.1));
    areas.iter().map(|(all, are_in)| if *all > 0.0 { are_in / all } else { 1.0 }).collect()
}

fn roll_up<T>(baseline: &Baseline, areas: &mut [T], add: impl Fn(&mut T, &T)) {
    for place in (1..areas.len()).rev() {
        if let Some(parent) = baseline.areas[place].parent {
            let (above, below) = areas.split_at_mut(place);
            add(&mut above[parent], &below[0]);
        }
    }
}
