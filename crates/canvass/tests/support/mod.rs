//! Starts the real binary on a free port, talks to it as a client does, kills it and starts it again.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod cluster;
pub(crate) mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use canvass_loadgen::Client;
use serde_json::Value;

/// An election of one poll that anyone may vote in.
pub(crate) const POLL: &str = r#"
id = "poll"
name = "Poll"
is_test = true
[[units]]
id = "hall"
name = "Hall"
[[contests]]
id = "song"
name = "Song"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
"#;

/// The binary under test; `CANVASS_BIN` names another.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("CANVASS_BIN").map_or_else(|| env!("CARGO_BIN_EXE_canvass").into(), PathBuf::from)
}

/// Whether the long proofs run whole.
pub(crate) fn soak() -> bool {
    std::env::var_os("CANVASS_SOAK").is_some()
}

/// A command of the binary with nothing of the environment that could change it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CANVASS_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command that must succeed, and returns what it printed.
pub(crate) fn run(args: &[&str]) -> String {
    let output = command().args(args).output().unwrap();
    assert!(output.status.success(), "canvass {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail, and returns what it said on standard error.
pub(crate) fn fails(args: &[&str]) -> String {
    let output = command().args(args).output().unwrap();
    assert!(!output.status.success(), "canvass {args:?} must fail");
    String::from_utf8(output.stderr).unwrap()
}

/// A server on a data folder. Dropping it kills it, as `kill -9` does.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    data: PathBuf,
    options: Vec<String>,
}

impl Server {
    /// Starts a server; it has counted its whole log when this returns.
    pub(crate) fn start(data: &Path, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let (child, address) = launch(data, "127.0.0.1:0", &options);
        Server { child, address, data: data.to_owned(), options }
    }

    /// Kills the server with no warning and starts it again on the same address.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let (child, address) = launch(&self.data, &self.address.clone(), &self.options);
        assert_eq!(address, self.address);
        self.child = child;
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The memory it takes, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends the process a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "a server that is asked to end ends well");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(data: &Path, listen: &str, options: &[String]) -> (Child, String) {
    let mut child = command()
        .env("CANVASS_LOG", "warn")
        .env("SSL_CERT_FILE", tls::file("ca.pem"))
        .args(["serve", "--listen", listen, "--rate-per-address", "0", "--rate-per-key", "0", "--data"])
        .arg(data)
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://");
    let address = address.unwrap_or_else(|| panic!("the server did not start: {line:?}")).to_owned();
    (child, address)
}

/// Kafka brokers of its own, gone when dropped; with `KAFKA_BOOTSTRAP`, those that are there.
pub(crate) struct Kafka {
    brokers: String,
    folder: Option<tempfile::TempDir>,
}

impl Kafka {
    /// The broker that is there, or a new one.
    pub(crate) fn start() -> Self {
        match std::env::var("KAFKA_BOOTSTRAP") {
            Ok(brokers) => Kafka { brokers, folder: None },
            Err(_) => Self::start_own(1),
        }
    }

    /// One broker, or three, that may be killed.
    pub(crate) fn start_own(brokers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = Self::script(&["start", &brokers.to_string()])
            .env("KAFKA_DIR", folder.path())
            .env("KAFKA_OWNER", std::process::id().to_string())
            .stderr(Stdio::inherit())
            .output();
        let started = start.unwrap();
        assert!(started.status.success(), "scripts/kafka starts a broker");
        let brokers = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Kafka { brokers, folder: Some(folder) }
    }

    fn script(args: &[&str]) -> Command {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka"));
        script.args(args);
        script
    }

    fn tell(&self, what: &str, broker: usize) {
        let folder = self.folder.as_ref().expect("a broker of its own").path().to_str().unwrap();
        assert!(Self::script(&[what, folder, &broker.to_string()]).status().unwrap().success(), "{what}");
    }

    /// Ends a broker, from 1, with no warning.
    pub(crate) fn kill(&self, broker: usize) {
        self.tell("kill", broker);
    }

    /// Starts it again on its data.
    pub(crate) fn restart(&self, broker: usize) {
        self.tell("restart", broker);
    }

    /// An address of a log under which nothing is yet.
    pub(crate) fn address(&self) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        format!("{}/test-{}", self.brokers, now.as_nanos())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = Self::script(&["stop", folder.path().to_str().unwrap()]).status();
        }
    }
}

/// The log's key, as its operator would make it known.
pub(crate) fn log_key(data: &Path) -> String {
    run(&["key", "log", "--data", data.to_str().unwrap()]).trim().to_owned()
}

/// Verifies a server or a folder with the pinned key, and returns the report; everything must be as published.
pub(crate) fn verified(target: &str, key: &str, more: &[&str]) -> Value {
    let said = run(&[&["verify", target, "--key", key], more].concat());
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(report["differences"], Value::Array(Vec::new()));
    report
}

/// Makes a key in the data folder.
pub(crate) fn add_key(data: &Path, name: &str, roles: &[&str]) -> String {
    let mut args = vec!["key", "add", "--data", data.to_str().unwrap(), "--name", name];
    roles.iter().for_each(|role| args.extend(["--role", role]));
    run(&args).trim().to_owned()
}

/// Makes a voter's token with the data folder's secret.
pub(crate) fn token(data: &Path, audience: &str, voter: &str) -> String {
    let data = data.to_str().unwrap();
    run(&["token", "issue", "--data", data, "--audience", audience, "--voter", voter]).trim().to_owned()
}

/// An answer as it came.
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends a request just as it is given, right or wrong.
pub(crate) fn raw(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Raw {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    socket.write_all(head.as_bytes()).unwrap();
    // A server that refuses a body may close before all of it was sent.
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
    Raw { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Posts JSON, as a key or a voter or nobody.
pub(crate) fn post(address: &str, path: &str, bearer: Option<&str>, key: Option<&str>, body: &Value) -> Raw {
    let bearer = bearer.map(|b| format!("Bearer {b}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|b| ("authorization", b)));
    headers.extend(key.map(|k| ("idempotency-key", k)));
    raw(address, "POST", path, &headers, body.to_string().as_bytes())
}

/// Reads a path as JSON.
pub(crate) fn get(address: &str, path: &str) -> Value {
    let answer = raw(address, "GET", path, &[], b"");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

/// Waits until `done` says so; the board publishes a little after a record is confirmed.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}
