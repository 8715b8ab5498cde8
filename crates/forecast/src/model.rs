//! What was learned from past elections: how far things move from one to the next.

use std::collections::BTreeMap;
use std::fmt;

use crate::design::groups;

/// A number for the swing of the margin, and one for the change of the turnout (natural logarithm).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Both {
    /// Of the two-party margin; 0.01 is one point.
    pub margin: f64,
    /// Of the logarithm of the two-party vote; 0.01 is about one percent.
    pub turnout: f64,
}

/// Variance of a unit's own deviation: `base + sampling / votes`, with its baseline votes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UnitVariance {
    /// What even the largest unit has.
    pub base: f64,
    /// What shrinks with the votes of the unit.
    pub sampling: f64,
}

impl UnitVariance {
    /// For a unit of so many votes.
    pub fn of(&self, votes: f64) -> f64 {
        self.base + self.sampling / votes.max(1.0)
    }
}

/// Prior spreads, learned from pairs of past elections, and the few constants that no pair can teach.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Prior standard deviation of each group of effects, by the group's name.
    pub groups: BTreeMap<String, Both>,
    /// A unit's own deviation of the margin.
    pub unit_margin: UnitVariance,
    /// A unit's own deviation of the turnout.
    pub unit_turnout: UnitVariance,
    /// Standard deviation of how units that are not in differ from those that are, everywhere.
    pub late: Both,
    /// The same, within a level of the local factor.
    pub late_local: Both,
    /// What all spreads of effects are multiplied by, since past intervals were too narrow by so much; at least 1.
    pub widening: f64,
}

/// The least prior spreads of what is alike in many units, whatever few pairs taught: landslides happen, and the part of
/// the country that comes in last may have moved as no other did. Seen between 2008 and 2020 in the counties of the
/// United States: the spread between regions of a swing was 0.03 to 0.04, and the largest counties left the trend of
/// the others by 0.05 in 2020; turnout rose by a tenth.
pub const LEAST: [(&str, Both); 4] = [
    (groups::NATION, Both { margin: 0.05, turnout: 0.10 }),
    (groups::REGION, Both { margin: 0.03, turnout: 0.05 }),
    (groups::SIZE, Both { margin: 0.03, turnout: 0.05 }),
    (groups::LEAN, Both { margin: 0.02, turnout: 0.04 }),
];
/// How the part that is counted first may differ from the whole, by share that is lacking. Mail against the day
/// itself: in 2020 they differed by up to 60 points, and the part says little about how many are lacking.
pub const ORDER: Both = Both { margin: 0.40, turnout: 0.30 };
/// The same, within a level of the local factor.
pub const ORDER_LOCAL: Both = Both { margin: 0.15, turnout: 0.15 };
/// Deviation of one unit's part from its whole, by share that is lacking.
pub const PART: Both = Both { margin: 0.25, turnout: 0.35 };

impl Model {
    /// The prior spread of a group. One that no pair taught moves as the covariates do.
    pub(crate) fn spread(&self, group: &str) -> Both {
        let unknown =
            || self.groups.get(groups::COVARIATES).copied().unwrap_or(Both { margin: 0.01, turnout: 0.02 });
        match group {
            groups::ORDER => ORDER,
            groups::ORDER_LOCAL => ORDER_LOCAL,
            _ => self.groups.get(group).copied().unwrap_or_else(unknown),
        }
    }
}

impl Default for Model {
    /// For an election with no pair to learn from: [`LEAST`], and for the rest what `learn` finds between presidential
    /// elections in the counties of the United States from 2008 to 2020, in round numbers. The spreads of late units are
    /// no pair's: units that are in teach little of those that are not.
    fn default() -> Self {
        let covariates = (groups::COVARIATES, Both { margin: 0.02, turnout: 0.03 });
        let groups = LEAST.into_iter().chain([covariates]);
        Model {
            groups: groups.map(|(name, both)| (name.to_owned(), both)).collect(),
            unit_margin: UnitVariance { base: 0.0009, sampling: 2.0 },
            unit_turnout: UnitVariance { base: 0.002, sampling: 5.0 },
            late: Both { margin: 0.012, turnout: 0.03 },
            late_local: Both { margin: 0.012, turnout: 0.018 },
            widening: 1.0,
        }
    }
}

/// The whole model as text, one line a number or pair, floats in their shortest exact form: hash this to name a model.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Both { margin, turnout }) in &self.groups {
            writeln!(f, "group {name:?} {margin:?} {turnout:?}")?;
        }
        let UnitVariance { base, sampling } = self.unit_margin;
        writeln!(f, "unit margin {base:?} {sampling:?}")?;
        let UnitVariance { base, sampling } = self.unit_turnout;
        writeln!(f, "unit turnout {base:?} {sampling:?}")?;
        writeln!(f, "late {:?} {:?}", self.late.margin, self.late.turnout)?;
        writeln!(f, "late local {:?} {:?}", self.late_local.margin, self.late_local.turnout)?;
        writeln!(f, "widening {:?}", self.widening)
    }
}
