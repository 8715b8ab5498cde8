//! The time that records get.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use canvass_election::ids::Timestamp;

/// Never goes back. A rehearsal's clock can be driven from outside, and then stands still in between.
#[derive(Debug)]
pub struct Clock {
    /// The latest time of a record.
    latest: AtomicU64,
    /// Where a driven clock is kept, so that it is still driven after a restart.
    file: Option<PathBuf>,
    driven: Mutex<Option<Timestamp>>,
}

/// The server's own time.
pub(crate) fn system_time() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// A clock that reads the system's time, or goes on where `file` says it was driven to.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        let read = |file: &PathBuf| std::fs::read_to_string(file).ok()?.trim().parse().ok().map(Timestamp);
        let driven = file.as_ref().and_then(read);
        Clock { latest: AtomicU64::new(0), file, driven: Mutex::new(driven) }
    }

    fn driven(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.driven.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The time it is: never earlier than that of a record.
    pub fn now(&self) -> Timestamp {
        let now = self.driven().unwrap_or_else(system_time);
        Timestamp(self.latest.load(Ordering::Relaxed).max(now.0))
    }

    /// The time for a record taken in now.
    pub(crate) fn stamp(&self) -> Timestamp {
        let now = self.now();
        self.recorded(now);
        now
    }

    /// Notes that a record of this time is in the log.
    pub(crate) fn recorded(&self, time: Timestamp) {
        self.latest.fetch_max(time.0, Ordering::Relaxed);
    }

    /// Drives the clock to `time`, or leaves it where it is if that would turn it back or before a record;
    /// answers the time now.
    pub fn drive(&self, time: Timestamp) -> std::io::Result<Timestamp> {
        let mut driven = self.driven();
        let latest = Timestamp(self.latest.load(Ordering::Relaxed));
        let time = driven.map_or(time, |before| before.max(time)).max(latest);
        if let Some(file) = &self.file {
            let aside = file.with_extension("new");
            std::fs::write(&aside, time.0.to_string())?;
            std::fs::rename(&aside, file)?;
        }
        *driven = Some(time);
        drop(driven);
        Ok(self.now())
    }
}
