//! Casts votes as fast as the server takes them, and knows to the last vote what must have been counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use canvass_election::definition::VotePolicy;
use canvass_protocol::api::Receipt;
use canvass_protocol::definition::from_value;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Differences, Latency, Meter, millis, per_second, write_differences};
use crate::batch::{self, LineAnswer};
use crate::client::{Client, Error, Request};

/// After the last acknowledgement, the published totals must be complete within this.
const SETTLE: Duration = Duration::from_secs(20);
const SETTLE_STEP: Duration = Duration::from_millis(100);

/// Signs a token for the voter of this name.
pub type Signer = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What to cast, and how.
#[derive(Clone)]
pub struct Options {
    /// Text id of a contest that counts votes, with policy `one`.
    pub contest: String,
    /// How many voters vote.
    pub voters: u64,
    /// Percent of the voters whose vote is sent twice with the same key: half of them at once, half later.
    pub retry_percent: u8,
    /// Percent of the voters who vote again with another key.
    pub double_percent: u8,
    /// Connections, each of which carries one request at a time.
    pub connections: usize,
    /// Most votes that are sent and not answered yet.
    pub in_flight: usize,
    /// Votes in one request; 1 sends each by itself.
    pub batch: usize,
    /// Chooses who votes what, who retries and who votes twice.
    pub seed: u64,
    /// Begins each voter's name: another run has other voters.
    pub run: String,
    /// Signs voters' tokens, where the contest wants them.
    pub signer: Option<Signer>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Voters, each of whom must be counted once.
    pub voters: u64,
    /// Votes that were sent again with the same key.
    pub retries: u64,
    /// Votes of voters who had voted, each of which must be refused.
    pub doubles: u64,
    /// From the first request to the last answer.
    pub elapsed_ms: u64,
    /// Voters acknowledged in a second.
    pub votes_per_second: u64,
    /// Answers in a second, with those to retries and second votes.
    pub answers_per_second: u64,
    /// Time from request to answer of each vote, pauses of the server included.
    pub latency: Latency,
    /// What differs from what was expected.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "voters       {} in {} ms", self.voters, self.elapsed_ms)?;
        writeln!(f, "votes/s      {} ({} answers/s)", self.votes_per_second, self.answers_per_second)?;
        writeln!(f, "retries      {}, second votes {}", self.retries, self.doubles)?;
        writeln!(f, "latency      {}", self.latency)?;
        write_differences(f, &self.differences)
    }
}

/// What one voter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    choice: usize,
    retry: Retry,
    /// The choice of a second vote.
    double: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    No,
    /// Together with the first.
    AtOnce,
    /// After the first was answered.
    Later,
}

impl Options {
    /// The plan of voter `i`, which follows from the seed alone.
    fn plan(&self, i: u64, selections: usize) -> Plan {
        let mut rng = StdRng::seed_from_u64(self.seed.rotate_left(32) ^ i);
        // The lesser of two draws: selections get different shares, the first the most.
        let choice = rng.random_range(0..selections).min(rng.random_range(0..selections));
        let retry = match (rng.random_range(0..100) < self.retry_percent, rng.random()) {
            (false, _) => Retry::No,
            (true, false) => Retry::AtOnce,
            (true, true) => Retry::Later,
        };
        let doubles = rng.random_range(0..100) < self.double_percent;
        Plan { choice, retry, double: doubles.then(|| rng.random_range(0..selections)) }
    }
}

