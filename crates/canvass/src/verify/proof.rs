//! `canvass proof`: fetches the proof of one record, checks all of it, and says what it proves.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use canvass_election::Definition;
use canvass_election::event::Event;
use canvass_election::ids::RecordId;
use canvass_protocol::api::Receipt;
use canvass_protocol::record::decode;
use canvass_protocol::time;
use canvass_tlog::receipt::verify_receipt;
use canvass_tlog::{Bundle, Entry, Proof, ProofError, PublicKey, leaf_hash, verify_published};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::difference::{Difference, Halt};
use super::election;
use super::partition::{leaves_up_to, long_record};
use super::source::Source;
use super::tree::{WIDTH, bundle};
use super::trust::{Trust, TrustArgs};
use crate::tools::ServerArgs;
use crate::{Outcome, tools};

/// Checkpoints come every second.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(crate) struct ProofArgs {
    /// The record, as its receipt names it (votes-3-17-0), or a file that holds the receipt
    #[arg(value_name = "RECORD|FILE")]
    receipt: String,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

pub(crate) async fn run(args: ProofArgs) -> Outcome {
    let receipt = Held::read(&args.receipt)?;
    let source = Source::open(args.server.url(), None)?;
    let checking = tokio::task::spawn_blocking(move || {
        let trust = args.trust.read(&source)?;
        match check(&source, &trust, &receipt) {
            Ok(proven) => Ok(proven),
            Err(Halt::Unreadable(message)) => Err(message),
            Err(Halt::Wrong(difference)) => Err(format!("{} is not proven: {difference}", receipt.record)),
        }
    });
    let proven = checking.await.map_err(|e| e.to_string())??;
    tools::show(&proven, &[])
}

/// What a voter or source holds of a record.
struct Held {
    record: RecordId,
    promise: Option<Proof>,
}

impl Held {
    /// Reads a record's name, or the file of a receipt: the answer that had it, or the promise alone.
    fn read(given: &str) -> Result<Self, String> {
        if let Ok(record) = given.parse() {
            return Ok(Held { record, promise: None });
        }
        let text = std::fs::read_to_string(given).map_err(|e| {
            format!("`{given}` is not a record such as votes-3-17-0, and no file that can be read: {e}")
        })?;
        Self::of_receipt(text.trim_start()).ok_or_else(|| format!("{given} holds no receipt"))
    }

    fn of_receipt(text: &str) -> Option<Self> {
        let Ok(answer) = serde_json::from_str::<Value>(text) else {
            let promise: Proof = text.parse().ok()?;
            return Some(Held { record: place(&promise)?, promise: Some(promise) });
        };
        let receipt = Receipt::deserialize(answer.get("receipt").unwrap_or(&answer)).ok()?;
        let promise = receipt.promise.map(|promise| promise.parse()).transpose().ok()?;
        Some(Held { record: receipt.record, promise })
    }
}

/// The record that a promise speaks of: by the name of its batch, and its index there.
fn place(promise: &Proof) -> Option<RecordId> {
    let origin = promise.checkpoint.lines().next()?;
    let (log, batch) = origin.rsplit_once("/batch/")?;
    let mut parts = log.rsplit('/');
    let (index, topic) = (parts.next()?, parts.next()?);
    format!("{topic}-{index}-{}-{}", batch.split('/').next()?, promise.index).parse().ok()
}

/// What was proven.
#[derive(Debug, Serialize)]
pub(crate) struct Proven {
    record: RecordId,
    /// What the record says, in words.
    says: String,
    time: String,
    leaf: u64,
    leaf_hash: String,
    partition_size: u64,
    checkpoint_size: u64,
    checkpoint_root: String,
    cosigners: Vec<String>,
    key: String,
    key_on_first_use: bool,
    /// The receipt's promise was of this record.
    promise_kept: bool,
}

/// Checks the promise against the record that stands in the log.
fn kept(promise: &Proof, id: RecordId, record: &[u8], key: &PublicKey) -> Result<(), Difference> {
    let wrong = |what: String| Difference::new("the receipt", what);
    if place(promise) != Some(id) {
        return Err(wrong("its promise is of another record than the one it names".to_owned()));
    }
    verify_receipt(record, promise, key).map(drop).map_err(|error| match error {
        ProofError::Path(_) => wrong(
            "it is a signed promise of another record than the one that stands in the log. Keep it: it is evidence"
                .to_owned(),
        ),
        error => wrong(error.to_string()),
    })
}

