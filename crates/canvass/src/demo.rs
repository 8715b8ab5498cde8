//! `canvass demo`: a fictional night and a live vote, on a server of its own in a folder that is gone afterwards.

use std::io::{BufRead, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use canvass_election::ids::Timestamp;
use canvass_http::auth::{self, Role};
use canvass_loadgen::night::{self, Night, POLL, Progress, Voters};
use canvass_loadgen::{Client, Pace, Stop};
use canvass_protocol::time;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::anchor::AnchorArgs;
use crate::cluster::ClusterArgs;
use crate::kafka::KafkaArgs;
use crate::keys::Folder;
use crate::serve::{self, Proof, Running, ServeArgs};
use crate::{Outcome, say};

/// The night begins at this hour of its evening.
const POLLS_CLOSE: &str = "2032-11-02T20:00:00Z";
/// Where the demo listens if nobody is there already.
const PORT: u16 = 8080;
/// Pressing Enter goes from one speed to the next.
const SPEEDS: [u32; 4] = [30, 120, 600, Pace::MAX];

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How many times faster than a real night, or `max`
    #[arg(long, default_value = "120")]
    speed: Pace,
    /// Simulated voters a second in the live vote
    #[arg(long, value_name = "N", default_value_t = 40)]
    voters: u32,
    /// Chooses the night: the same seed is the same night
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The address to listen on; 127.0.0.1:8080 where it is free, else another port
    #[arg(long, env = "CANVASS_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

async fn start(args: &DemoArgs, folder: &std::path::Path, night: &Night) -> Result<Running, String> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let serve = |listen| ServeArgs {
        election: None,
        data: folder.to_owned(),
        kafka: KafkaArgs::default(),
        cluster: ClusterArgs::default(),
        listen,
        tick_ms: 250,
        connections: 16_000,
        rate_per_address: 0,
        rate_per_key: 0,
        token_key: None,
        witnesses: None,
        proof: Proof::Whole,
        anchor: AnchorArgs::default(),
    };
    let free = std::net::TcpListener::bind(local(PORT)).is_ok();
    let listen = args.listen.unwrap_or_else(|| local(if free { PORT } else { 0 }));
    serve::start(&serve(listen), Some(night.definition.clone())).await
}

fn introduce(address: SocketAddr, pace: &Pace) {
    say(format_args!(
        "\n  Canvass counts a fictional election night, at {} times its real speed.\n\n  \
         The night         http://{address}/\n  \
         Vote yourself     http://{address}/contests/{POLL}\n  \
         Corrections       http://{address}/corrections\n  \
         Results as JSON   http://{address}/api/v1/results?contest={}\n\n  \
         Enter changes the speed, Ctrl-C ends it; nothing is kept.\n",
        speed_text(pace),
        night::GOVERNOR,
    ));
}

fn speed_text(pace: &Pace) -> String {
    match pace.times() {
        Pace::MAX => "as many as possible".to_owned(),
        times => times.to_string(),
    }
}

/// Changes the speed each time Enter is pressed, for as long as somebody can press it.
fn follow_keys(pace: Pace) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                return;
            }
            let faster = SPEEDS.into_iter().find(|speed| *speed > pace.times());
            pace.set(faster.unwrap_or(SPEEDS[0]));
            say(format_args!("  speed: {}", speed_text(&pace)));
        }
    });
}

/// A bar on a terminal; a line of JSON for each tenth of the night elsewhere.
fn progress(of: usize) -> impl FnMut(Progress) {
    let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new(of as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {msg}") {
        bar.set_style(style);
    }
    let mut told = 0;
    move |progress| {
        bar.set_position(progress.done as u64);
        bar.set_message(time::format(progress.now));
        let tenth = progress.done * 10 / progress.of.max(1);
        if !terminal && tenth > told {
            told = tenth;
            say(serde_json::to_string(&progress).unwrap_or_default());
        }
        if progress.done == progress.of {
            bar.finish();
        }
    }
}

pub(crate) async fn run(args: DemoArgs) -> Outcome {
    let folder = tempfile::tempdir().map_err(|e| format!("a folder for the demo cannot be made: {e}"))?;
    let night = Night::generate(args.seed);
    let running = start(&args, folder.path(), &night).await?;
    let keys = Folder(folder.path().to_owned()).keys();
    let key = auth::add_key(&keys, "demo desk", &[Role::Source, Role::Desk]).map_err(|e| e.to_string())?;
    let second = auth::add_key(&keys, "demo desk, second", &[Role::Desk]).map_err(|e| e.to_string())?;
    let client = Client::new(&format!("http://{}", running.address)).map_err(|e| e.to_string())?;
    introduce(running.address, &args.speed);
    follow_keys(args.speed.clone());
    let (stopper, stop) = Stop::new();
    let start = time::parse(POLLS_CLOSE).unwrap_or(Timestamp(0));
    let audience = audience(&args, &night)?;
    let (desk, second) = (client.clone().bearer(&key), client.clone().bearer(&second));
    let playing = async {
        let people = [&desk, &second];
        let played =
            night::play(people, &night, start, &args.speed, &stop, progress(night.script.len())).await;
        let played = played.map_err(|e| e.to_string())?;
        say(format_args!("  The night is over: {} events. The pages stay until Ctrl-C.", played.done));
        stop.wait().await;
        Ok::<(), String>(())
    };
    let voting = async {
        // The clock must stand in the night before the first vote is recorded.
        tokio::time::sleep(Duration::from_millis(500)).await;
        audience.run(&client, &stop).await.map_err(|e| e.to_string())?;
        stop.wait().await;
        Ok(())
    };
    let outcome = tokio::select! {
        () = serve::asked_to_stop()? => Ok(()),
        reason = running.failed() => Err(reason),
        fault = playing => fault,
        fault = voting => fault,
    };
    stopper.stop();
    running.stop().await;
    say("\n  The demo has ended; nothing was kept.");
    outcome
}

fn audience(args: &DemoArgs, night: &Night) -> Result<Voters, String> {
    let contest = night.definition.contest_by_id(POLL).and_then(|id| night.definition.contest(id));
    let contest = contest.ok_or("the demo's election has no live vote")?;
    Ok(Voters {
        contest: contest.id.clone(),
        selections: contest.selections.iter().map(|s| s.id.clone()).collect(),
        rate: Arc::new(AtomicU32::new(args.voters)),
        seed: args.seed,
        run: "audience".to_owned(),
    })
}
