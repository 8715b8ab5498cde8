//! The fold alone, in this process: decode and apply, with many voters known already.

use std::fmt;
use std::time::{Duration, Instant};

use canvass_election::definition::{
    Contest, ContestKind, Counting, Eligibility, Partitions, Parts, Selection, Unit, VotePolicy, Voting,
};
use canvass_election::event::{Event, Vote};
use canvass_election::ids::{
    ContestId, Nullifier, Offset, PartitionId, RequestId, SelectionId, Timestamp, UnitId,
};
use canvass_election::tally::Outcome;
use canvass_election::{Definition, Tally};
use canvass_protocol::record::{BatchBuilder, BatchReader, Drafts};
use serde::Serialize;

use super::{millis, per_second};
use crate::client::Error;

/// Votes of one batch, as a busy gateway makes them.
const BATCH: u64 = 1_000;
const SELECTIONS: u16 = 4;

/// What to fold.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Voters that are known before the clock starts.
    pub known: u64,
    /// Voters that vote while it runs.
    pub votes: u64,
    /// Partitions, folded in turn by one thread.
    pub partitions: u16,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Voters known at the start.
    pub known: u64,
    /// Votes folded while the clock ran.
    pub votes: u64,
    /// Time they took.
    pub elapsed_ms: u64,
    /// Votes a second, on one thread.
    pub votes_per_second: u64,
    /// Bytes of memory a known voter takes, in tenths.
    pub tenths_of_bytes_a_voter: u64,
    /// What differs from what was expected.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.tenths_of_bytes_a_voter;
        writeln!(f, "known        {} voters, {}.{} bytes each", self.known, bytes / 10, bytes % 10)?;
        writeln!(f, "votes        {} in {} ms", self.votes, self.elapsed_ms)?;
        writeln!(f, "votes/s      {} on one thread", self.votes_per_second)?;
        super::write_differences(f, &self.differences)
    }
}

fn definition() -> Definition {
    let selection = |i: u16| Selection { id: format!("s{i}"), name: format!("Selection {i}"), party: None };
    let voting =
        Voting { opens: None, closes: None, policy: VotePolicy::One, eligibility: Eligibility::Open };
    let contest = Contest {
        id: "poll".to_owned(),
        name: "Poll".to_owned(),
        kind: ContestKind::AudiencePoll,
        unit: UnitId(0),
        selections: (0..SELECTIONS).map(selection).collect(),
        counting: Counting::Votes(voting),
        baseline: None,
    };
    let (id, name, kind) = ("hall".to_owned(), "Hall".to_owned(), "hall".to_owned());
    Definition::from(Parts {
        id: "bench".to_owned(),
        name: "Bench".to_owned(),
        is_test: true,
        partitions: Partitions::default(),
        parties: Vec::new(),
        units: vec![Unit { id, name, kind, parent: None, registered: None }],
        contests: vec![contest],
    })
}

/// Well spread bits of a number (the finaliser of SplitMix64), in place of a keyed hash.
pub(crate) fn spread(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn pseudonym(n: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&spread(n.wrapping_add(1)).to_le_bytes());
    bytes[8..].copy_from_slice(&spread(!n).to_le_bytes());
    bytes
}

fn choice(voter: u64) -> SelectionId {
    SelectionId(u16::try_from(spread(voter) % u64::from(SELECTIONS)).unwrap_or(0))
}

fn draft(voter: u64) -> Drafts {
    let nullifier = Nullifier(pseudonym(voter));
    let vote = Vote { contest: ContestId(0), nullifier, choices: [choice(voter)].into_iter().collect() };
    Drafts::one(RequestId(pseudonym(voter ^ (1 << 63))), &Event::VoteCast(vote))
}

/// Tallies that are filled.
pub(crate) struct Bench {
    tallies: Vec<Tally>,
    /// Votes that did not count.
    lost: u64,
}

