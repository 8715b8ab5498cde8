//! Random schedules of appends, faults, kills and power cuts, each from one seed. After every step the
//! whole log is read again and compared with what it must hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::faults::{FaultyDisk, Random};
use super::reader::Reader;
use super::writer::{Append, Writer};
use super::{OpenError, Recovered, Shared, TornTail, segment, start};
use crate::{AppendError, Batch};

/// How many seeds are run; `CANVASS_LOG_SEEDS=100000` runs more.
const SEEDS: u64 = 400;
const STEPS: usize = 60;
const SEGMENT: u64 = 1500;
const PARTITIONS: [PartitionId; 3] = [PartitionId::votes(0), PartitionId::votes(1), PartitionId::returns(0)];

type Contents = BTreeMap<PartitionId, Vec<Batch>>;

/// What a run met, to see that the schedules reach what they are for.
#[derive(Default)]
struct Met {
    acknowledged: usize,
    given_back: usize,
    torn_tails: usize,
    unacknowledged_kept: usize,
    failed_opens: usize,
    segments: usize,
}

struct Run {
    random: Random,
    disk: FaultyDisk,
    writer: Writer,
    /// What must be in the log.
    expected: Contents,
    /// The groups that failed since a roll back last succeeded: a crash may leave the first part of one.
    in_doubt: Vec<Contents>,
    submitted: u32,
    met: Met,
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = FaultyDisk::new(seed ^ 0xD15C);
        let (writer, recovered) = start(Arc::new(disk.clone()), SEGMENT).unwrap();
        assert_eq!(recovered, Recovered { segments: 1, bytes: 32, ..Recovered::default() });
        Self {
            random: Random(seed),
            disk,
            writer,
            expected: Contents::new(),
            in_doubt: Vec::new(),
            submitted: 0,
            met: Met::default(),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..80 => self.commit(),
            80..90 => {
                let percent = [0, 0, 5, 20, 60, 100][self.random.below(6)];
                self.disk.fail(percent);
            }
            90..96 => self.restart(true),
            _ => self.restart(false),
        }
        self.verify();
    }

    fn commit(&mut self) {
        let mut group = Vec::new();
        let mut answers = Vec::new();
        for _ in 0..=self.random.below(5) {
            let partition = PARTITIONS[self.random.below(PARTITIONS.len())];
            self.submitted += 1;
            let mut bytes = format!("batch {} ", self.submitted).into_bytes();
            bytes.resize(bytes.len() + self.random.below(300), b'.');
            let batch = Batch { count: self.submitted, bytes: Bytes::from(bytes) };
            let (answer, answered) = oneshot::channel();
            answers.push((partition, batch.clone(), answered));
            group.push(Append { partition, batch, answer });
        }
        self.writer.commit(group);
        let mut failed = Contents::new();
        for (partition, batch, mut answered) in answers {
            match answered.try_recv().expect("every append is answered") {
                Ok(offset) => {
                    let batches = self.expected.entry(partition).or_default();
                    assert_eq!(offset, Offset(batches.len() as u64));
                    batches.push(batch);
                    self.met.acknowledged += 1;
                }
                Err(AppendError::Io { batch: returned, .. }) => {
                    assert!(returned == batch, "the batch is given back");
                    failed.entry(partition).or_default().push(batch);
                    self.met.given_back += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        self.in_doubt.push(failed);
        if !self.writer.owes_roll_back {
            self.in_doubt.clear();
        }
    }

    /// The process ends, by a kill or with the power, and another one opens the journal.
    fn restart(&mut self, power_cut: bool) {
        if self.random.percent(70) {
            // It ends in the middle of a commit.
            self.disk.stop_after(self.random.below(5));
            self.commit();
            self.disk.go_on();
        }
        if power_cut {
            self.disk.crash();
        }
        let (writer, recovered) = loop {
            match start(Arc::new(self.disk.clone()), SEGMENT) {
                Ok(started) => break started,
                Err(OpenError::Io { .. }) => self.met.failed_opens += 1,
                Err(other) => panic!("{other}"),
            }
            if self.random.percent(30) {
                self.disk.crash();
            }
            self.disk.fail(self.random.below(30));
        };
        self.writer = writer;
        self.met.torn_tails += usize::from(recovered.torn_tail.is_some());
        self.met.segments = recovered.segments;
        let mut more = self.contents();
        for (partition, found) in &mut more {
            let must = self.expected.entry(*partition).or_default();
            assert!(found.starts_with(must), "{partition}: acknowledged batches are lost or changed");
            found.drain(..must.len());
        }
        let part_of = |group: &Contents| {
            more.iter().all(|(partition, found)| {
                group.get(partition).map_or(found.is_empty(), |batches| batches.starts_with(found))
            })
        };
        let nothing = more.values().all(Vec::is_empty);
        assert!(nothing || self.in_doubt.iter().any(part_of), "a batch appears that was given back");
        for (partition, found) in more {
            self.met.unacknowledged_kept += found.len();
            self.expected.entry(partition).or_default().extend(found);
        }
        self.in_doubt.clear();
    }

    fn verify(&mut self) {
        let found = self.contents();
        for partition in PARTITIONS {
            assert!(found[&partition] == *self.expected.entry(partition).or_default(), "{partition}");
        }
    }

    fn contents(&self) -> Contents {
        self.disk.without_faults(|| contents(self.writer.shared()))
    }
}

/// Reads a whole log.
fn contents(shared: &Arc<Shared>) -> Contents {
    let read = |partition| {
        let mut reader = Reader::new(Arc::clone(shared), partition);
        let mut batches: Vec<Batch> = Vec::new();
        loop {
            let chunk = reader.chunk(Offset(batches.len() as u64), 7).unwrap();
            if chunk.is_empty() {
                return batches;
            }
            batches.extend(chunk.into_iter().map(|entry| entry.batch));
        }
    };
    PARTITIONS.into_iter().map(|partition| (partition, read(partition))).collect()
}

/// Names the seed when a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was seed {}", self.0);
        }
    }
}

