//! Programs that nobody here wrote read the published log, and a witness that nobody here wrote cosigns it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use canvass_loadgen::bench::ingest;
use canvass_loadgen::client::Request;
use canvass_tlog::witness::cosignatures;
use canvass_tlog::{Bundle, Proof, PublicKey, SignedCheckpoint, TilePath, verify_inclusion};
use serde_json::json;
use support::tls::behind_tls;
use support::{Server, eventually, raw, run};

const OLD: u64 = 70_000;
const NEW: u64 = 100_000;

fn start(folder: &Path, data: &str, options: &[&str]) -> Server {
    let file = folder.join("election.toml");
    let poll = support::POLL.replace("[[units]]", "[partitions]\nvotes = 1\nreturns = 1\n[[units]]");
    fs::write(&file, poll).unwrap();
    let options = [&["--election", file.to_str().unwrap(), "--tick-ms", "50"], options].concat();
    Server::start(&folder.join(data), &options)
}

fn key(data: &Path) -> PublicKey {
    run(&["key", "log", "--data", data.to_str().unwrap()]).trim().parse().unwrap()
}

/// A program of `tests/tlog/python`, which `scripts/tools` installs.
fn python(program: &str) -> Command {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tlog/python/.venv/bin");
    assert!(programs.join(program).exists(), "this test needs {program}: run scripts/tools");
    Command::new(programs.join(program))
}

fn good(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    &output.stdout
}

async fn cast(server: &Server, voters: u64, run: &str) {
    let options = ingest::Options {
        contest: "song".to_owned(),
        voters,
        retry_percent: 0,
        double_percent: 0,
        connections: 4,
        in_flight: 8_000,
        batch: 1_000,
        seed: 7,
        run: run.to_owned(),
        signer: None,
    };
    let report = ingest::run(&server.client(), &options).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
}

async fn bytes(server: &Server, path: &str) -> Vec<u8> {
    let answer = server.client().once(&Request::get(path)).await.unwrap();
    assert_eq!(answer.status, 200, "{path}");
    answer.body.to_vec()
}

fn write(file: &Path, bytes: &[u8]) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Copies what the server has of the partition's log of that size, as it serves it.
async fn copy(server: &Server, folder: &Path, size: u64) -> SignedCheckpoint {
    let own = key(&folder.join("data"));
    let own = own.named(&format!("{}/votes/0", own.name())).unwrap();
    let checkpoint = eventually("the checkpoint of all votes", || {
        let note = raw(&server.address, "GET", "/log/votes/0/checkpoint", &[], b"").body;
        SignedCheckpoint::open(note.as_bytes(), &own).ok().filter(|found| found.size() == size)
    });
    for path in TilePath::all(size) {
        let file = folder.join("copy").join("tile").join(path.to_string());
        if path.width < 256 || !file.exists() {
            write(&file, &bytes(server, &format!("/log/votes/0/tile/{path}")).await);
        }
    }
    checkpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_others_read_and_prove_a_hundred_thousand_records() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "data", &[]);
    let copied = folder.path().join("copy");
    // The definition is the first leaf.
    cast(&server, OLD - 1, "a").await;
    let old = copy(&server, folder.path(), OLD).await;
    cast(&server, NEW - OLD, "b").await;
    let new = copy(&server, folder.path(), NEW).await;
    write(&copied.join("old"), old.note().as_bytes());
    write(&copied.join("checkpoint"), new.note().as_bytes());
    let own = key(&folder.path().join("data"));
    let votes = own.named(&format!("{}/votes/0", own.name())).unwrap();

    let program = folder.path().join("reader");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tlog/go");
    let built = Command::new("go").args(["build", "-o"]).arg(&program).current_dir(source).output();
    good(&built.expect("this test needs Go"));
    let said = Command::new(&program).arg(&copied).args([&votes.to_string(), votes.name()]).output().unwrap();
    let said = String::from_utf8_lossy(good(&said)).into_owned();
    assert_eq!(said, format!("poll/votes/0: {NEW} leaves, grown from {OLD}\n"));

    let log = format!("{}/log/votes/0", server.url());
    for index in [1_u64, 255, 256, 65_535, 65_536, 99_840, 99_999] {
        let leaf = python("tlog-tiles").args(["get-leaf", "-c", &log, &index.to_string()]).output().unwrap();
        let record = good(&leaf);
        let path = TilePath { level: None, index: index / 256, width: 256 };
        let width = u16::try_from(NEW - path.first()).unwrap_or(256).min(256);
        let bundle = bytes(&server, &format!("/log/votes/0/tile/{}", TilePath { width, ..path })).await;
        let place = usize::try_from(index % 256).unwrap();
        assert_eq!(record, Bundle::new(&bundle).nth(place).unwrap().unwrap(), "{index}");
        let proof = python("tlog-tiles").args(["gen-proof", &log, &index.to_string()]).output().unwrap();
        let proof: Proof = String::from_utf8_lossy(good(&proof)).parse().unwrap();
        assert_eq!(proof.index, index);
        assert_eq!(verify_inclusion(record, &proof, &votes).unwrap().size(), NEW);
    }
    // The log as a whole: its last leaf is a checkpoint of a partition.
    let leaf = python("tlog-tiles").args(["get-leaf", "-c", &server.url(), "-1"]).output().unwrap();
    assert!(good(&leaf).starts_with(b"poll/"));
    let (fresh, old) = (copied.join("checkpoint"), old.note().as_bytes());
    fs::write(&fresh, old).unwrap();
    let leaf = python("tlog-tiles").args(["get-leaf", "-c", copied.to_str().unwrap(), "70000"]).output();
    assert!(!leaf.unwrap().status.success(), "a leaf beyond the checkpoint is none");
    server.stop();
}

