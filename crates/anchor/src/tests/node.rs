//! A node with a chain of its own, which does what a test tells it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// The folder of the tools that npm installs.
pub(crate) fn tools() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/chain");
    assert!(folder.join("node_modules").is_dir(), "run `npm ci --ignore-scripts` in tests/chain first");
    folder
}

/// The node. Dropping it kills it.
pub(crate) struct Node {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Node {
    /// Starts a chain that makes a block of each transaction, and takes a block for final two behind the newest.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = launch(folder.path(), 0);
        Self { child, port, folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends the node; what it had in its blocks is kept.
    pub(crate) fn end(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.port) = launch(self.folder.path(), self.port);
    }

    /// Asks it something that it must answer.
    pub(crate) fn ask(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let answer = pass(self.port, &body);
        let mut answer: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Makes so many blocks, of what waits if there is anything.
    pub(crate) fn mine(&self, blocks: u64) {
        self.ask("anvil_mine", json!([format!("{blocks:#x}")]));
    }

    /// Whether each transaction gets a block at once.
    pub(crate) fn automatic(&self, on: bool) {
        self.ask("evm_setAutomine", json!([on]));
    }

    pub(crate) fn block(&self) -> u64 {
        number(&self.ask("eth_blockNumber", json!([])))
    }

    /// The transactions that wait, whether they could go into the next block or not.
    pub(crate) fn waiting(&self) -> Vec<Value> {
        let pool = self.ask("txpool_content", json!([]));
        let accounts = ["pending", "queued"].map(|kind| pool[kind].as_object().unwrap().clone());
        let by_nonce = accounts.into_iter().flat_map(|accounts| accounts.into_iter().map(|(_, all)| all));
        by_nonce.flat_map(|all| all.as_object().unwrap().clone().into_iter().map(|(_, one)| one)).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Hands a request on to a node, and returns the body of its answer.
fn pass(port: u16, body: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close";
    write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The address of a node that hands everything on to another but does not know which blocks are final, as nodes of
/// many chains do not.
pub(crate) fn without_finality(port: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || answer(socket.unwrap(), port));
        }
    });
    format!("http://{address}")
}

fn answer(mut socket: TcpStream, port: u16) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let body = if body.contains("finalized") {
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"unknown block tag"}}"#.to_owned()
    } else {
        pass(port, &body)
    };
    write!(socket, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
}

fn launch(folder: &Path, port: u16) -> (Child, u16) {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("there is no anvil for {other}"),
    };
    let program =
        tools().join(format!("node_modules/@foundry-rs/anvil-{}-{machine}/bin/anvil", std::env::consts::OS));
    let mut child = Command::new(&program)
        .args(["--port", &port.to_string(), "--slots-in-an-epoch", "1", "--accounts", "2", "--state"])
        .arg(folder.join("state.json"))
        // It looks for its own files there.
        .env("HOME", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{}: {e}; run `npm ci --ignore-scripts` in tests/chain", program.display())
        });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening =
        lines.find_map(|line| Some(line.ok()?.strip_prefix("Listening on 127.0.0.1:")?.to_owned()));
    let port = listening.expect("the node listens").trim().parse().unwrap();
    // It must not be held up by what nobody reads.
    std::thread::spawn(move || lines.for_each(drop));
    (child, port)
}
