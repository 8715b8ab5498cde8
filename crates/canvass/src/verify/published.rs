//! What a server publishes of its count, compared with what the log says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use canvass_election::Merge;
use canvass_election::definition::Definition;
use canvass_election::ids::{ContestId, Offset, PartitionId, RecordId, Timestamp, UnitId};
use canvass_election::tally::Partial;
use canvass_engine::{Change, ChangeKind};
use canvass_http::changes;
use canvass_protocol::document::{By, Stamp, document};
use canvass_protocol::stream::Seq;
use serde::Deserialize;
use serde_json::Value;

use super::difference::{Difference, Halt};
use super::partition::{Counted, Mark};
use super::source::Source;

/// Places of one document that are named; a wrong total often has others in its train.
const NAMED: usize = 4;
/// How old a list may be: caches may show one for eleven seconds.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(300);
/// Rows of one page of a list.
pub(crate) const PAGE: usize = 1_000;

type Watermark = BTreeMap<PartitionId, Offset>;

/// A result document as it was published.
pub(crate) struct Document {
    path: String,
    key: (ContestId, UnitId),
    seq: Seq,
    watermark: Watermark,
    value: Value,
}

impl Document {
    /// Where each partition is to be looked at for this document.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (PartitionId, Mark)> {
        self.watermark.iter().map(|(partition, offset)| (*partition, (*offset, self.key.0)))
    }
}

/// The documents that results have: each contest, in its district and, where units report, in every unit below.
pub(crate) fn keys(definition: &Definition) -> impl Iterator<Item = (ContestId, UnitId)> {
    definition.contest_ids().flat_map(move |(id, contest)| {
        let units = (0..=u32::MAX).map(UnitId).take(definition.units.len());
        let district = contest.unit;
        let by_unit = contest.voting().is_none();
        let shown =
            move |unit: &UnitId| *unit == district || by_unit && definition.is_within(*unit, district);
        units.filter(shown).map(move |unit| (id, unit))
    })
}

/// Where the document of a contest in a unit is read.
pub(crate) fn path(definition: &Definition, (contest, unit): (ContestId, UnitId)) -> String {
    let contest = &definition.contests[contest.index()].id;
    format!("/api/v1/results?contest={contest}&unit={}&by=unit", definition.units[unit.index()].id)
}

