//! What an election is: its contests, selections, parties and reporting units.
//!
//! A definition is written once, as the first record of every partition, and never changes. The parser in
//! the protocol crate checks a definition file; what is built here is taken as checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ContestId, PartitionId, SelectionId, Timestamp, UnitId};

/// An election as its officials define it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct Definition {
    parts: Parts,
    contests_by_id: BTreeMap<String, ContestId>,
    units_by_id: BTreeMap<String, UnitId>,
    children: Vec<Vec<UnitId>>,
    /// Reporting units without children, at or below each unit.
    leaves: Vec<u32>,
}

/// The written content of a [`Definition`], without what can be derived from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Text id, the audience of voters' tokens.
    pub id: String,
    /// Name for readers.
    pub name: String,
    /// A rehearsal: shown as test data, and its clock may be driven from outside.
    pub is_test: bool,
    /// How many partitions the log has; fixed for the life of the election.
    pub partitions: Partitions,
    /// Parties that selections refer to.
    pub parties: Vec<Party>,
    /// Reporting units; the root is first, and a parent stands before its children.
    pub units: Vec<Unit>,
    /// Contests.
    pub contests: Vec<Contest>,
}

/// Number of partitions of each stream of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions {
    /// Partitions of votes, at least 1.
    pub votes: u16,
    /// Partitions of returns, at least 1.
    pub returns: u16,
}

impl Default for Partitions {
    fn default() -> Self {
        Partitions { votes: 8, returns: 1 }
    }
}

/// A party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Text id.
    pub id: String,
    /// Name for readers.
    pub name: String,
    /// Colour as `#rrggbb`, for bars; never the only sign of anything.
    pub color: Option<String>,
}

/// A place that reports, or a place made of such places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Text id.
    pub id: String,
    /// Name for readers.
    pub name: String,
    /// What kind of place: `state`, `county`, `precinct` …
    pub kind: String,
    /// The unit this one is part of; none for the root.
    pub parent: Option<UnitId>,
    /// Registered voters, where known.
    pub registered: Option<u64>,
}

/// One question put to the voters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contest {
    /// Text id.
    pub id: String,
    /// Name for readers.
    pub name: String,
    /// How many may be chosen, and what wins.
    pub kind: ContestKind,
    /// The district: the contest's results come from this unit and those below it.
    pub unit: UnitId,
    /// The options.
    pub selections: Vec<Selection>,
    /// Whether units report counts or voters vote here.
    pub counting: Counting,
    /// Name of the file of the last comparable election, from which projections are made.
    #[serde(default)]
    pub baseline: Option<String>,
}

/// One option of a contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Text id, unique in the contest.
    pub id: String,
    /// Name for readers.
    pub name: String,
    /// Position of the party in [`Parts::parties`].
    pub party: Option<u16>,
}

/// The kind of a contest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContestKind {
    /// One choice; the most votes win.
    SingleChoice,
    /// Up to `n` choices; the `n` with the most votes win.
    NOfM {
        /// Choices a voter has, and seats.
        n: u16,
    },
    /// Yes or no; the first selection passes when it reaches the threshold.
    BallotMeasure {
        /// What the first selection's share of the votes must reach.
        threshold: Threshold,
    },
    /// A poll of an audience; one choice.
    AudiencePoll,
}

/// A share to be reached, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Above the line.
    pub numerator: u32,
    /// Below the line, never 0.
    pub denominator: u32,
    /// True for "more than", false for "at least".
    pub exclusive: bool,
}

impl Threshold {
    /// Whether `votes` out of `total` reach the threshold; false while there are no votes.
    pub fn reached(self, votes: u64, total: u64) -> bool {
        let left = u128::from(votes) * u128::from(self.denominator);
        let right = u128::from(total) * u128::from(self.numerator);
        total > 0 && if self.exclusive { left > right } else { left >= right }
    }
}

/// How a contest's numbers come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counting {
    /// Units without children report cumulative counts, one return for each count type.
    Returns {
        /// The count types a return may name.
        count_types: Vec<CountItemType>,
    },
    /// Voters vote here.
    Votes(Voting),
}

/// The rules of a live vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voting {
    /// First moment at which a vote counts; from the start when none.
    pub opens: Option<Timestamp>,
    /// First moment at which a vote no longer counts; until closed by the desk when none.
    pub closes: Option<Timestamp>,
    /// What a second vote of one voter does.
    pub policy: VotePolicy,
    /// Who may vote.
    pub eligibility: Eligibility,
}

/// What a second vote of one voter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VotePolicy {
    /// It is refused.
    One,
    /// It takes the place of the first.
    Replace,
    /// It counts too, up to this many votes.
    UpTo(u32),
}

/// Who may vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eligibility {
    /// Anyone, under the name they give.
    Open,
    /// Who holds a signed token.
    Token,
}

/// How the ballots behind a count were cast (NIST SP 1500-100 CountItemType).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountItemType {
    /// At the polls on the day.
    ElectionDay,
    /// At the polls before the day.
    Early,
    /// By post.
    Absentee,
    /// Set aside until the voter's right is confirmed.
    Provisional,
    /// All of them, where a unit does not tell them apart.
    Total,
}

