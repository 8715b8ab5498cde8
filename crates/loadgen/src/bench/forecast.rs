//! Projections of past elections as they came in, scored against how they ended.

pub mod counties;
mod elex;
mod score;
mod setting;

use std::fmt;
use std::time::Instant;

use canvass_forecast::{Model, Projection, Seen, project};

pub use counties::County;
pub use elex::{Elex, PACKAGE};
pub use score::{Case, Score};
pub use setting::{Order, Pair, STAGES, pairs};

/// Why there is no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One projection of the benchmark, with the case of each area that is not complete.
#[derive(Debug, Clone)]
pub struct Update {
    /// The order in which counties come in.
    pub order: Order,
    /// Percent of them that are in.
    pub stage: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// The nation.
    pub nation: Case,
    /// Each state that is not complete, by its number.
    pub states: Vec<(usize, Case)>,
}

/// All updates of a pair.
///
/// # Errors
/// The baseline is none.
pub fn updates(counties: &[County], pair: &Pair, model: &Model, draws: usize) -> Result<Vec<Update>, Fault> {
    let mut updates = Vec::new();
    for order in Order::ALL {
        let places = order.places(counties, pair.before);
        for stage in STAGES {
            let mut seen = vec![Seen::Nothing; places.len()];
            for place in &places[..places.len() * stage / 100] {
                seen[*place] = Seen::Final(pair.finals[*place]);
            }
            let started = Instant::now();
            let projection =
                project(model, &pair.baseline, &seen, 1, draws).map_err(|e| Fault(e.to_string()))?;
            let seconds = started.elapsed().as_secs_f64();
            updates.push(update(pair, &seen, &projection, (order, stage, seconds)));
        }
    }
    Ok(updates)
}

fn update(
    pair: &Pair,
    seen: &[Seen],
    projection: &Projection,
    (order, stage, seconds): (Order, usize, f64),
) -> Update {
    let areas = pair.baseline.areas.len();
    let (mut ends, mut open) = (vec![[0_u64; 2]; areas], vec![false; areas]);
    for ((unit, votes), seen) in pair.baseline.units.iter().zip(&pair.finals).zip(seen) {
        for area in [0, unit.area] {
            ends[area] = [ends[area][0] + votes[0], ends[area][1] + votes[1]];
            open[area] |= *seen == Seen::Nothing;
        }
    }
    let case = |area: usize| {
        let [first, second] = ends[area].map(|votes| votes as f64);
        let drawn = &projection.areas[area];
        let margins = drawn.lead.iter().zip(&drawn.votes).map(|(lead, votes)| lead / votes.max(1.0));
        Case::of(margins.collect(), (first - second) / (first + second))
    };
    let states = (1..areas).filter(|area| open[*area]).map(|area| (area - 1, case(area))).collect();
    Update { order, stage, seconds, nation: case(0), states }
}
