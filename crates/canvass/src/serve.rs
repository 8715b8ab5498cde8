//! `canvass serve`: all roles in one process on one data folder, whose log lies there as well or on Kafka; or some of
//! the roles of a cluster.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canvass_anchor::Anchor;
use canvass_election::Definition;
use canvass_engine::{Engine, Options, Secret, stored_definition};
use canvass_http::auth::{Keys, Tokens};
use canvass_http::{Anchored, App, Edge, Limits, Metrics, server};
use canvass_log::{FileLog, Log};
use clap::Args;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::anchor::AnchorArgs;
use crate::baselines::{self, Baselines};
use crate::cluster::{self, ClusterArgs};
use crate::kafka::KafkaArgs;
use crate::keys::Folder;
use crate::{Outcome, read_definition, say, witnesses};

#[derive(Args, Clone)]
pub(crate) struct ServeArgs {
    /// The election's definition; needed where the data folder is empty
    #[arg(long, env = "CANVASS_ELECTION", value_name = "FILE")]
    pub(crate) election: Option<PathBuf>,
    /// The folder for the log and everything beside it
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// The address to listen on; name another than a loopback address to be reachable from outside
    #[arg(long, env = "CANVASS_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Milliseconds between two publications
    #[arg(long, env = "CANVASS_TICK_MS", value_name = "MS", default_value_t = 250,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) tick_ms: u64,
    /// Connections that may be open at a time
    #[arg(long, env = "CANVASS_CONNECTIONS", value_name = "N", default_value_t = 16_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Votes a second that one address may cast without a key; 0 is no limit
    #[arg(long, env = "CANVASS_RATE_PER_ADDRESS", value_name = "N", default_value_t = 500)]
    pub(crate) rate_per_address: u32,
    /// Records a second that one API key may send; 0 is no limit
    #[arg(long, env = "CANVASS_RATE_PER_KEY", value_name = "N", default_value_t = 100_000)]
    pub(crate) rate_per_key: u32,
    /// An Ed25519 public key (PEM) whose tokens are good as well
    #[arg(long, env = "CANVASS_TOKEN_KEY", value_name = "FILE")]
    pub(crate) token_key: Option<PathBuf>,
    /// A TOML file of witnesses who cosign checkpoints: `quorum = 1`, then for each a `[[witness]]` with its `key` and `url`
    #[arg(long, env = "CANVASS_WITNESSES", value_name = "FILE")]
    pub(crate) witnesses: Option<PathBuf>,
    /// Leave the proof out, or the promises, to measure what they cost
    #[arg(long, hide = true, value_enum, default_value_t = Proof::Whole)]
    pub(crate) proof: Proof,
    #[command(flatten)]
    pub(crate) anchor: AnchorArgs,
}

/// How much of the proof there is.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Proof {
    None,
    Checkpoints,
    Whole,
}

/// A server that runs.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    engine: Arc<Engine>,
    close: Close,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
    /// Keeps a second process out of the data folder; a journal has its own lock.
    _lock: Option<File>,
    /// Anchors as long as it is there.
    _anchor: Option<Anchor>,
}

/// Starts a server; everything in its log has been counted when this returns.
pub(crate) async fn start(args: &ServeArgs, definition: Option<Definition>) -> Result<Running, String> {
    let folder = Folder(args.data.clone());
    folder.make()?;
    let started = Instant::now();
    let mut registry = Registry::with_prefix("canvass");
    if !args.cluster.is_empty() {
        let lock = Some(folder.lock()?);
        return Ok(Running { _lock: lock, ..cluster::start(args, definition, registry).await? });
    }
    let (running, log) = if let Some(log) = args.kafka.open(definition.as_ref()).await? {
        let lock = Some(folder.lock()?);
        (Running { _lock: lock, ..start_on(args, definition, log, registry).await? }, "Kafka")
    } else {
        let journal = folder.journal();
        let opened =
            tokio::task::spawn_blocking(move || FileLog::open(&journal)).await.map_err(|e| e.to_string())?;
        let (log, _) = opened.map_err(|e| e.to_string())?;
        log.register(&mut registry);
        (start_on(args, definition, log, registry).await?, "a journal")
    };
    tracing::info!(
        log,
        batches = running.engine.progress().values().map(|progress| progress.end.0).sum::<u64>(),
        seconds = started.elapsed().as_secs_f64(),
        election = running.engine.definition().id,
        "the log has been counted"
    );
    Ok(running)
}

