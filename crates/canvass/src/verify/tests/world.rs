//! A small election, published as a server publishes it: in a folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use canvass_election::definition::CountItemType;
use canvass_election::event::{
    Actor, Cell, Choices, Correction, Counts, Event, HeldAnswer, Record, Return, Vote,
};
use canvass_election::ids::{
    ContestId, Nullifier, Offset, PartitionId, RecordId, RequestId, SelectionId, Timestamp, UnitId,
};
use canvass_election::{Definition, Merge, Tally};
use canvass_engine::{Change, ChangeKind, changes_of, votes_partition};
use canvass_http::changes;
use canvass_protocol::document::{By, Stamp, document};
use canvass_protocol::record::{BatchBuilder, BatchReader, Drafts, decode};
use canvass_protocol::stream::Seq;
use canvass_tlog::{MetaLog, SecretKey, TilePath, Tiles, Tree, entry, leaf_hash, push_entry, record_hash};
use serde_json::{Value, json};

use super::super::published::{keys, path, snapshot_path};
use super::super::source::file_of;

pub(super) const NAME: &str = "count.example";
const ELECTION: &str = r#"
id = "town"
name = "Town election"
partitions = { votes = 2, returns = 1 }
[[units]]
id = "town"
name = "Town"
[[units]]
id = "north"
name = "North"
parent = "town"
[[units]]
id = "south"
name = "South"
parent = "town"
[[contests]]
id = "song"
name = "Song"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
[[contests]]
id = "mayor"
name = "Mayor"
kind = "single-choice"
counting = "returns"
selections = [{ id = "ash", name = "Ash" }, { id = "elm", name = "Elm" }]
"#;

/// How many batches come between two checkpoints.
const PERIOD: usize = 20;

/// The key of an operator; `n` tells operators apart.
pub(super) fn key(n: u8) -> SecretKey {
    let text = match n {
        0 => "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
        _ => return SecretKey::generate(NAME).unwrap(),
    };
    text.parse::<SecretKey>().unwrap().named(NAME).unwrap()
}

/// The batches of each partition, each batch the bytes of its records.
#[derive(Clone)]
pub(super) struct World {
    pub(super) log: BTreeMap<PartitionId, Vec<Vec<Vec<u8>>>>,
    definition: Arc<Definition>,
}

fn hash(purpose: &str, n: u32) -> [u8; 16] {
    let hash = leaf_hash(format!("{purpose} {n}").as_bytes());
    *hash.0.first_chunk().unwrap()
}

fn counts(votes: [u64; 2]) -> Counts {
    Counts { votes: votes.to_vec(), ..Counts::default() }
}

impl World {
    /// 1,200 voters, some of whom vote twice, and a few returns, of which one is corrected and one is held.
    pub(super) fn new() -> Self {
        let definition = Arc::new(canvass_protocol::definition::parse(ELECTION).unwrap());
        let mut world = World { log: BTreeMap::new(), definition: Arc::clone(&definition) };
        for partition in definition.partition_ids() {
            world.append(partition, &[(RequestId([0; 16]), Event::ElectionDefined((*definition).clone()))]);
        }
        let mut waiting: BTreeMap<PartitionId, Vec<(RequestId, Event)>> = BTreeMap::new();
        for n in 0..1_200 {
            let vote = Self::vote(n, n % 3 == 0);
            let own = waiting.entry(Self::partition_of(&vote)).or_default();
            own.push((RequestId(hash("request", n)), vote.clone()));
            if n % 50 == 0 {
                own.push((RequestId(hash("request", n)), vote));
                own.push((RequestId(hash("again", n)), Self::vote(n, n % 3 != 0)));
            }
            if n % 7 == 0 {
                std::mem::take(&mut waiting).iter().for_each(|(id, events)| world.append(*id, events));
            }
        }
        waiting.iter().for_each(|(id, events)| world.append(*id, events));
        world.returns();
        world
    }

    fn partition_of(vote: &Event) -> PartitionId {
        let Event::VoteCast(vote) = vote else { panic!("not a vote") };
        votes_partition(&vote.nullifier, 2)
    }

    fn vote(voter: u32, yes: bool) -> Event {
        let choices: Choices = [SelectionId(u16::from(yes))].into_iter().collect();
        Event::VoteCast(Vote { contest: ContestId(0), nullifier: Nullifier(hash("voter", voter)), choices })
    }

