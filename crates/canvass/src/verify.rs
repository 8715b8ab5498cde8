//! `canvass verify`: checks everything that a server publishes, with nothing but its public addresses and a key.
//!
//! It reads the results first, waits for a checkpoint that covers them, and then goes through the log once: every
//! entry, tile, root and checkpoint of all trees, every record through the fold, and every published number
//! against what the records come to.

mod difference;
mod meta;
mod partition;
mod progress;
mod proof;
mod published;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod trust;
mod web;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use canvass_anchor::Anchored;
use canvass_election::Definition;
use canvass_election::ids::{Offset, PartitionId};
use clap::Args;

use crate::{Outcome, tools};
use difference::{Difference, Halt};
use meta::Meta;
use partition::{Counted, Mark};
pub(crate) use proof::{ProofArgs, run as run_proof};
use published::Document;
use report::Report;
use source::Source;
use tree::{By, Claim};
use trust::{Head, PastArgs, Trust, TrustArgs};

/// How long the trees may be behind what was published.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
const ELECTION: &str = "/api/v1/election";

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The server, or a folder that `--keep` has filled
    #[arg(value_name = "URL|DIR")]
    target: String,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    past: PastArgs,
    /// Keep everything that is read in this folder, to check it again without the server
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) async fn run(args: VerifyArgs) -> Outcome {
    let source = Source::open(&args.target, args.keep.as_deref())?;
    let checking = tokio::task::spawn_blocking(move || verify(&source, &args.trust, &args.past));
    let report = checking.await.map_err(|e| e.to_string())??;
    let differences: Vec<String> = report.differences.iter().map(Difference::to_string).collect();
    tools::show(&report, &differences)
}

/// Checks all that the source has. An error is something that could not be read; what is wrong is in the report.
fn verify(source: &Source, trust: &TrustArgs, past: &PastArgs) -> Result<Report, String> {
    let began = Instant::now();
    let trust = trust.read(source)?;
    let mut report = Report::new(&trust);
    match check(source, &trust, past, &mut report) {
        Ok(()) => {}
        Err(Halt::Wrong(difference)) => report.differences.push(difference),
        Err(Halt::Unreadable(message)) => return Err(message),
    }
    report.bytes = source.fetched();
    report.elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

fn check(source: &Source, trust: &Trust, past: &PastArgs, report: &mut Report) -> Result<(), Halt> {
    let (since, mut anchors) = (past.since(trust)?, past.anchors()?);
    // Before the checkpoint, which then is no older than they are.
    let chained = past.chained(trust)?;
    let election = source.require(ELECTION)?;
    let definition = canvass_protocol::definition::parse(&String::from_utf8_lossy(&election));
    let definition =
        definition.map_err(|_| Difference::new(ELECTION, "it is no definition of an election"))?;
    let documents = documents(source, &definition)?;
    let covered = covered(source, trust, &definition, &documents)?;
    let wanted = covered.iter().map(|(partition, covered)| (*partition, covered.leaves)).collect();
    let checkpoint = meta::newest(source, trust, &wanted)?;
    let (cosigners, few) = trust.cosigners(&checkpoint);
    report.checkpoint(&checkpoint, cosigners);
    report.differences.extend(few);
    if let Some(chained) = chained {
        report.chained(&chained);
        let own = |anchored: &Anchored| source.is_live() || anchored.head.size <= checkpoint.size();
        let heads = chained.iter().filter(|anchored| own(anchored)).map(|anchored| anchored.head);
        anchors.extend(heads.map(|head| Head { size: head.size, root: head.root }));
    }
    let mut meta = meta::check(source, trust, &checkpoint, since, &anchors)?;
    report.differences.append(&mut meta.differences);
    let mut marks: BTreeMap<PartitionId, Vec<Mark>> = BTreeMap::new();
    for (partition, mark) in documents.iter().flat_map(Document::marks) {
        marks.entry(partition).or_default().push(mark);
    }
    let claims = claims(&definition, meta, covered, report)?;
    let counted = partitions(source, claims, marks, report)?;
    compare(source, &definition, &counted, &documents, report)
}

/// The election as it is published.
fn election(source: &Source) -> Result<Definition, Halt> {
    let text = source.require(ELECTION)?;
    let definition = canvass_protocol::definition::parse(&String::from_utf8_lossy(&text));
    definition.map_err(|_| Difference::new(ELECTION, "it is no definition of an election").into())
}

fn documents(source: &Source, definition: &Definition) -> Result<Vec<Document>, Halt> {
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| published::documents(source, definition, &done));
        progress::show("documents", published::count(definition), &done, || reading.is_finished());
        reading.join().map_err(|_| "the documents could not be read".to_owned())?
    })
}

/// What is served of a partition.
struct Covered {
    /// So many leaves results speak of, or its checkpoint does.
    leaves: u64,
    own: Claim,
}

