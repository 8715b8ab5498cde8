//! What a table puts up: a folder, and processes that are gone when it ends, however it ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use super::Fault;

/// A folder for temporary files and the processes started so far. Dropping it, or [`Stage::clear`], ends them.
pub struct Stage {
    path: PathBuf,
    /// None once it was cleared: nothing is started any more.
    held: Mutex<Option<Held>>,
}

struct Held {
    /// Removed when dropped.
    _folder: TempDir,
    children: Vec<Child>,
}

/// A process that was started.
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) stdout: Option<ChildStdout>,
}

impl Stage {
    /// An empty folder where the system keeps temporary files; `TMPDIR` chooses another place.
    pub fn new() -> Result<Self, Fault> {
        let folder = tempfile::Builder::new().prefix("canvass-bench-").tempdir()?;
        let path = folder.path().to_owned();
        Ok(Stage { path, held: Mutex::new(Some(Held { _folder: folder, children: Vec::new() })) })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn start(&self, command: &mut Command) -> Result<Started, Fault> {
        let mut held = self.held();
        let held = held.as_mut().ok_or_else(|| Fault("the bench was stopped".to_owned()))?;
        let what = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn();
        let mut child = child.map_err(|e| Fault(format!("{what} cannot be started: {e}")))?;
        let started = Started { pid: child.id(), stdout: child.stdout.take() };
        held.children.push(child);
        Ok(started)
    }

    /// Sends a signal to a process that was started here, and waits until it has ended.
    pub(crate) fn stop(&self, pid: u32, signal: Signal) -> Result<(), Fault> {
        let child = self.held().as_mut().and_then(|held| {
            let i = held.children.iter().position(|child| child.id() == pid)?;
            Some(held.children.swap_remove(i))
        });
        child.map_or(Ok(()), |mut child| end(&mut child, signal))
    }

    /// Kills whatever was started here and removes the folder.
    pub fn clear(&self) {
        let held = self.held().take();
        for mut child in held.into_iter().flat_map(|held| held.children) {
            // SIGQUIT ends databases at once, and lets them take their own processes with them.
            let _ = kill(&child, Signal::QUIT);
            let _ = child.wait();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

fn kill(child: &Child, signal: Signal) -> Result<(), Fault> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Fault("a process has no number".to_owned()))?;
    kill_process(pid, signal).map_err(|e| Fault(format!("a process cannot be ended: {e}")))
}

fn end(child: &mut Child, signal: Signal) -> Result<(), Fault> {
    kill(child, signal)?;
    child.wait()?;
    Ok(())
}

/// A command that runs on one core.
pub(crate) fn pinned(core: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// Keeps all threads of this process, and what it starts, on one core.
pub(crate) fn pin_this_process(core: usize) -> Result<(), Fault> {
    let (core, own) = (core.to_string(), std::process::id().to_string());
    let said = Command::new("taskset").args(["-a", "-c", "-p", &core, &own]).output();
    let said = said.map_err(|e| Fault(format!("`taskset` of util-linux is needed: {e}")))?;
    if said.status.success() {
        return Ok(());
    }
    Err(Fault(format!("the load cannot have core {core}: {}", String::from_utf8_lossy(&said.stderr).trim())))
}

/// Lets this process, and what it starts, open as many descriptors as the system allows it.
pub(crate) fn raise_descriptors() -> Result<(), Fault> {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    raised.map_err(|e| Fault(format!("descriptors: {e}")))
}

/// Time that a process has spent on its cores so far, in clock ticks.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is a name in brackets, which may hold spaces; user and system time are the 14th and 15th.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// How many clock ticks are a second.
pub(crate) fn ticks_a_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}
