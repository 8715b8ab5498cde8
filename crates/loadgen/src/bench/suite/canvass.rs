//! A server of this same binary, on a core of its own and a data folder of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::super::ingest::Signer;
use super::{Fault, SERVER_CORE, Suite, stage};
use crate::client::Client;

const ELECTION: &str = "bench";
pub(crate) const CONTEST: &str = "song";
/// A contest for votes whose way to a screen is watched.
pub(crate) const MARKER: &str = "marker";
pub(crate) const SELECTIONS: [&str; 4] = ["w", "x", "y", "z"];
const DEFINITION: &str = r#"
id = "bench"
name = "Bench"
is_test = true
[[units]]
id = "everywhere"
name = "Everywhere"
[[contests]]
id = "song"
name = "Best song"
kind = "audience-poll"
counting = "votes"
eligibility = "token"
policy = "one"
selections = [{ id = "w", name = "W" }, { id = "x", name = "X" }, { id = "y", name = "Y" }, { id = "z", name = "Z" }]
[[contests]]
id = "marker"
name = "Marker"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
policy = "one"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
"#;
/// After the last answer, the published totals must be complete within this.
const SETTLE: Duration = Duration::from_secs(20);
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// What every data folder of a table begins with, so that tokens and keys are good on each of its servers.
pub(crate) struct Credentials {
    folder: PathBuf,
    /// Signs voters' tokens.
    pub(crate) signer: Signer,
    /// The API key of a collector and source.
    pub(crate) key: String,
}

/// A server that runs.
pub(crate) struct Server {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
}

impl Suite {
    /// A command of this binary with nothing of the environment that could change it, on the servers' core.
    fn binary(&self) -> Command {
        let mut command = stage::pinned(SERVER_CORE, &self.setup.binary);
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("CANVASS_")) {
            command.env_remove(name);
        }
        command.env("CANVASS_LOG", "warn");
        command
    }

    pub(crate) fn credentials(&self) -> Result<Credentials, Fault> {
        let folder = self.stage.folder().join("credentials");
        fs::create_dir_all(&folder)?;
        let mut command = self.binary();
        command.args(["key", "add", "--name", "bench", "--role", "collector", "--role", "source", "--data"]);
        command.arg(&folder);
        let said = command.output()?;
        let key = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if !said.status.success() {
            return Err(Fault(format!("no key: {}", String::from_utf8_lossy(&said.stderr))));
        }
        let signer = (self.setup.signer)(&folder, ELECTION).map_err(Fault)?;
        Ok(Credentials { folder, signer, key })
    }

    /// Starts a server on a new data folder of this name, for an election with a live vote.
    pub(crate) fn canvass(&self, credentials: &Credentials, name: &str) -> Result<Server, Fault> {
        self.canvass_for(credentials, name, DEFINITION)
    }

    /// Starts a server on a new data folder of this name, for this election.
    pub(crate) fn canvass_for(
        &self,
        credentials: &Credentials,
        name: &str,
        definition: &str,
    ) -> Result<Server, Fault> {
        self.canvass_again(self.prepared(credentials, name, definition)?)
    }

    /// Starts one that leaves parts of the proof out, with a live vote.
    pub(crate) fn canvass_with_proof(
        &self,
        credentials: &Credentials,
        name: &str,
        proof: &str,
    ) -> Result<Server, Fault> {
        let data = self.prepared(credentials, name, DEFINITION)?;
        self.serving(data, &["--proof", proof])
    }

    /// A new data folder of this name.
    fn prepared(&self, credentials: &Credentials, name: &str, definition: &str) -> Result<PathBuf, Fault> {
        let data = self.stage.folder().join(name);
        fs::create_dir_all(&data)?;
        for file in fs::read_dir(&credentials.folder)? {
            let file = file?;
            fs::copy(file.path(), data.join(file.file_name()))?;
        }
        fs::write(data.join("election.toml"), definition)?;
        Ok(data)
    }

    /// Starts a server on a data folder that is there; it has counted its log when this returns.
    pub(crate) fn canvass_again(&self, data: PathBuf) -> Result<Server, Fault> {
        self.serving(data, &[])
    }

    fn serving(&self, data: PathBuf, options: &[&str]) -> Result<Server, Fault> {
        let mut command = self.binary();
        command.args(["serve", "--listen", "127.0.0.1:0", "--rate-per-address", "0", "--rate-per-key", "0"]);
        command.arg("--data").arg(&data).arg("--election").arg(data.join("election.toml"));
        let (pid, address) = self.listening(command.args(options))?;
        Ok(Server { pid, address, data })
    }

    /// Starts the server that only answers.
    pub(crate) fn bare(&self) -> Result<(u32, SocketAddr), Fault> {
        self.listening(self.binary().args(["bench", "suite", "bare"]))
    }

    /// Starts a process that says `listening on http://ADDRESS`.
    fn listening(&self, command: &mut Command) -> Result<(u32, SocketAddr), Fault> {
        let started = self.stage.start(command.stdout(Stdio::piped()), Signal::KILL)?;
        let mut line = String::new();
        if let Some(stdout) = started.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("listening on http://").and_then(|a| a.parse().ok());
        let address = address.ok_or_else(|| Fault(format!("the server did not start: {line:?}")))?;
        Ok((started.pid, address))
    }

    /// Ends a server without warning, and removes its data.
    pub(crate) fn remove(&self, server: &Server) -> Result<(), Fault> {
        self.stage.end(server.pid)?;
        fs::remove_dir_all(&server.data)?;
        Ok(())
    }

    /// The published votes of each selection.
    pub(crate) fn totals(&self, server: &Server) -> Result<[u64; SELECTIONS.len()], Fault> {
        let path = format!("/api/v1/results?contest={CONTEST}&by=total");
        let client = Client::new(&format!("http://{}", server.address))?;
        let document: Value = self.runtime.block_on(client.get(&path))?;
        Ok(SELECTIONS.map(|id| document["selections"][id]["votes"].as_u64().unwrap_or(u64::MAX)))
    }

    /// Waits until the published totals are what was acknowledged, to the last vote.
    pub(crate) fn check_totals(
        &self,
        server: &Server,
        expected: [u64; SELECTIONS.len()],
    ) -> Result<(), Fault> {
        let since = Instant::now();
        loop {
            let found = self.totals(server)?;
            if found == expected {
                return Ok(());
            }
            if since.elapsed() > SETTLE {
                return Err(Fault(format!("{expected:?} votes were acknowledged, {found:?} are published")));
            }
            std::thread::sleep(SETTLE_STEP);
        }
    }
}