/// Reads all result documents; `done` counts them.
pub(crate) fn documents(
    source: &Source,
    definition: &Definition,
    done: &AtomicU64,
) -> Result<Vec<Document>, Halt> {
    #[derive(Deserialize)]
    struct Head {
        epoch: u64,
        seq: u64,
        watermark: Watermark,
    }
    let keys: Vec<_> = keys(definition).collect();
    let paths: Vec<_> = keys.iter().map(|key| path(definition, *key)).collect();
    let read = source.each(paths.clone().into_iter());
    let mut documents = Vec::with_capacity(keys.len());
    for ((key, path), bytes) in keys.into_iter().zip(paths).zip(read) {
        let wrong = |what: String| Difference::new(path.clone(), what);
        let bytes = bytes?.ok_or_else(|| wrong("it is missing".to_owned()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let head = Head::deserialize(&value).map_err(|e| wrong(e.to_string()))?;
        let seq = Seq { epoch: head.epoch, seq: head.seq };
        documents.push(Document { path, key, seq, watermark: head.watermark, value });
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(documents)
}

/// How many documents there are.
pub(crate) fn count(definition: &Definition) -> u64 {
    keys(definition).count() as u64
}

/// Where the document of a contest's district stays readable under its number.
pub(crate) fn snapshot_path(definition: &Definition, contest: ContestId, seq: Seq) -> String {
    let contest = &definition.contests[contest.index()];
    let unit = &definition.units[contest.unit.index()].id;
    format!("/api/v1/snapshots/{}:{}?contest={}&unit={unit}&by=unit", seq.epoch, seq.seq, contest.id)
}

/// Compares each contest's document with what is kept under its number: that must never be another.
pub(crate) fn compare_snapshots(
    source: &Source,
    definition: &Definition,
    documents: &[Document],
    found: &mut Vec<Difference>,
) -> Result<(), Halt> {
    let district = |document: &&Document| {
        let (contest, unit) = document.key;
        definition.contests[contest.index()].unit == unit
    };
    for published in documents.iter().filter(district) {
        let path = snapshot_path(definition, published.key.0, published.seq);
        let wrong = |what: String| Difference::new(path.clone(), what);
        let bytes = source.get(&path)?.ok_or_else(|| wrong("it is missing".to_owned()))?;
        let kept: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if kept != published.value {
            found.push(wrong(format!("it is not what {} was when it had this number", published.path)));
        }
    }
    Ok(())
}

/// Compares every document with what the records before its watermark come to.
pub(crate) fn compare(
    definition: &Arc<Definition>,
    counted: &BTreeMap<PartitionId, Counted>,
    documents: &[Document],
) -> Vec<Difference> {
    let mut groups: BTreeMap<(ContestId, &Watermark), Vec<&Document>> = BTreeMap::new();
    for document in documents {
        groups.entry((document.key.0, &document.watermark)).or_default().push(document);
    }
    let mut found = Vec::new();
    for ((contest, watermark), documents) in groups {
        let mut merge = Merge::new(Arc::clone(definition));
        let mut time = Timestamp(0);
        let partials = watermark.iter().map(|(partition, offset)| {
            counted.get(partition).and_then(|counted| counted.partials.get(&(*offset, contest)))
        });
        let Some(partials) = partials.collect::<Option<Vec<&Partial>>>() else {
            let what = "it stands on records that the log does not have, or that could not be read";
            found.push(Difference::new(documents[0].path.clone(), what));
            continue;
        };
        for partial in partials {
            merge.merge(partial);
            time = time.max(partial.time);
        }
        let results = &merge.results().contests[contest.index()];
        for published in documents {
            let stamp = Stamp { seq: published.seq, time, watermark: watermark.clone() };
            let (contest, unit) = published.key;
            let mut own = document(definition, results, &stamp, None, (contest, unit, By::Unit));
            // Projections are no part of the count: `canvass forecast` computes them again.
            if let Some(projection) = published.value.get("projection") {
                own["projection"] = projection.clone();
            }
            differences(&published.path, &published.value, &own, &mut found);
        }
    }
    found
}

/// Names the places in which a document is not what it must be.
pub(crate) fn differences(path: &str, published: &Value, own: &Value, found: &mut Vec<Difference>) {
    let mut places = Vec::new();
    walk(published, own, String::new(), &mut places);
    let more = places.len().saturating_sub(NAMED);
    places.truncate(NAMED);
    if more > 0 {
        places.push(format!("and {more} more"));
    }
    if !places.is_empty() {
        found.push(Difference::new(path, places.join("; ")));
    }
}

fn walk(published: &Value, own: &Value, at: String, places: &mut Vec<String>) {
    match (published, own) {
        _ if published == own => {}
        (Value::Object(published), Value::Object(own)) => {
            let keys: BTreeSet<_> = published.keys().chain(own.keys()).collect();
            for key in keys {
                let place = format!("{at}/{key}");
                match (published.get(key), own.get(key)) {
                    (Some(published), Some(own)) => walk(published, own, place, places),
                    (Some(published), None) => {
                        places.push(format!("{place} is published as {published}, the log gives nothing"));
                    }
                    (None, Some(own)) => {
                        places.push(format!("{place} is not published, the log gives {own}"))
                    }
                    (None, None) => {}
                }
            }
        }
        (Value::Array(published), Value::Array(own)) if published.len() == own.len() => {
            for (index, (published, own)) in published.iter().zip(own).enumerate() {
                walk(published, own, format!("{at}/{index}"), places);
            }
        }
        _ => places.push(format!("{at} is published as {published}, the log gives {own}")),
    }
}

/// The rows of a list of changes by what each is about.
type Rows = BTreeMap<(RecordId, String), Value>;

/// Reads a whole list, as far as its rows are about records that were counted here.
fn list(
    source: &Source,
    address: &str,
    name: &str,
    counted: &BTreeMap<PartitionId, Counted>,
) -> Result<Rows, Halt> {
    let mut rows = Rows::new();
    let mut offset = 0;
    loop {
        let path = format!("{address}?offset={offset}&limit={PAGE}");
        let wrong = |what: String| Difference::new(path.clone(), what);
        let bytes = source.get(&path)?.ok_or_else(|| wrong("it is missing".to_owned()))?;
        let page: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let page = page[name].as_array().ok_or_else(|| wrong(format!("it has no list `{name}`")))?;
        for row in page {
            let key = key(row).ok_or_else(|| wrong(format!("a row names no record: {row}")))?;
            // What came after the checkpoint is another day's business.
            if counted.get(&key.0.partition).is_some_and(|counted| key.0.offset < counted.end) {
                rows.insert(key, row.clone());
            }
        }
        if page.len() < PAGE {
            return Ok(rows);
        }
        offset += page.len();
    }
}

fn key(row: &Value) -> Option<(RecordId, String)> {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let about = format!("{} {} {}", text("unit"), text("count_type"), text("kind"));
    Some((text("record").parse().ok()?, about))
}

fn compare_rows(address: &str, published: &Rows, own: &Rows, found: &mut Vec<Difference>) {
    let keys: BTreeSet<_> = published.keys().chain(own.keys()).collect();
    let differing: Vec<_> = keys.into_iter().filter(|key| published.get(key) != own.get(key)).collect();
    for key in differing.iter().take(NAMED) {
        let before = found.len();
        match (published.get(key), own.get(key)) {
            (Some(published), Some(own)) => differences(address, published, own, found),
            (Some(_), None) => {
                found.push(Difference::new(address, "a row is published that the log does not have"))
            }
            (None, _) => found.push(Difference::new(address, "a row of the log is not published")),
        }
        found[before..].iter_mut().for_each(|difference| difference.record = Some(key.0));
    }
    let more = differing.len().saturating_sub(NAMED);
    if more > 0 {
        found.push(Difference::new(address, format!("{more} more rows differ")));
    }
}

/// Compares the list of corrections, and the history of every unit that had a return held; answers how many
/// corrections and how many held returns there are. A list may be a moment behind the checkpoint, and longer where it
/// comes through a cache, so one that differs is read again.
pub(crate) fn compare_lists(
    source: &Source,
    definition: &Definition,
    counted: &BTreeMap<PartitionId, Counted>,
    found: &mut Vec<Difference>,
) -> Result<(usize, usize), Halt> {
    let began = Instant::now();
    loop {
        let mut differing = Vec::new();
        let counts = compare_lists_once(source, definition, counted, &mut differing)?;
        if differing.is_empty() || !source.is_live() || began.elapsed() > PATIENCE {
            found.append(&mut differing);
            return Ok(counts);
        }
        std::thread::sleep(PAUSE);
    }
}

fn compare_lists_once(
    source: &Source,
    definition: &Definition,
    counted: &BTreeMap<PartitionId, Counted>,
    found: &mut Vec<Difference>,
) -> Result<(usize, usize), Halt> {
    let all = || counted.values().flat_map(|counted| &counted.changes);
    let rows = |changes: &mut dyn Iterator<Item = Value>| -> Rows {
        changes.filter_map(|row| Some((key(&row)?, row))).collect()
    };
    let corrections = all().filter(|change| change.kind == ChangeKind::Corrected);
    let own = rows(&mut corrections.map(|change| changes::correction(definition, change)));
    let address = "/api/v1/corrections";
    compare_rows(address, &list(source, address, "corrections", counted)?, &own, found);
    let held = |change: &&Change| change.kind == ChangeKind::Held;
    let mut units: Vec<UnitId> = all().filter(held).map(|change| change.unit).collect();
    let holds = units.len();
    units.sort_unstable();
    units.dedup();
    for unit in units {
        let address = format!("/api/v1/units/{}/history", definition.units[unit.index()].id);
        let touching = all().filter(|change| changes::touches(definition, change, unit));
        let events = rows(&mut touching.map(|change| changes::event(definition, change)));
        compare_rows(&address, &list(source, &address, "events", counted)?, &events, found);
    }
    Ok((own.len(), holds))
}