    fn returns(&mut self) {
        let control = PartitionId::CONTROL;
        let (source, desk) = (Actor("source".to_owned()), Actor("desk".to_owned()));
        let reported = |unit, votes| {
            let cell = Cell { contest: ContestId(1), unit: UnitId(unit), count_type: CountItemType::Total };
            let source = source.clone();
            Event::ReturnReported(Return { cell, counts: counts(votes), stated_total: None, source })
        };
        let record = |offset| RecordId { partition: control, offset: Offset(offset), position: 0 };
        let reason = "two figures were swapped".to_owned();
        let events = [
            reported(1, [30, 20]),
            reported(2, [7, 11]),
            Event::ReturnCorrected(Correction {
                corrects: record(1),
                reason: reason.clone(),
                actor: desk.clone(),
                counts: counts([32, 20]),
            }),
            // Lower than before: held, and released.
            reported(2, [6, 11]),
            Event::ReturnReleased(HeldAnswer { held: record(4), reason, actor: desk }),
            reported(1, [31, 20]),
        ];
        for (n, event) in (0..).zip(events) {
            self.append(control, &[(RequestId(hash("return", n)), event)]);
        }
    }

    /// Appends a batch.
    fn append(&mut self, partition: PartitionId, events: &[(RequestId, Event)]) {
        let batches = self.log.entry(partition).or_default();
        let time = Timestamp(1_700_000_000_000 + 100 * batches.len() as u64);
        let mut builder = BatchBuilder::new(0, time);
        events.iter().for_each(|(request, event)| builder.push(&Drafts::one(*request, event)));
        let (_, bytes) = builder.finish();
        batches.push(BatchReader::new(&bytes).unwrap().map(|record| record.unwrap().to_vec()).collect());
    }

    /// Another vote by somebody who has not voted, in the place of a record.
    pub(super) fn insert(&mut self, at: RecordId) {
        let stranger =
            (10_000..).map(|n| Self::vote(n, true)).find(|v| Self::partition_of(v) == at.partition);
        let batches = self.log.get_mut(&at.partition).unwrap();
        let batch = &mut batches[usize::try_from(at.offset.0).unwrap()];
        let time = u64::from_le_bytes(*batch[0][2..].first_chunk().unwrap());
        let mut builder = BatchBuilder::new(0, Timestamp(time));
        builder.push(&Drafts::one(RequestId([9; 16]), &stranger.unwrap()));
        let (_, bytes) = builder.finish();
        let record = BatchReader::new(&bytes).unwrap().next().unwrap().unwrap().to_vec();
        batch.insert(usize::try_from(at.position).unwrap(), record);
    }

    /// The bytes of a record.
    pub(super) fn record(&mut self, id: RecordId) -> &mut Vec<u8> {
        let batch = &mut self.log.get_mut(&id.partition).unwrap()[usize::try_from(id.offset.0).unwrap()];
        &mut batch[usize::try_from(id.position).unwrap()]
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, id: RecordId) {
        let batch = &mut self.log.get_mut(&id.partition).unwrap()[usize::try_from(id.offset.0).unwrap()];
        batch.remove(usize::try_from(id.position).unwrap());
    }

