//! One name for each variant. A new variant does not compile here until it has a name, and a name that no
//! table shows fails the test.

use canvass_election::definition::VotePolicy;
use canvass_election::results::ResultsStatus;
use canvass_election::tally::{Delta, HoldReason, Outcome, Reason};
use canvass_election::{Event, tally::Remembered};

macro_rules! names {
    ($function:ident, $all:ident: $type:ty { $($pattern:pat => $name:literal,)* }) => {
        const $all: &[&str] = &[$($name),*];

        pub(crate) fn $function(value: &$type) -> &'static str {
            match value { $($pattern => $name,)* }
        }
    };
}

names!(event, EVENTS: Event {
    Event::ElectionDefined(_) => "event define",
    Event::ContestClosed(_) => "event close",
    Event::ContestCertified(_) => "event certify",
    Event::CallProposed(_) => "event propose",
    Event::ContestCalled(_) => "event call",
    Event::ContestUncalled(_) => "event uncall",
    Event::CallDropped(_) => "event drop",
    Event::VoteCast(_) => "event vote",
    Event::ReturnReported(_) => "event return",
    Event::ReturnCorrected(_) => "event correct",
    Event::ReturnReleased(_) => "event release",
    Event::ReturnRejected(_) => "event reject",
    Event::RecountOpened(_) => "event recount-open",
    Event::RecountReported(_) => "event recount",
    Event::RecountClosed(_) => "event recount-close",
});

names!(outcome, OUTCOMES: Outcome {
    Outcome::Counted(Delta::Defined) => "counted defined",
    Outcome::Counted(Delta::Contest(_)) => "counted contest",
    Outcome::Counted(Delta::Vote { minus: None, .. }) => "counted vote",
    Outcome::Counted(Delta::Vote { minus: Some(_), .. }) => "counted vote in place of another",
    Outcome::Counted(Delta::Cells(_)) => "counted cells",
    Outcome::Duplicate { .. } => "duplicate",
    Outcome::Held(_) => "held",
    Outcome::Rejected(_) => "rejected",
});

names!(reason, REASONS: Reason {
    Reason::NotDefined => "not-defined",
    Reason::AlreadyDefined => "already-defined",
    Reason::UnknownContest => "unknown-contest",
    Reason::UnknownSelection => "unknown-selection",
    Reason::UnknownUnit => "unknown-unit",
    Reason::UnknownCountType => "unknown-count-type",
    Reason::BadChoices => "bad-choices",
    Reason::BadCounts => "bad-counts",
    Reason::NotOpen => "not-open",
    Reason::Closed => "closed",
    Reason::AlreadyVoted { .. } => "already-voted",
    Reason::VotesUsedUp { .. } => "votes-used-up",
    Reason::NotStanding => "not-standing",
    Reason::NotHeld => "not-held",
    Reason::Superseded => "superseded",
    Reason::Certified => "certified",
    Reason::NotCalled => "not-called",
    Reason::AlreadyCalled => "already-called",
    Reason::HoldOpen { .. } => "hold-open",
    Reason::ProposalOpen { .. } => "proposal-open",
    Reason::NoSuchProposal => "no-such-proposal",
    Reason::SamePerson => "same-person",
    Reason::NoSuchRecount => "no-such-recount",
    Reason::RecountOpen => "recount-open",
    Reason::OutsideRecount => "outside-recount",
    Reason::AlreadyClosed => "already-closed",
});

names!(hold, HOLDS: HoldReason {
    HoldReason::LowerCount { .. } => "lower-count",
    HoldReason::VotesAboveBallots => "votes-above-ballots",
    HoldReason::AboveRegistered => "above-registered",
    HoldReason::PartsNotTotal => "parts-not-total",
    HoldReason::Doubling { .. } => "doubling",
    HoldReason::Replayed { .. } => "replayed",
    HoldReason::ParentTotal { .. } => "parent-total",
    HoldReason::UnderRecount { .. } => "under-recount",
});

names!(policy, POLICIES: VotePolicy {
    VotePolicy::One => "policy one",
    VotePolicy::Replace => "policy replace",
    VotePolicy::UpTo(_) => "policy up_to",
});

names!(status, STATUSES: ResultsStatus {
    ResultsStatus::PreElection => "status pre-election",
    ResultsStatus::UnofficialPartial => "status unofficial-partial",
    ResultsStatus::UnofficialComplete => "status unofficial-complete",
    ResultsStatus::Recount => "status recount",
    ResultsStatus::Correction => "status correction",
    ResultsStatus::Certified => "status certified",
});

names!(remembered, REMEMBERED: Remembered {
    Remembered::Counted => "remembered counted",
    Remembered::Held(_) => "remembered held",
    Remembered::Rejected(_) => "remembered rejected",
});

pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    [EVENTS, OUTCOMES, REASONS, HOLDS, POLICIES, STATUSES, REMEMBERED].into_iter().flatten().copied()
}
