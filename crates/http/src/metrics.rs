//! What operators measure, in Prometheus' conventions.
//!
//! Votes come a million a second, so each lane counts for itself, in numbers that no other thread writes; they are
//! added up when somebody asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{MatchedPath, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use canvass_engine::DURATIONS;
use canvass_protocol::anchors::Stage;
use canvass_protocol::problem::{Code, Problem};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::auth::{self, Role};
use crate::reply::{Answer, PRIVATE};
use crate::vote::Recorded;
use crate::{Anchored, App};

/// The media type of OpenMetrics' text, which Prometheus reads since its version 2.5.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Outcomes that are told also where they never came.
const KINDS: usize = 4;

/// How often each outcome came.
#[derive(Debug)]
pub(crate) struct Outcomes {
    counted: AtomicU64,
    recorded: AtomicU64,
    repeated: AtomicU64,
    held: AtomicU64,
    /// By the place of the code in [`Code::ALL`].
    refused: Box<[AtomicU64]>,
}

impl Default for Outcomes {
    fn default() -> Self {
        let refused = Code::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            counted: AtomicU64::default(),
            recorded: AtomicU64::default(),
            repeated: AtomicU64::default(),
            held: AtomicU64::default(),
            refused,
        }
    }
}

impl Outcomes {
    /// Notes something that was counted, now or when it came first.
    pub(crate) fn counted(&self, replayed: bool) {
        let slot = if replayed { &self.repeated } else { &self.counted };
        slot.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes something that is in the log, and of which another process knows what it did.
    pub(crate) fn recorded(&self) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes something that was refused.
    pub(crate) fn refused(&self, code: Code) {
        self.refused[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what became of something.
    pub(crate) fn note(&self, result: &Result<Recorded, Problem>) {
        match result {
            Ok(Recorded { known: false, .. }) => self.recorded(),
            Ok(Recorded { replayed: false, held: Some(_), .. }) => {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            Ok(recorded) => self.counted(recorded.replayed),
            Err(problem) => self.refused(problem.code),
        }
    }

    /// Each outcome in a word, with how often it came.
    fn words(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let kinds = [
            ("counted", &self.counted),
            ("recorded", &self.recorded),
            ("repeated", &self.repeated),
            ("held", &self.held),
        ];
        let refused = Code::ALL.iter().map(|code| code.as_str()).zip(&self.refused);
        kinds.into_iter().chain(refused).map(move |(word, n)| (word, read(n)))
    }
}

/// Durations, in buckets. Many with the same one are noted in one step.
#[derive(Debug, Default)]
struct Durations {
    /// How many were within each bound of [`DURATIONS`] and above the one before; the last is for all that is longer.
    buckets: [AtomicU64; DURATIONS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    fn note(&self, duration: Duration, times: usize) {
        let bucket = DURATIONS.partition_point(|bound| *bound < duration.as_secs_f64());
        let times = u64::try_from(times).unwrap_or(u64::MAX);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        self.micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }
}

/// What one lane counts, or the general server.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) votes: Outcomes,
    durations: Durations,
    reads: AtomicU64,
}

impl Counts {
    /// Notes how long votes waited for their verdicts.
    pub(crate) fn waited(&self, duration: Duration, votes: usize) {
        self.durations.note(duration, votes);
    }

    /// Notes a read of results that was answered from memory.
    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything that is counted in this process, and the way to read it.
pub struct Metrics {
    registry: Registry,
    all: Arc<All>,
    requests: Family<Request3, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    connections: Gauge,
    turned_away: Counter,
    streams: Family<Carrier, Gauge>,
}

type Request3 = [(&'static str, String); 3];
type Route = [(&'static str, String); 1];
type Carrier = [(&'static str, &'static str); 1];

/// Counts of all lanes and of the general server.
struct All {
    counts: Mutex<Vec<Arc<Counts>>>,
    general: Arc<Counts>,
    returns: Outcomes,
    anchors: Option<Anchored>,
}

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("All").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Adds what is counted of HTTP, and how far the anchors are, to what `registry` has already.
    pub fn new(mut registry: Registry, anchors: Option<Anchored>) -> Self {
        let general = Arc::new(Counts::default());
        let counts = Mutex::new(vec![Arc::clone(&general)]);
        let all = Arc::new(All { counts, general, returns: Outcomes::default(), anchors });
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(DURATIONS)) as fn() -> Histogram);
        let (connections, turned_away, streams) = (Gauge::default(), Counter::default(), Family::default());
        registry.register_collector(Box::new(Arc::clone(&all)));
        registry.register("http_requests", "Requests beside those of the lanes", requests.clone());
        let help = "How long the answer to such a request took";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, durations.clone());
        registry.register("connections", "Open connections, streams included", connections.clone());
        let help = "Connections for which there was no room";
        registry.register("connections_turned_away", help, turned_away.clone());
        registry.register("stream_clients", "Clients that follow results live", streams.clone());
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The program", prometheus_client::metrics::info::Info::new(build));
        Self { registry, all, requests, durations, connections, turned_away, streams }
    }

    /// Counts for a lane of its own.
    pub(crate) fn lane(&self) -> Arc<Counts> {
        let counts = Arc::new(Counts::default());
        self.all.counts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counts));
        counts
    }

    /// Counts of the votes that come another way than through a lane.
    pub(crate) fn general(&self) -> &Counts {
        &self.all.general
    }

    /// What became of returns, their corrections, and the returns of recounts.
    pub(crate) fn returns(&self) -> &Outcomes {
        &self.all.returns
    }

    /// Counts a connection for as long as it is kept.
    pub(crate) fn connection(&self) -> Present {
        Present::new(&self.connections)
    }

    /// Notes a connection for which there was no room.
    pub(crate) fn turned_away(&self) {
        self.turned_away.inc();
    }

    /// Counts a stream for as long as it is kept.
    pub(crate) fn stream(&self, carrier: &'static str) -> Present {
        Present::new(&self.streams.get_or_create(&[("carrier", carrier)]))
    }

    /// Notes a request that was answered.
    pub(crate) fn answered(
        &self,
        path: Option<&MatchedPath>,
        method: &Method,
        status: StatusCode,
        since: Instant,
    ) {
        // An address that nobody gave a name would be a number of its own for every guess of a stranger.
        let route = path.map_or("none", MatchedPath::as_str).to_owned();
        let usual = [Method::GET, Method::HEAD, Method::POST, Method::PUT];
        let method = if usual.contains(method) { method.as_str() } else { "other" };
        self.durations.get_or_create(&[("route", route.clone())]).observe(since.elapsed().as_secs_f64());
        let labels =
            [("route", route), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
        self.requests.get_or_create(&labels).inc();
    }
}

/// Counts in a gauge while it is there.
#[derive(Debug)]
pub(crate) struct Present(Gauge);

impl Present {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Present(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let votes = counts.iter().flat_map(|counts| counts.votes.words());
        outcomes(&mut encoder, ("votes", "Votes by what became of them"), votes)?;
        let help = "Returns, corrections and returns of recounts by what became of them";
        outcomes(&mut encoder, ("returns", help), self.returns.words())?;
        durations(&mut encoder, &counts)?;
        let reads: u64 = counts.iter().map(|counts| counts.reads.load(Ordering::Relaxed)).sum();
        let help = "Reads of results that a lane answered from memory";
        encoder
            .encode_descriptor("lane_reads", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&reads, None)?;
        self.anchors.as_ref().map_or(Ok(()), |anchors| anchored(&mut encoder, anchors))
    }
}

fn outcomes(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    words: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for (word, n) in words {
        match sums.iter_mut().find(|(known, _)| *known == word) {
            Some((_, sum)) => *sum += n,
            None => sums.push((word, n)),
        }
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    // A refusal that never came is left out: most codes never come.
    for (word, n) in
        sums.into_iter().enumerate().filter(|(i, (_, n))| *i < KINDS || *n > 0).map(|(_, row)| row)
    {
        let label = [("outcome", word)];
        family.encode_family(&label)?.encode_counter::<NoLabelSet, _, f64>(&n, None)?;
    }
    Ok(())
}

fn durations(encoder: &mut DescriptorEncoder<'_>, counts: &[Arc<Counts>]) -> fmt::Result {
    let mut buckets: Vec<(f64, u64)> =
        DURATIONS.into_iter().chain([f64::INFINITY]).map(|le| (le, 0)).collect();
    let mut micros = 0_u64;
    for Counts { durations, .. } in counts.iter().map(|counts| &**counts) {
        for ((_, sum), n) in buckets.iter_mut().zip(&durations.buckets) {
            *sum += n.load(Ordering::Relaxed);
        }
        micros = micros.saturating_add(durations.micros.load(Ordering::Relaxed));
    }
    let count = buckets.iter().map(|(_, n)| n).sum();
    let sum = Duration::from_micros(micros).as_secs_f64();
    let help = "How long votes waited from being read to their verdict";
    encoder
        .encode_descriptor("vote_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?
        .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

fn anchored(encoder: &mut DescriptorEncoder<'_>, anchors: &Anchored) -> fmt::Result {
    let anchors = anchors();
    let help = "Leaves of the newest head that is anchored, by how sure it is to stay";
    let mut family = encoder.encode_descriptor("anchored_size", help, None, MetricType::Gauge)?;
    let stages =
        [(Stage::Pending, "pending"), (Stage::Included, "included"), (Stage::Finalised, "finalised")];
    for (stage, word) in stages {
        let newest = anchors.heads.iter().rev().find(|head| head.stage == stage);
        let size = newest.map_or(0, |head| head.size);
        let label = [("stage", word)];
        family.encode_family(&label)?.encode_gauge(&i64::try_from(size).unwrap_or(i64::MAX))?;
    }
    let help = "1 with the word for what keeps anchors from being made";
    let mut family = encoder.encode_descriptor("anchor_trouble", help, None, MetricType::Gauge)?;
    let Some(word) = anchors.trouble else { return Ok(()) };
    family.encode_family(&[("trouble", word)])?.encode_gauge(&1_i64)
}

/// `GET /metrics`
pub(crate) async fn get_metrics(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<std::net::SocketAddr>,
    headers: HeaderMap,
) -> Answer {
    let credential = auth::bearer(&headers)?;
    if let Err(problem) = app.keys.require(credential, &[Role::Monitor]) {
        // Guessing keys is slowed down by the limit of the address.
        app.limits.address(peer.ip(), 1)?;
        return Err(problem.into());
    }
    // The numbers of voters are read under the locks of the folds, which may take a moment.
    let written = tokio::task::spawn_blocking(move || {
        let mut page = String::new();
        text::encode(&mut page, &app.metrics.registry).map(|()| page)
    });
    let page = written.await.map_err(|_| Code::Internal)?.map_err(|_| Code::Internal)?;
    let headers = [(header::CONTENT_TYPE, OPENMETRICS), (header::CACHE_CONTROL, PRIVATE)];
    Ok((headers, page).into_response())
}
