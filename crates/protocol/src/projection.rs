//! Projections as they are published: whole numbers, so that equal projections are equal bytes.

use std::collections::BTreeMap;

use canvass_election::definition::Contest;
use canvass_election::ids::{SelectionId, UnitId};
use serde_json::{Map, Value, json};

use crate::stream::Seq;

/// A number in the middle, and ranges around it that hold one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// As likely above as below.
    pub middle: i64,
    /// In 50 of 100 cases.
    pub half: [i64; 2],
    /// In 90 of 100 cases.
    pub most: [i64; 2],
}

/// How one selection may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectionProjection {
    /// The selection.
    pub selection: SelectionId,
    /// Its share of the votes of all projected selections, in hundredths of a percent.
    pub share: Range,
    /// How likely it wins, in thousandths: 1 to 999 while votes are out.
    pub chance: u16,
}

/// How a contest may end in a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaProjection {
    /// Votes of the projected selections that are counted.
    pub counted: u64,
    /// The same at the end.
    pub votes: Range,
    /// The two that are likeliest to win here, the likelier first.
    pub ahead: [SelectionId; 2],
    /// Share of the first less that of the second, in hundredths of a percent.
    pub margin: Range,
    /// Each projected selection, in the contest's order.
    pub selections: Vec<SelectionProjection>,
}

/// Why there is no projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotYet {
    /// Too little is counted to say anything.
    TooLittle,
    /// Everything is counted.
    Complete,
}

impl NotYet {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            NotYet::TooLittle => "too-little",
            NotYet::Complete => "complete",
        }
    }
}

/// What is projected of a contest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// The publication whose results it stands on.
    pub snapshot: Seq,
    /// BLAKE3 of the model and the baseline, in hexadecimal.
    pub model: String,
    /// What the draws are made from.
    pub seed: u64,
    /// The contest's district and the units directly below it of which something can be said; or why not.
    pub areas: Result<BTreeMap<UnitId, AreaProjection>, NotYet>,
    /// Whom these results by themselves would let the desk call.
    pub meets: Option<SelectionId>,
    /// Whom the desk may call: the update before said the same.
    pub recommended: Option<SelectionId>,
}

impl Range {
    fn value(&self) -> Value {
        json!({ "middle": self.middle, "half": self.half, "most": self.most })
    }
}

impl Projection {
    /// What a document says of a unit; none where nothing is projected for it.
    pub fn value(&self, contest: &Contest, unit: UnitId) -> Option<Value> {
        let mut map = Map::new();
        match &self.areas {
            Err(_) if unit != contest.unit => return None,
            Err(why) => _ = map.insert("not_yet".into(), json!(why.as_str())),
            Ok(areas) => put_area(&mut map, contest, areas.get(&unit)?),
        }
        map.insert("snapshot".into(), json!(self.snapshot.to_string()));
        map.insert("model".into(), json!(self.model));
        map.insert("seed".into(), json!(self.seed));
        Some(Value::Object(map))
    }
}

fn put_area(map: &mut Map<String, Value>, contest: &Contest, area: &AreaProjection) {
    let id = |selection: SelectionId| contest.selections[selection.index()].id.as_str();
    let mut votes = area.votes.value();
    votes["counted"] = json!(area.counted);
    map.insert("votes".into(), votes);
    let mut margin = area.margin.value();
    margin["of"] = json!(id(area.ahead[0]));
    margin["over"] = json!(id(area.ahead[1]));
    map.insert("margin".into(), margin);
    let selections = area.selections.iter().map(|s| {
        let value = json!({ "chance": s.chance, "share": s.share.value() });
        (id(s.selection).to_owned(), value)
    });
    map.insert("selections".into(), Value::Object(selections.collect()));
}
