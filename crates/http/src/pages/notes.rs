//! The state of a contest in sentences.

use canvass_election::Definition;
use canvass_election::definition::{Contest, ContestKind};
use canvass_election::event::Counts;
use canvass_election::ids::UnitId;
use canvass_election::results::{ContestResults, ResultsStatus, leaders};
use canvass_election::tally::Call;
use canvass_protocol::definition::threshold_text;

use super::format::{Integer, Moment, Share, list};
use super::words;

/// Who is ahead, in one sentence; its numbers stand apart, so that the live module can change them.
pub(super) struct Lead<'a> {
    pub(super) start: String,
    /// The share of the selection with this id.
    pub(super) share: Option<(&'a str, Share)>,
    /// By how many votes the first is ahead of the second.
    pub(super) margin: Option<Integer>,
    pub(super) end: String,
}

/// A sentence about the state of the contest.
pub(super) struct Note {
    /// `notice` for what changes how the numbers are read, `good` for what makes them firm.
    pub(super) class: &'static str,
    pub(super) text: String,
    /// The same in a few words, for the overview.
    pub(super) short: String,
}

impl<'a> Lead<'a> {
    pub(super) fn new(contest: &'a Contest, counts: &Counts, status: ResultsStatus) -> Self {
        let total = counts.total();
        let plain = |start: String| Lead { start, share: None, margin: None, end: String::new() };
        if total == 0 {
            return plain("No votes have been counted yet.".to_owned());
        }
        let open = matches!(
            status,
            ResultsStatus::PreElection | ResultsStatus::UnofficialPartial | ResultsStatus::Recount
        );
        let ahead = leaders(contest, counts);
        let names = words::names(contest, &ahead);
        match contest.kind {
            ContestKind::BallotMeasure { threshold } => {
                let (first, part) = (&contest.selections[0], counts.votes[0]);
                let verb = if threshold.reached(part, total) { "passes" } else { "does not pass" };
                let yet = if open { " with the votes counted so far" } else { "" };
                Lead {
                    start: format!("The measure {verb}{yet}: {} has ", first.name),
                    share: Some((&first.id, Share { part, whole: total })),
                    margin: None,
                    end: format!(", and needs {}.", threshold_text(threshold)),
                }
            }
            ContestKind::NOfM { n } => {
                let verb = if open { "In the lead" } else { "With the most votes" };
                let names = list(names);
                plain(match (ahead.len(), usize::from(n) - ahead.len()) {
                    (0, _) => format!("{n} seats; a tie leaves all of them open."),
                    (_, 0) => format!("{n} seats. {verb}: {names}."),
                    (_, 1) => format!("{n} seats. {verb}: {names}. A tie leaves one seat open."),
                    (_, k) => format!("{n} seats. {verb}: {names}. A tie leaves {k} seats open."),
                })
            }
            ContestKind::SingleChoice | ContestKind::AudiencePoll => match ahead.as_slice() {
                [only] => {
                    let verb = if open { "leads with" } else { "has the most votes:" };
                    let share = Share { part: counts.votes[only.index()], whole: total };
                    Lead {
                        start: format!("{} {verb} ", list(names)),
                        share: Some((&contest.selections[only.index()].id, share)),
                        margin: Some(margin(counts)),
                        end: ".".to_owned(),
                    }
                }
                _ => plain(format!("{} are tied.", list(names))),
            },
        }
    }
}

/// By how many votes the first is ahead of the second.
fn margin(counts: &Counts) -> Integer {
    let mut votes = counts.votes.clone();
    votes.sort_unstable_by(|a, b| b.cmp(a));
    Integer(votes.first().copied().unwrap_or(0) - votes.get(1).copied().unwrap_or(0))
}

/// A call with who made it, when, and on what basis.
fn called(contest: &Contest, call: &Call, early: bool) -> String {
    let stated = &call.proposal.stated;
    let names = list(words::names(contest, call.winners()));
    let before = if early { ", before the results are official" } else { "" };
    format!(
        "Called for {names} at {}{before}. Proposed by {} at {} (record {}), confirmed by {} (record {}). Basis: {}",
        Moment(call.at),
        stated.actor.0,
        Moment(call.proposal.at),
        call.proposal.record,
        call.confirmed_by.0,
        call.record,
        stated.reason,
    )
}

/// What else must be known to read the numbers.
pub(super) fn notes(
    definition: &Definition,
    contest: &Contest,
    results: &ContestResults,
    unit: UnitId,
) -> Vec<Note> {
    let state = &results.state;
    let note = |class, short: String, text: String| Note { class, text, short };
    let mut notes = Vec::new();
    if let Some(call) = &state.called {
        let short = format!("Called for {}.", list(words::names(contest, call.winners())));
        notes.push(note("good", short, called(contest, call, state.certified.is_none())));
    }
    if let Some(at) = state.certified {
        let text = format!("Certified at {}: these results are official.", Moment(at));
        notes.push(note("good", "Certified.".to_owned(), text));
        if state.corrected_since {
            let text = "They were corrected since; the corrections log says where.".to_owned();
            notes.push(note("notice", "Corrected since.".to_owned(), text));
        }
    }
    if let (Some(at), Some(_)) = (state.closed, contest.voting()) {
        let text = format!("Voting was closed at {}.", Moment(at));
        notes.push(note("notice", "Voting is closed.".to_owned(), text));
    }
    for (record, place) in &state.recounts {
        if !definition.is_within(unit, *place) && !definition.is_within(*place, unit) {
            continue;
        }
        let short = format!("A recount is open in {}.", definition.units[place.index()].name);
        let text = format!(
            "{short} The official counts stand until it ends; the counts with the recount’s in their place are shown beside them. It was opened by record {record}."
        );
        notes.push(note("notice", short, text));
    }
    let (held, wait) = match results.unit(unit).held {
        0 => return notes,
        1 => ("One return".to_owned(), "waits for the desk and is"),
        n => (format!("{} returns", Integer(n.into())), "wait for the desk and are"),
    };
    notes.push(note("notice", format!("{held} held."), format!("{held} {wait} not in these totals.")));
    notes
}
