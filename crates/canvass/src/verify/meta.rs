//! The meta-log: its leaves are the partitions' checkpoints, and its own checkpoint speaks for all of them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use canvass_election::ids::{PartitionId, RecordId};
use canvass_tlog::{Bundle, Hash, SignedCheckpoint};

use super::difference::{Difference, Halt};
use super::source::Source;
use super::tree::{self, By, Claim, Entries, Log, WIDTH};
use super::trust::{Head, Trust};

pub(crate) const NAME: &str = "the meta-log";
const CHECKPOINT: &str = "/checkpoint";
/// How long a checkpoint may be behind what was published.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// What the meta-log says of the partitions.
pub(crate) struct Meta {
    /// What checkpoints claim of each partition, in ascending order of their sizes.
    pub(crate) partitions: BTreeMap<PartitionId, Vec<Claim>>,
    pub(crate) differences: Vec<Difference>,
}

/// Reads the newest checkpoint of the meta-log that covers so many leaves of each partition; waits for it where more
/// can come.
pub(crate) fn newest(
    source: &Source,
    trust: &Trust,
    wanted: &BTreeMap<PartitionId, u64>,
) -> Result<SignedCheckpoint, Halt> {
    let began = Instant::now();
    let mut seen = None;
    loop {
        let Some(note) = source.get(CHECKPOINT)? else {
            // A server publishes its first one a moment after its start.
            if !source.is_live() || began.elapsed() > PATIENCE {
                return Err(Difference::new(CHECKPOINT, "it is not there").into());
            }
            std::thread::sleep(PAUSE);
            continue;
        };
        let checkpoint = trust.open(&note)?;
        if seen.as_ref() != Some(&checkpoint) {
            let missing = missing(source, trust, &checkpoint, wanted)?;
            let Some((partition, size)) = missing else { return Ok(checkpoint) };
            if !source.is_live() || began.elapsed() > PATIENCE {
                let what =
                    format!("it does not cover the first {size} records of {partition}, which are published");
                return Err(Difference::new(CHECKPOINT, what).into());
            }
            seen = Some(checkpoint);
        } else if began.elapsed() > PATIENCE {
            let what = "no newer one came, and it does not cover everything that is published";
            return Err(Difference::new(CHECKPOINT, what).into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// A partition of which the checkpoint does not cover what is wanted. Looks from the newest leaf back.
fn missing(
    source: &Source,
    trust: &Trust,
    checkpoint: &SignedCheckpoint,
    wanted: &BTreeMap<PartitionId, u64>,
) -> Result<Option<(PartitionId, u64)>, Halt> {
    let mut wanted = wanted.clone();
    for index in (0..checkpoint.size().div_ceil(WIDTH)).rev() {
        if wanted.is_empty() {
            break;
        }
        let file = format!("/tile/{}", tree::bundle(index, checkpoint.size()));
        let bytes = source.get(&file)?.ok_or_else(|| Difference::new(NAME, format!("{file} is missing")))?;
        for entry in Bundle::new(&bytes).flatten() {
            let (partition, size) = head(trust, entry).unwrap_or((PartitionId::CONTROL, 0));
            if wanted.get(&partition).is_some_and(|least| *least <= size) {
                wanted.remove(&partition);
            }
        }
    }
    Ok(wanted.pop_first())
}

/// The partition and the size in the first two lines of an entry.
fn head(trust: &Trust, entry: &[u8]) -> Option<(PartitionId, u64)> {
    let mut lines = std::str::from_utf8(entry).ok()?.lines();
    let partition = partition_of(trust, lines.next()?)?;
    Some((partition, lines.next()?.parse().ok()?))
}

fn partition_of(trust: &Trust, origin: &str) -> Option<PartitionId> {
    origin.strip_prefix(trust.key.name())?.strip_prefix('/')?.parse().ok()
}

/// Checks the whole meta-log against its checkpoint and what others know of it, and reads the claims it makes of
/// the partitions.
pub(crate) fn check(
    source: &Source,
    trust: &Trust,
    checkpoint: &SignedCheckpoint,
    since: Option<Head>,
    anchors: &[Head],
) -> Result<Meta, Halt> {
    let mut differences = Vec::new();
    let own = Head { size: checkpoint.size(), root: checkpoint.root() };
    let others = since.map(|head| (By::Since, head)).into_iter();
    let others = others.chain(anchors.iter().map(|head| (By::Anchor, *head)));
    let mut claims = vec![claim(By::Checkpoint, own)];
    for (by, head) in others {
        if head.size > own.size {
            let what = format!("the log was rolled back: {by} has {} leaves, it has {}", head.size, own.size);
            differences.push(Difference::new(NAME, what));
        } else {
            claims.push(claim(by, head));
        }
    }
    claims.sort_by_key(|claim| claim.size);
    let log = Log { name: NAME, prefix: "", size: own.size };
    let mut leaves = Leaves { trust, partitions: BTreeMap::new() };
    differences.extend(tree::check(source, &log, &claims, &AtomicU64::new(0), &mut leaves)?);
    Ok(Meta { partitions: leaves.partitions, differences })
}

fn claim(by: By, Head { size, root }: Head) -> Claim {
    Claim { size, root, by }
}

struct Leaves<'a> {
    trust: &'a Trust,
    partitions: BTreeMap<PartitionId, Vec<Claim>>,
}

impl Entries for Leaves<'_> {
    fn take(&mut self, leaf: u64, entry: &[u8]) -> Result<(), Halt> {
        let wrong = |what: String| Difference::new(NAME, format!("leaf {leaf}: {what}"));
        let text = String::from_utf8_lossy(entry);
        let origin = text.lines().next().unwrap_or_default();
        let partition = partition_of(self.trust, origin)
            .ok_or_else(|| wrong(format!("`{origin}` is no partition of `{}`", self.trust.key.name())))?;
        let key = self.trust.key.named(origin).map_err(|e| wrong(e.to_string()))?;
        let checkpoint = SignedCheckpoint::open(entry, &key).map_err(|e| wrong(e.to_string()))?;
        let claims = self.partitions.entry(partition).or_default();
        let (size, root) = (checkpoint.size(), checkpoint.root());
        if let Some(before) = claims.last().filter(|before| before.size >= size) {
            let what = format!("{partition} was rolled back from {} leaves to {size}", before.size);
            return Err(wrong(what).into());
        }
        claims.push(claim(By::Meta(leaf), Head { size, root }));
        Ok(())
    }

    fn record(&self, _: u64) -> Option<RecordId> {
        None
    }
}

/// What a partition's own checkpoint, which is served beside the meta-log's, claims; it must be one that the
/// meta-log has, or older.
pub(crate) fn own_claim(source: &Source, trust: &Trust, partition: PartitionId) -> Result<(u64, Hash), Halt> {
    let path = format!("/log/{partition}/checkpoint");
    let note = source.get(&path)?.ok_or_else(|| Difference::new(&path, "it is not there"))?;
    let wrong = |what: String| Difference::new(&path, what);
    let key =
        trust.key.named(&format!("{}/{partition}", trust.key.name())).map_err(|e| wrong(e.to_string()))?;
    let checkpoint = SignedCheckpoint::open(&note, &key).map_err(|e| wrong(e.to_string()))?;
    Ok((checkpoint.size(), checkpoint.root()))
}
