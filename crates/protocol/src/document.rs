//! Results as JSON documents: what the API answers, the streams send and the page shows.
//!
//! A document holds integers, texts, truth values, lists and objects; no `null` and no fraction. Its keys are
//! in ascending order, so equal results are equal bytes.

use std::collections::BTreeMap;

use canvass_election::Definition;
use canvass_election::definition::Contest;
use canvass_election::event::{Basis, Counts};
use canvass_election::ids::{ContestId, Offset, PartitionId, Timestamp, UnitId};
use canvass_election::results::{ContestResults, leaders, share};
use canvass_election::tally::Call;
use serde_json::{Map, Value, json};

use crate::projection::Projection;
use crate::stream::Seq;
use crate::time;

/// Where in the sequence of publications a document's numbers stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The publication in which the contest last changed.
    pub seq: Seq,
    /// The time of the last record in that publication.
    pub time: Timestamp,
    /// The offsets that publication stands on.
    pub watermark: BTreeMap<PartitionId, Offset>,
}

/// Which units a document lists one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// None.
    Total,
    /// Those directly below the document's unit.
    Unit,
    /// Every unit that reports, at or below the document's unit.
    Leaf,
}

impl By {
    /// The form that `word` names.
    pub fn parse(word: &str) -> Option<By> {
        match word {
            "total" => Some(By::Total),
            "unit" => Some(By::Unit),
            "leaf" => Some(By::Leaf),
            _ => None,
        }
    }
}

/// The document of one contest in one unit, with what is projected of it.
pub fn document(
    definition: &Definition,
    results: &ContestResults,
    stamp: &Stamp,
    projection: Option<&Projection>,
    (contest_id, unit, by): (ContestId, UnitId, By),
) -> Value {
    let contest = &definition.contests[contest_id.index()];
    let here = results.unit(unit);
    let selections = contest.selections.len();
    let total = here.total(selections);
    let mut map = summary(definition, contest, results, unit);
    map.insert("election".into(), json!(definition.id));
    map.insert("contest".into(), json!(contest.id));
    map.insert("unit".into(), json!(definition.units[unit.index()].id));
    map.insert("is_test".into(), json!(definition.is_test));
    map.insert("epoch".into(), json!(stamp.seq.epoch));
    map.insert("seq".into(), json!(stamp.seq.seq));
    if stamp.time > Timestamp(0) {
        map.insert("time".into(), json!(time::format(stamp.time)));
    }
    let offsets = stamp.watermark.iter().map(|(p, o)| (p.to_string(), json!(o.0)));
    map.insert("watermark".into(), Value::Object(offsets.collect()));
    map.insert("selections".into(), selections_value(contest, &total));
    map.insert("counts".into(), counts_value(&total));
    let types = here.official.iter().map(|(t, counts)| {
        let value = json!({ "votes": votes_value(contest, counts), "total": counts.total() });
        (t.as_str().to_owned(), value)
    });
    map.insert("count_types".into(), Value::Object(types.collect()));
    if results.in_recount(definition, unit) {
        let counts = here.provisional_total(selections);
        let value =
            json!({ "selections": selections_value(contest, &counts), "counts": counts_value(&counts) });
        map.insert("provisional".into(), value);
    }
    put_state(&mut map, definition, contest, results);
    if let Some(value) = projection.and_then(|projection| projection.value(contest, unit)) {
        map.insert("projection".into(), value);
    }
    // Votes are not told apart by unit.
    if by != By::Total && contest.voting().is_none() {
        let units = listed(definition, unit, by).into_iter().map(|u| {
            let mut row = summary(definition, contest, results, u);
            let total = results.unit(u).total(selections);
            row.insert("votes".into(), votes_value(contest, &total));
            row.insert("total".into(), json!(total.total()));
            (definition.units[u.index()].id.clone(), Value::Object(row))
        });
        map.insert("units".into(), Value::Object(units.collect()));
    }
    Value::Object(map)
}

