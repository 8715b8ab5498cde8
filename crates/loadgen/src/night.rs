//! The demo's night: a fictional state counts a fictional election, and an audience votes live beside it.
//!
//! Everything follows from a seed. The names are made of syllables and mean nobody and no place; the election is
//! marked as test data.

mod numbers;
mod places;
mod play;
mod script;
mod voters;

use std::time::Duration;

use canvass_election::Definition;
use canvass_protocol::api::{CountsRequest, ReturnRequest};

pub use play::{Progress, play};
pub use voters::{Voters, VotersReport};

/// Text id of the race for one office.
pub const GOVERNOR: &str = "governor";
/// Text id of the council, of which several are elected.
pub const COUNCIL: &str = "council";
/// Text id of the ballot measure.
pub const MEASURE: &str = "measure";
/// Text id of the live vote.
pub const POLL: &str = "encore";

/// A fictional night.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Night {
    /// The election.
    pub definition: Definition,
    /// What happens, in order of time.
    pub script: Vec<Step>,
}

impl Night {
    /// The night that follows from this seed.
    pub fn generate(seed: u64) -> Night {
        let state = places::State::generate(seed);
        let script = script::write(&state, seed);
        Night { definition: state.definition, script }
    }

    /// How long the night is.
    pub fn length(&self) -> Duration {
        self.script.last().map_or(Duration::ZERO, |step| step.after)
    }
}

/// Something that happens at a moment of the night.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, from the beginning of the night.
    pub after: Duration,
    /// The idempotency key, and the name under which later steps speak of its record.
    pub key: String,
    /// What happens.
    pub action: Action,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A unit reports.
    Return(ReturnRequest),
    /// The desk or a source corrects what an earlier step reported.
    Correct {
        /// That step's key.
        of: String,
        /// The right counts.
        counts: CountsRequest,
        /// Why.
        reason: String,
    },
    /// The desk counts a return that is held.
    Release {
        /// The key of the step that reported it.
        of: String,
        /// Why.
        reason: String,
    },
    /// The desk drops a return that is held.
    Reject {
        /// The key of the step that reported it.
        of: String,
        /// Why.
        reason: String,
    },
    /// A unit is to be counted again.
    OpenRecount {
        /// Text id of the contest.
        contest: String,
        /// Text id of the unit.
        unit: String,
        /// Why.
        reason: String,
    },
    /// A unit reports what the recount found.
    Recount {
        /// The key of the step that opened the recount.
        of: String,
        /// What was found.
        found: ReturnRequest,
    },
    /// The recount's counts become the official ones.
    CloseRecount {
        /// The key of the step that opened the recount.
        of: String,
        /// Why.
        reason: String,
    },
    /// One of the desk proposes who won.
    ProposeCall {
        /// Text id of the contest.
        contest: String,
        /// Text ids of the winners.
        winners: Vec<String>,
        /// On what basis.
        reason: String,
    },
    /// Another one agrees.
    ConfirmCall {
        /// The key of the step that proposed it.
        of: String,
        /// What they say.
        reason: String,
    },
    /// A contest's results become official.
    Certify {
        /// Text id of the contest.
        contest: String,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
