//! `canvass bench suite`: the tables of docs/BENCHMARKS.md.

use std::sync::Arc;

use canvass_loadgen::bench::suite::{
    self, Fault, FoldOptions, LegOptions, Setup, Stage, StreamOptions, Suite, Table, TimeOptions,
};
use clap::{Args, Subcommand};
use tokio::sync::oneshot;

use crate::serve::asked_to_stop;
use crate::{Outcome, say, tools};

#[derive(Subcommand)]
pub(crate) enum SuiteCommand {
    /// One vote a request and NDJSON batches, against a server that only answers
    Ingest(LegArgs),
    /// One vote a request and batches, against Redis, PostgreSQL and MariaDB where they are installed
    Peers(LegArgs),
    /// Results as JSON and as a page, against nginx, which serves the same bytes as files
    Read(LegArgs),
    /// Many clients that follow a contest by WebSocket and SSE, against nginx with nchan
    Stream(StreamArgs),
    /// What checkpoints and promises cost the ingest, and how fast a tree takes leaves
    Proof(LegArgs),
    /// The fold with up to 100 million voters known, and starts on a log of many votes
    Fold(FoldArgs),
    /// From a vote to its confirmation and to a screen, at 50 and 80 percent of the reached rate
    Latency(TimeArgs),
    /// Twice the reached rate
    Overload(TimeArgs),
    /// The server that only answers
    #[command(hide = true)]
    Bare,
}

#[derive(Args)]
pub(crate) struct LegArgs {
    /// Votes or reads of one trial
    #[arg(long, default_value_t = 1_000_000)]
    votes: u64,
    /// Trials of each leg
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure this leg only, for a profile of it; may be given several times
    #[arg(long, value_name = "LEG")]
    only: Vec<String>,
}

#[derive(Args)]
pub(crate) struct FoldArgs {
    /// Votes in the log that is recovered
    #[arg(long, default_value_t = 20_000_000)]
    votes: u64,
    /// Trials of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(Args)]
pub(crate) struct StreamArgs {
    /// Clients
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Publications of one trial, one a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Trials of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(Args)]
pub(crate) struct TimeArgs {
    /// Seconds of one trial, whose requests are all made before it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// Trials of each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

impl From<TimeArgs> for TimeOptions {
    fn from(TimeArgs { seconds, rounds }: TimeArgs) -> Self {
        TimeOptions { seconds, rounds }
    }
}

impl From<LegArgs> for LegOptions {
    fn from(LegArgs { votes, rounds, only }: LegArgs) -> Self {
        LegOptions { votes, rounds, only }
    }
}

fn table(command: SuiteCommand, stage: &Arc<Stage>) -> Result<Table, Fault> {
    let setup = Setup { binary: std::env::current_exe()?, signer: tools::signer };
    let suite = Suite::new(Arc::clone(stage), setup)?;
    match command {
        SuiteCommand::Ingest(args) => suite.ingest(&args.into()),
        SuiteCommand::Peers(args) => suite.peers(&args.into()),
        SuiteCommand::Read(args) => suite.read(&args.into()),
        SuiteCommand::Proof(args) => suite.proof(&args.into()),
        SuiteCommand::Stream(StreamArgs { clients, seconds, rounds }) => {
            suite.stream(&StreamOptions { clients, seconds, rounds })
        }
        SuiteCommand::Fold(FoldArgs { votes, rounds }) => suite.fold(&FoldOptions { votes, rounds }),
        SuiteCommand::Latency(args) => suite.latency(&args.into()),
        SuiteCommand::Overload(args) => suite.overload(&args.into()),
        SuiteCommand::Bare => Err(Fault("this is a server, not a table".to_owned())),
    }
}

/// Runs something that starts runtimes and blocks for minutes on a thread of its own, which ends with the process.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || done.send(work()));
    tokio::select! {
        result = result => result.map_err(|_| "the bench panicked".to_owned())?.map_err(|e| e.to_string()),
        () = asked_to_stop()? => Err("the bench was stopped".to_owned()),
    }
}

/// Makes a table. What it started is gone when this returns, also where it failed or was asked to stop.
pub(crate) async fn run(command: SuiteCommand) -> Outcome {
    if matches!(command, SuiteCommand::Bare) {
        let listening = |address| say(format_args!("listening on http://{address}"));
        return aside(move || suite::serve_bare(listening)).await;
    }
    let stage = Arc::new(Stage::new().map_err(|e| e.to_string())?);
    let for_table = Arc::clone(&stage);
    let result = aside(move || table(command, &for_table)).await;
    stage.clear();
    tools::show(&result?, &[])
}
