//! Applies a table to a tally, row by row.
//!
//! Units, contests and count types are named as in [`definition`]; selections are letters, `a` the first.
//! Verbs:
//! - `define`, `close CONTEST`, `certify CONTEST`
//! - `propose CONTEST LETTERS`, `propose-uncall CONTEST`; `call`, `uncall` and `drop` with `CONTEST LABEL`, by somebody
//!   else; each with `by=NAME` where it matters who
//! - `vote CONTEST VOTER LETTERS` (`-` for no letter)
//! - `return CONTEST UNIT TYPE COUNTS` and `recount LABEL CONTEST UNIT TYPE COUNTS`
//! - `correct LABEL COUNTS`, `release LABEL`, `reject LABEL`
//! - `recount-open CONTEST UNIT`, `recount-close LABEL`
//! - `retry LABEL`: the same request and event once more
//!
//! COUNTS are votes such as `10 20 30`, then any of `over=1 under=2 ballots=63 stated=60`.
//!
//! Checks: `official CONTEST UNIT COUNTS`, `provisional CONTEST UNIT COUNTS` (sums of all count types, ballots
//! not compared unless given), `status CONTEST UNIT WORD`, `leaders CONTEST LETTERS`, `held N`, `voters N`,
//! `reporting CONTEST UNIT N`, `cast VOTER LETTERS N`, `called CONTEST LETTERS` (`-` where it is not).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Eligibility, Partitions, Parts, Selection, Unit,
    VotePolicy, Voting,
};
use canvass_election::event::{
    Actor, CallAnswer, CallProposal, Cell, Choices, ContestAct, Correction, Counts, HeldAnswer,
    RecountClosing, RecountOpening, RecountReturn, Return, Vote,
};
use canvass_election::ids::{
    ContestId, Nullifier, PartitionId, RecordId, RequestId, SelectionId, Timestamp, UnitId,
};
use canvass_election::results::leaders;
use canvass_election::tally::{Delta, HoldReason, Reason};
use canvass_election::{Definition, Event, Merge, Outcome, Record, Tally};

use crate::names;

fn unit(id: &str, parent: Option<u32>, registered: Option<u64>) -> Unit {
    let parent = parent.map(UnitId);
    Unit { id: id.into(), name: id.into(), kind: "unit".into(), parent, registered }
}

fn contest(id: &str, kind: ContestKind, unit: u32, selections: u8, counting: Counting) -> Contest {
    let selection = |i| {
        let id = char::from(b'a' + i).to_string();
        Selection { name: id.clone(), id, party: None }
    };
    let selections = (0..selections).map(selection).collect();
    Contest { id: id.into(), name: id.into(), kind, unit: UnitId(unit), selections, counting, baseline: None }
}

fn votes(policy: VotePolicy, window: Option<(u64, u64)>) -> Counting {
    let opens = window.map(|(opens, _)| Timestamp(opens));
    let closes = window.map(|(_, closes)| Timestamp(closes));
    Counting::Votes(Voting { opens, closes, policy, eligibility: Eligibility::Open })
}

/// The election of every table: a state of two counties, the precincts `n1` to `n5` and `s1`, `s2`.
pub(crate) fn definition() -> Definition {
    let total = || Counting::Returns { count_types: vec![CountItemType::Total] };
    let day_and_early =
        Counting::Returns { count_types: vec![CountItemType::ElectionDay, CountItemType::Early] };
    let single = ContestKind::SingleChoice;
    Definition::from(Parts {
        id: "table".into(),
        name: "Table".into(),
        is_test: true,
        partitions: Partitions { votes: 1, returns: 1 },
        parties: Vec::new(),
        units: vec![
            unit("state", None, None),
            unit("north", Some(0), None),
            unit("south", Some(0), None),
            unit("n1", Some(1), None),
            unit("n2", Some(1), None),
            unit("n3", Some(1), None),
            unit("n4", Some(1), None),
            unit("n5", Some(1), Some(1000)),
            unit("s1", Some(2), None),
            unit("s2", Some(2), None),
        ],
        contests: vec![
            contest("mayor", single, 0, 2, total()),
            contest("board", ContestKind::NOfM { n: 2 }, 1, 3, day_and_early),
            contest("poll", ContestKind::AudiencePoll, 0, 3, votes(VotePolicy::One, Some((100, 200)))),
            contest("idol", single, 0, 3, votes(VotePolicy::Replace, None)),
            contest("jury", single, 0, 3, votes(VotePolicy::UpTo(2), None)),
            contest("panel", ContestKind::NOfM { n: 3 }, 0, 5, votes(VotePolicy::Replace, None)),
        ],
    })
}