/// Starts a server on a log.
async fn start_on<L: Log>(
    args: &ServeArgs,
    definition: Option<Definition>,
    log: L,
    registry: Registry,
) -> Result<Running, String> {
    let folder = Folder(args.data.clone());
    let log = Arc::new(log);
    let stored = stored_definition(&*log).await.map_err(|e| e.to_string())?;
    // The log is named after its election unless its key was made with another name.
    let named = stored.as_ref().or(definition.as_ref());
    let baselines = match (&args.election, named) {
        (_, None) => Baselines::new(),
        (Some(file), Some(definition)) => {
            let read = baselines::beside(file, definition)?;
            baselines::keep(&folder, &read)?;
            read
        }
        (None, Some(definition)) => baselines::of_folder(&folder, definition),
    };
    let key = named.map(|definition| folder.log_key(&definition.id)).transpose()?;
    let witnesses = args.witnesses.as_deref().map(witnesses::read).transpose()?.unwrap_or_default();
    let options = Options {
        folder: Some(args.data.clone()),
        tick: Duration::from_millis(args.tick_ms),
        only_read: false,
        baselines,
        secret: Some(Secret::new(folder.voter_secret()?).sign()),
        audit: key.filter(|_| args.proof != Proof::None).map(|key| witnesses.options(key, args.proof)),
    };
    let engine = Engine::start(Arc::clone(&log), definition, options).await.map_err(|e| e.to_string())?;
    let engine = Arc::new(engine);
    let anchor = args.anchor.start(&folder, engine.audit())?;
    let listener = listen(args).await?;
    let close = Box::new(move || async move { log.close().await }.boxed());
    serve(args, engine, registry, listener, close, anchor)
}

/// Takes the address that is to be listened on.
pub(crate) async fn listen(args: &ServeArgs) -> Result<TcpListener, String> {
    TcpListener::bind(args.listen)
        .await
        .map_err(|e| format!("{} cannot be listened on: {e}; choose another with --listen", args.listen))
}

/// Closes the log.
pub(crate) type Close = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Serves what an engine counts.
pub(crate) fn serve(
    args: &ServeArgs,
    engine: Arc<Engine>,
    mut registry: Registry,
    listener: TcpListener,
    close: Close,
    anchor: Option<Anchor>,
) -> Result<Running, String> {
    let folder = Folder(args.data.clone());
    engine.register(&mut registry);
    let authority = args.token_key.as_ref().map(std::fs::read).transpose();
    let authority = authority.map_err(|e| format!("the token key cannot be read: {e}"))?;
    let anchors = anchor.as_ref().map(|anchor| {
        let status = anchor.watch();
        let now: Anchored = Arc::new(move || status.borrow().public());
        now
    });
    let app = Arc::new(App {
        secret: Secret::new(folder.voter_secret()?),
        keys: Keys::open(folder.keys()).map_err(|e| format!("the key file: {e}"))?,
        tokens: Tokens::new(&engine.definition().id, &folder.token_secret()?, authority.as_deref())?,
        edge: Edge::new(&engine),
        limits: Limits::new(args.rate_per_address, args.rate_per_key),
        engine: Arc::clone(&engine),
        metrics: Metrics::new(registry, anchors.clone()),
        anchors,
    });
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let (stop, stopped) = watch::channel(false);
    let connections = usize::try_from(args.connections).unwrap_or(usize::MAX);
    let serving = tokio::spawn(server::serve(listener, app, connections, stopped));
    Ok(Running { address, engine, close, stop, serving, _lock: None, _anchor: anchor })
}

impl Running {
    /// Waits until the server cannot go on, and says why.
    pub(crate) async fn failed(&self) -> String {
        self.engine.failed().await
    }

    /// Lets open requests end, writes snapshots and closes the log.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        // Whatever ended it, it has ended.
        let _ = self.serving.await;
        self.engine.stop().await;
        (self.close)().await;
    }
}

/// Ctrl-C, or the signal by which service managers end a process. It is waited for from this call on, and not only once
/// the future is polled.
pub(crate) fn asked_to_stop() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| signal(kind).map_err(|e| format!("signals cannot be waited for: {e}"));
    let (mut interrupt, mut terminate) = (wait(SignalKind::interrupt())?, wait(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

pub(crate) async fn run(args: ServeArgs) -> Outcome {
    let definition = args.election.as_deref().map(read_definition).transpose()?;
    let running = start(&args, definition).await?;
    let asked = asked_to_stop()?;
    say(format_args!("listening on http://{}", running.address));
    let failure = tokio::select! {
        () = asked => None,
        reason = running.failed() => Some(reason),
    };
    running.stop().await;
    failure.map_or(Ok(()), |reason| Err(format!("the count cannot go on: {reason}")))
}
