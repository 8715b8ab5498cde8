//! `canvass replay` and `canvass bench`: clients of a running server.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use canvass_http::auth;
use canvass_loadgen::bench::{fold, ingest, read, stream};
use canvass_loadgen::{Client, Pace, replay};
use canvass_protocol::definition;
use canvass_protocol::interchange::nc;
use clap::{Args, Subcommand};
use flate2::read::MultiGzDecoder;

use crate::keys::Folder;
use crate::{Outcome, say};

/// How long a bench's tokens are good for.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The server
    #[arg(
        long,
        visible_alias = "url",
        env = "CANVASS_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
}

impl ServerArgs {
    pub(crate) fn url(&self) -> &str {
        &self.server
    }

    fn client(&self) -> Result<Client, String> {
        Client::new(&self.server).map_err(|e| e.to_string())
    }
}

#[derive(Subcommand)]
pub(crate) enum ReplayCommand {
    /// The night of 2020-11-03 in North Carolina, as the state's precinct feed showed it (CSV, plain or gzipped)
    NcPrecincts(ReplayArgs),
}

#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// The feed
    file: PathBuf,
    /// Write the feed's election to this file, for `canvass serve --election`, and send nothing
    #[arg(long, value_name = "OUT")]
    define: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// A file that holds an API key with the roles source and desk
    #[arg(long, env = "CANVASS_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How many times faster than the night was, or `max`
    #[arg(long, default_value = "600")]
    speed: Pace,
}

/// Opens a file, and unpacks it where its first bytes are those of gzip.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, String> {
    let fault = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let mut magic = [0; 2];
    let packed =
        File::open(path).map_err(fault)?.read(&mut magic).map_err(fault)? == 2 && magic == [0x1f, 0x8b];
    let file = BufReader::new(File::open(path).map_err(fault)?);
    Ok(if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

pub(crate) async fn replay(command: ReplayCommand) -> Outcome {
    let ReplayCommand::NcPrecincts(args) = command;
    let feed = nc::read(open(&args.file)?).map_err(|e| format!("{}: {e}", args.file.display()))?;
    if let Some(out) = &args.define {
        let value = definition::to_value(&feed.definition);
        let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
        return std::fs::write(out, text).map_err(|e| format!("{} cannot be written: {e}", out.display()));
    }
    let key_file =
        args.key_file.ok_or("a replay needs --key-file with a key of the roles source and desk")?;
    let key = std::fs::read_to_string(&key_file);
    let key = key.map_err(|e| format!("{} cannot be read: {e}", key_file.display()))?;
    let client = args.server.client()?.bearer(&key);
    let progress = if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
        replay::Progress::Bar
    } else {
        replay::Progress::Lines(Box::new(std::io::stdout()))
    };
    let summary = replay::run(&client, &feed, args.speed, progress).await.map_err(|e| e.to_string())?;
    say(serde_json::to_string(&summary).map_err(|e| e.to_string())?);
    Ok(())
}

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Cast votes, some of them again, and check the totals to the last vote
    Ingest(IngestArgs),
    /// Read results and check that equal entity tags are equal bytes
    Read(ReadArgs),
    /// Fold votes in this process, with many voters known already
    Fold(FoldArgs),
    /// Follow results live and check that every client ends with the same bytes
    Stream(StreamArgs),
    /// Project past elections as they came in, beside elex-model, and score both against how they ended
    Forecast(crate::bench_forecast::ForecastArgs),
    /// Make a table of docs/BENCHMARKS.md: start servers on one core and a load on another, in turn
    #[command(subcommand)]
    Suite(crate::suite::SuiteCommand),
}

#[derive(Args)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A contest that counts votes with policy `one`
    #[arg(long)]
    contest: String,
    /// How many voters vote
    #[arg(long, default_value_t = 100_000)]
    voters: u64,
    /// Percent of the voters whose vote is sent twice with the same key
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    retries: u8,
    /// Percent of the voters who vote again with another key
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    doubles: u8,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Most votes sent and not answered yet
    #[arg(long, default_value_t = 50_000)]
    in_flight: usize,
    /// Votes in one request; 1 sends each by itself
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Chooses who votes what
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begins each voter's name: another run has other voters
    #[arg(long, default_value = "run-1")]
    run: String,
    /// Sign tokens with the secret of this data folder, for the election of this id
    #[arg(long, value_names = ["DIR", "ID"], num_args = 2)]
    tokens: Option<Vec<String>>,
}

