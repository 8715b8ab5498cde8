//! How long a projection takes, on one core.

use std::time::Instant;

use canvass_forecast::{Baseline, DRAWS, Model, Seen, project};

use super::{Fault, Pair};

/// Precincts that each county is cut into, for as many units as the country has.
const PRECINCTS: u64 = 58;
/// The middle one of so many trials is told.
const TRIALS: usize = 5;

/// Percent of the units that are in.
const STAGES: [usize; 2] = [5, 50];

/// Units, how many of them are in, and seconds of the middle trial.
pub(super) fn measure(pairs: &[Pair]) -> Result<Vec<(usize, usize, f64)>, Fault> {
    let Some(pair) = pairs.last() else { return Ok(Vec::new()) };
    let precincts = cut(&pair.baseline);
    let of = |baseline| STAGES.map(|stage| middle(baseline, stage));
    [&pair.baseline, &precincts].into_iter().flat_map(of).collect()
}

fn middle(baseline: &Baseline, stage: usize) -> Result<(usize, usize, f64), Fault> {
    let seen: Vec<Seen> = baseline
        .units
        .iter()
        .enumerate()
        .map(
            |(place, unit)| if place * stage % 100 < stage { Seen::Final(unit.votes) } else { Seen::Nothing },
        )
        .collect();
    let mut seconds = Vec::new();
    for _ in 0..TRIALS {
        let started = Instant::now();
        let projection = project(&Model::default(), baseline, &seen, 1, DRAWS);
        projection.map_err(|e| Fault(e.to_string()))?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((baseline.units.len(), stage, seconds[TRIALS / 2]))
}

/// The same country in precincts, each a little unlike its county.
fn cut(baseline: &Baseline) -> Baseline {
    let mut cut = baseline.clone();
    cut.units = (0..PRECINCTS)
        .flat_map(|precinct| {
            baseline.units.iter().map(move |county| {
                let mut unit = county.clone();
                unit.votes = [county.votes[0] / PRECINCTS + precinct, county.votes[1] / PRECINCTS + 30];
                unit
            })
        })
        .collect();
    cut
}