impl Bench {
    pub(crate) fn new(partitions: u16) -> Self {
        let event = Event::ElectionDefined(definition());
        let tallies = (0..partitions).map(|i| {
            let mut tally = Tally::new(PartitionId::votes(i));
            let mut builder = BatchBuilder::new(0, Timestamp(0));
            builder.push(&Drafts::one(RequestId([0; 16]), &event));
            fold(&mut tally, &builder.finish().1);
            tally
        });
        Bench { tallies: tallies.collect(), lost: 0 }
    }

    /// Folds one batch of these voters, and tells how long that took without making the batch.
    fn batch(&mut self, turn: usize, voters: std::ops::Range<u64>) -> Duration {
        let mut builder = BatchBuilder::new(0, Timestamp(1));
        voters.clone().for_each(|voter| builder.push(&draft(voter)));
        let bytes = builder.finish().1;
        let turn = turn % self.tallies.len();
        let tally = &mut self.tallies[turn];
        let started = Instant::now();
        let counted = fold(tally, &bytes);
        let elapsed = started.elapsed();
        self.lost += (voters.end - voters.start) - counted;
        elapsed
    }

    /// Lets these voters vote, and tells how long the fold took.
    pub(crate) fn voters(&mut self, voters: std::ops::Range<u64>) -> Duration {
        let mut elapsed = Duration::ZERO;
        let starts = voters.clone().step_by(usize::try_from(BATCH).unwrap_or(1));
        for (turn, start) in starts.enumerate() {
            elapsed += self.batch(turn, start..(start + BATCH).min(voters.end));
        }
        elapsed
    }

    /// Bytes of memory that a known voter takes, in tenths.
    pub(crate) fn tenths_of_bytes_a_voter(&self) -> u64 {
        let (bytes, voters) = self
            .tallies
            .iter()
            .fold((0, 0), |(bytes, voters), tally| (bytes + tally.voters_bytes(), voters + tally.voters()));
        u64::try_from((bytes * 10).checked_div(voters).unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// Whether so many voters are known, and every vote has counted.
    pub(crate) fn check(&self, voters: u64) -> Result<(), String> {
        let known: usize = self.tallies.iter().map(Tally::voters).sum();
        if self.lost > 0 || u64::try_from(known) != Ok(voters) {
            return Err(format!("{known} voters of {voters} are known, {} were lost", self.lost));
        }
        Ok(())
    }
}

fn fold(tally: &mut Tally, bytes: &[u8]) -> u64 {
    let (partition, offset): (_, Offset) = (tally.partition(), tally.end());
    let Ok(reader) = BatchReader::new(bytes) else { return 0 };
    let outcomes = reader.records(partition, offset).filter_map(Result::ok).map(|r| tally.apply(&r));
    u64::try_from(outcomes.filter(|o| matches!(o, Outcome::Counted(_))).count()).unwrap_or(0)
}

/// Makes the voters known, then folds the votes while the clock runs.
pub fn run(options: &Options) -> Result<Report, Error> {
    let Options { known, votes, partitions } = *options;
    if partitions == 0 || votes == 0 {
        return Err(Error::Mismatch("a fold needs at least one partition and one vote".to_owned()));
    }
    let mut bench = Bench::new(partitions);
    bench.voters(0..known);
    let tenths_of_bytes_a_voter = bench.tenths_of_bytes_a_voter();
    let elapsed = bench.voters(known..known + votes);
    Ok(Report {
        known,
        votes,
        elapsed_ms: millis(elapsed),
        votes_per_second: per_second(votes, elapsed),
        tenths_of_bytes_a_voter,
        differences: bench.check(known + votes).err().into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vote_of_the_bench_counts() {
        let report = run(&Options { known: 10_500, votes: 2_500, partitions: 3 }).unwrap();
        assert_eq!(report.differences, Vec::<String>::new());
        assert!(report.votes_per_second > 0 && report.tenths_of_bytes_a_voter > 310);
    }
}