/// Waits until each partition's tree has all that results were published of.
fn covered(
    source: &Source,
    trust: &Trust,
    definition: &Definition,
    documents: &[Document],
) -> Result<BTreeMap<PartitionId, Covered>, Halt> {
    let mut ends: BTreeMap<PartitionId, Offset> =
        definition.partition_ids().map(|id| (id, Offset(0))).collect();
    for (partition, (offset, _)) in documents.iter().flat_map(Document::marks) {
        let end = ends.entry(partition).or_default();
        *end = offset.max(*end);
    }
    let mut all = BTreeMap::new();
    let began = Instant::now();
    for (partition, end) in ends {
        let leaves = loop {
            if let Some(leaves) = partition::leaves_up_to(source, partition, end)? {
                break leaves;
            }
            if !source.is_live() || began.elapsed() > PATIENCE {
                let what = format!(
                    "results were published of its first {end} batches, and its log does not have them"
                );
                return Err(Difference::new(partition.to_string(), what).into());
            }
            std::thread::sleep(PAUSE);
        };
        let (size, root) = meta::own_claim(source, trust, partition)?;
        let own = Claim { size, root, by: By::Checkpoint };
        all.insert(partition, Covered { leaves: leaves.max(size), own });
    }
    Ok(all)
}

/// All claims about each partition: those of the meta-log, and the partition's own checkpoint.
fn claims(
    definition: &Definition,
    meta: Meta,
    covered: BTreeMap<PartitionId, Covered>,
    report: &mut Report,
) -> Result<BTreeMap<PartitionId, Vec<Claim>>, Halt> {
    let mut claims = meta.partitions;
    for (partition, Covered { own, .. }) in covered {
        let of = claims.entry(partition).or_default();
        if of.is_empty() {
            let what = "the meta-log has no checkpoint of it";
            return Err(Difference::new(partition.to_string(), what).into());
        }
        let at = of.partition_point(|claim| claim.size < own.size);
        of.insert(at, own);
    }
    for stranger in claims.keys().filter(|id| !definition.partition_ids().any(|own| own == **id)) {
        let what = format!("it has checkpoints of {stranger}, and the election has no such partition");
        report.differences.push(Difference::new(meta::NAME, what));
    }
    Ok(claims)
}

/// Checks all partitions, as many at a time as there are cores.
fn partitions(
    source: &Source,
    claims: BTreeMap<PartitionId, Vec<Claim>>,
    mut marks: BTreeMap<PartitionId, Vec<Mark>>,
    report: &mut Report,
) -> Result<BTreeMap<PartitionId, Counted>, Halt> {
    let total = claims.values().filter_map(|claims| claims.last()).map(|claim| claim.size).sum();
    let done = AtomicU64::new(0);
    let ready = Mutex::new(Vec::new());
    let queue = Mutex::new(claims.into_iter());
    let work = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((id, claims)) = next else { return };
            let marks = marks_of(&marks, id);
            let counted = partition::check(source, id, &claims, marks, &done);
            ready.lock().unwrap_or_else(PoisonError::into_inner).push((id, claims, counted));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        progress::show("records", total, &done, || workers.iter().all(|worker| worker.is_finished()));
    });
    marks.clear();
    let mut all = BTreeMap::new();
    let mut ready = ready.into_inner().unwrap_or_else(PoisonError::into_inner);
    ready.sort_by_key(|(id, ..)| *id);
    for (id, claims, counted) in ready {
        match counted {
            Ok(mut counted) => {
                report.partition(claims.last().map_or(0, |claim| claim.size), &counted);
                report.differences.append(&mut counted.differences);
                all.insert(id, counted);
            }
            Err(Halt::Wrong(difference)) => report.differences.push(difference),
            Err(halt) => return Err(halt),
        }
    }
    Ok(all)
}

fn marks_of(marks: &BTreeMap<PartitionId, Vec<Mark>>, id: PartitionId) -> Vec<Mark> {
    marks.get(&id).cloned().unwrap_or_default()
}

/// Compares what the records come to with what was published.
fn compare(
    source: &Source,
    definition: &Definition,
    counted: &BTreeMap<PartitionId, Counted>,
    documents: &[Document],
    report: &mut Report,
) -> Result<(), Halt> {
    let mut own: Option<Arc<Definition>> = None;
    for (id, counted) in counted.iter().filter(|(_, counted)| counted.whole) {
        let Some(found) = &counted.definition else {
            report.differences.push(Difference::new(id.to_string(), "its first record is no definition"));
            continue;
        };
        if own.get_or_insert_with(|| Arc::clone(found)) != found {
            let what = "it begins with another definition than the partitions before it";
            report.differences.push(Difference::new(id.to_string(), what));
        }
    }
    let Some(own) = own else { return Ok(()) };
    let before = report.differences.len();
    let [published, own_value] = [definition, &own].map(canvass_protocol::definition::to_value);
    published::differences(ELECTION, &published, &own_value, &mut report.differences);
    if report.differences.len() > before {
        return Ok(());
    }
    let unread = definition.partition_ids().find(|id| !counted.get(id).is_some_and(|counted| counted.whole));
    if let Some(id) = unread {
        let what = format!("not compared, since {id} could not be read to its end");
        report.differences.push(Difference::new("the results", what));
        return Ok(());
    }
    report.documents = documents.len();
    published::compare_snapshots(source, &own, documents, &mut report.differences)?;
    report.differences.extend(published::compare(&own, counted, documents));
    let lists = published::compare_lists(source, &own, counted, &mut report.differences)?;
    (report.corrections, report.held) = lists;
    Ok(())
}