/// Runs one table, and adds the names of all variants it shows to `seen`.
pub(crate) fn run(title: &str, table: &str, seen: &mut BTreeSet<&'static str>) {
    let definition = Arc::new(definition());
    let mut state = State {
        tally: Tally::new(PartitionId::CONTROL),
        merge: Merge::new(Arc::clone(&definition)),
        definition,
        labels: BTreeMap::new(),
        requests: BTreeMap::new(),
        seen,
    };
    let is_row = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    for (i, line) in table.lines().enumerate().skip(1).filter(|(_, line)| is_row(line)) {
        state.row(&format!("{title}, line {}: {line}", i + 1), line);
    }
}

struct State<'a> {
    tally: Tally,
    merge: Merge,
    definition: Arc<Definition>,
    labels: BTreeMap<String, Record>,
    requests: BTreeMap<String, RequestId>,
    seen: &'a mut BTreeSet<&'static str>,
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn word<'a>(words: &mut Words<'a>) -> &'a str {
    words.next().expect("the row goes on")
}

fn why() -> (String, Actor) {
    ("because".into(), Actor("desk".into()))
}

/// Who acts, where the row says so.
fn by(words: &mut Words<'_>, otherwise: &str) -> Actor {
    let named = words.next_if(|w| w.starts_with("by="));
    Actor(named.map_or(otherwise, |w| &w[3..]).to_owned())
}

fn nullifier(voter: &str) -> Nullifier {
    let mut bytes = [0; 16];
    bytes[..voter.len()].copy_from_slice(voter.as_bytes());
    Nullifier(bytes)
}

fn letters(choices: &[SelectionId]) -> String {
    choices.iter().map(|s| char::from(b'a' + u8::try_from(s.0).expect("a letter"))).collect()
}

fn choices(word: &str) -> Choices {
    word.bytes().filter(|b| *b != b'-').map(|b| SelectionId(u16::from(b - b'a'))).collect()
}

/// COUNTS, with the total that is stated.
fn counts(words: &mut Words<'_>) -> (Counts, Option<u64>) {
    let (mut counts, mut stated) = (Counts::default(), None);
    for word in words {
        match word.split_once('=') {
            None => counts.votes.push(word.parse().expect("a count")),
            Some(("over", n)) => counts.overvotes = n.parse().expect("overvotes"),
            Some(("under", n)) => counts.undervotes = n.parse().expect("undervotes"),
            Some(("ballots", n)) => counts.ballots = Some(n.parse().expect("ballots")),
            Some(("stated", n)) => stated = Some(n.parse().expect("a total")),
            Some((other, _)) => panic!("no such count: {other}"),
        }
    }
    (counts, stated)
}

