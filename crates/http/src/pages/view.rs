//! A contest in a unit as the pages show it.

use canvass_election::Definition;
use canvass_election::definition::{Contest, ContestKind};
use canvass_election::event::Counts;
use canvass_election::ids::{ContestId, Timestamp, UnitId};
use canvass_election::results::{ContestResults, leaders};
use canvass_election::tally::Call;
use canvass_engine::{Published, PublishedContest};
use canvass_protocol::definition::threshold_text;
use serde_json::json;

use super::format::{Integer, Moment, Share};
use super::notes::{Lead, Note, notes};
use super::{colors, words};

/// Which contest, in which unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) contest: ContestId,
    pub(super) unit: UnitId,
}

/// One selection's row.
pub(super) struct Row<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) party: Option<&'a str>,
    pub(super) color: String,
    pub(super) votes: Integer,
    pub(super) share: Share,
    /// Votes in an open recount, and their share.
    pub(super) recount: Option<(Integer, Share)>,
    /// Whether it leads, or shares the lead.
    pub(super) leading: bool,
    pub(super) called: bool,
}

/// How many units have reported.
pub(super) struct Reporting {
    pub(super) done: Integer,
    pub(super) expected: Integer,
}

/// A contest in a unit at one publication.
pub(super) struct View<'a> {
    pub(super) place: Place,
    pub(super) contest: &'a Contest,
    pub(super) unit_id: &'a str,
    pub(super) unit_name: &'a str,
    pub(super) status: &'static str,
    pub(super) rows: Vec<Row<'a>>,
    pub(super) total: Integer,
    /// All votes of an open recount's provisional counts.
    pub(super) recount_total: Option<Integer>,
    pub(super) reporting: Option<Reporting>,
    pub(super) lead: Lead<'a>,
    pub(super) notes: Vec<Note>,
    pub(super) changed: Moment,
    pub(super) seq: u64,
}

impl<'a> View<'a> {
    pub(super) fn new(definition: &'a Definition, published: &Published, place: Place) -> Self {
        let contest = &definition.contests[place.contest.index()];
        let unit = &definition.units[place.unit.index()];
        let PublishedContest { stamp, results, .. } = &published.contests[place.contest.index()];
        let here = results.unit(place.unit);
        let counts = here.total(contest.selections.len());
        let recount = results
            .in_recount(definition, place.unit)
            .then(|| here.provisional_total(contest.selections.len()));
        let status = results.status(definition, contest, place.unit);
        let reporting = contest.voting().is_none().then(|| Reporting {
            done: Integer(here.reporting.into()),
            expected: Integer(definition.leaves(place.unit).into()),
        });
        View {
            place,
            contest,
            unit_id: &unit.id,
            unit_name: &unit.name,
            status: status.as_str(),
            rows: rows(definition, contest, results, &counts, recount.as_ref()),
            total: Integer(counts.total()),
            recount_total: recount.as_ref().map(|c| Integer(c.total())),
            reporting,
            lead: Lead::new(contest, &counts, status),
            notes: notes(definition, contest, results, place.unit),
            changed: Moment(stamp.time),
            seq: stamp.seq.seq,
        }
    }

    /// The page's title: the contest, and the unit where it is a part.
    pub(super) fn title(&self) -> String {
        if self.is_whole() {
            self.contest.name.clone()
        } else {
            format!("{}: {}", self.contest.name, self.unit_name)
        }
    }

    /// Whether the unit is the contest's own.
    pub(super) fn is_whole(&self) -> bool {
        self.place.unit == self.contest.unit
    }

    pub(super) fn status_text(&self) -> &'static str {
        words::status(self.contest, self.status)
    }

    /// Every status with its text, for the live module.
    pub(super) fn status_words(&self) -> String {
        let words =
            words::statuses(self.contest).iter().map(|(word, text)| ((*word).to_owned(), json!(text)));
        serde_json::Value::Object(words.collect()).to_string()
    }

    /// Ids and names of the selections in the contest's order, for the live module.
    pub(super) fn selection_names(&self) -> String {
        let pairs: Vec<_> = self.contest.selections.iter().map(|s| json!([s.id, s.name])).collect();
        json!(pairs).to_string()
    }

    /// What decides who leads, for the live module: the seats, or a measure's threshold.
    pub(super) fn lead_rule(&self) -> String {
        match self.contest.kind {
            ContestKind::BallotMeasure { threshold } => threshold_text(threshold),
            _ => format!("seats {}", self.contest.max_choices()),
        }
    }

    pub(super) fn rule(&self) -> String {
        words::rule(self.contest)
    }

    /// What the ballot asks of the voter.
    pub(super) fn task(&self) -> String {
        match self.contest.max_choices() {
            1 => "Choose one.".to_owned(),
            n => format!("Choose up to {n}."),
        }
    }

    pub(super) fn has_changed(&self) -> bool {
        self.changed.0 != Timestamp(0)
    }

    /// What the mark of this selection says when it leads.
    pub(super) fn lead_word(&self, row: &Row<'_>) -> &'static str {
        if matches!(self.contest.kind, ContestKind::BallotMeasure { .. }) {
            return if row.id == self.contest.selections[0].id { "Passes" } else { "Prevails" };
        }
        match self.status {
            "unofficial-complete" | "certified" | "correction" => "Most votes",
            _ => "Leading",
        }
    }

    pub(super) fn votes_here(&self) -> bool {
        self.contest.voting().is_some()
    }
}

fn rows<'a>(
    definition: &'a Definition,
    contest: &'a Contest,
    results: &ContestResults,
    counts: &Counts,
    recount: Option<&Counts>,
) -> Vec<Row<'a>> {
    let (total, leading) = (counts.total(), leaders(contest, counts));
    let called = results.state.called.as_ref().map(Call::winners);
    let share = |counts: &Counts, i: usize, whole: u64| Share { part: counts.votes[i], whole };
    let row = |(i, position): (usize, u16)| {
        let selection = &contest.selections[i];
        let party = selection.party.and_then(|p| definition.parties.get(usize::from(p)));
        Row {
            id: &selection.id,
            name: &selection.name,
            party: party.map(|p| p.name.as_str()),
            color: colors::class(definition, selection.party, i),
            votes: Integer(counts.votes[i]),
            share: share(counts, i, total),
            recount: recount.map(|c| (Integer(c.votes[i]), share(c, i, c.total()))),
            leading: leading.iter().any(|l| l.0 == position),
            called: called.is_some_and(|winners| winners.iter().any(|w| w.0 == position)),
        }
    };
    let mut rows: Vec<Row<'a>> = (0..contest.selections.len()).zip(0..=u16::MAX).map(row).collect();
    // A ballot keeps its order while people vote on it; so do yes and no.
    let keeps_order = contest.voting().is_some() || matches!(contest.kind, ContestKind::BallotMeasure { .. });
    if !keeps_order {
        rows.sort_by_key(|row| std::cmp::Reverse(row.votes.0));
    }
    rows
}
