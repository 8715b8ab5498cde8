//! How fast virtual time passes, and when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use canvass_election::ids::Timestamp;
use tokio::sync::watch;

/// How often a clock moves while it waits for the next moment at which something happens.
pub const TICK: Duration = Duration::from_millis(250);

/// How many times faster than real time a night passes. Clones share the speed, so it can be changed while
/// the night plays.
#[derive(Debug, Clone)]
pub struct Pace(Arc<AtomicU32>);

impl Pace {
    /// As fast as the server takes it.
    pub const MAX: u32 = u32::MAX;

    /// This many times faster than real time; [`Pace::MAX`] does not wait at all.
    pub fn new(times: u32) -> Self {
        Pace(Arc::new(AtomicU32::new(times.max(1))))
    }

    /// The speed now.
    pub fn times(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes the speed for all clones, from now on.
    pub fn set(&self, times: u32) {
        self.0.store(times.max(1), Ordering::Relaxed);
    }

    /// Waits a little, and gives the virtual moment it is then; never later than `until`.
    pub async fn tick(&self, now: Timestamp, until: Timestamp) -> Timestamp {
        let times = self.times();
        if times == Self::MAX {
            return until;
        }
        let left = Duration::from_millis(until.0.saturating_sub(now.0)) / times;
        if left <= TICK {
            tokio::time::sleep(left).await;
            return until;
        }
        tokio::time::sleep(TICK).await;
        let passed = u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(times));
        Timestamp(now.0.saturating_add(passed).min(until.0))
    }
}

impl std::str::FromStr for Pace {
    type Err = String;

    /// Reads `max` or a factor such as `600`.
    fn from_str(word: &str) -> Result<Self, String> {
        match word.parse::<u32>() {
            _ if word == "max" => Ok(Pace::new(Self::MAX)),
            Ok(times) if times > 0 => Ok(Pace::new(times)),
            _ => Err(format!("`{word}` is no speed; expected `max`, or a factor such as 600")),
        }
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.times() {
            Self::MAX => write!(f, "max"),
            times => write!(f, "{times}"),
        }
    }
}

/// Tells those who hold it to end. It stops when it is told to, or when nobody is left who could tell it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Stops what holds the [`Stop`] that belongs to it.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    /// A stop and the one who can call it.
    pub fn new() -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Stop(receiver))
    }

    /// Waits until it is called.
    pub async fn wait(&self) {
        // An error means that the stopper is gone, which is a stop as well.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }

    /// Runs `work` until it ends or the stop is called; none then.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.wait() => None,
            done = work => Some(done),
        }
    }
}

impl Stopper {
    /// Calls the stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_max_or_a_factor() {
        assert_eq!("max".parse::<Pace>().unwrap().times(), Pace::MAX);
        assert_eq!("600".parse::<Pace>().unwrap().to_string(), "600");
        for word in ["", "0", "-1", "fast", "1.5"] {
            assert!(word.parse::<Pace>().is_err(), "{word}");
        }
    }

    #[tokio::test]
    async fn virtual_time_passes_as_fast_as_the_pace_says() {
        let pace = Pace::new(1_000_000);
        let (start, end) = (Timestamp(5), Timestamp(400_000_005));
        let mut now = pace.tick(start, end).await;
        assert_eq!(now, Timestamp(250_000_005));
        pace.clone().set(Pace::MAX);
        now = pace.tick(now, end).await;
        assert_eq!(now, end);
        assert_eq!(pace.tick(Timestamp(9), Timestamp(9)).await, Timestamp(9));
    }

    #[tokio::test]
    async fn a_stop_ends_work_that_would_not_end() {
        let (stopper, stop) = Stop::new();
        assert_eq!(stop.or(async { 4 }).await, Some(4));
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.or(std::future::pending::<()>()).await }
        });
        stopper.stop();
        assert_eq!(waiting.await.unwrap(), None);
        let (stopper, stop) = Stop::new();
        drop(stopper);
        stop.wait().await;
    }
}
