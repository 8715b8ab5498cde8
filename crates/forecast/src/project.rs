//! From what was seen to a projection.

use thiserror::Error;

use crate::baseline::{Baseline, BaselineError, Seen, margin, total};
use crate::cells::{Night, Part};
use crate::design::Design;
use crate::draws::{AreaDraws, Source};
use crate::fit::{Equation, Posterior, fit};
use crate::model::Model;

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
    baseline.check()?;
    if seen.len() != baseline.units.len() {
        return Err(ProjectError::Length { seen: seen.len(), units: baseline.units.len() });
    }
    if !(MIN_DRAWS..=MAX_DRAWS).contains(&draws) {
        return Err(ProjectError::Draws(draws));
    }
    let flip = orientation(baseline);
    let design = Design::new(baseline, flip);
    let evidence = Evidence { model, baseline, seen, design: &design, flip };
    let turnout = evidence.turnout();
    let parts = evidence.parts(&turnout);
    let margin = evidence.margin(&parts);
    let residuals = evidence.residuals(&margin);
    let night = Night { model, baseline, seen, design: &design, flip, margin: &margin, turnout: &turnout };
    let cells = night.cells(&parts);
    let source = Source { model, baseline, margin: &margin, turnout: &turnout, cells: &cells, seed, draws };
    let mut areas = source.draw(&certain(baseline, seen, flip));
    for lead in areas.iter_mut().flat_map(|area| &mut area.lead) {
        *lead = flip * *lead + 0.0;
    }
    let seats = seats(baseline, &areas);
    let counted = counted(baseline, seen);
    let expected = evidence.expected(&margin, &turnout);
    let (open, baseline_in) = (open(baseline, seen), baseline_in(baseline, seen));
    Ok(Projection { areas, seats, counted, open, baseline_in, expected, unit_scale: margin.scale, residuals })
}

/// The model always looks from the side that led before, so that changing the two mirrors every draw.
fn orientation(baseline: &Baseline) -> f64 {
    let lead = |votes: [u64; 2]| margin(votes) * total(votes);
    let whole: f64 = baseline.units.iter().map(|unit| lead(unit.votes)).sum();
    let units =
        baseline.units.iter().flat_map(|unit| std::iter::once(lead(unit.votes)).chain(unit.before.map(lead)));
    let first = std::iter::once(whole).chain(units).find(|lead| *lead != 0.0);
    if first.is_some_and(|lead| lead < 0.0) { -1.0 } else { 1.0 }
}

struct Evidence<'a> {
    model: &'a Model,
    baseline: &'a Baseline,
    seen: &'a [Seen],
    design: &'a Design,
    flip: f64,
}

impl Evidence<'_> {
    fn prior(&self, part: fn(crate::model::Both) -> f64) -> Vec<f64> {
        self.design.columns.iter().map(|name| part(self.model.spread(name))).collect()
    }

    /// Final units with votes then and now.
    fn finals(&self) -> impl Iterator<Item = (usize, f64, [u64; 2])> {
        self.seen.iter().enumerate().filter_map(|(unit, seen)| match seen {
            Seen::Final(votes) => {
                let before = total(self.baseline.units[unit].votes);
                (before > 0.0 && total(*votes) > 0.0).then_some((unit, before, *votes))
            }
            _ => None,
        })
    }

    fn with_order(&self, part: Part) -> Vec<(usize, f64)> {
        let level = self.baseline.local.map(|local| self.baseline.units[part.unit].levels[local]);
        let order = self.design.order_entries(level, part.lack);
        self.design.rows[part.unit].iter().copied().chain(order).collect()
    }

    fn turnout(&self) -> Posterior {
        let mut equations: Vec<Equation> = self
            .finals()
            .map(|(unit, before, votes)| Equation {
                value: libm::log(total(votes) / before),
                own: self.model.unit_turnout.of(before),
                part: 0.0,
                entries: self.design.rows[unit].clone(),
            })
            .collect();
        for (unit, seen) in self.seen.iter().enumerate() {
            let Seen::Part { votes, fraction: Some(fraction) } = seen else { continue };
            let before = total(self.baseline.units[unit].votes);
            if before > 0.0 && total(*votes) > 0.0 {
                let part = Part::new(unit, *fraction, true);
                equations.push(Equation {
                    value: libm::log(total(*votes) / ((1.0 - part.lack) * before)),
                    own: self.model.unit_turnout.of(before),
                    part: part.turnout_variance(),
                    entries: self.with_order(part),
                });
            }
        }
        fit(&equations, &self.prior(|both| both.turnout))
    }

    /// Partial units. Where no source says how much of a unit is in, the expected turnout does.
    fn parts(&self, turnout: &Posterior) -> Vec<Part> {
        let mut parts = Vec::new();
        for (unit, seen) in self.seen.iter().enumerate() {
            let Seen::Part { votes, fraction } = seen else { continue };
            let before = total(self.baseline.units[unit].votes);
            if before > 0.0 && total(*votes) > 0.0 {
                let expected = before * libm::exp(turnout.at(&self.design.rows[unit]));
                let fraction_now = fraction.unwrap_or(total(*votes) / expected);
                parts.push(Part::new(unit, fraction_now, fraction.is_some()));
            }
        }
        parts
    }

    fn swing(&self, unit: usize, votes: [u64; 2]) -> f64 {
        self.flip * (margin(votes) - margin(self.baseline.units[unit].votes))
    }

    fn margin(&self, parts: &[Part]) -> Posterior {
        let finals = self.finals().map(|(unit, before, votes)| Equation {
            value: self.swing(unit, votes),
            own: self.model.unit_margin.of(before),
            part: 0.0,
            entries: self.design.rows[unit].clone(),
        });
        let parts = parts.iter().map(|part| Equation {
            value: self.swing(part.unit, self.seen[part.unit].votes()),
            own: self.model.unit_margin.of(total(self.baseline.units[part.unit].votes)),
            part: part.margin_variance(),
            entries: self.with_order(*part),
        });
        fit(&finals.chain(parts).collect::<Vec<_>>(), &self.prior(|both| both.margin))
    }

    fn expected(&self, swing: &Posterior, turnout: &Posterior) -> Vec<Option<[f64; 2]>> {
        let units = self.baseline.units.iter().zip(&self.design.rows);
        let of = |(unit, row): (&crate::baseline::Unit, &Vec<(usize, f64)>)| {
            let before = total(unit.votes);
            let margin = margin(unit.votes) + self.flip * swing.at(row);
            (before > 0.0).then(|| [before * libm::exp(turnout.at(row)), margin.clamp(-1.0, 1.0)])
        };
        units.map(of).collect()
    }

    fn residuals(&self, margin: &Posterior) -> Vec<Option<f64>> {
        let mut residuals = vec![None; self.seen.len()];
        for (unit, before, votes) in self.finals() {
            let sd = libm::sqrt(self.model.unit_margin.of(before) * margin.scale);
            let off = self.swing(unit, votes) - margin.at(&self.design.rows[unit]);
            residuals[unit] = Some(self.flip * off / sd);
        }
        residuals
    }
}