impl State<'_> {
    fn row(&mut self, place: &str, line: &str) {
        let (event, rest) = line.split_once(" = ").unwrap_or_else(|| panic!("{place}\nno outcome"));
        let (expected, checks) = rest.split_once('|').unwrap_or((rest, ""));
        let (label, record) = self.record(event);
        self.labels.insert(label.to_owned(), record.clone());
        let outcome = self.tally.apply(&record);
        self.note(&record, &outcome);
        assert_eq!(self.show(&record.event, &outcome), expected.trim(), "{place}");
        self.merge.merge(&self.tally.take_partial());
        for check in checks.split(',').filter(|c| !c.trim().is_empty()) {
            self.check(place, check);
        }
    }

    fn note(&mut self, record: &Record, outcome: &Outcome) {
        self.seen.extend([names::event(&record.event), names::outcome(outcome)]);
        match outcome {
            Outcome::Held(hold) => _ = self.seen.insert(names::hold(hold)),
            Outcome::Rejected(reason) => _ = self.seen.insert(names::reason(reason)),
            Outcome::Counted(_) | Outcome::Duplicate { .. } => {}
        }
        self.seen.extend(self.tally.outcome_of(&record.id).map(names::remembered));
        if let Event::VoteCast(vote) = &record.event
            && let Some(voting) = self.definition.contest(vote.contest).and_then(Contest::voting)
        {
            self.seen.insert(names::policy(&voting.policy));
        }
    }

    fn record<'a>(&mut self, row: &'a str) -> (&'a str, Record) {
        let offset = self.tally.end();
        let id = RecordId { partition: PartitionId::CONTROL, offset, position: 0 };
        let mut words = row.split_whitespace().peekable();
        let label = words.next_if(|w| w.ends_with(':')).unwrap_or_default().trim_end_matches(':');
        let time = words.next_if(|w| w.starts_with('@'));
        let time = Timestamp(time.map_or(offset.0, |w| w[1..].parse().expect("a time")));
        let fresh = RequestId(u128::from(offset.0).to_le_bytes());
        let request = match words.next_if(|w| w.starts_with("req=")) {
            Some(name) => *self.requests.entry(name.to_owned()).or_insert(fresh),
            None => fresh,
        };
        if words.next_if_eq(&"retry").is_some() {
            let first = self.labelled(word(&mut words)).clone();
            return (label, Record { id, time, ..first });
        }
        (label, Record { id, time, request, event: self.event(&mut words) })
    }

    fn event(&self, words: &mut Words<'_>) -> Event {
        let (reason, actor) = why();
        match word(words) {
            "define" => Event::ElectionDefined((*self.definition).clone()),
            "close" => Event::ContestClosed(self.act(words)),
            "certify" => Event::ContestCertified(self.act(words)),
            "propose" => {
                let (contest, winners) = (self.contest(word(words)), Some(choices(word(words))));
                let actor = by(words, "desk");
                Event::CallProposed(CallProposal { contest, winners, reason, projection: None, actor })
            }
            "propose-uncall" => {
                let (contest, actor) = (self.contest(word(words)), by(words, "desk"));
                Event::CallProposed(CallProposal { contest, winners: None, reason, projection: None, actor })
            }
            "call" => Event::ContestCalled(self.call_answer(words)),
            "uncall" => Event::ContestUncalled(self.call_answer(words)),
            "drop" => Event::CallDropped(self.call_answer(words)),
            "vote" => {
                let (contest, nullifier) = (self.contest(word(words)), nullifier(word(words)));
                Event::VoteCast(Vote { contest, nullifier, choices: choices(word(words)) })
            }
            "return" => Event::ReturnReported(self.reported(words)),
            "recount" => {
                let recount = self.labelled(word(words)).id;
                Event::RecountReported(RecountReturn { recount, reported: self.reported(words) })
            }
            "correct" => {
                let corrects = self.labelled(word(words)).id;
                Event::ReturnCorrected(Correction { corrects, reason, actor, counts: counts(words).0 })
            }
            "release" => Event::ReturnReleased(self.answer(words)),
            "reject" => Event::ReturnRejected(self.answer(words)),
            "recount-open" => {
                let (contest, unit) = (self.contest(word(words)), self.unit(word(words)));
                Event::RecountOpened(RecountOpening { contest, unit, reason, actor })
            }
            "recount-close" => {
                let recount = self.labelled(word(words)).id;
                Event::RecountClosed(RecountClosing { recount, reason, actor })
            }
            verb => panic!("no such verb: {verb}"),
        }
    }

    fn act(&self, words: &mut Words<'_>) -> ContestAct {
        let (reason, actor) = why();
        ContestAct { contest: self.contest(word(words)), reason, actor }
    }

    fn call_answer(&self, words: &mut Words<'_>) -> CallAnswer {
        let (contest, proposal) = (self.contest(word(words)), self.labelled(word(words)).id);
        CallAnswer { contest, proposal, reason: why().0, actor: by(words, "second") }
    }

    fn answer(&self, words: &mut Words<'_>) -> HeldAnswer {
        let (reason, actor) = why();
        HeldAnswer { held: self.labelled(word(words)).id, reason, actor }
    }

    fn reported(&self, words: &mut Words<'_>) -> Return {
        let (contest, unit) = (self.contest(word(words)), self.unit(word(words)));
        let count_type = CountItemType::parse(word(words)).expect("a count type");
        let (counts, stated_total) = counts(words);
        let cell = Cell { contest, unit, count_type };
        Return { cell, counts, stated_total, source: Actor("source".into()) }
    }

    /// Names that the definition lacks stand for ids that it lacks.
    fn contest(&self, id: &str) -> ContestId {
        self.definition.contest_by_id(id).unwrap_or(ContestId(u16::MAX))
    }

    fn unit(&self, id: &str) -> UnitId {
        self.definition.unit_by_id(id).unwrap_or(UnitId(u32::MAX))
    }

    fn name(&self, unit: UnitId) -> String {
        self.definition.unit(unit).expect("a unit").id.clone()
    }

    fn labelled(&self, label: &str) -> &Record {
        self.labels.get(label).unwrap_or_else(|| panic!("no row is labelled {label}"))
    }

    fn label(&self, id: &RecordId) -> &str {
        let found = self.labels.iter().find(|(_, record)| record.id == *id);
        found.map_or("a row without a label", |(label, _)| label)
    }

    fn show(&self, event: &Event, outcome: &Outcome) -> String {
        let plus = || if let Event::VoteCast(vote) = event { letters(&vote.choices) } else { String::new() };
        match outcome {
            Outcome::Counted(Delta::Defined) => "defined".into(),
            Outcome::Counted(Delta::Contest(_)) => "counted".into(),
            Outcome::Counted(Delta::Vote { minus: None, .. }) => format!("+{}", plus()),
            Outcome::Counted(Delta::Vote { minus: Some(minus), .. }) => {
                format!("-{} +{}", letters(minus), plus())
            }
            Outcome::Counted(Delta::Cells(changes)) => {
                let units = changes.iter().map(|c| self.name(c.cell.unit));
                std::iter::once("counted".to_owned()).chain(units).collect::<Vec<_>>().join(" ")
            }
            Outcome::Duplicate { first } => format!("duplicate {}", self.label(first)),
            Outcome::Rejected(reason) => match reason {
                Reason::AlreadyVoted { first: id }
                | Reason::VotesUsedUp { last: id }
                | Reason::HoldOpen { held: id }
                | Reason::ProposalOpen { proposal: id } => {
                    format!("{} {}", names::reason(reason), self.label(id))
                }
                _ => names::reason(reason).into(),
            },
            Outcome::Held(hold) => match hold {
                HoldReason::LowerCount { standing: id }
                | HoldReason::Doubling { standing: id }
                | HoldReason::Replayed { of: id }
                | HoldReason::UnderRecount { recount: id } => {
                    format!("{} {}", names::hold(hold), self.label(id))
                }
                HoldReason::ParentTotal { unit } => {
                    format!("{} {}", names::hold(hold), self.name(*unit))
                }
                _ => names::hold(hold).into(),
            },
        }
    }

    fn check(&mut self, place: &str, check: &str) {
        let mut words = check.split_whitespace().peekable();
        let verb = word(&mut words);
        match verb {
            "held" => {
                let held = self.tally.held().count();
                assert_eq!(held.to_string(), word(&mut words), "{place}\n{check}");
            }
            "voters" => assert_eq!(self.tally.voters().to_string(), word(&mut words), "{place}\n{check}"),
            "cast" => {
                let cast = self.tally.cast(&nullifier(word(&mut words)));
                let shown = cast.map(|c| format!("{} {}", letters(&c.choices), c.votes)).unwrap_or_default();
                assert_eq!(shown, words.collect::<Vec<_>>().join(" "), "{place}\n{check}");
            }
            _ => self.check_results(place, check, verb, words),
        }
    }

    fn check_results(&mut self, place: &str, check: &str, verb: &str, mut words: Words<'_>) {
        let id = self.contest(word(&mut words));
        let contest = self.definition.contest(id).expect("a contest");
        let results = &self.merge.results().contests[id.index()];
        if verb == "leaders" {
            let total = results.unit(contest.unit).total(contest.selections.len());
            assert_eq!(leaders(contest, &total).as_slice(), choices(word(&mut words)).as_slice(), "{place}");
            return;
        }
        if verb == "called" {
            let called =
                results.state.called.as_ref().map_or_else(|| "-".to_owned(), |c| letters(c.winners()));
            assert_eq!(called, word(&mut words), "{place}");
            return;
        }
        let unit = self.unit(word(&mut words));
        let of_unit = results.unit(unit);
        match verb {
            "official" | "provisional" => {
                let (expected, _) = counts(&mut words);
                let n = contest.selections.len();
                let mut sum =
                    if verb == "official" { of_unit.total(n) } else { of_unit.provisional_total(n) };
                sum.ballots = expected.ballots.and(sum.ballots);
                assert_eq!(sum, expected, "{place}\n{check}");
            }
            "reporting" => assert_eq!(of_unit.reporting.to_string(), word(&mut words), "{place}\n{check}"),
            "status" => {
                let status = results.status(&self.definition, contest, unit);
                self.seen.insert(names::status(&status));
                assert_eq!(status.as_str(), word(&mut words), "{place}\n{check}");
            }
            _ => panic!("{place}\nno such check: {verb}"),
        }
    }
}
