//! The binary: every role and tool of Canvass behind one command.

mod anchor;
mod baselines;
mod bench_forecast;
mod cluster;
mod config;
mod demo;
mod digest;
mod dlq;
mod forecast;
mod kafka;
mod keys;
mod serve;
mod suite;
mod tools;
mod verify;
mod witnesses;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, FromArgMatches, Parser, Subcommand};

/// Counts votes and election returns live, and lets anyone check the count.
#[derive(Parser)]
#[command(name = "canvass", version, propagate_version = true)]
struct Cli {
    /// A TOML file of options; flags and CANVASS_* variables go before it
    #[arg(long, global = true, env = "CANVASS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Count an election: take votes and returns in, show results
    Serve(serve::ServeArgs),
    /// Watch a fictional night and a live vote; nothing is kept
    Demo(demo::DemoArgs),
    /// Check a definition file and name every fault at once
    Check(CheckArgs),
    /// Send a recorded night to a running server
    #[command(subcommand)]
    Replay(tools::ReplayCommand),
    /// Measure a running server, and check that it counted exactly
    #[command(subcommand)]
    Bench(tools::BenchCommand),
    /// Check everything a server publishes, or a folder that an earlier check kept, and trust nobody
    Verify(verify::VerifyArgs),
    /// Fetch the proof of one record, check it, and say what it proves
    Proof(verify::ProofArgs),
    /// Count a folder's whole log again and print the digest of each partition
    Digest(digest::DigestArgs),
    /// Compute a published projection again, from the log and the baseline alone
    Forecast(forecast::ForecastArgs),
    /// What lies in a log on Kafka and is no record of Canvass
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Anchors of the log on a chain
    #[command(subcommand)]
    Anchor(anchor::AnchorCommand),
    /// API keys of sources, collectors, the desk and auditors
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Voters' tokens
    #[command(subcommand)]
    Token(keys::TokenCommand),
}

#[derive(Args)]
struct CheckArgs {
    /// The definition, TOML or JSON
    file: PathBuf,
}

/// What went wrong, in one line that says what to do.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let matches = match config::matches() {
        Ok(matches) => matches,
        Err(config::Fault::Usage(error)) => error.exit(),
        Err(config::Fault::Config(message)) => return fail(&message),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CANVASS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let outcome = match cli.command {
        Command::Serve(args) => on_runtime(serve::run(args)),
        Command::Demo(args) => on_runtime(demo::run(args)),
        Command::Check(args) => check(&args),
        Command::Replay(command) => on_runtime(tools::replay(command)),
        Command::Bench(command) => on_runtime(tools::bench(command)),
        Command::Verify(args) => on_runtime(verify::run(args)),
        Command::Proof(args) => on_runtime(verify::run_proof(args)),
        Command::Digest(args) => on_runtime(digest::run(args)),
        Command::Forecast(args) => on_runtime(forecast::run(args)),
        Command::Dlq(command) => on_runtime(dlq::run(command)),
        Command::Anchor(command) => on_runtime(anchor::run(command)),
        Command::Key(command) => keys::key(&command),
        Command::Token(command) => keys::token(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("canvass: {message}");
    ExitCode::FAILURE
}

fn on_runtime(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| format!("the system gives no threads: {e}"))?.block_on(work)
}

/// Prints a line of output, and ends quietly where nobody reads it any more.
fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Reads a definition file; every fault is a line of the message.
fn read_definition(path: &std::path::Path) -> Result<canvass_election::Definition, String> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    canvass_protocol::definition::parse(&text).map_err(|faults| listed(path, &faults))
}

/// All faults of a file, a line each.
fn listed(path: &std::path::Path, faults: &[canvass_protocol::definition::Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    let count = if faults.len() == 1 { "a fault".to_owned() } else { format!("{} faults", faults.len()) };
    format!("{} has {count}:\n{}", path.display(), lines.join("\n"))
}

fn check(args: &CheckArgs) -> Outcome {
    let definition = read_definition(&args.file)?;
    let baselines = baselines::beside(&args.file, &definition)?;
    say(format_args!(
        "{} is a good definition: {} contests ({} with a baseline), {} reporting units ({} without parts), {} partitions of votes and {} of returns",
        args.file.display(),
        definition.contests.len(),
        baselines.len(),
        definition.units.len(),
        definition.leaves(canvass_election::ids::UnitId(0)),
        definition.partitions.votes,
        definition.partitions.returns,
    ));
    Ok(())
}