fn check(source: &Source, trust: &Trust, held: &Held) -> Result<Proven, Halt> {
    let id = held.record;
    let path = format!("/api/v1/receipts/{id}/proof");
    let wrong = |what: String| Difference::new(path.clone(), what);
    let text = await_proof(source, &path)?;
    let text =
        text.ok_or_else(|| wrong("there is no such record, or no checkpoint has it yet".to_owned()))?;
    let proof: Proof = String::from_utf8_lossy(&text).parse().map_err(|e| wrong(format!("{e}")))?;
    let inner = proof.extra.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let inner: Proof = inner.parse().map_err(|e| wrong(format!("{e}")))?;
    // Only where to look; what is there is proven below.
    let size = inner.checkpoint.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
    let entry = entry(source, id, inner.index, size)?;
    let record = match Entry::read(&entry) {
        Some(Entry::Long { sha256, .. }) => long_record(source, id, &entry, sha256)?.to_vec(),
        _ => entry.clone(),
    };
    let published = verify_published(&record, &proof, &trust.key).map_err(|e| wrong(e.to_string()))?;
    let own = format!("{}/{}", trust.key.name(), id.partition);
    if published.partition.origin() != own {
        return Err(
            wrong(format!("it is of the log `{}`, not of `{own}`", published.partition.origin())).into()
        );
    }
    placed(source, id, published.index)?;
    let (cosigners, few) = trust.cosigners(&published.meta);
    if let Some(few) = few {
        return Err(few.into());
    }
    if let Some(promise) = &held.promise {
        let key = trust.key.named(&own).map_err(|e| wrong(e.to_string()))?;
        kept(promise, id, &record, &key)?;
    }
    let decoded = decode(id, &record).map_err(|e| wrong(e.to_string()))?;
    Ok(Proven {
        record: id,
        says: says(&election(source)?, &decoded.event),
        time: time::format(decoded.time),
        leaf: published.index,
        leaf_hash: leaf_hash(&entry).to_string(),
        partition_size: published.partition.size(),
        checkpoint_size: published.meta.size(),
        checkpoint_root: published.meta.root().to_string(),
        cosigners,
        key: trust.key.to_string(),
        key_on_first_use: trust.on_first_use,
        promise_kept: held.promise.is_some(),
    })
}

/// A record that was taken in just now waits for the next checkpoint.
fn await_proof(source: &Source, path: &str) -> Result<Option<Bytes>, String> {
    let began = Instant::now();
    loop {
        let found = source.get(path)?;
        if found.is_some() || began.elapsed() > PATIENCE {
            return Ok(found);
        }
        std::thread::sleep(PAUSE);
    }
}

/// An entry of the record's partition.
fn entry(source: &Source, id: RecordId, leaf: u64, size: u64) -> Result<Vec<u8>, Halt> {
    if leaf >= size {
        return Err(Difference::new("the proof", format!("a tree of {size} has no leaf {leaf}")).into());
    }
    let path = format!("/log/{}/tile/{}", id.partition, bundle(leaf / WIDTH, size));
    let wrong = |what: &str| Difference::new(path.clone(), what);
    let bundle = source.get(&path)?.ok_or_else(|| wrong("it is missing"))?;
    let entry = usize::try_from(leaf % WIDTH).ok().and_then(|at| Bundle::new(&bundle).nth(at));
    let entry = entry.ok_or_else(|| wrong("it has too few entries"))?;
    Ok(entry.map_err(|e| wrong(&e.to_string()))?.to_vec())
}

/// A record's name says batch and position; the leaf must be the one at that place.
fn placed(source: &Source, id: RecordId, leaf: u64) -> Result<(), Halt> {
    let [begin, end] = [id.offset, id.offset.next()].map(|offset| leaves_up_to(source, id.partition, offset));
    let (begin, end) = (begin?.unwrap_or(u64::MAX), end?.unwrap_or(0));
    if begin.checked_add(id.position.into()) == Some(leaf) && leaf < end {
        return Ok(());
    }
    let what = format!("leaf {leaf} is not record {} of batch {}", id.position, id.offset);
    Err(Difference::new(id.partition.to_string(), what).into())
}

/// What an event says, for its sender to compare with what they sent.
fn says(definition: &Definition, event: &Event) -> String {
    let Event::VoteCast(vote) = event else {
        return serde_json::to_string(event).unwrap_or_default();
    };
    let Some(contest) = definition.contest(vote.contest) else { return "a vote in no contest".to_owned() };
    let names = vote.choices.iter().filter_map(|choice| contest.selections.get(choice.index()));
    let names: Vec<_> = names.map(|selection| format!("“{}”", selection.name)).collect();
    format!("a vote for {} in “{}”", names.join(" and "), contest.name)
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is in the log.", self.record)?;
        writeln!(f, "  it says        {}", self.says)?;
        writeln!(f, "  taken in       {}", self.time)?;
        let (number, of, log) = (self.leaf + 1, self.partition_size, self.record.partition);
        writeln!(
            f,
            "  place          number {number} of the {of} records of {log}, hash {}",
            self.leaf_hash
        )?;
        writeln!(f, "  checkpoint     {} leaves, root {}", self.checkpoint_size, self.checkpoint_root)?;
        if !self.cosigners.is_empty() {
            writeln!(f, "  cosigned by    {}", self.cosigners.join(", "))?;
        }
        let word = if self.key_on_first_use { "the server's own word; pin it with --key" } else { "pinned" };
        writeln!(f, "  signed by      {} ({word})", self.key)?;
        if self.promise_kept {
            writeln!(f, "  receipt        it is a signed promise of exactly this record")?;
        }
        f.write_str(
            "It proves that this record stands in the log, and that whoever keeps this checkpoint will see if it is \
             ever changed or taken out. `canvass verify` shows that it is counted. It does not prove who sent it, \
             nor that the device it was sent from did as it was told.",
        )
    }
}
