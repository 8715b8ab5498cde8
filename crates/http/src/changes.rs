//! What happened to the returns, as the API shows it. A verifier makes the same rows from the log.

use canvass_election::Definition;
use canvass_election::definition::Contest;
use canvass_election::event::Counts;
use canvass_election::ids::UnitId;
use canvass_election::tally::CellValue;
use canvass_engine::Change;
use canvass_protocol::api::CountsRequest;
use canvass_protocol::time;
use serde_json::{Map, Value, json};

use crate::desk::held_because;

/// Whether a change belongs into a unit's history: what happened to a unit above happened to this one too, what
/// happened below did not.
pub fn touches(definition: &Definition, change: &Change, unit: UnitId) -> bool {
    change.unit == unit || change.cell.is_none() && definition.is_within(unit, change.unit)
}

fn value_json(contest: &Contest, value: &CellValue) -> Value {
    let counts = |c: &Option<Counts>| c.as_ref().map(|c| json!(CountsRequest::from_counts(contest, c)));
    let mut map = Map::new();
    if let Some(official) = counts(&value.official) {
        map.insert("official".into(), official);
    }
    if let Some(provisional) = counts(&value.provisional) {
        map.insert("provisional".into(), provisional);
    }
    map.insert("held".into(), json!(value.held));
    Value::Object(map)
}

/// A row of a unit's history.
pub fn event(definition: &Definition, change: &Change) -> Value {
    let contest = &definition.contests[change.contest.index()];
    let mut map = Map::new();
    map.insert("record".into(), json!(change.record));
    map.insert("time".into(), json!(time::format(change.time)));
    map.insert("kind".into(), json!(change.kind));
    map.insert("contest".into(), json!(contest.id));
    map.insert("unit".into(), json!(definition.units[change.unit.index()].id));
    map.insert("actor".into(), json!(change.actor.0));
    if let Some(cell) = &change.cell {
        map.insert("count_type".into(), json!(cell.cell.count_type.as_str()));
        map.insert("before".into(), value_json(contest, &cell.before));
        map.insert("after".into(), value_json(contest, &cell.after));
    }
    if let Some((count_type, stated)) = &change.stated {
        map.insert("count_type".into(), json!(count_type.as_str()));
        map.insert("stated".into(), json!(CountsRequest::from_counts(contest, stated)));
    }
    if let Some(because) = &change.held_because {
        map.insert("held_because".into(), json!(held_because(because)));
    }
    if let Some(answers) = &change.answers {
        map.insert("answers".into(), json!(answers));
    }
    if let Some(reason) = &change.reason {
        map.insert("reason".into(), json!(reason));
    }
    Value::Object(map)
}

/// A row of the list of corrections: the official counts before and after, without what a correction never touches.
pub fn correction(definition: &Definition, change: &Change) -> Value {
    let mut value = event(definition, change);
    if let Value::Object(map) = &mut value {
        for side in ["before", "after"] {
            if let Some(counts) = map.get_mut(side).and_then(|v| v.get_mut("official")).map(Value::take) {
                map.insert(side.into(), counts);
            }
        }
        map.remove("kind");
        if let Some(corrects) = map.remove("answers") {
            map.insert("corrects".into(), corrects);
        }
    }
    value
}
