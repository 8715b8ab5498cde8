//! Measures a running server while knowing exactly what must come out.
//!
//! Each bench ends with a report. Its list of differences is empty if the server did exactly what it promises;
//! otherwise the numbers beside it mean nothing.

pub mod fold;
pub mod forecast;
pub mod ingest;
pub mod read;
pub mod stream;
pub mod suite;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Most differences that a report names; the rest are counted.
pub const MAX_DIFFERENCES: usize = 20;

/// How long things took, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// 999 of 1,000 took no longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50_us, p99_us, p999_us, max_us } = self;
        let ms = |us: &u64| format!("{}.{:03} ms", us / 1_000, us % 1_000);
        write!(f, "p50 {}, p99 {}, p99.9 {}, max {}", ms(p50_us), ms(p99_us), ms(p999_us), ms(max_us))
    }
}

/// Collects durations from many tasks.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<Histogram<u64>>);

impl Meter {
    /// Three significant digits, of durations up to an hour.
    const DIGITS: u8 = 3;
    const LONGEST_US: u64 = 3_600_000_000;

    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_max(Self::LONGEST_US, Self::DIGITS);
        Meter(Mutex::new(histogram.unwrap_or_else(|e| unreachable!("the bounds are good: {e}"))))
    }

    pub(crate) fn record(&self, duration: Duration, times: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record_n(micros, times);
    }

    pub(crate) fn latency(&self) -> Latency {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: histogram.max() }
    }
}

/// What differs from what was expected.
#[derive(Debug, Default)]
pub(crate) struct Differences(Mutex<(Vec<String>, usize)>);

impl Differences {
    pub(crate) fn add(&self, difference: impl FnOnce() -> String) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.0.len() < MAX_DIFFERENCES {
            let difference = difference();
            found.0.push(difference);
        } else {
            found.1 += 1;
        }
    }

    pub(crate) fn list(&self) -> Vec<String> {
        let (mut list, more) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if more > 0 {
            list.push(format!("and {more} more"));
        }
        list
    }
}

/// `count` a second over this many milliseconds.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(count) * 1_000 / millis).unwrap_or(u64::MAX)
}

pub(crate) fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn write_differences(f: &mut fmt::Formatter<'_>, differences: &[String]) -> fmt::Result {
    if differences.is_empty() {
        return write!(f, "differences  none");
    }
    write!(f, "differences")?;
    differences.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_up_to_a_limit_and_counted_beyond() {
        let differences = Differences::default();
        assert!(differences.list().is_empty());
        (0..MAX_DIFFERENCES + 3).for_each(|i| differences.add(|| format!("{i}")));
        let list = differences.list();
        assert_eq!((list.len(), list.last().map(String::as_str)), (MAX_DIFFERENCES + 1, Some("and 3 more")));
    }

    #[test]
    fn a_meter_tells_the_quantiles() {
        let meter = Meter::new();
        meter.record(Duration::from_micros(100), 990);
        meter.record(Duration::from_millis(2_000), 10);
        let latency = meter.latency();
        assert_eq!((latency.p50_us, latency.p99_us, latency.p999_us / 10_000), (100, 100, 200));
        assert_eq!(Latency { p50_us: 1_050, ..latency }.to_string().split(',').next(), Some("p50 1.050 ms"));
        assert_eq!(per_second(500, Duration::from_millis(250)), 2_000);
    }
}
