//! Definition files: TOML or JSON in, every fault at once out.
//!
//! The JSON form is also what the API answers for the election, so a definition can be fetched from one
//! server and given to another.

mod reader;

use std::collections::BTreeMap;
use std::fmt;

use canvass_election::Definition;
use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Eligibility, Partitions, Parts, Party, Selection,
    Threshold, Unit, VotePolicy, Voting,
};
use canvass_election::ids::UnitId;
use serde_json::{Map, Value, json};

use crate::time;
pub use reader::did_you_mean;
use reader::{Faults, Object};

/// Most reporting units of one election.
pub const MAX_UNITS: usize = 1_000_000;
/// Most contests of one election.
pub const MAX_CONTESTS: usize = 10_000;
/// Most selections of one contest.
pub const MAX_SELECTIONS: usize = 1_000;
/// Most partitions of one stream of the log.
pub const MAX_PARTITIONS: u64 = 256;

/// One fault of a definition file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the place, or `line L, column C` where the file is not readable at all.
    pub place: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "(whole file)" } else { &self.place };
        write!(f, "{place}: {}", self.message)
    }
}

/// Reads a definition; JSON where the text begins with `{`, TOML otherwise.
pub fn parse(text: &str) -> Result<Definition, Vec<Fault>> {
    let value = if text.trim_start().starts_with('{') { read_json(text) } else { read_toml(text) };
    from_value(&value.map_err(|fault| vec![fault])?)
}

fn read_json(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|e| Fault {
        place: format!("line {}, column {}", e.line(), e.column()),
        message: format!("not JSON: {e}"),
    })
}

fn read_toml(text: &str) -> Result<Value, Fault> {
    toml::from_str(text).map_err(|e: toml::de::Error| {
        let start = e.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        Fault {
            place: format!("line {line}, column {column}"),
            message: format!("not TOML: {}", e.message()),
        }
    })
}

/// Reads a definition from its JSON form.
pub fn from_value(value: &Value) -> Result<Definition, Vec<Fault>> {
    let faults = Faults::default();
    let parts = read_definition(value, &faults);
    match (parts, faults.into_inner()) {
        (Some(parts), found) if found.is_empty() => Ok(Definition::from(parts)),
        (_, found) => Err(found),
    }
}

fn read_definition(value: &Value, faults: &Faults) -> Option<Parts> {
    let top = Object::top(value, faults)?;
    let id = top.id("id");
    let name = top.text("name");
    let is_test = top.optional_bool("is_test").unwrap_or(false);
    let partitions = read_partitions(&top);
    let parties = read_list(&top, "parties", MAX_SELECTIONS, read_party);
    top.distinct("parties", parties.iter().map(|p| p.id.as_str()));
    let units = read_units(&top);
    let party_ids: BTreeMap<&str, u16> = parties.iter().map(|p| p.id.as_str()).zip(0u16..).collect();
    let unit_ids: BTreeMap<&str, UnitId> =
        units.iter().map(|u| u.id.as_str()).zip((0u32..).map(UnitId)).collect();
    let contests = read_list(&top, "contests", MAX_CONTESTS, |o| read_contest(o, &party_ids, &unit_ids));
    top.distinct("contests", contests.iter().map(|c| c.id.as_str()));
    if contests.is_empty() {
        top.fault("contests", "an election needs at least one contest");
    }
    top.finish();
    Some(Parts { id: id?, name: name?, is_test, partitions, parties, units, contests })
}

fn read_partitions(top: &Object) -> Partitions {
    let default = Partitions::default();
    let Some(object) = top.optional_object("partitions") else { return default };
    let read = |key, fallback: u16| match object.optional_number(key) {
        None => fallback,
        Some(n) if (1..=MAX_PARTITIONS).contains(&n) => u16::try_from(n).unwrap_or(fallback),
        Some(n) => {
            object.fault(key, format!("{n} is not between 1 and {MAX_PARTITIONS}"));
            fallback
        }
    };
    let partitions =
        Partitions { votes: read("votes", default.votes), returns: read("returns", default.returns) };
    object.finish();
    partitions
}

fn read_list<T>(
    parent: &Object,
    key: &'static str,
    most: usize,
    read: impl Fn(&Object) -> Option<T>,
) -> Vec<T> {
    let items = parent.list(key);
    if items.len() > most {
        parent.fault(key, format!("{} entries are more than the {most} that are taken", items.len()));
        return Vec::new();
    }
    let read_item = |object: Object| {
        let item = read(&object);
        object.finish();
        item
    };
    items.into_iter().filter_map(read_item).collect()
}

