//! What is known before the night: units with their last comparable election, and the areas they add up to.

use thiserror::Error;

/// Most units of a baseline.
pub const MAX_UNITS: usize = 1_000_000;
/// Most areas of a baseline.
pub const MAX_AREAS: usize = 20_000;
/// Most columns that all factors, covariates and their like make together; the fit takes time with its cube.
pub const MAX_COLUMNS: usize = 2_000;

/// Something whose outcome is asked for: a nation, a state, a county.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// The area that this one is part of, by its place in [`Baseline::areas`]; it stands before its parts.
    pub parent: Option<usize>,
    /// Seats or electoral votes that go to whoever leads here; 0 for none.
    pub seats: u32,
}

/// Something that reports votes.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// The smallest area that this unit is in, by its place in [`Baseline::areas`].
    pub area: usize,
    /// Votes of the two selections at the last comparable election. A unit with none is counted, never predicted.
    pub votes: [u64; 2],
    /// Votes of the two at the election before that, if known: where their margin went, it may go again.
    pub before: Option<[u64; 2]>,
    /// One number for each of [`Baseline::covariates`], in any unit: they are standardised.
    pub covariates: Vec<f64>,
    /// One level for each of [`Baseline::factors`].
    pub levels: Vec<usize>,
}

/// A way to sort units into groups that move together, such as region or urban class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// What it is called; a model knows how far the groups of a factor move by this name.
    pub name: String,
    /// How many groups there are.
    pub levels: usize,
}

/// All units of a contest, or of contests that are decided alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Baseline {
    /// What is asked for; the first is the whole.
    pub areas: Vec<Area>,
    /// What reports.
    pub units: Vec<Unit>,
    /// Names of the covariates.
    pub covariates: Vec<String>,
    /// The factors.
    pub factors: Vec<Factor>,
    /// The factor, by its place in `factors`, within which errors and the order of counting are alike: the state.
    pub local: Option<usize>,
}

/// Why a baseline is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BaselineError {
    /// There is no unit, or no area.
    #[error("a baseline needs at least one area and one unit")]
    Empty,
    /// More than a limit allows.
    #[error("{count} {what}, and at most {most} are possible")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// An area stands before the one it is part of, or names one that is not there.
    #[error("area {0} must stand after the area it is part of")]
    Parent(usize),
    /// A unit is in no area, or lacks a covariate or level, or has one too many or one that is no number.
    #[error("unit {unit}: {what}")]
    Unit {
        /// Its place in the list.
        unit: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The local factor is not there.
    #[error("the local factor is not among the factors")]
    Local,
}

impl Baseline {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), BaselineError> {
        if self.areas.is_empty() || self.units.is_empty() {
            return Err(BaselineError::Empty);
        }
        let within = |what, count, most| {
            if count > most { Err(BaselineError::TooMany { what, count, most }) } else { Ok(()) }
        };
        within("units", self.units.len(), MAX_UNITS)?;
        within("areas", self.areas.len(), MAX_AREAS)?;
        let levels = self.factors.iter().fold(0, |sum: usize, f| sum.saturating_add(f.levels));
        within("columns", levels.saturating_add(self.covariates.len()), MAX_COLUMNS)?;
        for (place, area) in self.areas.iter().enumerate() {
            if area.parent.is_some_and(|parent| parent >= place) {
                return Err(BaselineError::Parent(place));
            }
        }
        if self.local.is_some_and(|local| local >= self.factors.len()) {
            return Err(BaselineError::Local);
        }
        self.units
            .iter()
            .enumerate()
            .try_for_each(|(unit, u)| self.check_unit(u).map_err(|what| BaselineError::Unit { unit, what }))
    }

    fn check_unit(&self, unit: &Unit) -> Result<(), &'static str> {
        if unit.area >= self.areas.len() {
            return Err("its area is not there");
        }
        if unit.covariates.len() != self.covariates.len() || unit.levels.len() != self.factors.len() {
            return Err("it needs one value for each covariate and one level for each factor");
        }
        if unit.covariates.iter().any(|value| !value.is_finite()) {
            return Err("a covariate is not a number");
        }
        if unit.levels.iter().zip(&self.factors).any(|(level, factor)| *level >= factor.levels) {
            return Err("a level is not among its factor's");
        }
        let counts = unit.votes.iter().chain(unit.before.iter().flatten());
        if counts.into_iter().any(|votes| *votes > MAX_VOTES) {
            return Err("more votes than people");
        }
        Ok(())
    }

    /// This baseline with the two selections changed.
    pub fn swapped(&self) -> Self {
        let mut swapped = self.clone();
        for unit in &mut swapped.units {
            unit.votes.reverse();
            unit.before.iter_mut().for_each(|votes| votes.reverse());
        }
        swapped
    }
}

/// Most votes of one selection in one unit: sums of them stay whole numbers in a float.
pub const MAX_VOTES: u64 = 10_000_000_000;

/// Votes as a float, exact below [`MAX_VOTES`].
pub(crate) fn float(votes: u64) -> f64 {
    votes.min(MAX_VOTES) as f64
}

/// Two-party votes.
pub(crate) fn total(votes: [u64; 2]) -> f64 {
    float(votes[0]) + float(votes[1])
}

/// Two-party margin, from -1 to 1; 0 without votes.
pub(crate) fn margin(votes: [u64; 2]) -> f64 {
    let all = total(votes);
    if all > 0.0 { (float(votes[0]) - float(votes[1])) / all } else { 0.0 }
}

/// What was reported by a unit so far: votes of two selections, or with `Seen<Vec<u64>>` of any number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Seen<V = [u64; 2]> {
    /// Nothing, or nothing that may be believed: an anomaly that nobody has looked at yet.
    #[default]
    Nothing,
    /// A part.
    Part {
        /// Counted so far.
        votes: V,
        /// Share of its vote that this is expected to be, above 0 and below 1, where a source says so.
        fraction: Option<f64>,
    },
    /// Everything.
    Final(V),
}

impl<V> Seen<V> {
    /// The same, with the votes told otherwise.
    pub fn map<W>(self, votes_of: impl FnOnce(V) -> W) -> Seen<W> {
        match self {
            Seen::Nothing => Seen::Nothing,
            Seen::Part { votes, fraction } => Seen::Part { votes: votes_of(votes), fraction },
            Seen::Final(votes) => Seen::Final(votes_of(votes)),
        }
    }
}

impl Seen {
    /// Counted so far.
    pub fn votes(&self) -> [u64; 2] {
        match self {
            Seen::Nothing => [0, 0],
            Seen::Part { votes, .. } | Seen::Final(votes) => *votes,
        }
    }

    /// This with the two selections changed.
    #[must_use]
    pub fn swapped(self) -> Self {
        self.map(|[a, b]| [b, a])
    }
}