/// The witness of PyPI's `aics-witness` in a process of its own.
struct Witness {
    folder: PathBuf,
    port: u16,
    key: PublicKey,
    child: Option<Child>,
}

impl Witness {
    fn new(folder: &Path) -> Self {
        let folder = folder.join("witness");
        fs::create_dir(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let init = ["init", "-c", "w.json", "--name", "w.example/w1", "--listen", &listen];
        let made = python("aics-witness").args(init).current_dir(&folder).output().unwrap();
        let key = String::from_utf8_lossy(good(&made)).trim().parse().unwrap();
        Witness { folder, port, key, child: None }
    }

    fn run(&mut self, log: &PublicKey) {
        let add = ["add-log", "-c", "w.json", "--origin", log.name(), "--vkey", &log.to_string()];
        good(&python("aics-witness").args(add).current_dir(&self.folder).output().unwrap());
        let mut serve = python("aics-witness");
        serve.args(["serve", "-c", "w.json"]).current_dir(&self.folder);
        self.child = Some(serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let port = self.port;
        eventually("the witness", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// The server's options to ask it, by TLS.
    fn file(&self) -> PathBuf {
        let (file, key) = (self.folder.join("witnesses.toml"), &self.key);
        let url = format!("https://localhost:{}", behind_tls(format!("127.0.0.1:{}", self.port)));
        fs::write(&file, format!("quorum = 1\n[[witness]]\nkey = \"{key}\"\nurl = \"{url}\"\n")).unwrap();
        file
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end();
    }
}

fn vote(server: &Server, voter: &str) {
    let body = json!({"contest": "song", "selections": ["x"], "voter": voter});
    assert_eq!(support::post(&server.address, "/api/v1/vote", None, Some("k"), &body).status, 201);
}

/// The last checkpoint, and how many cosignatures it has.
fn checkpoint(server: &Server, log: &PublicKey, witness: &PublicKey) -> Option<(u64, usize)> {
    let note = raw(&server.address, "GET", "/checkpoint", &[], b"").body;
    let checkpoint = SignedCheckpoint::open(note.as_bytes(), log).ok()?;
    let signed = cosignatures(&checkpoint, std::slice::from_ref(witness)).unwrap();
    Some((checkpoint.size(), signed.len()))
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_witness_of_others_cosigns_and_refuses_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut witness = Witness::new(folder.path());
    let file = witness.file();
    let options = ["--witnesses", file.to_str().unwrap()];
    // The witness is dead at first, which holds nobody up.
    let server = start(folder.path(), "data", &options);
    let log = key(&data);
    vote(&server, "a");
    let alone = eventually("a checkpoint", || checkpoint(&server, &log, &witness.key));
    assert_eq!(alone.1, 0);
    let page = raw(&server.address, "GET", "/contests/song", &[], b"").body;
    assert!(
        page.contains("1 witness is asked to sign") && page.contains("None of them has signed"),
        "{page}"
    );
    server.stop();
    let forked = folder.path().join("forked");
    copy_folder(&data, &forked);

    witness.run(&log);
    let server = start(folder.path(), "data", &options);
    let mut last = 0;
    for voter in ["b", "c", "d"] {
        vote(&server, voter);
        let next = eventually("a cosigned checkpoint", || {
            checkpoint(&server, &log, &witness.key).filter(|found| found.0 > last && found.1 == 1)
        });
        last = next.0;
    }
    let state = support::get(&server.address, "/api/v1/proof");
    assert_eq!(state["quorum"], 1);
    assert!(state["witnesses"]["w.example/w1"]["signed"].is_string(), "{state}");
    eventually("a page that says so", || {
        let page = raw(&server.address, "GET", "/contests/song", &[], b"").body;
        let said = "All of them have signed this checkpoint: w.example/w1";
        (page.contains(said) && page.contains("every record behind its numbers was in checkpoint"))
            .then_some(())
    });
    server.stop();

    // Another log of the same name and key, which went another way since, and further.
    let server = start(folder.path(), "forked", &[]);
    let mut size = alone.0;
    while size <= last {
        vote(&server, &format!("other {size}"));
        let next = || checkpoint(&server, &log, &witness.key).filter(|found| found.0 > size);
        size = eventually("a checkpoint of the fork", next).0;
    }
    server.stop();
    let server = start(folder.path(), "forked", &options);
    eventually("the witness's evidence", || {
        let asked =
            python("aics-witness").args(["evidence", "-c", "w.json"]).current_dir(&witness.folder).output();
        let evidence = String::from_utf8_lossy(good(&asked.unwrap())).into_owned();
        evidence.contains(&format!("poll\\n{size}\\n")).then_some(())
    });
    vote(&server, "other at last");
    let newer = || checkpoint(&server, &log, &witness.key).filter(|found| found.0 > size);
    eventually("a newer checkpoint of the fork", newer);
    std::thread::sleep(Duration::from_millis(1_500));
    let (shown, signed) = checkpoint(&server, &log, &witness.key).unwrap();
    assert_eq!(signed, 0, "the fork of {shown} leaves is cosigned");
    witness.end();
    server.stop();
}

#[test]
fn a_file_of_witnesses_that_is_wrong_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("witnesses.toml");
    let election = folder.path().join("election.toml");
    fs::write(&election, support::POLL).unwrap();
    let good = "w.example/w1+9bcd52b9+BJ22//TUN7bsxru0TWssofFIKKYOo6AOOAoM8ZZzJRKe";
    let log = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let entry = |key: &str, url: &str| format!("[[witness]]\nkey = \"{key}\"\nurl = \"{url}\"\n");
    let url = "https://w.example";
    for (text, said) in [
        ("quorum = 1\n".to_owned(), "witness"),
        (format!("quorum = 2\n{}", entry(good, url)), "one of 1 to 1"),
        (format!("quorum = 0\n{}", entry(good, url)), "one of 1 to 1"),
        (format!("quorum = 1\nkworum = 1\n{}", entry(good, url)), "kworum"),
        (format!("quorum = 1\n{}{}", entry(good, url), entry(good, url)), "twice"),
        (format!("quorum = 1\n{}", entry("w.example/w1", url)), "name+id+key"),
        (format!("quorum = 1\n{}", entry(log, url)), "signs logs"),
        (format!("quorum = 1\n{}", entry(good, "w.example")), "http://"),
        (format!("quorum = 1\n{}", entry(good, "ftp://w.example")), "http://"),
    ] {
        fs::write(&file, &text).unwrap();
        let (data, election) = (folder.path().join("data"), election.to_str().unwrap());
        let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
        let args =
            ["serve", "--listen", "127.0.0.1:0", "--election", election, "--data", data, "--witnesses", file];
        let found = support::fails(&args);
        assert!(found.contains(said), "{text}: {found}");
    }
}
