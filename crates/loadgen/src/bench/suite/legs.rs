//! What is measured in turn: legs, each of which is tried some times.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::time::Duration;

use super::canvass::{Credentials, Server};
use super::drive::{Answers, Driver};
use super::http::{LineStatuses, Statuses};
use super::report::{Row, Table};
use super::stage::Busy;
use super::votes::{Expected, MINIMAL, Requests, batches, single};
use super::{Fault, LOAD_CORE, SERVER_CORE, Suite};
use crate::bench::per_second;

/// Lines of one NDJSON request.
const LINES: u64 = 1_000;

/// What is measured, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// Votes or reads of one trial.
    pub votes: u64,
    /// Trials of each leg.
    pub rounds: u32,
    /// Only the legs of these names; all where none are named.
    pub only: Vec<String>,
}

/// One way to send requests to one server.
pub(crate) struct Leg {
    pub(crate) name: &'static str,
    /// How many connections there are, and how many requests each has under way at a time.
    pub(crate) connections: usize,
    pub(crate) depth: usize,
    /// Starts the server, sends the votes, checks what came of them, and ends the server.
    pub(crate) trial: fn(&Bench<'_>, &Leg) -> Result<Trial, Fault>,
}

/// What the trials of a table share.
pub(crate) struct Bench<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) credentials: Credentials,
    pub(crate) votes: u64,
    single: OnceCell<(Requests, Expected)>,
    minimal: OnceCell<(Requests, Expected)>,
    batches: OnceCell<(Requests, Expected)>,
}

/// What one trial came to.
pub(crate) struct Trial {
    pub(crate) votes_per_second: u64,
    /// How much the servers' and the load's core had to do meanwhile, in percent.
    busy: (u64, u64),
}

/// Watches both cores while a trial runs.
pub(crate) struct Watch(Busy, Busy);

impl Watch {
    pub(crate) fn start() -> Result<Self, Fault> {
        Ok(Watch(Busy::start(SERVER_CORE)?, Busy::start(LOAD_CORE)?))
    }

    pub(crate) fn stop(&self, votes: u64, elapsed: Duration) -> Result<Trial, Fault> {
        let busy = (self.0.percent()?, self.1.percent()?);
        Ok(Trial { votes_per_second: per_second(votes, elapsed), busy })
    }
}

impl Suite {
    /// Tries each leg in turn, as often as asked for: A B A B.
    pub(crate) fn in_turn(&self, table: &str, legs: &[Leg], options: &Options) -> Result<Table, Fault> {
        let wanted = |leg: &&Leg| options.only.is_empty() || options.only.iter().any(|one| one == leg.name);
        let legs: Vec<&Leg> = legs.iter().filter(wanted).collect();
        if legs.len() < options.only.len() || legs.is_empty() {
            return Err(Fault(format!("{} names a leg that there is not", options.only.join(" "))));
        }
        let bench = Bench {
            suite: self,
            credentials: self.credentials()?,
            votes: options.votes,
            single: OnceCell::new(),
            minimal: OnceCell::new(),
            batches: OnceCell::new(),
        };
        let mut trials: Vec<Vec<Trial>> = legs.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (leg, trials) in legs.iter().zip(&mut trials) {
                let trial = (leg.trial)(&bench, leg);
                trials.push(trial.map_err(|fault| Fault(format!("{}: {fault}", leg.name)))?);
            }
        }
        Ok(Table::new(table, legs.iter().zip(trials).map(|(leg, trials)| row(leg.name, &trials)).collect()))
    }
}

/// The trials of a leg; the note is that of its busiest one.
fn row(name: &str, trials: &[Trial]) -> Row {
    let most = |f: fn(&Trial) -> u64| trials.iter().map(f).max().unwrap_or(0);
    let note = format!("server's core {} % busy, load's {} %", most(|t| t.busy.0), most(|t| t.busy.1));
    Row::new(name, "votes/s", trials.iter().map(|t| t.votes_per_second).collect(), note)
}

impl Bench<'_> {
    /// Votes one a request, signed once for all trials.
    pub(crate) fn single(&self) -> &(Requests, Expected) {
        self.single.get_or_init(|| single(0..self.votes, &*self.credentials.signer, ""))
    }

    /// The same votes, by those who want no promises.
    fn minimal(&self) -> &(Requests, Expected) {
        self.minimal.get_or_init(|| single(0..self.votes, &*self.credentials.signer, MINIMAL))
    }

    /// The same votes as batches.
    fn batches(&self) -> &(Requests, Expected) {
        self.batches.get_or_init(|| batches(0..self.votes, LINES, &self.credentials.key))
    }
}

/// Canvass, one vote a request.
pub(crate) fn canvass(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    counts(bench, leg, bench.single(), Statuses::default())
}

/// Canvass, one vote a request, without promises in the answers.
pub(crate) fn canvass_minimal(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    counts(bench, leg, bench.minimal(), Statuses::default())
}

/// Canvass, NDJSON.
pub(crate) fn canvass_ndjson(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    counts(bench, leg, bench.batches(), LineStatuses::default())
}

/// Canvass, one vote a request, with parts of the proof.
pub(crate) fn canvass_with(bench: &Bench<'_>, leg: &Leg, proof: &str) -> Result<Trial, Fault> {
    let server = bench.suite.canvass_with_proof(&bench.credentials, leg.name, proof)?;
    counts_on(bench, leg, server, bench.single(), Statuses::default())
}

/// Canvass, NDJSON, with parts of the proof.
pub(crate) fn ndjson_with(bench: &Bench<'_>, leg: &Leg, proof: &str) -> Result<Trial, Fault> {
    let server = bench.suite.canvass_with_proof(&bench.credentials, leg.name, proof)?;
    counts_on(bench, leg, server, bench.batches(), LineStatuses::default())
}

fn counts<A: Answers + AsRef<Statuses>>(
    bench: &Bench<'_>,
    leg: &Leg,
    sent: &(Requests, Expected),
    answers: A,
) -> Result<Trial, Fault> {
    let server = bench.suite.canvass(&bench.credentials, leg.name)?;
    counts_on(bench, leg, server, sent, answers)
}

fn counts_on<A: Answers + AsRef<Statuses>>(
    bench: &Bench<'_>,
    leg: &Leg,
    server: Server,
    (requests, expected): &(Requests, Expected),
    answers: A,
) -> Result<Trial, Fault> {
    announce(leg, server.pid);
    let (trial, answers) = drive(server.address, leg, requests, expected, answers)?;
    answers.as_ref().check(&[(200, expected.again), (201, expected.new)])?;
    bench.suite.check_totals(&server, expected.totals)?;
    bench.suite.remove(&server)?;
    Ok(trial)
}

/// Sends all requests and waits for their answers, while the clock runs.
pub(crate) fn drive<A: Answers>(
    address: SocketAddr,
    leg: &Leg,
    requests: &Requests,
    expected: &Expected,
    answers: A,
) -> Result<(Trial, A), Fault> {
    let mut driver = Driver::connect(address, leg.connections, requests, answers)?;
    let watch = Watch::start()?;
    let elapsed = driver.closed(leg.depth)?;
    Ok((watch.stop(expected.new + expected.again, elapsed)?, driver.answers))
}

/// Tells which process to look at.
pub(crate) fn announce(leg: &Leg, pid: u32) {
    eprintln!("{}: process {pid}", leg.name);
}
