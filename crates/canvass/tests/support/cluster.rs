//! Starts a whole cluster: the roles, each in processes of its own, on one log on Kafka.

use std::path::{Path, PathBuf};

use super::{Kafka, Server, add_key, token};

/// A cluster that runs. Dropping it kills it.
pub(crate) struct Cluster {
    pub(crate) kafka: Kafka,
    /// Where its log is.
    pub(crate) address: String,
    /// A key for everything.
    pub(crate) key: String,
    pub(crate) gateways: Vec<Server>,
    pub(crate) tallies: Vec<Server>,
    pub(crate) boards: Vec<Server>,
    pub(crate) edges: Vec<Server>,
    definition: PathBuf,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts two gateways, three tallies, two boards and two edges on so many brokers. The gateway that is first
    /// begins the log with this definition.
    pub(crate) fn start(definition: &str, brokers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start_own(brokers);
        let address = kafka.address();
        let file = folder.path().join("election");
        std::fs::write(&file, definition).unwrap();
        // The secrets of a cluster are made once and copied to every gateway.
        let secrets = folder.path().join("secrets");
        let key = add_key(&secrets, "everything", &["source", "desk", "collector", "auditor"]);
        token(&secrets, "poll", "somebody");
        std::fs::copy(secrets.join("tokens.secret"), secrets.join("voters.secret")).unwrap();
        std::fs::write(secrets.join("voters.secret"), "5a".repeat(32)).unwrap();
        let all = |role: &'static str, count| {
            let mut options = options(role, &address, &file);
            if role == "tally" {
                options.extend([
                    "--snapshots".to_owned(),
                    snapshots(folder.path()).to_str().unwrap().to_owned(),
                ]);
            }
            let one = |number| Server::start(&data(folder.path(), role, number), &words(&options));
            (0..count).map(one).collect()
        };
        let all = &all;
        let [boards, tallies, gateways, edges] = std::thread::scope(|scope| {
            let roles = [("board", 2), ("tally", 3), ("gateway", 2), ("edge", 2)];
            let started = roles.map(|(role, count)| scope.spawn(move || all(role, count)));
            started.map(|started| started.join().unwrap())
        });
        Cluster { kafka, address, key, gateways, tallies, boards, edges, definition: file, folder }
    }

    /// Where the tallies write snapshots.
    pub(crate) fn snapshots(&self) -> PathBuf {
        snapshots(self.folder.path())
    }

    /// One process that counts the cluster's log by itself.
    pub(crate) fn embedded(&self) -> Server {
        let file = self.definition.to_str().unwrap();
        let options = ["--kafka", &self.address, "--election", file];
        Server::start(&data(self.folder.path(), "embedded", 0), &options)
    }
}

fn snapshots(folder: &Path) -> PathBuf {
    folder.join("snapshots")
}

fn words(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

fn options(role: &str, address: &str, definition: &Path) -> Vec<String> {
    let definition = definition.to_str().unwrap();
    let options = ["--roles", role, "--kafka", address, "--tick-ms", "50", "--election", definition];
    options.map(str::to_owned).into()
}

/// The folder of one process, with the cluster's secrets where it needs them.
fn data(folder: &Path, role: &str, number: usize) -> PathBuf {
    let data = folder.join(format!("{role}-{number}"));
    std::fs::create_dir_all(&data).unwrap();
    if ["gateway", "embedded"].contains(&role) {
        for secret in std::fs::read_dir(folder.join("secrets")).unwrap().map(Result::unwrap) {
            std::fs::copy(secret.path(), data.join(secret.file_name())).unwrap();
        }
    }
    data
}
