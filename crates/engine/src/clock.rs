//! The time that records get.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use canvass_election::ids::Timestamp;

/// Never goes back. A rehearsal's clock can be driven from outside, and then stands still in between.
#[derive(Debug)]
pub struct Clock {
    /// Where a driven clock is kept, so that it is still driven after a restart.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The latest time of a record.
    latest: Timestamp,
    driven: Option<Timestamp>,
}

impl State {
    fn now(&self) -> Timestamp {
        self.driven.unwrap_or_else(system_time).max(self.latest)
    }
}

/// The server's own time.
pub(crate) fn system_time() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// A clock that reads the system's time, or goes on where `file` says it was driven to. A file that says
    /// nothing is an error: one record with the server's time, and a rehearsal could never go back to its own.
    pub(crate) fn new(file: Option<PathBuf>) -> io::Result<Self> {
        let driven = file.as_deref().map(read).transpose()?.flatten();
        Ok(Clock { file, state: Mutex::new(State { latest: Timestamp(0), driven }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time it is: never earlier than that of a record.
    pub fn now(&self) -> Timestamp {
        self.state().now()
    }

    /// The time for a record taken in now.
    pub(crate) fn stamp(&self) -> Timestamp {
        // Read and noted in one step: driven in between, the clock would jump to a record it does not know of.
        let mut state = self.state();
        state.latest = state.now();
        state.latest
    }

    /// Notes that a record of this time is in the log.
    pub(crate) fn recorded(&self, time: Timestamp) {
        let mut state = self.state();
        state.latest = state.latest.max(time);
    }

    /// Drives the clock to `time`, or leaves it where it is if that would turn it back or before a record;
    /// answers the time now.
    pub fn drive(&self, time: Timestamp) -> io::Result<Timestamp> {
        let mut state = self.state();
        let time = state.driven.map_or(time, |before| before.max(time)).max(state.latest);
        if let Some(file) = &self.file {
            write(file, time)?;
        }
        state.driven = Some(time);
        Ok(state.now())
    }
}

fn read(file: &Path) -> io::Result<Option<Timestamp>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let fault = |_| {
        let file = file.display();
        io::Error::other(format!("{file} holds no time; remove it to go on with the server's own time"))
    };
    text.trim().parse().map(|time| Some(Timestamp(time))).map_err(fault)
}

fn write(file: &Path, time: Timestamp) -> io::Result<()> {
    let aside = file.with_extension("new");
    let mut written = File::create(&aside)?;
    written.write_all(time.0.to_string().as_bytes())?;
    // Before the name is: a crash must not leave the name with nothing behind it.
    written.sync_all()?;
    std::fs::rename(&aside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driven_clock_never_goes_back_and_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        let clock = Clock::new(Some(file.clone())).unwrap();
        assert!(clock.now() > Timestamp(1_700_000_000_000));
        assert_eq!(clock.drive(Timestamp(500)).unwrap(), Timestamp(500));
        assert_eq!(clock.stamp(), Timestamp(500));
        assert_eq!(clock.drive(Timestamp(400)).unwrap(), Timestamp(500));
        assert_eq!(clock.drive(Timestamp(700)).unwrap(), Timestamp(700));
        let clock = Clock::new(Some(file.clone())).unwrap();
        assert_eq!(clock.now(), Timestamp(700));
        // The file may lag behind the log, but the clock does not.
        clock.recorded(Timestamp(900));
        assert_eq!(clock.now(), Timestamp(900));
        assert_eq!(clock.drive(Timestamp(800)).unwrap(), Timestamp(900));
    }

    #[test]
    fn a_clock_file_that_holds_no_time_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        for damaged in ["", "soon", "-1", "\0\0\0"] {
            std::fs::write(&file, damaged).unwrap();
            let error = Clock::new(Some(file.clone())).unwrap_err().to_string();
            assert!(error.contains("holds no time"), "{error}");
        }
    }

    #[test]
    fn stamps_beside_a_driver_ascend() {
        let clock = Clock::new(None).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2_000).for_each(|n| _ = clock.drive(Timestamp(n)).unwrap()));
            for _ in 0..2 {
                scope.spawn(|| {
                    let stamps: Vec<_> = (0..2_000).map(|_| clock.stamp()).collect();
                    assert!(stamps.is_sorted());
                });
            }
        });
    }
}
