//! The same job done by what people would use otherwise: count each voter once, durably.

mod mariadb;
mod postgres;
mod redis;

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::legs::{self, Leg, Options, Trial, Watch};
use super::report::Table;
use super::{Fault, Suite};

/// A peer must answer within this after its start.
const STARTING: Duration = Duration::from_secs(60);
const STARTING_STEP: Duration = Duration::from_millis(50);
/// Sessions of a peer that takes batches.
const SESSIONS: u64 = 4;

// What is compared with the peers holds no promises in its answers, as theirs do not; what runs unless a client says
// otherwise stands beside it.
const LEGS: [Leg; 12] = [
    Leg { name: "canvass-1", connections: 1_024, depth: 1, trial: legs::canvass_minimal },
    Leg { name: "canvass-1-promises", connections: 1_024, depth: 1, trial: legs::canvass },
    Leg { name: "redis-everysec-1", connections: 1_024, depth: 1, trial: redis::everysec },
    Leg { name: "redis-always-1", connections: 1_024, depth: 1, trial: redis::always },
    Leg { name: "postgres-insert", connections: 64, depth: 1, trial: postgres::insert },
    Leg { name: "canvass-16", connections: 256, depth: 16, trial: legs::canvass_minimal },
    Leg { name: "canvass-16-promises", connections: 256, depth: 16, trial: legs::canvass },
    Leg { name: "redis-everysec-16", connections: 256, depth: 16, trial: redis::everysec },
    Leg { name: "redis-always-16", connections: 256, depth: 16, trial: redis::always },
    Leg { name: "canvass-ndjson", connections: 16, depth: 1, trial: legs::canvass_ndjson },
    Leg { name: "postgres-copy", connections: 4, depth: 1, trial: postgres::copy },
    Leg { name: "mariadb-batch", connections: 4, depth: 1, trial: mariadb::batch },
];

/// What a peer needs, and the Debian package that has it.
const NEEDS: [(&str, &str, &str); 3] = [
    ("redis-", "redis-server", "redis-server"),
    ("postgres-", "pgbench", "postgresql"),
    ("mariadb-", "mariadbd", "mariadb-server"),
];

impl Suite {
    /// The table `peers`. A peer that is not installed is left out, and the table says so.
    pub fn peers(&self, options: &Options) -> Result<Table, Fault> {
        let missing: Vec<_> = NEEDS.iter().filter(|(_, program, _)| find(program).is_none()).collect();
        let is_there = |leg: &Leg| !missing.iter().any(|(prefix, _, _)| leg.name.starts_with(prefix));
        let legs: Vec<Leg> = LEGS.into_iter().filter(is_there).collect();
        let mut table = self.in_turn("peers", &legs, options)?;
        table.compare("canvass-1", "redis-everysec-1", Some(150));
        table.compare("canvass-1-promises", "redis-everysec-1", None);
        table.compare("canvass-1", "redis-always-1", None);
        table.compare("canvass-16", "redis-everysec-16", Some(150));
        table.compare("canvass-16-promises", "redis-everysec-16", None);
        table.compare("canvass-16", "redis-always-16", None);
        table.compare("canvass-ndjson", "redis-everysec-16", None);
        table.compare("canvass-1", "postgres-insert", Some(800));
        table.compare("canvass-1-promises", "postgres-insert", None);
        table.compare("canvass-ndjson", "postgres-copy", Some(800));
        table.compare("canvass-ndjson", "mariadb-batch", Some(800));
        table.notes = missing
            .iter()
            .map(|(prefix, program, package)| {
                format!("{prefix}* left out: there is no `{program}`; install Debian's package {package}")
            })
            .collect();
        Ok(table)
    }

    /// An empty folder for a peer's data, which a user of this name may write where this process is root.
    fn peer_folder(&self, name: &str, user: &str) -> Result<PathBuf, Fault> {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.stage.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        if rustix::process::geteuid().is_root() {
            // The user must be able to go through the folder above, and to own the one below.
            std::fs::set_permissions(self.stage.folder(), std::fs::Permissions::from_mode(0o711))?;
            output(Command::new("chown").arg(format!("{user}:")).arg(&folder))?;
        }
        Ok(folder)
    }

    /// Runs sessions side by side, each with a file as its input, and tells how long all of them took.
    fn sessions(&self, votes: u64, commands: Vec<(Command, PathBuf)>) -> Result<Trial, Fault> {
        let watch = Watch::start()?;
        let since = Instant::now();
        let mut sessions = Vec::new();
        for (mut command, input) in commands {
            let errors = input.with_extension("errors");
            command.stdin(File::open(input)?).stdout(Stdio::null()).stderr(File::create(&errors)?);
            sessions.push((self.stage.start(&mut command, Signal::KILL)?.pid, errors));
        }
        for (pid, errors) in sessions {
            self.stage.ended_well(pid).map_err(|fault| {
                let said = std::fs::read_to_string(errors).unwrap_or_default();
                Fault(format!("{fault}: {}", said.lines().last().unwrap_or_default()))
            })?;
        }
        watch.stop(votes, since.elapsed())
    }
}

/// A program of the path, or of where Debian keeps PostgreSQL's and system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

pub(crate) fn found(program: &str) -> Result<PathBuf, Fault> {
    find(program).ok_or_else(|| Fault(format!("there is no `{program}`")))
}

/// A command as this user, where this process is root and its program refuses that.
fn as_user(user: &str, program: &Path) -> Vec<std::ffi::OsString> {
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if rustix::process::geteuid().is_root() {
        words.extend(["setpriv", "--reuid", user, "--regid", user, "--init-groups"].map(Into::into));
    }
    words.push(program.into());
    words
}

/// What a command prints; one that fails is a fault.
fn output(command: &mut Command) -> Result<String, Fault> {
    let what = format!("{command:?}");
    let said = command.output().map_err(|e| Fault(format!("{what}: {e}")))?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
    }
    Err(Fault(format!("{what}: {}", String::from_utf8_lossy(&said.stderr).trim())))
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr, Fault> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until somebody listens.
pub(crate) fn wait_for(address: SocketAddr) -> Result<(), Fault> {
    eventually(|| TcpStream::connect(address).is_ok(), || format!("nobody listens on {address}"))
}

pub(crate) fn eventually(done: impl Fn() -> bool, what: impl Fn() -> String) -> Result<(), Fault> {
    let since = Instant::now();
    while !done() {
        if since.elapsed() > STARTING {
            return Err(Fault(what()));
        }
        std::thread::sleep(STARTING_STEP);
    }
    Ok(())
}

/// Votes in ranges, one a session. A session's retries are of its own votes, so that sessions do not wait for
/// each other.
fn shares(votes: u64) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
    (0..SESSIONS).map(move |i| (i, votes * i / SESSIONS..votes * (i + 1) / SESSIONS))
}
