//! The words of the domain as the pages say them.

use canvass_election::definition::{Contest, ContestKind, CountItemType, VotePolicy};
use canvass_election::event::Counts;
use canvass_election::ids::SelectionId;
use canvass_election::results::leaders;
use canvass_engine::ChangeKind;
use canvass_protocol::definition::threshold_text;

use super::format;

/// What each results status is called where units report, by its word on the wire.
const OF_RETURNS: [(&str, &str); 6] = [
    ("pre-election", "No results yet"),
    ("unofficial-partial", "Unofficial, partial"),
    ("unofficial-complete", "Unofficial, complete"),
    ("recount", "Recount"),
    ("correction", "Certified, corrected since"),
    ("certified", "Certified, official"),
];

/// The same where voters vote.
const OF_VOTES: [(&str, &str); 6] = [
    ("pre-election", "No votes yet"),
    ("unofficial-partial", "Votes being counted"),
    ("unofficial-complete", "Voting closed"),
    ("recount", "Recount"),
    ("correction", "Certified, corrected since"),
    ("certified", "Certified, official"),
];

/// What each results status of this contest is called.
pub(super) fn statuses(contest: &Contest) -> &'static [(&'static str, &'static str)] {
    if contest.voting().is_some() { &OF_VOTES } else { &OF_RETURNS }
}

/// What one status is called.
pub(super) fn status(contest: &Contest, word: &str) -> &'static str {
    statuses(contest).iter().find(|(w, _)| *w == word).map_or(format::NONE, |(_, text)| text)
}

/// A count type.
pub(super) fn count_type(count_type: CountItemType) -> &'static str {
    match count_type {
        CountItemType::ElectionDay => "Election day",
        CountItemType::Early => "Early",
        CountItemType::Absentee => "By post",
        CountItemType::Provisional => "Provisional",
        CountItemType::Total => "Total",
    }
}

/// What the voter may do, and what wins.
pub(super) fn rule(contest: &Contest) -> String {
    match contest.kind {
        ContestKind::SingleChoice => "One choice; the most votes win.".to_owned(),
        ContestKind::AudiencePoll => "Audience poll; the most votes win.".to_owned(),
        ContestKind::NOfM { n } => format!("Up to {n} choices; the {n} with the most votes win."),
        ContestKind::BallotMeasure { threshold } => {
            format!("Ballot measure; it passes with {} of the votes.", threshold_text(threshold))
        }
    }
}

/// How often one voter may vote.
pub(super) fn policy(policy: VotePolicy) -> String {
    match policy {
        VotePolicy::One => "One vote for each voter.".to_owned(),
        VotePolicy::Replace => "A later vote of a voter takes the place of the earlier one.".to_owned(),
        VotePolicy::UpTo(n) => format!("Up to {n} votes for each voter."),
    }
}

/// Who is ahead, in a table's cell.
pub(super) fn leader(contest: &Contest, counts: &Counts) -> String {
    let ahead = leaders(contest, counts);
    let names = names(contest, &ahead);
    let seats = usize::from(contest.max_choices());
    match ahead.len() {
        0 if counts.total() == 0 => format::NONE.to_owned(),
        0 => "Tie".to_owned(),
        found if found > seats => format!("Tie: {}", names.join(", ")),
        _ => names.join(", "),
    }
}

/// Names of selections.
pub(super) fn names<'a>(contest: &'a Contest, selections: &[SelectionId]) -> Vec<&'a str> {
    selections.iter().filter_map(|s| contest.selections.get(s.index())).map(|s| s.name.as_str()).collect()
}

/// How likely something is, given in thousandths.
pub(super) fn chance(thousandths: u16) -> &'static str {
    match thousandths {
        990.. => "almost certain",
        900.. => "very likely",
        667.. => "likely",
        334.. => "about even",
        101.. => "unlikely",
        11.. => "very unlikely",
        _ => "almost ruled out",
    }
}

/// What a change was.
pub(super) fn change(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Returned => "Return counted",
        ChangeKind::Held => "Return held for the desk",
        ChangeKind::Corrected => "Correction",
        ChangeKind::Released => "Held return released into the count",
        ChangeKind::Dropped => "Held return dropped",
        ChangeKind::RecountOpened => "Recount opened",
        ChangeKind::Recounted => "Recount return counted",
        ChangeKind::RecountClosed => "Recount closed; its counts are official",
        ChangeKind::Closed => "Contest closed",
        ChangeKind::Certified => "Contest certified",
        ChangeKind::CallProposed => "Call proposed; it waits for a second person",
        ChangeKind::UncallProposed => "Proposed to take the call back",
        ChangeKind::Called => "Contest called",
        ChangeKind::Uncalled => "Call taken back",
        ChangeKind::CallDropped => "Proposal dropped",
    }
}
