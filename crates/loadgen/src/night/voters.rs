//! An audience that votes live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::batch;
use crate::client::{Client, Error};
use crate::pace::Stop;

/// How often voters come.
const EVERY: Duration = Duration::from_millis(200);
/// Of 100 voters, how many press twice, and how many try to vote again for another selection.
const RETRY_PERCENT: u8 = 5;
const DOUBLE_PERCENT: u8 = 3;
/// Seconds in which the audience's mood goes once round.
const MOOD_SECONDS: f64 = 90.0;
/// Most voters that come at once, however long the last request took.
const MOST_AT_ONCE: u64 = 5_000;

/// Simulated voters of a contest that anyone may vote in.
#[derive(Debug, Clone)]
pub struct Voters {
    /// Text id of the contest.
    pub contest: String,
    /// Text ids of its selections.
    pub selections: Vec<String>,
    /// Voters in a second; may be changed while they vote.
    pub rate: Arc<AtomicU32>,
    /// Chooses who votes what.
    pub seed: u64,
    /// Begins each voter's name: another run has other voters.
    pub run: String,
}

/// What the voters did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VotersReport {
    /// Voters whose vote was recorded.
    pub voters: u64,
    /// Votes that were sent again with the same key.
    pub retries: u64,
    /// Votes of voters who had voted.
    pub doubles: u64,
    /// Votes that were refused for another reason.
    pub refused: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    contest: &'a str,
    selections: [&'a str; 1],
    voter: String,
    key: String,
}

impl Voters {
    /// Lets voters vote until it is told to stop, or the contest is closed; then every vote is refused.
    pub async fn run(&self, client: &Client, stop: &Stop) -> Result<VotersReport, Error> {
        let mut report = VotersReport::default();
        stop.or(self.vote(client, &mut report)).await.unwrap_or(Ok(()))?;
        Ok(report)
    }

    async fn vote(&self, client: &Client, report: &mut VotersReport) -> Result<(), Error> {
        if self.selections.is_empty() {
            return Err(Error::Mismatch(format!("contest `{}` has no selections", self.contest)));
        }
        let mut rng = StdRng::seed_from_u64(self.seed);
        let (started, mut last) = (Instant::now(), Instant::now());
        // Voters that are due, in thousandths.
        let (mut due, mut next) = (0u64, 0u64);
        loop {
            tokio::time::sleep(EVERY).await;
            let passed = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
            last = Instant::now();
            let rate = u64::from(self.rate.load(Ordering::Relaxed));
            due = due.saturating_add(passed.saturating_mul(rate)).min(MOST_AT_ONCE * 1_000);
            let voters = next..next + due / 1_000;
            (due, next) = (due % 1_000, voters.end);
            if !voters.is_empty() {
                self.send(client, voters, &mut rng, started.elapsed(), report).await?;
            }
        }
    }

    async fn send(
        &self,
        client: &Client,
        voters: std::ops::Range<u64>,
        rng: &mut StdRng,
        at: Duration,
        report: &mut VotersReport,
    ) -> Result<(), Error> {
        let moods = moods(self.selections.len(), at);
        let mut lines = Vec::new();
        for i in voters {
            let choice = choose(rng, &moods);
            let mut push = |choice: usize, which: char| {
                let voter = format!("{}-{i}", self.run);
                let selections = [self.selections[choice].as_str()];
                lines.push(Line {
                    contest: &self.contest,
                    selections,
                    key: format!("{voter}-{which}"),
                    voter,
                });
            };
            push(choice, 'a');
            if rng.random_range(0..100) < RETRY_PERCENT {
                push(choice, 'a');
                report.retries += 1;
            }
            if rng.random_range(0..100) < DOUBLE_PERCENT {
                push(choose(rng, &moods), 'b');
            }
        }
        for (line, answer) in
            lines.iter().zip(batch::send(client, "/api/v1/votes", &batch::lines(&lines)).await?)
        {
            match (answer.status, answer.problem.map(|p| p.code).as_deref()) {
                (201, _) => report.voters += 1,
                (200, _) => {}
                (_, Some("already-voted")) if line.key.ends_with('b') => report.doubles += 1,
                _ => report.refused += 1,
            }
        }
        Ok(())
    }
}

/// How much the audience likes each selection at the moment; the mood goes round.
fn moods(selections: usize, at: Duration) -> Vec<f64> {
    let turn = std::f64::consts::TAU * at.as_secs_f64() / MOOD_SECONDS;
    let of = |i: u32| 1.0 + 0.75 * (turn + f64::from(i) * 2.4).sin() + 0.3 / f64::from(i + 1);
    (0u32..).take(selections).map(of).collect()
}

fn choose(rng: &mut StdRng, moods: &[f64]) -> usize {
    let mut left = rng.random::<f64>() * moods.iter().sum::<f64>();
    let passed = moods.iter().take_while(|mood| {
        left -= **mood;
        left > 0.0
    });
    passed.count().min(moods.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_selection_is_chosen_and_moods_change() {
        let mut rng = StdRng::seed_from_u64(5);
        let moods_now = moods(4, Duration::ZERO);
        assert!(moods_now.iter().all(|mood| *mood > 0.0));
        assert_ne!(moods_now, moods(4, Duration::from_secs(20)));
        let mut seen = [0; 4];
        (0..1_000).for_each(|_| seen[choose(&mut rng, &moods_now)] += 1);
        assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    }
}
