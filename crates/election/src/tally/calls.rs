//! Calls: proposed by one person of the desk, done by another.

use serde::{Deserialize, Serialize};

use super::returns::Refusal;
use super::{Delta, Reason, Tally};
use crate::definition::Definition;
use crate::event::{Actor, CallAnswer, CallProposal, Record};
use crate::ids::{ContestId, RecordId, SelectionId, Timestamp};

/// A proposal that waits for a second person, or waited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its record.
    pub record: RecordId,
    /// When it was made.
    pub at: Timestamp,
    /// What it says.
    pub stated: CallProposal,
}

/// Who won a contest, as two people of the desk say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The record by which the second one agreed.
    pub record: RecordId,
    /// When that was.
    pub at: Timestamp,
    /// The second one.
    pub confirmed_by: Actor,
    /// What the second one says.
    pub reason: String,
    /// What the first one proposed.
    pub proposal: Proposal,
}

impl Call {
    /// Who won.
    pub fn winners(&self) -> &[SelectionId] {
        self.proposal.stated.winners.as_deref().unwrap_or_default()
    }
}

impl Tally {
    pub(super) fn propose_call(
        &mut self,
        definition: &Definition,
        record: &Record,
        stated: &CallProposal,
    ) -> Result<Delta, Refusal> {
        let contest = definition.contest(stated.contest).ok_or(Reason::UnknownContest)?;
        if let Some(winners) = &stated.winners {
            let ascending = winners.windows(2).all(|pair| pair[0] < pair[1]);
            if winners.is_empty() || winners.len() > usize::from(contest.max_choices()) || !ascending {
                return Err(Reason::BadChoices.into());
            }
            if winners.iter().any(|w| w.index() >= contest.selections.len()) {
                return Err(Reason::UnknownSelection.into());
            }
            self.may_be_called(stated.contest)?;
        } else if self.state(stated.contest)?.called.is_none() {
            return Err(Reason::NotCalled.into());
        }
        let state = self.state(stated.contest)?;
        if let Some(open) = &state.proposal {
            return Err(Reason::ProposalOpen { proposal: open.record }.into());
        }
        state.proposal = Some(Proposal { record: record.id, at: record.time, stated: stated.clone() });
        Ok(self.contest_changed(stated.contest))
    }

    pub(super) fn call(&mut self, record: &Record, answer: &CallAnswer) -> Result<Delta, Refusal> {
        let proposal = self.second_person(answer, true)?;
        self.may_be_called(answer.contest)?;
        let state = self.state(answer.contest)?;
        state.proposal = None;
        state.called = Some(Call {
            record: record.id,
            at: record.time,
            confirmed_by: answer.actor.clone(),
            reason: answer.reason.clone(),
            proposal,
        });
        Ok(self.contest_changed(answer.contest))
    }

    pub(super) fn uncall(&mut self, answer: &CallAnswer) -> Result<Delta, Refusal> {
        self.second_person(answer, false)?;
        let state = self.state(answer.contest)?;
        state.proposal = None;
        state.called = None;
        Ok(self.contest_changed(answer.contest))
    }

    pub(super) fn drop_call(&mut self, answer: &CallAnswer) -> Result<Delta, Refusal> {
        let state = self.state(answer.contest)?;
        let open = state.proposal.take_if(|open| open.record == answer.proposal);
        open.ok_or(Reason::NoSuchProposal)?;
        Ok(self.contest_changed(answer.contest))
    }

    /// The open proposal that is answered, if somebody else made it.
    fn second_person(&mut self, answer: &CallAnswer, calls: bool) -> Result<Proposal, Refusal> {
        let open = self.state(answer.contest)?.proposal.as_ref();
        let asked =
            |open: &&Proposal| open.record == answer.proposal && open.stated.winners.is_some() == calls;
        let open = open.filter(asked).ok_or(Reason::NoSuchProposal)?;
        if open.stated.actor == answer.actor {
            return Err(Reason::SamePerson.into());
        }
        Ok(open.clone())
    }

    /// Whether the contest may be called now. A partition knows of its own held returns only.
    fn may_be_called(&mut self, contest: ContestId) -> Result<(), Refusal> {
        let state = self.state(contest)?;
        if state.certified.is_some() {
            return Err(Reason::Certified.into());
        }
        if state.called.is_some() {
            return Err(Reason::AlreadyCalled.into());
        }
        let of_contest = |(_, held): &(&RecordId, &super::HeldReturn)| held.reported.cell.contest == contest;
        match self.returns.held.iter().find(of_contest) {
            Some((held, _)) => Err(Reason::HoldOpen { held: *held }.into()),
            None => Ok(()),
        }
    }
}
