//! Units whose numbers are unlike what all others say of them.

use crate::baseline::{Baseline, Seen};
use crate::cells::own;
use crate::design::Known;
use crate::field::{Field, State};
use crate::fit::Posterior;
use crate::model::Model;
use crate::night::{Fits, fits};
use crate::peers::benjamini_hochberg;
use crate::project::{MIN_DRAWS, ProjectError, between_two, check, orientation};

/// A unit this many standard deviations off needs a look.
const FAR: f64 = 4.0;
/// A unit this far off is left out when the others are asked about it, so that it does not speak for itself.
const SUSPECT: f64 = 3.0;
/// Of the findings of one look, this share may be false.
const FALSE: f64 = 0.05;
/// Whether a close unit was entered the wrong way round nobody can tell.
const CLOSE: f64 = 0.08;
/// Looks, each without those that the last one found odd; more than two are rarely needed.
const LOOKS: usize = 4;
/// Where more than one in so many of those that are in would be odd, it is the comparison that is off, not they.
const MOST: usize = 4;
/// Units move by chance with heavier tails than a normal distribution: between 2012 and 2016, 15 of 3,105 counties of
/// the United States lay beyond 4 standard deviations and 3 beyond 5, where Student's distribution with this many
/// degrees of freedom has 16 and 5, and a normal one none.
const FREEDOM: f64 = 7.0;

/// What is odd about a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its margin.
    Margin,
    /// Its margin, which would be as expected if the two selections were entered the wrong way round.
    Swapped,
    /// Its number of votes: twice or ten times as many as expected, or hardly any.
    Votes,
}

/// A number that needs a look, with the evidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// The unit, by its place in the baseline.
    pub unit: usize,
    /// What is odd.
    pub kind: Kind,
    /// What was reported: the margin from -1 to 1, or votes.
    pub reported: f64,
    /// What the others say of it.
    pub expected: f64,
    /// By how many standard deviations they differ: of the margin, or of the logarithm of the votes.
    pub sigmas: f64,
}

/// What is odd, and what may be believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Screened {
    /// At most one for each unit, in the order of the units.
    pub findings: Vec<Finding>,
    /// What was seen, without what is odd: to project from until somebody has looked.
    pub believed: Vec<Seen>,
}

/// Compares each unit that reported with what the others say of it.
///
/// A unit that lies 3 standard deviations off is left out, and the rest is asked again about it: its margin and its
/// votes must lie within 4 standard deviations, which hold the unit's own deviation, what the others leave unknown, and
/// for a part how it may differ from its whole. Of a part only too many votes are odd. With little in, the prior is all
/// there is to say, and hardly anything is odd. Where more than a quarter of those that are in would be odd, something is
/// wrong with what they are compared with, and nothing is found.
///
/// Set what somebody has looked at and accepted aside before: it would be found again.
///
/// # Errors
/// The baseline does not fit together, or there is not one observation for each unit.
pub fn screen(model: &Model, baseline: &Baseline, seen: &[Seen]) -> Result<Screened, ProjectError> {
    check(baseline, seen.len(), MIN_DRAWS)?;
    let flip = orientation(baseline);
    let known = Known::of(baseline, flip);
    let whole = between_two(baseline, seen, flip);
    let mut suspects = vec![false; seen.len()];
    let mut findings = Vec::new();
    for _ in 0..LOOKS {
        let believed = without(seen, &suspects);
        let field = between_two(baseline, &believed, flip);
        let look = Look { model, whole: &whole, fits: fits(model, &field, &known), flip };
        let scores: Vec<Option<Finding>> = (0..seen.len()).map(|unit| look.at(unit)).collect();
        let now: Vec<bool> = scores.iter().map(|s| s.is_some_and(|s| s.sigmas.abs() > SUSPECT)).collect();
        findings = far(scores);
        if now == suspects {
            break;
        }
        suspects = now;
    }
    let are_in = seen.iter().filter(|seen| **seen != Seen::Nothing).count();
    if findings.len() > are_in.div_ceil(MOST) {
        findings.clear();
    }
    let mut odd = vec![false; seen.len()];
    findings.iter().for_each(|finding: &Finding| odd[finding.unit] = true);
    Ok(Screened { findings, believed: without(seen, &odd) })
}

fn without(seen: &[Seen], left_out: &[bool]) -> Vec<Seen> {
    let each = seen.iter().zip(left_out);
    each.map(|(seen, left_out)| if *left_out { Seen::Nothing } else { *seen }).collect()
}

