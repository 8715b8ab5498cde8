//! What is said of an area: ranges, and who may win.

use crate::draws::AreaDraws;
use crate::project::Projection;

/// While votes are out, no chance is said to be less than this, nor more than one less this.
pub const LEAST_CHANCE: f64 = 0.001;

/// A number in the middle, and ranges around it that hold one another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Range {
    /// As likely above as below.
    pub middle: f64,
    /// In 50 of 100 cases.
    pub half: [f64; 2],
    /// In 90 of 100 cases.
    pub most: [f64; 2],
    /// In 99 of 100 cases.
    pub nearly_all: [f64; 2],
}

impl Range {
    /// Of some draws; all zero without any.
    pub fn of(mut draws: Vec<f64>) -> Self {
        if draws.is_empty() {
            return Range::default();
        }
        draws.sort_unstable_by(f64::total_cmp);
        let last = draws.len() - 1;
        let at = |share: [usize; 2]| {
            let place = last * share[0] / share[1];
            [draws[place], draws[last - place]]
        };
        let [low, high] = at([1, 2]);
        Range { middle: (low + high) / 2.0, half: at([1, 4]), most: at([1, 20]), nearly_all: at([1, 200]) }
    }
}

/// How an area may end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Two-party votes at the end.
    pub votes: Range,
    /// Two-party margin at the end: lead over votes, from -1 to 1, above 0 where the first selection leads.
    pub margin: Range,
    /// How likely the first selection ends ahead, from 0 to 1: exactly 0 or 1 only where all is in.
    pub chance: f64,
    /// Units that are not final.
    pub open: usize,
    /// Share of the baseline votes that lies in final units.
    pub baseline_in: f64,
}

impl AreaDraws {
    /// Lead over votes in each draw; 0 where there are none.
    pub fn margins(&self) -> Vec<f64> {
        self.lead
            .iter()
            .zip(&self.votes)
            .map(|(lead, votes)| if *votes > 0.0 { lead / votes } else { 0.0 })
            .collect()
    }
}

impl Projection {
    /// What is said of an area of the baseline.
    ///
    /// # Panics
    /// There is no such area.
    pub fn summary(&self, area: usize) -> Summary {
        let drawn = &self.areas[area];
        let ahead = drawn.lead.iter().filter(|lead| **lead > 0.0).count() as f64;
        let even = drawn.lead.iter().filter(|lead| **lead == 0.0).count() as f64;
        let chance = (ahead + even / 2.0) / drawn.lead.len() as f64;
        let open = self.open[area];
        Summary {
            votes: Range::of(drawn.votes.clone()),
            margin: Range::of(drawn.margins()),
            chance: if open > 0 { chance.clamp(LEAST_CHANCE, 1.0 - LEAST_CHANCE) } else { chance },
            open,
            baseline_in: self.baseline_in[area],
        }
    }
}