/// A vote as it is sent.
#[derive(Serialize)]
struct Line<'a> {
    contest: &'a str,
    selections: [&'a str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    voter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

/// One vote of one voter.
struct Vote {
    voter: String,
    key: String,
    choice: usize,
    token: Option<String>,
}

struct Bench {
    client: Client,
    options: Options,
    selections: Vec<String>,
    next: AtomicU64,
    in_flight: Semaphore,
    counted: Vec<AtomicU64>,
    retries: AtomicU64,
    doubles: AtomicU64,
    meter: Meter,
    differences: Differences,
    bar: ProgressBar,
}

/// Casts the votes and checks every answer and the totals at the end.
pub async fn run(client: &Client, options: &Options) -> Result<Report, Error> {
    let selections = selections(client, options).await?;
    let before = totals(client, &options.contest, &selections).await?;
    let batch = options.batch.clamp(1, batch::MAX_LINES);
    let bench = Arc::new(Bench {
        client: client.clone(),
        options: Options { batch, ..options.clone() },
        next: AtomicU64::new(0),
        in_flight: Semaphore::new(options.in_flight.clamp(batch, Semaphore::MAX_PERMITS)),
        counted: selections.iter().map(|_| AtomicU64::new(0)).collect(),
        selections,
        retries: AtomicU64::new(0),
        doubles: AtomicU64::new(0),
        meter: Meter::new(),
        differences: Differences::default(),
        bar: ProgressBar::new(options.voters),
    });
    let started = Instant::now();
    let workers: Vec<_> =
        (0..options.connections.max(1)).map(|_| tokio::spawn(Arc::clone(&bench).work())).collect();
    for worker in workers {
        worker.await.map_err(|e| Error::Mismatch(format!("a worker ended: {e}")))??;
    }
    let elapsed = started.elapsed();
    bench.bar.finish_and_clear();
    bench.check_totals(&before).await?;
    let (retries, doubles) = (bench.retries.load(Ordering::Relaxed), bench.doubles.load(Ordering::Relaxed));
    Ok(Report {
        voters: options.voters,
        retries,
        doubles,
        elapsed_ms: millis(elapsed),
        votes_per_second: per_second(options.voters, elapsed),
        answers_per_second: per_second(options.voters + retries + doubles, elapsed),
        latency: bench.meter.latency(),
        differences: bench.differences.list(),
    })
}

/// The text ids of the contest's selections, if the contest is one whose count can be foretold.
async fn selections(client: &Client, options: &Options) -> Result<Vec<String>, Error> {
    let served: Value = client.get("/api/v1/election").await?;
    let definition = from_value(&served).map_err(|faults| Error::Answer {
        what: "GET /api/v1/election".to_owned(),
        fault: faults.first().map(ToString::to_string).unwrap_or_default(),
    })?;
    let contest = definition.contest_by_id(&options.contest).and_then(|id| definition.contest(id));
    let name = &options.contest;
    let contest = contest.ok_or_else(|| Error::Mismatch(format!("the election has no contest `{name}`")))?;
    match contest.voting() {
        Some(voting) if voting.policy == VotePolicy::One => {
            Ok(contest.selections.iter().map(|s| s.id.clone()).collect())
        }
        _ => Err(Error::Mismatch(format!("contest `{name}` must count `votes`, with policy `one`"))),
    }
}

/// The published votes of each selection.
async fn totals(client: &Client, contest: &str, selections: &[String]) -> Result<Vec<u64>, Error> {
    let path = format!("/api/v1/results?contest={contest}&by=total");
    let document: Value = client.get(&path).await?;
    let votes = selections.iter().map(|id| document["selections"][id]["votes"].as_u64());
    votes.collect::<Option<Vec<u64>>>().ok_or_else(|| Error::Answer {
        what: format!("GET {path}"),
        fault: "it does not name the votes of every selection".to_owned(),
    })
}

impl Bench {
    async fn work(self: Arc<Self>) -> Result<(), Error> {
        let batch = u64::try_from(self.options.batch).unwrap_or(u64::MAX);
        loop {
            let first = self.next.fetch_add(batch, Ordering::Relaxed);
            if first >= self.options.voters {
                return Ok(());
            }
            let last = first.saturating_add(batch).min(self.options.voters);
            let permits = u32::try_from(last - first).unwrap_or(u32::MAX);
            // It is never closed, so there always is a permit.
            let _permit = self.in_flight.acquire_many(permits).await;
            self.chunk(first..last).await?;
            self.bar.inc(last - first);
        }
    }

    /// Some voters vote; then those of them who do so try again.
    async fn chunk(&self, voters: std::ops::Range<u64>) -> Result<(), Error> {
        let plans: Vec<Plan> = voters.clone().map(|i| self.options.plan(i, self.selections.len())).collect();
        let mut votes = Vec::new();
        for (i, plan) in voters.clone().zip(&plans) {
            votes.push(self.vote(i, "a", plan.choice));
            if plan.retry == Retry::AtOnce {
                votes.push(self.vote(i, "a", plan.choice));
            }
        }
        let mut answers = self.send(&votes).await?.into_iter();
        let mut later = Vec::new();
        let mut expected: Vec<(u64, Option<Receipt>, bool)> = Vec::new();
        for (i, plan) in voters.zip(&plans) {
            let receipt = self.check_first(i, answers.next());
            self.counted[plan.choice].fetch_add(1, Ordering::Relaxed);
            if plan.retry == Retry::AtOnce {
                self.check_retry(i, receipt.as_ref(), answers.next());
            }
            if plan.retry == Retry::Later {
                later.push(self.vote(i, "a", plan.choice));
                expected.push((i, receipt.clone(), true));
            }
            if let Some(choice) = plan.double {
                later.push(self.vote(i, "b", choice));
                expected.push((i, receipt, false));
            }
        }
        let answers = self.send(&later).await?;
        for ((i, receipt, is_retry), answer) in expected.into_iter().zip(answers) {
            if is_retry {
                self.check_retry(i, receipt.as_ref(), Some(answer));
            } else {
                self.check_double(i, receipt.as_ref(), &answer);
            }
        }
        Ok(())
    }

    fn vote(&self, i: u64, which: &str, choice: usize) -> Vote {
        let voter = format!("{}-{i}", self.options.run);
        let key = format!("{voter}-{which}");
        let token = self.options.signer.as_ref().map(|sign| sign(&voter));
        Vote { voter, key, choice, token }
    }

    fn line<'a>(&'a self, vote: &'a Vote, in_batch: bool) -> Line<'a> {
        Line {
            contest: &self.options.contest,
            selections: [&self.selections[vote.choice]],
            voter: vote.token.is_none().then_some(&vote.voter),
            token: vote.token.as_deref().filter(|_| in_batch),
            key: in_batch.then_some(&vote.key),
        }
    }

    async fn send(&self, votes: &[Vote]) -> Result<Vec<LineAnswer>, Error> {
        if votes.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let answers = if self.options.batch > 1 {
            let lines: Vec<Line<'_>> = votes.iter().map(|vote| self.line(vote, true)).collect();
            batch::send(&self.client, "/api/v1/votes", &batch::lines(&lines)).await?
        } else {
            futures_util::future::try_join_all(votes.iter().map(|vote| self.send_one(vote))).await?
        };
        self.meter.record(started.elapsed(), u64::try_from(votes.len()).unwrap_or(u64::MAX));
        Ok(answers)
    }

    async fn send_one(&self, vote: &Vote) -> Result<LineAnswer, Error> {
        let request = Request::post("/api/v1/vote", &vote.key, &self.line(vote, false));
        let answer = self.client.send(&request.bearer(vote.token.clone())).await?;
        let mut said = LineAnswer::of_status(answer.status);
        if answer.good().is_ok() {
            let accepted: canvass_protocol::api::Accepted = answer.json()?;
            (said.receipt, said.outcome) = (Some(accepted.receipt), Some(accepted.outcome));
        } else {
            said.problem = Some(answer.problem());
        }
        Ok(said)
    }

    fn check_first(&self, i: u64, answer: Option<LineAnswer>) -> Option<Receipt> {
        match answer?.accepted(|| format!("voter {i}")) {
            Ok(accepted) => Some(accepted.receipt),
            Err(refused) => {
                self.differences.add(|| refused.to_string());
                None
            }
        }
    }

    fn check_retry(&self, i: u64, first: Option<&Receipt>, answer: Option<LineAnswer>) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let again = self.check_first(i, answer);
        if again.as_ref() != first {
            self.differences.add(|| format!("voter {i}: first {first:?}, then {again:?} for the same key"));
        }
    }

    fn check_double(&self, i: u64, first: Option<&Receipt>, answer: &LineAnswer) {
        self.doubles.fetch_add(1, Ordering::Relaxed);
        let problem = answer.problem.clone().unwrap_or_default();
        let first = first.map(|receipt| receipt.record.to_string());
        if answer.status != 409 || problem.code != "already-voted" || problem.record != first {
            let status = answer.status;
            self.differences.add(|| {
                format!(
                    "voter {i} voted twice: {status} {problem} naming {:?}, not {first:?}",
                    problem.record
                )
            });
        }
    }

    /// Waits until the published totals are what they must be, or too long.
    async fn check_totals(&self, before: &[u64]) -> Result<(), Error> {
        let counted = self.counted.iter().map(|n| n.load(Ordering::Relaxed));
        let expected: Vec<u64> =
            before.iter().zip(counted).map(|(before, counted)| before + counted).collect();
        let since = Instant::now();
        loop {
            let found = totals(&self.client, &self.options.contest, &self.selections).await?;
            if found == expected {
                return Ok(());
            }
            if since.elapsed() > SETTLE {
                for ((id, found), expected) in self.selections.iter().zip(found).zip(expected) {
                    if found != expected {
                        self.differences
                            .add(|| format!("{id}: {found} votes are counted, {expected} were cast"));
                    }
                }
                return Ok(());
            }
            tokio::time::sleep(SETTLE_STEP).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_follow_from_the_seed_and_have_the_shares_asked_for() {
        let options = Options {
            contest: "song".into(),
            voters: 10_000,
            retry_percent: 10,
            double_percent: 5,
            connections: 1,
            in_flight: 1,
            batch: 1,
            seed: 7,
            run: "r".into(),
            signer: None,
        };
        let plans: Vec<Plan> = (0..options.voters).map(|i| options.plan(i, 4)).collect();
        assert_eq!(plans[17], options.plan(17, 4));
        let count = |f: fn(&Plan) -> bool| plans.iter().filter(|p| f(p)).count();
        assert!((800..1_200).contains(&count(|p| p.retry != Retry::No)));
        assert!((400..600).contains(&count(|p| p.retry == Retry::AtOnce)));
        assert!((400..600).contains(&count(|p| p.double.is_some())));
        assert!(count(|p| p.choice == 0) > count(|p| p.choice == 3) && count(|p| p.choice == 3) > 0);
        let other = Options { seed: 8, ..options };
        assert!((0..100).any(|i| other.plan(i, 4) != plans[usize::try_from(i).unwrap()]));
    }
}