fn read_party(object: &Object) -> Option<Party> {
    let (id, name) = (object.id("id"), object.text("name"));
    let color = object.optional_text("color");
    let digits = color.as_ref().and_then(|c| c.strip_prefix('#'));
    if color.is_some() && !digits.is_some_and(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit())) {
        object.fault("color", "expected a colour such as #1a5fb4");
    }
    Some(Party { id: id?, name: name?, color })
}

/// Reads the units and puts each parent before its children, else in the order of the file.
fn read_units(top: &Object) -> Vec<Unit> {
    let read = |object: &Object| {
        let (id, name) = (object.id("id"), object.text("name"));
        let kind = object.optional_text("kind").unwrap_or_else(|| "unit".to_owned());
        let parent = object.optional_text("parent");
        let registered = object.optional_number("registered");
        Some((Unit { id: id?, name: name?, kind, parent: None, registered }, parent))
    };
    let read = read_list(top, "units", MAX_UNITS, read);
    top.distinct("units", read.iter().map(|(u, _)| u.id.as_str()));
    let ids: BTreeMap<&str, usize> = read.iter().enumerate().map(|(i, (u, _))| (u.id.as_str(), i)).collect();
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (i, (_, parent)) in read.iter().enumerate() {
        let parent = match parent {
            None => None,
            Some(parent) => match ids.get(parent.as_str()) {
                Some(found) => Some(*found),
                None => {
                    let hint = reader::did_you_mean(parent, ids.keys().copied());
                    top.fault(format!("units/{i}/parent"), format!("there is no unit `{parent}`{hint}"));
                    continue;
                }
            },
        };
        children.entry(parent).or_default().push(i);
    }
    let roots = children.get(&None).map_or(0, Vec::len);
    if roots != 1 {
        top.fault("units", format!("exactly one unit has no parent: the root; here {roots} have none"));
        return unplaced(read);
    }
    // Breadth first, so that a parent comes before its children.
    let mut order: Vec<(usize, Option<UnitId>)> = Vec::with_capacity(read.len());
    order.extend(children[&None].iter().map(|i| (*i, None)));
    let mut next = 0;
    while let Some((i, _)) = order.get(next).copied() {
        let id = u32::try_from(next).ok().map(UnitId);
        order.extend(children.get(&Some(i)).into_iter().flatten().map(|child| (*child, id)));
        next += 1;
    }
    if order.len() < read.len() {
        if top.is_clean() {
            top.fault(
                "units",
                "some units are their own ancestors; every chain of parents must end at the root",
            );
        }
        return unplaced(read);
    }
    let placed = |(i, parent): (usize, Option<UnitId>)| Unit { parent, ..read[i].0.clone() };
    order.into_iter().map(placed).collect()
}

/// The units of a tree that has a fault: only their ids are of use, to check what refers to them.
fn unplaced(read: Vec<(Unit, Option<String>)>) -> Vec<Unit> {
    read.into_iter().map(|(unit, _)| unit).collect()
}

fn read_contest(
    object: &Object,
    parties: &BTreeMap<&str, u16>,
    units: &BTreeMap<&str, UnitId>,
) -> Option<Contest> {
    let (id, name) = (object.id("id"), object.text("name"));
    let selections = read_list(object, "selections", MAX_SELECTIONS, |o| read_selection(o, parties));
    object.distinct("selections", selections.iter().map(|s| s.id.as_str()));
    let kind = read_kind(object, selections.len());
    let unit = match object.optional_text("unit") {
        None => Some(UnitId(0)),
        Some(unit) => object.known("unit", "unit", &unit, units),
    };
    let counting = read_counting(object);
    let baseline = object.optional_text("baseline");
    if baseline.is_some() {
        let many = matches!(kind, Some(ContestKind::NOfM { .. }));
        if many || matches!(counting, Some(Counting::Votes(_))) {
            object.fault("baseline", "only a contest of one seat that counts `returns` is projected");
        }
    }
    if selections.len() < 2 {
        object.fault("selections", "a contest needs at least two selections");
    }
    Some(Contest {
        id: id?,
        name: name?,
        kind: kind?,
        unit: unit?,
        selections,
        counting: counting?,
        baseline,
    })
}

fn read_selection(object: &Object, parties: &BTreeMap<&str, u16>) -> Option<Selection> {
    let (id, name) = (object.id("id"), object.text("name"));
    let party = object.optional_text("party").and_then(|p| object.known("party", "party", &p, parties));
    Some(Selection { id: id?, name: name?, party })
}