/// Those beyond the limit that many looks at once do not explain.
fn far(scores: Vec<Option<Finding>>) -> Vec<Finding> {
    let all: Vec<Finding> = scores.into_iter().flatten().collect();
    let chances: Vec<f64> = all.iter().map(|finding| chance(finding.sigmas)).collect();
    let kept = benjamini_hochberg(&chances, FALSE);
    let far = |(finding, kept): (Finding, bool)| (kept && finding.sigmas.abs() > FAR).then_some(finding);
    all.into_iter().zip(kept).filter_map(far).collect()
}

/// How likely chance alone is to be so far off on either side: Student's distribution, by Hill's normal approximation
/// (1970), good to three digits beyond three standard deviations.
fn chance(sigmas: f64) -> f64 {
    let (a, b) = (FREEDOM - 0.5, 48.0 * (FREEDOM - 0.5) * (FREEDOM - 0.5));
    let z = libm::sqrt(a * libm::log(1.0 + sigmas * sigmas / FREEDOM));
    let z = z + (z * z * z + 3.0 * z) / b;
    libm::erfc(z / std::f64::consts::SQRT_2)
}

/// The standard deviation of what is expected of a unit. What the others leave unknown takes long to compute: it is left
/// out where the unit's own deviation explains all, since it could only explain more.
fn deviation(off: f64, own: f64, posterior: &Posterior, row: &[(usize, f64)]) -> f64 {
    let explained = off * off <= SUSPECT * SUSPECT * own;
    libm::sqrt(if explained { own } else { own + posterior.variance(row) })
}

/// One look at all units, with the suspects left out of what they are compared with.
struct Look<'a> {
    model: &'a Model,
    whole: &'a Field<'a>,
    fits: Fits,
    flip: f64,
}

impl Look<'_> {
    /// What is oddest about a unit that has votes now and had some before.
    fn at(&self, unit: usize) -> Option<Finding> {
        let (before, counted) = (self.whole.before(unit), self.whole.counted(unit));
        if before == 0.0 || counted == 0.0 || self.whole.states[unit] == State::Nothing {
            return None;
        }
        let (votes, margin) = (self.votes(unit, before, counted), self.margin(unit, before, counted));
        Some(if votes.sigmas.abs() > margin.sigmas.abs() { votes } else { margin })
    }

    fn votes(&self, unit: usize, before: f64, counted: f64) -> Finding {
        let (row, turnout) = (self.fits.design.row(unit), &self.fits.turnout);
        let variance = self.model.unit_turnout.of(before) * turnout.scale.max(1.0);
        let expected = before * libm::exp(turnout.at(row));
        let off = libm::log(counted / expected);
        let sigmas = off / deviation(off, variance, turnout, row);
        let few_is_fine = self.whole.states[unit] != State::Final;
        let sigmas = if few_is_fine { sigmas.max(0.0) } else { sigmas };
        Finding { unit, kind: Kind::Votes, reported: counted, expected, sigmas }
    }

    fn margin(&self, unit: usize, before: f64, counted: f64) -> Finding {
        let of = &self.fits.splits[0];
        let baseline = self.whole.baseline;
        let mut row = self.fits.design.row(unit).to_vec();
        let mut variance = own(self.model.unit_margin, &of.split, unit) * of.posterior.scale.max(1.0);
        if let State::Part(fraction) = self.whole.states[unit] {
            let expected = before * libm::exp(self.fits.turnout.at(&row));
            let part = crate::cells::Part::new(fraction.unwrap_or(counted / expected), fraction.is_some());
            let level = baseline.local.map(|local| baseline.units[unit].levels[local]);
            row.extend(self.fits.design.order_entries(level, part.lack));
            variance += part.margin_variance();
        }
        let expected = of.split.base[unit] + of.posterior.at(&row);
        let (_, reported) = Field::split_of(self.whole.now(unit), 0);
        let sd = deviation(reported - expected, variance, &of.posterior, &row);
        let sigmas = (reported - expected) / sd;
        let turned = (reported + expected).abs() + 2.0 * sd < (reported - expected).abs();
        let kind = if turned && expected.abs() > CLOSE { Kind::Swapped } else { Kind::Margin };
        let side = self.flip;
        Finding { unit, kind, reported: side * reported, expected: side * expected, sigmas: side * sigmas }
    }
}

#[cfg(test)]
mod tests {
    use super::chance;

    // From tables of Student's distribution with seven degrees of freedom, both tails.
    #[test]
    fn chances_are_those_of_students_distribution() {
        for (sigmas, expected) in [(2.365, 0.05), (3.499, 0.01), (5.408, 0.001)] {
            let found = chance(sigmas);
            assert!((found / expected - 1.0).abs() < 0.01, "{sigmas}: {found} and {expected}");
            assert_eq!(chance(-sigmas), found);
        }
    }
}
