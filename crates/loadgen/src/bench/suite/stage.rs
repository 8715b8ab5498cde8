//! What a table puts up: a folder, and processes that are gone when it ends, however it ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use super::Fault;

/// How often it is looked whether a process has ended.
const POLL: Duration = Duration::from_millis(2);

/// A folder for temporary files and the processes started so far. Dropping it, or [`Stage::clear`], ends them.
pub struct Stage {
    path: PathBuf,
    /// None once it was cleared: nothing is started any more.
    held: Mutex<Option<Held>>,
}

struct Held {
    /// Removed when dropped.
    _folder: TempDir,
    children: Vec<(Child, Signal)>,
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

    /// Starts a process; `end` is the signal that ends it at once.
    pub(crate) fn start(&self, command: &mut Command, end: Signal) -> Result<Started, Fault> {
        let mut held = self.held();
        let held = held.as_mut().ok_or_else(|| Fault("the bench was stopped".to_owned()))?;
        let child = command.spawn();
        let mut child = child.map_err(|e| Fault(format!("{command:?} cannot be started: {e}")))?;
        let started = Started { pid: child.id(), stdout: child.stdout.take() };
        held.children.push((child, end));
        Ok(started)
    }

    fn take(&self, pid: u32) -> Option<(Child, Signal)> {
        let mut held = self.held();
        let children = &mut held.as_mut()?.children;
        let i = children.iter().position(|(child, _)| child.id() == pid)?;
        Some(children.swap_remove(i))
    }

    /// Ends a process that was started here at once.
    pub(crate) fn end(&self, pid: u32) -> Result<(), Fault> {
        let Some((mut child, signal)) = self.take(pid) else { return Ok(()) };
        end(&mut child, signal)
    }

    /// Asks a process that was started here to end, and waits until it has.
    pub(crate) fn ask_to_end(&self, pid: u32) -> Result<(), Fault> {
        let Some((mut child, _)) = self.take(pid) else { return Ok(()) };
        end(&mut child, Signal::TERM)
    }

    /// Waits until a process that was started here has ended by itself, and well.
    pub(crate) fn ended_well(&self, pid: u32) -> Result<(), Fault> {
        loop {
            let mut held = self.held();
            let held = held.as_mut().ok_or_else(|| Fault("the bench was stopped".to_owned()))?;
            let child = held.children.iter_mut().find(|(child, _)| child.id() == pid);
            let (child, _) = child.ok_or_else(|| Fault("a process is gone".to_owned()))?;
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(Fault(format!("a process ended with {status}"))),
                None => {}
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends whatever was started here and removes the folder.
    pub fn clear(&self) {
        let held = self.held().take();
        for (mut child, signal) in held.into_iter().flat_map(|held| held.children) {
            // What has ended already needs no signal.
            let _ = end(&mut child, signal);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

fn end(child: &mut Child, signal: Signal) -> Result<(), Fault> {
    if child.try_wait()?.is_none() {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Fault("a process has no number".to_owned()))?;
        kill_process(pid, signal).map_err(|e| Fault(format!("a process cannot be ended: {e}")))?;
        child.wait()?;
    }
    Ok(())
}

/// A command that runs on one core.
pub(crate) fn pinned(core: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program).stdin(Stdio::null());
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

/// How busy a core is from some moment on.
pub(crate) struct Busy {
    core: usize,
    since: (u64, u64),
}

impl Busy {
    pub(crate) fn start(core: usize) -> Result<Self, Fault> {
        Ok(Busy { core, since: ticks(core)? })
    }

    pub(crate) fn percent(&self) -> Result<u64, Fault> {
        let (busy, all) = ticks(self.core)?;
        Ok(((busy - self.since.0) * 100).checked_div(all - self.since.1).unwrap_or(0))
    }
}

/// Time that a core was busy, and all its time, in clock ticks.
fn ticks(core: usize) -> Result<(u64, u64), Fault> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let line = line.ok_or_else(|| Fault(format!("this machine has no core {core}; a table needs two")))?;
    // User, nice, system, idle, waiting for disks, and what else there is.
    let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
    let all: u64 = fields.iter().sum();
    Ok((all - fields.iter().skip(3).take(2).sum::<u64>(), all))
}

/// Memory of a process that is its own or shared with its like, not of files, in KiB.
pub(crate) fn memory(pid: u32) -> Result<u64, Fault> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let sizes = size("RssAnon:").zip(size("RssShmem:"));
    sizes
        .map(|(own, shared)| own + shared)
        .ok_or_else(|| Fault("the memory of the server is not told".to_owned()))
}

/// For how long all threads of a process have had a core.
pub(crate) fn time_on_core(pid: u32) -> Result<Duration, Fault> {
    let mut all = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
        all += Duration::from_nanos(nanos.ok_or_else(|| Fault("a thread's time is not told".to_owned()))?);
    }
    Ok(all)
}
