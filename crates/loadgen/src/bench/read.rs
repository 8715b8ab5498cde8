//! Reads results and pages over connections that stay open, as many as the server answers.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::{Differences, Latency, Meter, millis, per_second, write_differences};
use crate::client::{Answer, Client, Error, Request};

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Paths, read in turn.
    pub paths: Vec<String>,
    /// Connections, each of which carries one request at a time.
    pub connections: usize,
    /// For how long.
    pub duration: Duration,
    /// Percent of the requests that ask only for what is newer than what they have.
    pub conditional_percent: u8,
    /// Chooses which requests do.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Answers.
    pub requests: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Answers in a second.
    pub requests_per_second: u64,
    /// Answers that said that nothing is newer (304).
    pub not_modified: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Time from request to answer.
    pub latency: Latency,
    /// What differs from what was expected.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.not_modified.saturating_mul(100).checked_div(self.requests).unwrap_or(0);
        writeln!(f, "requests     {} in {} ms", self.requests, self.elapsed_ms)?;
        writeln!(f, "requests/s   {}", self.requests_per_second)?;
        writeln!(f, "not modified {} ({share} %)", self.not_modified)?;
        writeln!(f, "bytes        {}", self.bytes)?;
        writeln!(f, "latency      {}", self.latency)?;
        write_differences(f, &self.differences)
    }
}

struct Bench {
    client: Client,
    options: Options,
    until: Instant,
    requests: AtomicU64,
    not_modified: AtomicU64,
    bytes: AtomicU64,
    meter: Meter,
    failures: Mutex<BTreeMap<String, u64>>,
    /// A hash of the body that each entity tag of each path stands for.
    bodies: Mutex<HashMap<(usize, HeaderValue), u64>>,
    differences: Differences,
}

/// Reads for as long as asked; every answer must be good, and one entity tag must always mean the same bytes.
pub async fn run(client: &Client, options: &Options) -> Result<Report, Error> {
    if options.paths.is_empty() {
        return Err(Error::Mismatch("name at least one path to read".to_owned()));
    }
    let started = Instant::now();
    let bench = Arc::new(Bench {
        client: client.clone(),
        options: options.clone(),
        until: started + options.duration,
        requests: AtomicU64::new(0),
        not_modified: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        meter: Meter::new(),
        failures: Mutex::default(),
        bodies: Mutex::default(),
        differences: Differences::default(),
    });
    let connections = u64::try_from(options.connections.max(1)).unwrap_or(1);
    let workers: Vec<_> = (0..connections).map(|n| tokio::spawn(Arc::clone(&bench).work(n))).collect();
    for worker in workers {
        worker.await.map_err(|e| Error::Mismatch(format!("a worker ended: {e}")))?;
    }
    let elapsed = started.elapsed();
    for (failure, times) in bench.failures.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        bench.differences.add(|| format!("{times} requests came to nothing: {failure}"));
    }
    let requests = bench.requests.load(Ordering::Relaxed);
    Ok(Report {
        requests,
        elapsed_ms: millis(elapsed),
        requests_per_second: per_second(requests, elapsed),
        not_modified: bench.not_modified.load(Ordering::Relaxed),
        bytes: bench.bytes.load(Ordering::Relaxed),
        latency: bench.meter.latency(),
        differences: bench.differences.list(),
    })
}

impl Bench {
    async fn work(self: Arc<Self>, worker: u64) {
        let mut rng = StdRng::seed_from_u64(self.options.seed ^ worker);
        let mut etags: Vec<Option<HeaderValue>> = vec![None; self.options.paths.len()];
        while Instant::now() < self.until {
            for (i, path) in self.options.paths.iter().enumerate() {
                let conditional = rng.random_range(0..100) < self.options.conditional_percent;
                let etag = etags[i].clone().filter(|_| conditional);
                let request = Request::get(path).if_none_match(etag.clone());
                let started = Instant::now();
                match self.client.once(&request).await {
                    Ok(answer) => {
                        self.meter.record(started.elapsed(), 1);
                        self.take(i, etag.as_ref(), &answer);
                        etags[i] = answer.etag.or(etags[i].take());
                    }
                    Err(failure) => self.failed(failure),
                }
            }
        }
    }

    fn take(&self, path: usize, asked: Option<&HeaderValue>, answer: &Answer) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match answer.status {
            200 => {
                self.bytes.fetch_add(u64::try_from(answer.body.len()).unwrap_or(0), Ordering::Relaxed);
                if let Some(etag) = &answer.etag {
                    self.same_bytes(path, etag, &answer.body);
                }
            }
            304 if asked.is_some() && (answer.etag.is_none() || answer.etag.as_ref() == asked) => {
                self.not_modified.fetch_add(1, Ordering::Relaxed);
            }
            304 => self.differences.add(|| format!("{}: 304 for another tag", self.options.paths[path])),
            status => self.failed(format!("{} {status}", self.options.paths[path])),
        }
    }

    fn same_bytes(&self, path: usize, etag: &HeaderValue, body: &[u8]) {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let hash = hasher.finish();
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if *bodies.entry((path, etag.clone())).or_insert(hash) != hash {
            self.differences.add(|| format!("{}: {etag:?} stands for two bodies", self.options.paths[path]));
        }
    }

    fn failed(&self, failure: String) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(failure).or_default() += 1;
    }
}