#[test]
fn whatever_the_disk_does_the_log_holds_what_was_acknowledged_and_nothing_given_back() {
    let seeds = std::env::var("CANVASS_LOG_SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    let mut met = Met::default();
    for seed in 0..seeds {
        let seed = Seed(seed);
        let mut run = Run::new(seed.0);
        for _ in 0..STEPS {
            run.step();
        }
        run.disk.fail(0);
        run.restart(true);
        run.commit();
        run.verify();
        met.acknowledged += run.met.acknowledged;
        met.given_back += run.met.given_back;
        met.torn_tails += run.met.torn_tails;
        met.unacknowledged_kept += run.met.unacknowledged_kept;
        met.failed_opens += run.met.failed_opens;
        met.segments += run.met.segments;
    }
    let counts = [
        met.acknowledged,
        met.given_back,
        met.torn_tails,
        met.unacknowledged_kept,
        met.failed_opens,
        met.segments,
    ];
    eprintln!("acknowledged, given back, torn, kept unacknowledged, failed opens, segments: {counts:?}");
    assert!(counts.iter().all(|count| *count > 100), "the schedules reach everything: {counts:?}");
}

/// A journal on a sound disk: groups of batches, all in one partition, in one segment.
fn sound(groups: &[Vec<usize>]) -> (FaultyDisk, Vec<Batch>) {
    let disk = FaultyDisk::new(0);
    let (mut writer, _) = start(Arc::new(disk.clone()), u64::MAX).unwrap();
    let mut batches = Vec::new();
    for group in groups {
        let appends = group.iter().map(|size| {
            let batch = Batch { count: 1, bytes: Bytes::from(vec![b'x'; *size]) };
            batches.push(batch.clone());
            Append { partition: PARTITIONS[0], batch, answer: oneshot::channel().0 }
        });
        writer.commit(appends.collect());
    }
    (disk, batches)
}

proptest! {
    /// A changed byte is noticed wherever it is: as damage, or, in the last group, as a torn tail. What is
    /// read after that is what was written, and misses nothing but batches of the last group.
    #[test]
    fn a_changed_byte_is_never_read(
        groups in prop::collection::vec(prop::collection::vec(0..200usize, 1..5), 1..6),
        at in any::<prop::sample::Index>(),
    ) {
        let (disk, batches) = sound(&groups);
        let last_group = batches.len() - groups[groups.len() - 1].len();
        let length = 32 + batches.iter().map(|batch| 48 + batch.bytes.len()).sum::<usize>();
        disk.damage(&segment::name(0), |bytes| bytes[at.index(length)] ^= 0x10);
        match start(Arc::new(disk), u64::MAX) {
            Err(OpenError::Corrupt { .. } | OpenError::Version { .. }) => {}
            Err(other) => panic!("{other}"),
            Ok((writer, recovered)) => {
                let TornTail { bytes_cut, .. } = recovered.torn_tail.expect("the change is noticed");
                prop_assert!(bytes_cut > 0);
                let found = &contents(writer.shared())[&PARTITIONS[0]];
                prop_assert!(batches.starts_with(found));
                prop_assert!((last_group..batches.len()).contains(&found.len()));
            }
        }
    }

    /// No bytes make the scan panic or take what is not a frame.
    #[test]
    fn any_bytes_are_refused_or_cut(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (disk, batches) = sound(&[vec![10], vec![20]]);
        disk.damage(&segment::name(0), |segment| segment.extend_from_slice(&bytes));
        let (writer, _) = start(Arc::new(disk), u64::MAX).unwrap();
        prop_assert!(contents(writer.shared())[&PARTITIONS[0]] == batches);
    }
}
