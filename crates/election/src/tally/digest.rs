//! One hash of everything a tally has counted.
//!
//! The digest says what was counted, not how it was written down: it leaves out where records stand and how
//! they were batched, so that two logs of the same events agree whatever crashes and retries lay between.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Call, Tally};
use crate::event::{Cell, Counts};
use crate::ids::SelectionId;

/// BLAKE3 of a tally's canonical content; 32 bytes, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Feeds numbers to the hash in one fixed form.
struct Writer(blake3::Hasher);

impl Writer {
    fn number(&mut self, n: u64) {
        self.0.update(&n.to_le_bytes());
    }

    fn optional(&mut self, n: Option<u64>) {
        self.number(u64::from(n.is_some()));
        self.number(n.unwrap_or(0));
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    /// Lists announce their length, or a winner more would look like a recount.
    fn choices(&mut self, choices: &[SelectionId]) {
        self.number(choices.len() as u64);
        choices.iter().for_each(|s| self.number(u64::from(s.0)));
    }

    fn cell(&mut self, cell: &Cell) {
        self.number(u64::from(cell.contest.0));
        self.number(u64::from(cell.unit.0));
        self.text(cell.count_type.as_str());
    }

    fn counts(&mut self, counts: &Counts) {
        self.number(counts.votes.len() as u64);
        counts.votes.iter().for_each(|n| self.number(*n));
        self.number(counts.overvotes);
        self.number(counts.undervotes);
        self.optional(counts.ballots);
    }
}

impl Tally {
    /// Equal for equal counts, voters, holds and contest states. Takes time in proportion to the voters.
    pub fn digest(&self) -> Digest {
        let mut w = Writer(blake3::Hasher::new_derive_key("canvass tally digest v2"));
        w.text(&self.partition.to_string());
        w.text(self.definition.as_ref().map_or("", |d| &d.id));
        for (state, ballots) in self.states.iter().zip(&self.ballots) {
            w.optional(state.closed.map(|t| t.0));
            w.optional(state.certified.map(|t| t.0));
            w.number(u64::from(state.corrected_since));
            w.optional(state.called.as_ref().map(|call| call.at.0));
            w.choices(state.called.as_ref().map_or(&[], Call::winners));
            w.number(u64::from(state.proposal.is_some()));
            w.choices(state.proposal.as_ref().and_then(|p| p.stated.winners.as_deref()).unwrap_or(&[]));
            w.number(state.recounts.len() as u64);
            state.recounts.values().for_each(|unit| w.number(u64::from(unit.0)));
            ballots.votes.iter().for_each(|n| w.number(*n));
            w.number(ballots.ballots);
        }
        w.number(self.returns.cells.len() as u64);
        for (cell, state) in &self.returns.cells {
            w.cell(cell);
            for standing in [&state.official, &state.provisional] {
                w.number(u64::from(standing.is_some()));
                standing.iter().for_each(|s| w.counts(&s.counts));
            }
        }
        w.number(self.returns.held.len() as u64);
        for held in self.returns.held.values() {
            w.cell(&held.reported.cell);
            w.counts(&held.reported.counts);
        }
        w.number(self.voters.len() as u64);
        self.sum_of_voters().iter().for_each(|lane| w.number(*lane));
        Digest(*w.0.finalize().as_bytes())
    }

    /// A sum of one hash a voter, lane by lane: it does not depend on the order of the table.
    fn sum_of_voters(&self) -> [u64; 4] {
        let mut sum = [0u64; 4];
        self.voters.for_each(|nullifier, choices, votes| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&nullifier.0).update(&votes.to_le_bytes());
            for SelectionId(choice) in choices {
                hasher.update(&choice.to_le_bytes());
            }
            let hash = hasher.finalize();
            for (lane, bytes) in sum.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
                *lane = lane.wrapping_add(u64::from_le_bytes(*bytes));
            }
        });
        sum
    }
}
