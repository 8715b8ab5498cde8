//! A contest as the model looks at it: the selection that was largest last time first, and each against those behind it.
//!
//! With two selections there is one such *split*, and its margin is the two-party margin. With more, the first split is
//! the largest against all others, the second the next against the rest, and so on: what they take never exceeds what
//! is left, so shares add up to one by themselves. Changing two selections changes their names and nothing else.

use crate::baseline::{Baseline, Seen, float};

/// Votes that a split is taken to have had in a unit where none of its selections had any.
const STAND_IN: f64 = 1_000.0;
/// No split is taken to move less than this share of what an even one does.
const LEAST_SCALE: f64 = 0.1;

/// What was reported of a unit, without the votes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum State {
    Nothing,
    Part(Option<f64>),
    Final,
}

/// All that is known of a contest, its selections sorted.
pub(crate) struct Field<'a> {
    pub(crate) baseline: &'a Baseline,
    /// Selections, by their place in what the caller gave.
    pub(crate) order: Vec<usize>,
    pub(crate) states: Vec<State>,
    /// Votes of each selection at the last election: a unit after the other, each in `order`.
    last: Vec<f64>,
    /// The same, counted so far.
    now: Vec<f64>,
}

/// One split at the last election.
pub(crate) struct Split {
    /// Its margin in each unit, from -1 to 1.
    pub(crate) base: Vec<f64>,
    /// Its votes in each unit.
    pub(crate) weight: Vec<f64>,
    /// How far it moves, as a share of what an even one does: small selections move by little.
    pub(crate) scale: f64,
}

impl<'a> Field<'a> {
    /// `last` and `seen` hold one number a selection.
    pub(crate) fn new<L: AsRef<[u64]>, V: AsRef<[u64]>>(
        baseline: &'a Baseline,
        order: Vec<usize>,
        last: impl Iterator<Item = L>,
        seen: &[Seen<V>],
    ) -> Self {
        let mut field = Field {
            baseline,
            states: Vec::with_capacity(seen.len()),
            last: Vec::with_capacity(seen.len() * order.len()),
            now: Vec::with_capacity(seen.len() * order.len()),
            order,
        };
        for votes in last {
            field.last.extend(field.order.iter().map(|place| float(votes.as_ref()[*place])));
        }
        for seen in seen {
            let (state, votes) = match seen {
                Seen::Nothing => (State::Nothing, None),
                Seen::Part { votes, fraction } => (State::Part(*fraction), Some(votes.as_ref())),
                Seen::Final(votes) => (State::Final, Some(votes.as_ref())),
            };
            field.states.push(state);
            field.now.extend(field.order.iter().map(|place| votes.map_or(0.0, |votes| float(votes[*place]))));
        }
        field
    }

    pub(crate) fn selections(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn units(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn last(&self, unit: usize) -> &[f64] {
        &self.last[unit * self.order.len()..][..self.order.len()]
    }

    pub(crate) fn now(&self, unit: usize) -> &[f64] {
        &self.now[unit * self.order.len()..][..self.order.len()]
    }

    pub(crate) fn before(&self, unit: usize) -> f64 {
        self.last(unit).iter().sum()
    }

    pub(crate) fn counted(&self, unit: usize) -> f64 {
        self.now(unit).iter().sum()
    }

    /// Units that reported a part from which anything can be predicted.
    pub(crate) fn is_part(&self, unit: usize) -> bool {
        matches!(self.states[unit], State::Part(_)) && self.before(unit) > 0.0 && self.counted(unit) > 0.0
    }

    /// Units that are drawn; all others are what is counted, for certain.
    pub(crate) fn is_drawn(&self, unit: usize) -> bool {
        match self.states[unit] {
            State::Nothing => self.before(unit) > 0.0,
            State::Part(_) => self.is_part(unit),
            State::Final => false,
        }
    }

    /// Votes and margin of a split among counts in `order`.
    pub(crate) fn split_of(counts: &[f64], split: usize) -> (f64, f64) {
        let (first, rest) = (counts[split], counts[split + 1..].iter().sum::<f64>());
        let all = first + rest;
        (all, if all > 0.0 { (first - rest) / all } else { 0.0 })
    }

    /// One split in all units. Where its selections had no votes, it stands as it does everywhere.
    pub(crate) fn split(&self, split: usize) -> Split {
        let units = self.units();
        let whole = |of: &dyn Fn(usize) -> (f64, f64)| {
            let sums = (0..units).map(of).fold((0.0, 0.0), |s, (all, m)| (s.0 + all, s.1 + all * m));
            (sums.0 > 0.0).then(|| sums.1 / sums.0)
        };
        let last = |unit| Self::split_of(self.last(unit), split);
        let everywhere = whole(&last).or_else(|| whole(&|unit| Self::split_of(self.now(unit), split)));
        let everywhere = everywhere.unwrap_or(0.0);
        let (mut base, mut weight) = (Vec::with_capacity(units), Vec::with_capacity(units));
        for unit in 0..units {
            let (all, margin) = last(unit);
            let none = all == 0.0 && self.before(unit) > 0.0;
            base.push(if none { everywhere } else { margin });
            weight.push(if none { STAND_IN } else { all });
        }
        let scale = libm::sqrt(1.0 - everywhere * everywhere).max(LEAST_SCALE);
        Split { base, weight, scale: if split == 0 { 1.0 } else { scale } }
    }
}