fn read_kind(object: &Object, selections: usize) -> Option<ContestKind> {
    let kind = object.text("kind")?;
    let (choices, threshold) = (object.optional_number("choices"), object.optional_text("threshold"));
    if choices.is_some() && kind != "n-of-m" {
        object.fault("choices", "only a contest of kind `n-of-m` has `choices`");
    }
    if threshold.is_some() && kind != "ballot-measure" {
        object.fault("threshold", "only a contest of kind `ballot-measure` has a `threshold`");
    }
    match kind.as_str() {
        "single-choice" => Some(ContestKind::SingleChoice),
        "audience-poll" => Some(ContestKind::AudiencePoll),
        "n-of-m" => {
            let n = choices.and_then(|n| u16::try_from(n).ok());
            let fits = n.filter(|n| *n >= 1 && usize::from(*n) < selections.max(2));
            if fits.is_none() {
                object.fault(
                    "choices",
                    "a contest of kind `n-of-m` needs `choices`, from 1 to one less than its selections",
                );
            }
            fits.map(|n| ContestKind::NOfM { n })
        }
        "ballot-measure" => {
            if selections != 2 {
                object
                    .fault("selections", "a ballot measure has two selections, the first of which can pass");
            }
            let threshold = threshold.as_deref().unwrap_or("more than 1/2");
            let read = parse_threshold(threshold);
            if read.is_none() {
                object.fault("threshold", "expected `more than 1/2`, `at least 3/5` or the like");
            }
            read.map(|threshold| ContestKind::BallotMeasure { threshold })
        }
        other => {
            let kinds = ["single-choice", "n-of-m", "ballot-measure", "audience-poll"];
            object.unknown_word("kind", other, &kinds);
            None
        }
    }
}

fn parse_threshold(text: &str) -> Option<Threshold> {
    let (exclusive, fraction) = match text.strip_prefix("more than ") {
        Some(fraction) => (true, fraction),
        None => (false, text.strip_prefix("at least ")?),
    };
    let (numerator, denominator) = fraction.split_once('/')?;
    let (numerator, denominator) = (numerator.parse().ok()?, denominator.parse().ok()?);
    (numerator > 0 && numerator <= denominator).then_some(Threshold { numerator, denominator, exclusive })
}

fn read_counting(object: &Object) -> Option<Counting> {
    let counting = object.text("counting")?;
    let count_types = object.optional_texts("count_types");
    let opens = object.optional_time("opens");
    let closes = object.optional_time("closes");
    let policy = object.optional_text("policy");
    let eligibility = object.optional_text("eligibility");
    match counting.as_str() {
        "returns" => {
            for (key, given) in [
                ("opens", opens.is_some()),
                ("closes", closes.is_some()),
                ("policy", policy.is_some()),
                ("eligibility", eligibility.is_some()),
            ] {
                if given {
                    object.fault(key, "only a contest that counts `votes` has this");
                }
            }
            read_count_types(object, count_types).map(|count_types| Counting::Returns { count_types })
        }
        "votes" => {
            if count_types.is_some() {
                object.fault("count_types", "only a contest that counts `returns` has this");
            }
            if let (Some(opens), Some(closes)) = (opens, closes)
                && opens >= closes
            {
                object.fault("closes", "must be later than `opens`");
            }
            let policy = read_policy(object, policy.as_deref().unwrap_or("one"))?;
            let eligibility = read_eligibility(object, eligibility.as_deref())?;
            Some(Counting::Votes(Voting { opens, closes, policy, eligibility }))
        }
        other => {
            object.unknown_word("counting", other, &["returns", "votes"]);
            None
        }
    }
}

fn read_count_types(object: &Object, words: Option<Vec<String>>) -> Option<Vec<CountItemType>> {
    let Some(words) = words else { return Some(vec![CountItemType::Total]) };
    let known = CountItemType::ALL.map(CountItemType::as_str);
    let mut types = Vec::new();
    for word in &words {
        match CountItemType::parse(word) {
            Some(count_type) if types.contains(&count_type) => {
                object.fault("count_types", format!("`{word}` is named twice"));
            }
            Some(count_type) => types.push(count_type),
            None => object.unknown_word("count_types", word, &known),
        }
    }
    if types.len() > 1 && types.contains(&CountItemType::Total) {
        object.fault("count_types", "`total` stands alone: where there are parts, the total is their sum");
    }
    if words.is_empty() {
        object.fault("count_types", "name at least one, or leave the key out for `total`");
    }
    Some(types)
}

