//! Projections of past elections as they came in, scored against how they ended.

pub mod counties;
mod diagram;
mod elex;
mod rehearsal;
mod report;
mod score;
mod setting;
mod speed;

use std::fmt;
use std::time::Instant;

use canvass_forecast::{DRAWS, Model, Projection, Seen, project};
use canvass_protocol::interchange::nc::Feed;

pub use counties::County;
pub use elex::{Elex, PACKAGE};
pub use rehearsal::{Moment, Night};
pub use report::{PairReport, Report};
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

/// What the benchmark is made from.
#[derive(Debug, Clone)]
pub struct Input {
    /// The table of counties.
    pub counties: Vec<County>,
    /// The night that is rehearsed.
    pub feed: Option<Feed>,
    /// What is run beside.
    pub elex: Option<Elex>,
    /// How many seeds each order by chance has, 1 or 2.
    pub seeds: u64,
}

/// How far the benchmark is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Steps that are done.
    pub done: usize,
    /// All steps.
    pub of: usize,
    /// What was done last.
    pub what: String,
}

/// Runs everything, and tells after each step how far it is.
///
/// # Errors
/// elex-model cannot be run, or the data do not fit together.
pub fn run(input: &Input, told: &mut dyn FnMut(&Progress)) -> Result<Report, Fault> {
    let orders: Vec<Order> = Order::ALL.into_iter().filter(|order| order.seed() <= input.seeds).collect();
    let pairs = pairs(&input.counties);
    let beside = if input.elex.is_some() { orders.len() * STAGES.len() } else { 0 };
    let of = pairs.len() * (1 + beside) + usize::from(input.feed.is_some()) + 1;
    let mut done = 0;
    let mut step = |what: String| {
        done += 1;
        told(&Progress { done, of, what });
    };
    let mut reports = Vec::new();
    for pair in &pairs {
        let model = Model::learn(&pair.past).map_err(|e| Fault(e.to_string()))?;
        let ours = updates(&input.counties, pair, &model, &orders)?;
        step(format!("{}, Canvass", pair.now));
        let mut theirs = Vec::new();
        for update in input.elex.iter().flat_map(|_| &ours) {
            let Some(elex) = &input.elex else { continue };
            theirs.push(elex.update(&input.counties, pair, update)?);
            step(format!("{}, elex-model, {} at {} %", pair.now, update.order.name(), update.stage));
        }
        reports.push(PairReport { year: pair.now, ours, theirs });
    }
    let mut moments = Vec::new();
    if let Some(feed) = &input.feed {
        let night = Night::new(feed, &input.counties)?;
        let model = Model::learn(&night.past).map_err(|e| Fault(e.to_string()))?;
        moments = night.moments(&model, DRAWS)?;
        step("the night in North Carolina".to_owned());
    }
    let speed = speed::measure(&pairs)?;
    step("speed".to_owned());
    Ok(Report { pairs: reports, moments, speed })
}

/// All updates of a pair.
///
/// # Errors
/// The baseline is none.
pub fn updates(
    counties: &[County],
    pair: &Pair,
    model: &Model,
    orders: &[Order],
) -> Result<Vec<Update>, Fault> {
    let mut updates = Vec::new();
    for order in orders {
        let places = order.places(counties, pair.before);
        for stage in STAGES {
            let mut seen = vec![Seen::Nothing; places.len()];
            for place in &places[..places.len() * stage / 100] {
                seen[*place] = Seen::Final(pair.finals[*place]);
            }
            let started = Instant::now();
            let projection =
                project(model, &pair.baseline, &seen, 1, DRAWS).map_err(|e| Fault(e.to_string()))?;
            let seconds = started.elapsed().as_secs_f64();
            updates.push(update(pair, &seen, &projection, (*order, stage, seconds)));
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
        Case::of(projection.areas[area].margins(), (first - second) / (first + second))
    };
    let states = (1..areas).filter(|area| open[*area]).map(|area| (area - 1, case(area))).collect();
    Update { order, stage, seconds, nation: case(0), states }
}