fn summary(
    definition: &Definition,
    contest: &Contest,
    results: &ContestResults,
    unit: UnitId,
) -> Map<String, Value> {
    let here = results.unit(unit);
    let mut map = Map::new();
    map.insert("status".into(), json!(results.status(definition, contest, unit).as_str()));
    if contest.voting().is_none() {
        map.insert("units_reporting".into(), json!(here.reporting));
        map.insert("units_expected".into(), json!(definition.leaves(unit)));
        map.insert("held".into(), json!(here.held));
    }
    map
}

fn put_state(
    map: &mut Map<String, Value>,
    definition: &Definition,
    contest: &Contest,
    results: &ContestResults,
) {
    let state = &results.state;
    if let Some(closed) = state.closed {
        map.insert("closed".into(), json!(time::format(closed)));
    }
    if let Some(certified) = state.certified {
        map.insert("certified".into(), json!(time::format(certified)));
    }
    if let Some(call) = &state.called {
        map.insert("called".into(), call_value(contest, call));
    }
    if !state.recounts.is_empty() {
        let recounts = state
            .recounts
            .iter()
            .map(|(record, unit)| (record.to_string(), json!({ "unit": definition.units[unit.index()].id })));
        map.insert("recounts".into(), Value::Object(recounts.collect()));
    }
}

/// A call: who, when, and on what basis.
fn call_value(contest: &Contest, call: &Call) -> Value {
    let stated = &call.proposal.stated;
    let winners = call.winners().iter().map(|w| contest.selections[w.index()].id.as_str());
    let mut value = json!({
        "at": time::format(call.at),
        "winners": winners.collect::<Vec<_>>(),
        "record": call.record,
        "confirmed_by": call.confirmed_by.0,
        "proposal": call.proposal.record,
        "proposed_by": stated.actor.0,
        "reason": stated.reason,
    });
    if let Some(basis) = &stated.projection {
        value["projection"] = basis_value(basis);
    }
    value
}

/// The projection that stood when a call was proposed.
pub fn basis_value(basis: &Basis) -> Value {
    let (epoch, seq) = basis.snapshot;
    json!({
        "snapshot": Seq { epoch, seq }.to_string(),
        "model": basis.model,
        "seed": basis.seed,
        "recommended": basis.recommended,
    })
}

/// The units that a document lists, in the definition's order.
pub fn listed(definition: &Definition, unit: UnitId, by: By) -> Vec<UnitId> {
    match by {
        By::Total => Vec::new(),
        By::Unit => definition.children(unit).to_vec(),
        By::Leaf => {
            let mut found = Vec::new();
            let mut open = vec![unit];
            while let Some(next) = open.pop() {
                match definition.children(next) {
                    [] => found.push(next),
                    children => open.extend(children.iter().rev()),
                }
            }
            found
        }
    }
}

fn selections_value(contest: &Contest, counts: &Counts) -> Value {
    let total = counts.total();
    let leading = leaders(contest, counts);
    let rows = contest.selections.iter().zip(&counts.votes).zip(0u16..).map(|((selection, votes), i)| {
        let mut row = Map::new();
        row.insert("votes".into(), json!(votes));
        row.insert("leading".into(), json!(leading.iter().any(|l| l.0 == i)));
        if let Some(share) = share(*votes, total) {
            row.insert("share".into(), json!(share));
        }
        (selection.id.clone(), Value::Object(row))
    });
    Value::Object(rows.collect())
}

fn counts_value(counts: &Counts) -> Value {
    let mut map = Map::new();
    map.insert("total".into(), json!(counts.total()));
    map.insert("overvotes".into(), json!(counts.overvotes));
    map.insert("undervotes".into(), json!(counts.undervotes));
    if let Some(ballots) = counts.ballots {
        map.insert("ballots".into(), json!(ballots));
    }
    Value::Object(map)
}

/// Votes by the selections' text ids.
pub fn votes_value(contest: &Contest, counts: &Counts) -> Value {
    let votes = contest.selections.iter().zip(&counts.votes);
    Value::Object(votes.map(|(s, n)| (s.id.clone(), json!(n))).collect())
}