#[derive(Args)]
pub(crate) struct FoldArgs {
    /// Voters that are known before the clock starts
    #[arg(long, default_value_t = 20_000_000)]
    known: u64,
    /// Voters that vote while it runs
    #[arg(long, default_value_t = 2_000_000)]
    votes: u64,
    /// Partitions, folded in turn by one thread
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    partitions: u16,
}

#[derive(Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A path; may be given several times
    #[arg(long, required = true)]
    path: Vec<String>,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Percent of requests that ask only for what is newer
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    conditional: u8,
}

#[derive(Args)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The contest
    #[arg(long)]
    contest: String,
    /// The unit; the contest's district where not given
    #[arg(long)]
    unit: Option<String>,
    /// Which units are listed
    #[arg(long, default_value = "unit", value_parser = ["total", "unit", "leaf"])]
    by: String,
    /// Clients that follow by WebSocket
    #[arg(long, default_value_t = 100)]
    websocket: usize,
    /// Clients that follow by server-sent events
    #[arg(long, default_value_t = 100)]
    sse: usize,
    /// Clients that poll
    #[arg(long, default_value_t = 10)]
    polling: usize,
    /// Seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Cut every client at random moments, and let it resume
    #[arg(long)]
    reconnect: bool,
}

pub(crate) async fn bench(command: BenchCommand) -> Outcome {
    match command {
        BenchCommand::Ingest(args) => {
            let report = ingest::run(&args.server.client()?, &ingest_options(&args)?).await;
            let report = report.map_err(|e| e.to_string())?;
            show(&report, &report.differences)
        }
        BenchCommand::Read(args) => {
            let options = read::Options {
                paths: args.path,
                connections: args.connections,
                duration: Duration::from_secs(args.seconds),
                conditional_percent: args.conditional,
                seed: 1,
            };
            let report = read::run(&args.server.client()?, &options).await.map_err(|e| e.to_string())?;
            show(&report, &report.differences)
        }
        BenchCommand::Fold(FoldArgs { known, votes, partitions }) => {
            let report = fold::run(&fold::Options { known, votes, partitions }).map_err(|e| e.to_string())?;
            show(&report, &report.differences)
        }
        BenchCommand::Stream(args) => {
            let options = stream::Options {
                contest: args.contest,
                unit: args.unit,
                by: args.by,
                websocket: args.websocket,
                sse: args.sse,
                polling: args.polling,
                duration: Duration::from_secs(args.seconds),
                reconnect: args.reconnect,
                seed: 1,
            };
            let report = stream::run(&args.server.client()?, &options).await.map_err(|e| e.to_string())?;
            show(&report, &report.differences)
        }
        BenchCommand::Forecast(args) => crate::bench_forecast::run(&args),
        BenchCommand::Suite(command) => crate::suite::run(command).await,
    }
}

fn ingest_options(args: &IngestArgs) -> Result<ingest::Options, String> {
    let signer = match args.tokens.as_deref() {
        Some([folder, election]) => Some(signer(Path::new(folder), election)?),
        _ => None,
    };
    Ok(ingest::Options {
        contest: args.contest.clone(),
        voters: args.voters,
        retry_percent: args.retries,
        double_percent: args.doubles,
        connections: args.connections,
        in_flight: args.in_flight,
        batch: args.batch,
        seed: args.seed,
        run: args.run.clone(),
        signer,
    })
}

/// Signs voters' tokens for this election with the secret of a data folder.
pub(crate) fn signer(folder: &Path, election: &str) -> Result<ingest::Signer, String> {
    let secret = Folder(folder.to_owned()).token_secret()?;
    let election = election.to_owned();
    // Signing a short text with a key of the right length cannot fail.
    Ok(Arc::new(move |voter: &str| {
        auth::issue_token(auth::Signer::Server(&secret), &election, voter, None, TOKEN_LIFETIME)
            .unwrap_or_default()
    }))
}

/// Prints a report as a table on a terminal, as a line of JSON elsewhere; differences make the command fail.
pub(crate) fn show<R: std::fmt::Display + serde::Serialize>(report: &R, differences: &[String]) -> Outcome {
    if std::io::stdout().is_terminal() {
        say(report);
    } else {
        say(serde_json::to_string(report).map_err(|e| e.to_string())?);
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(format!("not as expected:\n  {}", differences.join("\n  ")))
    }
}
