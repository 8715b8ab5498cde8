//! How good projections were: scores of forecasts by draws or intervals, in points of the two-party margin.

use serde::{Deserialize, Serialize};

/// A projection of one area, and how it ended; all in points of the two-party margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The middle of the projection.
    pub middle: f64,
    /// The 90 % interval.
    pub inner: (f64, f64),
    /// The 99 % interval.
    pub outer: (f64, f64),
    /// The continuous ranked probability score, where there are draws.
    pub crps: Option<f64>,
    /// Share of the draws that lie below how it ended, where there are draws.
    pub rank: Option<f64>,
    /// How it ended.
    pub truth: f64,
}

impl Case {
    /// From draws of the margin, from -1 to 1.
    pub fn of(mut draws: Vec<f64>, truth: f64) -> Self {
        draws.iter_mut().for_each(|margin| *margin *= 100.0);
        draws.sort_by(f64::total_cmp);
        let truth = truth * 100.0;
        let at = |low: usize, of: usize| {
            let place = (draws.len() - 1) * low / of;
            (draws[place], draws[draws.len() - 1 - place])
        };
        let middle = (at(1, 2).0 + at(1, 2).1) / 2.0;
        let below = draws.partition_point(|margin| *margin < truth);
        let not_above = draws.partition_point(|margin| *margin <= truth);
        let rank = Some((below + not_above) as f64 / (2 * draws.len()) as f64);
        Case { middle, inner: at(5, 100), outer: at(5, 1_000), crps: Some(crps(&draws, truth)), rank, truth }
    }

    /// Whether the interval that claims to hold `level` of all outcomes held this one; `None` where that is not known.
    pub fn within(&self, level: f64) -> Option<bool> {
        let between = |(low, high): (f64, f64)| low <= self.truth && self.truth <= high;
        match self.rank {
            Some(rank) => Some((2.0 * rank - 1.0).abs() <= level),
            None if level == 0.90 => Some(between(self.inner)),
            None if level == 0.99 => Some(between(self.outer)),
            None => None,
        }
    }

    fn covers(&self) -> bool {
        self.inner.0 <= self.truth && self.truth <= self.inner.1
    }

    /// Gneiting and Raftery 2007: the width, and 2 / (1 - 0.9) times by how much the truth lies outside.
    fn interval_score(&self) -> f64 {
        let miss = (self.inner.0 - self.truth).max(self.truth - self.inner.1).max(0.0);
        self.inner.1 - self.inner.0 + 20.0 * miss
    }

    /// Whether the 99 % interval leaves no doubt who leads, and whether that is right.
    pub fn call(&self) -> Option<bool> {
        let called = if self.outer.0 > 0.0 {
            1.0
        } else if self.outer.1 < 0.0 {
            -1.0
        } else {
            return None;
        };
        Some(called * self.truth > 0.0)
    }
}

/// `E|X - truth| - E|X - X'| / 2`, of sorted draws.
fn crps(draws: &[f64], truth: f64) -> f64 {
    let count = draws.len() as f64;
    let error = draws.iter().map(|x| (x - truth).abs()).sum::<f64>() / count;
    let ranked = draws.iter().enumerate().map(|(rank, x)| x * (2.0 * rank as f64 + 1.0 - count)).sum::<f64>();
    error - ranked / (count * count)
}

/// Means over cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Score {
    /// How many.
    pub cases: usize,
    /// Share of the 90 % intervals that hold the truth.
    pub coverage: f64,
    /// Mean width of the 90 % interval.
    pub width: f64,
    /// Mean absolute error of the middle.
    pub error: f64,
    /// Mean continuous ranked probability score, over the cases that have one.
    pub crps: f64,
    /// Mean interval score of the 90 % interval.
    pub interval_score: f64,
    /// Calls.
    pub calls: usize,
    /// Calls that were wrong.
    pub wrong: usize,
}

impl Score {
    /// Of some cases.
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let cases: Vec<&Case> = cases.into_iter().collect();
        let mean = |value: &dyn Fn(&Case) -> f64| {
            cases.iter().map(|case| value(case)).sum::<f64>() / cases.len().max(1) as f64
        };
        let calls: Vec<bool> = cases.iter().filter_map(|case| case.call()).collect();
        Score {
            cases: cases.len(),
            coverage: mean(&|case| f64::from(u8::from(case.covers()))),
            width: mean(&|case| case.inner.1 - case.inner.0),
            error: mean(&|case| (case.middle - case.truth).abs()),
            crps: mean(&|case| case.crps.unwrap_or(0.0)),
            interval_score: mean(&Case::interval_score),
            calls: calls.len(),
            wrong: calls.iter().filter(|right| !**right).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(inner: (f64, f64), outer: (f64, f64), truth: f64) -> Case {
        Case { middle: f64::midpoint(inner.0, inner.1), inner, outer, crps: None, rank: None, truth }
    }

    #[test]
    fn a_miss_costs_twenty_times_its_size_and_a_wrong_call_is_counted() {
        let held = case((1.0, 5.0), (-1.0, 7.0), 2.0);
        let missed = case((1.0, 5.0), (0.5, 7.0), -1.0);
        assert!((held.interval_score() - 4.0).abs() < 1e-9 && (missed.interval_score() - 44.0).abs() < 1e-9);
        assert_eq!((held.call(), missed.call()), (None, Some(false)));
        let score = Score::of([&held, &missed]);
        assert_eq!((score.cases, score.calls, score.wrong), (2, 1, 1));
        assert!(
            (score.coverage - 0.5).abs() < 1e-9 && (score.interval_score - 24.0).abs() < 1e-9,
            "{score:?}"
        );
        assert!((score.error - 2.5).abs() < 1e-9, "{score:?}");
        assert_eq!(
            (missed.within(0.90), missed.within(0.99), missed.within(0.5)),
            (Some(false), Some(false), None)
        );
    }

    // Of draws spread evenly from 0 to 1, with the truth at one end, the score is 1/2 - 1/6.
    #[test]
    fn the_ranked_probability_score_is_that_of_its_definition() {
        let draws: Vec<f64> = (0..1_000).map(|i| (f64::from(i) + 0.5) / 1_000.0).collect();
        let case = Case::of(draws, 0.0);
        let crps = case.crps.unwrap_or_default();
        assert!((crps - 100.0 / 3.0).abs() < 0.1, "{crps}");
        assert_eq!(case.rank, Some(0.0));
    }
}