/// Votes and lead of units that the draws do not touch, in their own area.
fn certain(baseline: &Baseline, seen: &[Seen], flip: f64) -> Vec<(f64, f64)> {
    let mut areas = vec![(0.0, 0.0); baseline.areas.len()];
    for (unit, seen) in baseline.units.iter().zip(seen) {
        let drawn = total(unit.votes) > 0.0
            && match seen {
                Seen::Final(_) => false,
                Seen::Part { votes, .. } => total(*votes) > 0.0,
                Seen::Nothing => true,
            };
        if !drawn {
            add_votes(&mut areas[unit.area], seen.votes(), flip);
        }
    }
    areas
}

fn add_votes(area: &mut (f64, f64), [first, second]: [u64; 2], flip: f64) {
    let lead = crate::baseline::float(first) - crate::baseline::float(second);
    *area = (area.0 + total([first, second]), area.1 + flip * lead);
}

fn counted(baseline: &Baseline, seen: &[Seen]) -> Vec<(f64, f64)> {
    let mut areas = vec![(0.0, 0.0); baseline.areas.len()];
    for (unit, seen) in baseline.units.iter().zip(seen) {
        add_votes(&mut areas[unit.area], seen.votes(), 1.0);
    }
    roll_up(baseline, &mut areas);
    areas
}

fn open(baseline: &Baseline, seen: &[Seen]) -> Vec<usize> {
    let mut areas = vec![0; baseline.areas.len()];
    for (unit, seen) in baseline.units.iter().zip(seen) {
        areas[unit.area] += usize::from(!matches!(seen, Seen::Final(_)));
    }
    for place in (1..areas.len()).rev() {
        if let Some(parent) = baseline.areas[place].parent {
            areas[parent] += areas[place];
        }
    }
    areas
}

fn baseline_in(baseline: &Baseline, seen: &[Seen]) -> Vec<f64> {
    let mut areas = vec![(0.0, 0.0); baseline.areas.len()];
    for (unit, seen) in baseline.units.iter().zip(seen) {
        let votes = total(unit.votes);
        let area = &mut areas[unit.area];
        *area = (area.0 + votes, area.1 + if matches!(seen, Seen::Final(_)) { votes } else { 0.0 });
    }
    roll_up(baseline, &mut areas);
    areas.iter().map(|(all, are_in)| if *all > 0.0 { are_in / all } else { 1.0 }).collect()
}

fn roll_up(baseline: &Baseline, areas: &mut [(f64, f64)]) {
    for place in (1..areas.len()).rev() {
        if let Some(parent) = baseline.areas[place].parent {
            let part = areas[place];
            areas[parent] = (areas[parent].0 + part.0, areas[parent].1 + part.1);
        }
    }
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