fn read_policy(object: &Object, word: &str) -> Option<VotePolicy> {
    let most = |w: &str| w.strip_prefix("up_to(")?.strip_suffix(')')?.parse().ok();
    match (word, most(word)) {
        ("one", _) => Some(VotePolicy::One),
        ("replace", _) => Some(VotePolicy::Replace),
        (_, Some(n @ 1..=1_000_000)) => Some(VotePolicy::UpTo(n)),
        _ => {
            object.fault(
                "policy",
                format!("`{word}` is not a policy; expected `one`, `replace` or `up_to(3)`"),
            );
            None
        }
    }
}

fn read_eligibility(object: &Object, word: Option<&str>) -> Option<Eligibility> {
    match word {
        Some("open") => Some(Eligibility::Open),
        Some("token") => Some(Eligibility::Token),
        Some(other) => {
            object.unknown_word("eligibility", other, &["open", "token"]);
            None
        }
        None => {
            object.fault("eligibility", "say who may vote: `token` (with a signed token) or `open` (anyone)");
            None
        }
    }
}

/// The JSON form of a definition; [`from_value`] reads it back to an equal one.
pub fn to_value(definition: &Definition) -> Value {
    let units = definition.units.iter().map(|unit| {
        let mut map = named(&unit.id, &unit.name);
        map.insert("kind".into(), json!(unit.kind));
        put(&mut map, "parent", unit.parent.and_then(|p| definition.unit(p)).map(|p| json!(p.id)));
        put(&mut map, "registered", unit.registered.map(Value::from));
        Value::Object(map)
    });
    let parties = definition.parties.iter().map(|party| {
        let mut map = named(&party.id, &party.name);
        put(&mut map, "color", party.color.as_ref().map(|c| json!(c)));
        Value::Object(map)
    });
    json!({
        "id": definition.id,
        "name": definition.name,
        "is_test": definition.is_test,
        "partitions": { "votes": definition.partitions.votes, "returns": definition.partitions.returns },
        "parties": parties.collect::<Vec<_>>(),
        "units": units.collect::<Vec<_>>(),
        "contests": definition.contests.iter().map(|c| contest_value(definition, c)).collect::<Vec<_>>(),
    })
}

fn contest_value(definition: &Definition, contest: &Contest) -> Value {
    let mut map = named(&contest.id, &contest.name);
    let kind = match contest.kind {
        ContestKind::SingleChoice => "single-choice",
        ContestKind::AudiencePoll => "audience-poll",
        ContestKind::NOfM { n } => {
            map.insert("choices".into(), json!(n));
            "n-of-m"
        }
        ContestKind::BallotMeasure { threshold } => {
            map.insert("threshold".into(), json!(threshold_text(threshold)));
            "ballot-measure"
        }
    };
    map.insert("kind".into(), json!(kind));
    put(&mut map, "unit", definition.unit(contest.unit).map(|u| json!(u.id)));
    let selections = contest.selections.iter().map(|selection| {
        let mut map = named(&selection.id, &selection.name);
        let party = selection.party.and_then(|p| definition.parties.get(usize::from(p)));
        put(&mut map, "party", party.map(|p| json!(p.id)));
        Value::Object(map)
    });
    map.insert("selections".into(), selections.collect());
    match &contest.counting {
        Counting::Returns { count_types } => {
            map.insert("counting".into(), json!("returns"));
            map.insert("count_types".into(), count_types.iter().map(|t| json!(t.as_str())).collect());
        }
        Counting::Votes(voting) => {
            map.insert("counting".into(), json!("votes"));
            put(&mut map, "opens", voting.opens.map(|t| json!(time::format(t))));
            put(&mut map, "closes", voting.closes.map(|t| json!(time::format(t))));
            map.insert("policy".into(), json!(policy_text(voting.policy)));
            map.insert("eligibility".into(), json!(voting.eligibility));
        }
    }
    put(&mut map, "baseline", contest.baseline.as_ref().map(|b| json!(b)));
    Value::Object(map)
}

/// `at least 3/5`, as a definition file writes it.
pub fn threshold_text(threshold: Threshold) -> String {
    let words = if threshold.exclusive { "more than" } else { "at least" };
    format!("{words} {}/{}", threshold.numerator, threshold.denominator)
}

/// `up_to(3)`, as a definition file writes it.
pub fn policy_text(policy: VotePolicy) -> String {
    match policy {
        VotePolicy::One => "one".to_owned(),
        VotePolicy::Replace => "replace".to_owned(),
        VotePolicy::UpTo(n) => format!("up_to({n})"),
    }
}

fn named(id: &str, name: &str) -> Map<String, Value> {
    Map::from_iter([("id".to_owned(), json!(id)), ("name".to_owned(), json!(name))])
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
