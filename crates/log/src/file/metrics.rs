//! What operators measure of a journal, in Prometheus' conventions: noted once a group commit.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the buckets of a sync, in seconds: from a disk with a cache of its own to one that fails.
const SYNCS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Shared by the writer and whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    sync: Histogram,
    bytes: Counter,
    failures: Counter,
    failing: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync: Histogram::new(SYNCS),
            bytes: Counter::default(),
            failures: Counter::default(),
            failing: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Notes that a group of so many bytes is durable, whose `fdatasync` began at `since`.
    pub(crate) fn synced(&self, since: Instant, bytes: u64) {
        self.sync.observe(since.elapsed().as_secs_f64());
        self.bytes.inc_by(bytes);
    }

    /// Notes whether a group was written.
    pub(crate) fn committed(&self, whole: bool) {
        self.failing.set((!whole).into());
        if !whole {
            self.failures.inc();
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("journal");
        registry.register_with_unit(
            "sync_duration",
            "How long fdatasync took, once for each group of batches",
            Unit::Seconds,
            self.sync.clone(),
        );
        registry.register("written_bytes", "Bytes of frames that are durable", self.bytes.clone());
        registry.register("failures", "Groups of batches that could not be written", self.failures.clone());
        registry.register(
            "failing",
            "1 while the journal cannot be written and nothing is confirmed",
            self.failing.clone(),
        );
    }
}