impl CountItemType {
    /// Every count type, in the order readers see them.
    pub const ALL: [CountItemType; 5] =
        [Self::ElectionDay, Self::Early, Self::Absentee, Self::Provisional, Self::Total];

    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ElectionDay => "election-day",
            Self::Early => "early",
            Self::Absentee => "absentee",
            Self::Provisional => "provisional",
            Self::Total => "total",
        }
    }

    /// The type that [`Self::as_str`] writes as `word`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == word)
    }
}

impl From<Definition> for Parts {
    fn from(definition: Definition) -> Parts {
        definition.parts
    }
}

impl From<Parts> for Definition {
    fn from(parts: Parts) -> Definition {
        let contests_by_id =
            (0..=u16::MAX).zip(&parts.contests).map(|(i, c)| (c.id.clone(), ContestId(i))).collect();
        let units_by_id = (0..=u32::MAX).zip(&parts.units).map(|(i, u)| (u.id.clone(), UnitId(i))).collect();
        let mut children = vec![Vec::new(); parts.units.len()];
        for (id, unit) in (0..=u32::MAX).map(UnitId).zip(&parts.units) {
            if let Some(parent) = unit.parent.filter(|p| *p < id) {
                children[parent.index()].push(id);
            }
        }
        let mut leaves: Vec<u32> = children.iter().map(|c: &Vec<UnitId>| u32::from(c.is_empty())).collect();
        for (i, unit) in parts.units.iter().enumerate().rev() {
            if let Some(parent) = unit.parent.filter(|p| p.index() < i) {
                leaves[parent.index()] += leaves[i];
            }
        }
        Definition { parts, contests_by_id, units_by_id, children, leaves }
    }
}

impl std::ops::Deref for Definition {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Definition {
    /// The contest at this position, if there is one.
    pub fn contest(&self, id: ContestId) -> Option<&Contest> {
        self.parts.contests.get(id.index())
    }

    /// The unit at this position, if there is one.
    pub fn unit(&self, id: UnitId) -> Option<&Unit> {
        self.parts.units.get(id.index())
    }

    /// The contest with this text id.
    pub fn contest_by_id(&self, id: &str) -> Option<ContestId> {
        self.contests_by_id.get(id).copied()
    }

    /// The unit with this text id.
    pub fn unit_by_id(&self, id: &str) -> Option<UnitId> {
        self.units_by_id.get(id).copied()
    }

    /// Contests with their positions.
    pub fn contest_ids(&self) -> impl Iterator<Item = (ContestId, &Contest)> {
        (0..=u16::MAX).map(ContestId).zip(&self.parts.contests)
    }

    /// The units directly below `unit`, in the definition's order.
    pub fn children(&self, unit: UnitId) -> &[UnitId] {
        self.children.get(unit.index()).map_or(&[], Vec::as_slice)
    }

    /// How many units without children there are at or below `unit`.
    pub fn leaves(&self, unit: UnitId) -> u32 {
        self.leaves.get(unit.index()).copied().unwrap_or(0)
    }

    /// `unit` and every unit above it, upward to the root.
    pub fn ancestry(&self, unit: UnitId) -> impl Iterator<Item = UnitId> {
        // A parent that does not stand before its child is none: so the way up ends in any definition.
        std::iter::successors(self.unit(unit).map(|_| unit), |u| self.unit(*u)?.parent.filter(|p| p < u))
    }

    /// Whether `unit` is `above` or lies below it.
    pub fn is_within(&self, unit: UnitId, above: UnitId) -> bool {
        self.ancestry(unit).any(|u| u == above)
    }

    /// Every partition of the log, in the order in which they are started.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let Partitions { votes, returns } = self.parts.partitions;
        (0..returns).map(PartitionId::returns).chain((0..votes).map(PartitionId::votes))
    }

    /// The partition that takes a unit's returns: units of one region (a child of the root) share one.
    pub fn returns_partition(&self, unit: UnitId) -> PartitionId {
        let region = self.ancestry(unit).filter(|u| *u != UnitId(0)).last().unwrap_or(UnitId(0));
        let count = u32::from(self.parts.partitions.returns.max(1));
        PartitionId::returns(u16::try_from(region.0 % count).unwrap_or(0))
    }
}

impl Contest {
    /// How many selections one voter may choose.
    pub fn max_choices(&self) -> u16 {
        match self.kind {
            ContestKind::NOfM { n } => n,
            ContestKind::SingleChoice | ContestKind::BallotMeasure { .. } | ContestKind::AudiencePoll => 1,
        }
    }

    /// The selection with this text id.
    pub fn selection_by_id(&self, id: &str) -> Option<SelectionId> {
        (0..=u16::MAX).zip(&self.selections).find(|(_, s)| s.id == id).map(|(i, _)| SelectionId(i))
    }

    /// The rules of the live vote, or none where units report returns.
    pub fn voting(&self) -> Option<&Voting> {
        match &self.counting {
            Counting::Votes(voting) => Some(voting),
            Counting::Returns { .. } => None,
        }
    }

    /// The count types of the contest's cells: those its returns may name, or `total` for a live vote.
    pub fn count_types(&self) -> &[CountItemType] {
        match &self.counting {
            Counting::Returns { count_types } => count_types,
            Counting::Votes(_) => &[CountItemType::Total],
        }
    }
}
