//! Calls, counted anew from the list of all records.

use canvass_election::Event;
use canvass_election::event::{CallAnswer, CallProposal};
use canvass_election::ids::{ContestId, RecordId};
use canvass_election::tally::{Call, Proposal, Reason};

use crate::naive::{Naive, good_choices, known_choices};

/// The proposal that a record answers, where it answers one.
fn answered(event: &Event) -> Option<RecordId> {
    match event {
        Event::ContestCalled(a) | Event::ContestUncalled(a) | Event::CallDropped(a) => Some(a.proposal),
        _ => None,
    }
}

impl Naive {
    /// Everything that was ever proposed for a contest.
    pub(crate) fn proposals(&self, contest: ContestId) -> Vec<Proposal> {
        let proposed = self.counted().filter_map(|record| match &record.event {
            Event::CallProposed(stated) if stated.contest == contest => {
                Some(Proposal { record: record.id, at: record.time, stated: stated.clone() })
            }
            _ => None,
        });
        proposed.collect()
    }

    pub(crate) fn proposal(&self, contest: ContestId) -> Option<Proposal> {
        let open = |p: &Proposal| self.counted().all(|record| answered(&record.event) != Some(p.record));
        self.proposals(contest).into_iter().find(open)
    }

    pub(crate) fn called(&self, contest: ContestId) -> Option<Call> {
        let ends = self.counted().filter(|record| match &record.event {
            Event::ContestCalled(answer) | Event::ContestUncalled(answer) => answer.contest == contest,
            _ => false,
        });
        let last = ends.last()?;
        let Event::ContestCalled(answer) = &last.event else { return None };
        let proposal = self.proposals(contest).into_iter().find(|p| p.record == answer.proposal)?;
        let (confirmed_by, reason) = (answer.actor.clone(), answer.reason.clone());
        Some(Call { record: last.id, at: last.time, confirmed_by, reason, proposal })
    }

    pub(crate) fn proposal_refusal(&self, proposal: &CallProposal) -> Option<Reason> {
        let Some(contest) = self.definition.contests.get(proposal.contest.index()) else {
            return Some(Reason::UnknownContest);
        };
        let refused = match &proposal.winners {
            Some(winners) if !good_choices(contest, winners) => Some(Reason::BadChoices),
            Some(winners) if !known_choices(contest, winners) => Some(Reason::UnknownSelection),
            Some(_) => self.not_to_be_called(proposal.contest),
            None => self.called(proposal.contest).is_none().then_some(Reason::NotCalled),
        };
        let open = || Some(Reason::ProposalOpen { proposal: self.proposal(proposal.contest)?.record });
        refused.or_else(open)
    }

    fn not_to_be_called(&self, contest: ContestId) -> Option<Reason> {
        if self.state(contest).certified.is_some() {
            return Some(Reason::Certified);
        }
        if self.called(contest).is_some() {
            return Some(Reason::AlreadyCalled);
        }
        let held = self.held().into_iter().find(|(_, reported, _)| reported.cell.contest == contest);
        held.map(|(held, ..)| Reason::HoldOpen { held })
    }

    /// What stands in the way of an answer: one that calls, one that takes back, or one that drops either.
    pub(crate) fn call_refusal(&self, answer: &CallAnswer, calls: Option<bool>) -> Option<Reason> {
        if answer.contest.index() >= self.definition.contests.len() {
            return Some(Reason::UnknownContest);
        }
        let fits = |p: &Proposal| {
            p.record == answer.proposal && calls.is_none_or(|calls| calls == p.stated.winners.is_some())
        };
        let Some(open) = self.proposal(answer.contest).filter(fits) else {
            return Some(Reason::NoSuchProposal);
        };
        match calls {
            None => None,
            Some(_) if open.stated.actor == answer.actor => Some(Reason::SamePerson),
            Some(true) => self.not_to_be_called(answer.contest),
            Some(false) => None,
        }
    }
}
