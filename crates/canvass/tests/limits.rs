//! Every input has a limit, and whoever exceeds it is told so.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Raw, add_key, post, raw};

/// A server with limits that a test can reach. The helper of the other tests lifts them.
struct Limited {
    child: std::process::Child,
    address: String,
    data: PathBuf,
    _folder: tempfile::TempDir,
}

impl Limited {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("election.toml");
        std::fs::write(&file, support::POLL).unwrap();
        let data = folder.path().join("data");
        let mut child = support::command()
            .args(["serve", "--listen", "127.0.0.1:0", "--election", file.to_str().unwrap(), "--data"])
            .arg(&data)
            .args(options)
            .env("CANVASS_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Limited { child, address, data, _folder: folder }
    }

    fn vote(&self, voter: usize, key: Option<&str>) -> Raw {
        let body = json!({"contest": "song", "selections": ["x"], "voter": format!("voter-{voter}")});
        post(&self.address, "/api/v1/vote", key, Some("k"), &body)
    }

    fn batch(&self, lines: usize, bearer: &str) -> Raw {
        let line =
            |i: usize| json!({"contest": "song", "selections": ["x"], "voter": format!("b{i}"), "key": "k"});
        let body: String = (0..lines).map(|i| format!("{}\n", line(i))).collect();
        let bearer = format!("Bearer {bearer}");
        let headers = [("content-type", "application/x-ndjson"), ("authorization", bearer.as_str())];
        raw(&self.address, "POST", "/api/v1/votes", &headers, body.as_bytes())
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_address_that_asks_too_often_is_told_to_wait() {
    let server = Limited::start(&["--rate-per-address", "5"]);
    let answers: Vec<Raw> = (0..40).map(|voter| server.vote(voter, None)).collect();
    let refused: Vec<&Raw> = answers.iter().filter(|a| a.status != 201).collect();
    assert!(!refused.is_empty() && refused.len() < 40);
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate-limited"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(server.vote(100, None).status, 201, "after the wait it is taken again");
    // A collector's key has its own, larger share; guessing keys has none.
    let collector = add_key(&server.data, "hall", &["collector"]);
    assert!((200..240).all(|voter| server.vote(voter, Some(&collector)).status == 201));
}

#[test]
fn a_key_has_its_own_rate_and_a_batch_its_lines() {
    let server = Limited::start(&["--rate-per-key", "100"]);
    let collector = add_key(&server.data, "hall", &["collector"]);
    assert_eq!(server.batch(150, &collector).status, 200);
    let second = server.batch(150, &collector);
    assert_eq!((second.status, second.code().as_str()), (429, "rate-limited"));
    let long = server.batch(10_001, &collector);
    assert_eq!((long.status, long.code().as_str()), (413, "body-too-large"));
}

#[test]
fn batches_beyond_what_memory_allows_are_told_to_come_back() {
    let server = Limited::start(&[]);
    let slow = |_| {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let head = "POST /api/v1/votes HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    let held: Vec<TcpStream> = (0..64).map(slow).collect();
    let collector = add_key(&server.data, "hall", &["collector"]);
    let refused = support::eventually("a refusal", || {
        let answer = server.batch(1, &collector);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.vote(1, None).status, 201, "single votes are taken all the same");
    drop(held);
    support::eventually("room", || (server.batch(1, &collector).status == 200).then_some(()));
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let server = Limited::start(&["--connections", "3"]);
    let held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut fourth = TcpStream::connect(&server.address).unwrap();
    let mut answer = String::new();
    fourth.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["code"], "too-many-connections");
    drop(held);
    support::eventually("room", || {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let _ = socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Limited::start(&[]);
    let mut socket = TcpStream::connect(&server.address).unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(64 << 10));
    let _ = socket.write_all(head.as_bytes());
    let mut answer = String::new();
    // What the server did not read makes its answer get lost on the way now and then; the end of it does not.
    let _ = socket.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(raw(&server.address, "GET", "/livez", &[], b"").status, 200);
}

/// Makes an Ed25519 key pair in PEM form.
fn key_pair(folder: &Path) -> (PathBuf, PathBuf) {
    let (private, public) = (folder.join("private.pem"), folder.join("public.pem"));
    let openssl = |args: &[&str]| assert!(Command::new("openssl").args(args).status().unwrap().success());
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", private.to_str().unwrap()]);
    openssl(&["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
    (private, public)
}

#[test]
fn tokens_of_an_authority_are_good_by_its_public_key_alone() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(folder.path());
    let server = Limited::start(&["--token-key", public.to_str().unwrap()]);
    let claims = json!({"sub": "ann", "aud": "poll", "exp": 99_999_999_999_u64, "contests": ["song"]});
    let issue =
        ["token", "issue", "--audience", "poll", "--voter", "ann", "--contest", "song", "--signing-key"];
    let token = support::run(&[&issue[..], &[private.to_str().unwrap()]].concat()).trim().to_owned();
    let body = json!({"contest": "song", "selections": ["y"]});
    let cast = |token: &str| post(&server.address, "/api/v1/vote", Some(token), Some("k"), &body);
    assert_eq!(cast(&token).status, 201);
    let (other, _) = key_pair(&{
        let second = folder.path().join("second");
        std::fs::create_dir(&second).unwrap();
        second
    });
    let forged = support::run(&[&issue[..], &[other.to_str().unwrap()]].concat());
    assert_eq!(cast(forged.trim()).code(), "token-invalid");
    // The public key is public: signing with it, as if it were a shared secret, must not help.
    let confused = EncodingKey::from_secret(&std::fs::read(public).unwrap());
    let confused = encode(&Header::new(Algorithm::HS256), &claims, &confused).unwrap();
    assert_eq!(cast(&confused).code(), "token-invalid");
}