    /// Writes the trees, signed with this key.
    pub(super) fn publish_log(&self, folder: &Path, key: &SecretKey) {
        let work = tempfile::tempdir().unwrap();
        let mut meta = MetaLog::open(&work.path().join("meta"), key.clone()).unwrap();
        let mut trees: BTreeMap<_, _> = BTreeMap::new();
        for id in self.log.keys() {
            let own = key.named(&format!("{NAME}/{id}")).unwrap();
            let tree = Tree::open(&work.path().join(id.to_string().replace('/', "-")), own).unwrap();
            trees.insert(*id, tree);
        }
        let longest = self.log.values().map(Vec::len).max().unwrap();
        for from in (0..longest).step_by(PERIOD) {
            let mut checkpoints = Vec::new();
            for (id, tree) in &mut trees {
                for batch in self.log[id].iter().skip(from).take(PERIOD) {
                    tree.append(&batch.iter().map(|record| record_hash(record)).collect::<Vec<_>>()).unwrap();
                }
                checkpoints.push(tree.publish().unwrap());
            }
            meta.publish(&checkpoints).unwrap();
        }
        for (id, tree) in &trees {
            let (tiles, prefix) = (tree.tiles(), format!("/log/{id}"));
            let entries: Vec<_> = self.log[id].iter().flatten().map(|record| entry(record)).collect();
            write_tree(folder, &prefix, &tiles, |path| {
                let first = usize::try_from(path.index * 256).unwrap();
                let mut bundle = Vec::new();
                entries[first..][..usize::from(path.width)].iter().for_each(|e| push_entry(&mut bundle, e));
                bundle
            });
            write(folder, &format!("{prefix}/batches/0"), &tiles.batch_ends(0).unwrap().unwrap());
        }
        let tiles = meta.tiles();
        write_tree(folder, "", tiles.tiles(), |path| tiles.bundle(path).unwrap().unwrap());
        write_json(folder, "/api/v1/proof", &json!({ "key": key.public().to_string() }));
    }

    /// Writes what the records come to.
    pub(super) fn publish_results(&self, folder: &Path) {
        let definition = &self.definition;
        let mut merge = Merge::new(Arc::clone(definition));
        let mut all_changes = Vec::new();
        let mut watermark = BTreeMap::new();
        let mut time = Timestamp(0);
        for (id, batches) in &self.log {
            let mut tally = Tally::new(*id);
            for (offset, batch) in (0..).map(Offset).zip(batches) {
                for (position, bytes) in (0..).zip(batch) {
                    let id = RecordId { partition: *id, offset, position };
                    all_changes.extend(self.fold(&mut tally, &decode(id, bytes).unwrap()));
                }
            }
            watermark.insert(*id, Offset(batches.len() as u64));
            time = time.max(tally.time());
            merge.merge(&tally.partial());
        }
        let stamp = Stamp { seq: Seq { epoch: 1, seq: 1 }, time, watermark };
        for (contest, unit) in keys(definition) {
            let results = &merge.results().contests[contest.index()];
            let value = document(definition, results, &stamp, None, (contest, unit, By::Unit));
            write_json(folder, &path(definition, (contest, unit)), &value);
            if definition.contests[contest.index()].unit == unit {
                write_json(folder, &snapshot_path(definition, contest, stamp.seq), &value);
            }
        }
        write_json(folder, "/api/v1/election", &canvass_protocol::definition::to_value(definition));
        let corrections = all_changes.iter().filter(|change| change.kind == ChangeKind::Corrected);
        let corrections = corrections.map(|change| changes::correction(definition, change));
        write_list(folder, "/api/v1/corrections", "corrections", corrections.collect());
        for (unit, id) in (0..).map(UnitId).zip(definition.units.iter().map(|unit| &unit.id)) {
            let events = all_changes.iter().filter(|change| changes::touches(definition, change, unit));
            let events = events.map(|change| changes::event(definition, change)).collect();
            write_list(folder, &format!("/api/v1/units/{id}/history"), "events", events);
        }
    }

    fn fold(&self, tally: &mut Tally, record: &Record) -> Vec<Change> {
        let outcome = tally.apply(record);
        changes_of(|contest| self.definition.contests[contest.index()].unit, record, &outcome)
    }
}

fn write_list(folder: &Path, path: &str, name: &str, rows: Vec<Value>) {
    write_json(folder, &format!("{path}?offset=0&limit=1000"), &json!({ name: rows }));
}

fn write_json(folder: &Path, path: &str, value: &Value) {
    write(folder, path, value.to_string().as_bytes());
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let file = folder.join(file_of(path).unwrap());
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

fn write_tree(folder: &Path, prefix: &str, tiles: &Tiles, bundle: impl Fn(TilePath) -> Vec<u8>) {
    let checkpoint = tiles.checkpoint().unwrap();
    write(folder, &format!("{prefix}/checkpoint"), checkpoint.note().as_bytes());
    for path in TilePath::all(checkpoint.size()) {
        let bytes = if path.level.is_some() { tiles.tile(path).unwrap().unwrap() } else { bundle(path) };
        write(folder, &format!("{prefix}/tile/{path}"), &bytes);
    }
}
