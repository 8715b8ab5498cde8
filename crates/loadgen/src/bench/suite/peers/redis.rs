//! Redis: one script a vote, `SET NX` and `HINCRBY`, with an append-only file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use super::super::canvass::SELECTIONS;
use super::super::drive::Answers;
use super::super::legs::{Bench, Leg, Trial, announce, drive};
use super::super::votes::{Expected, Requests, each, name};
use super::super::{Fault, SERVER_CORE, stage};
use super::{found, free_address, wait_for};

const SCRIPT: &str = "if redis.call('SET', KEYS[1], ARGV[1], 'NX') then redis.call('HINCRBY', KEYS[2], ARGV[1], 1) \
                      return 1 else return 0 end";

pub(super) fn everysec(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    trial(bench, leg, "everysec")
}

pub(super) fn always(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    trial(bench, leg, "always")
}

fn trial(bench: &Bench<'_>, leg: &Leg, fsync: &str) -> Result<Trial, Fault> {
    let folder = bench.suite.stage.folder().join(leg.name);
    std::fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let mut command = stage::pinned(SERVER_CORE, found("redis-server")?);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]).arg(&folder);
    command.args(["--appendonly", "yes", "--appendfsync", fsync, "--save", ""]);
    // No rewriting of the file while the clock runs, which would share its core.
    command.args(["--auto-aof-rewrite-percentage", "0", "--maxclients", "4096", "--logfile", "log"]);
    let pid = bench.suite.stage.start(&mut command, Signal::KILL)?.pid;
    announce(leg, pid);
    wait_for(address)?;
    let mut client = Client::connect(address)?;
    let script = client.ask(&["SCRIPT", "LOAD", SCRIPT])?;
    let (requests, expected) = requests(bench.votes, &script);
    let (trial, replies) = drive(address, leg, &requests, &expected, Replies::default())?;
    if (replies.new, replies.again) != (expected.new, expected.again) {
        return Err(Fault(format!("{replies:?} were answered, not {expected:?}")));
    }
    for (selection, total) in SELECTIONS.iter().zip(expected.totals) {
        let found = client.ask(&["HGET", "counts", selection])?;
        if found != total.to_string() {
            return Err(Fault(format!("{selection}: {found} votes are counted, {total} were cast")));
        }
    }
    bench.suite.stage.end(pid)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(trial)
}

fn command(words: &[&str]) -> String {
    let mut out = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| out.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    out
}

fn requests(votes: u64, script: &str) -> (Requests, Expected) {
    let mut requests = Requests::default();
    let expected = each(0..votes, |voter, choice| {
        let words = ["EVALSHA", script, "2", &format!("voter:{}", name(voter)), "counts", SELECTIONS[choice]];
        requests.push(command(&words).as_bytes());
    });
    (requests, expected)
}

/// What the script answered.
#[derive(Debug, Default)]
struct Replies {
    new: u64,
    again: u64,
}

impl Answers for Replies {
    fn take(&mut self, _: usize, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        match bytes {
            [b':', b'1', b'\r', b'\n', ..] => self.new += 1,
            [b':', b'0', b'\r', b'\n', ..] => self.again += 1,
            [b':'] | [b':', _] | [b':', _, b'\r'] => return Ok(None),
            _ => return Err(Fault(format!("an answer is not as expected: {}", bytes.escape_ascii()))),
        }
        Ok(Some(4))
    }
}

/// Asks one thing at a time, before and after the clock runs.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Result<Self, Fault> {
        Ok(Client(BufReader::new(TcpStream::connect(address)?)))
    }

    /// The text of an answer that is one.
    fn ask(&mut self, words: &[&str]) -> Result<String, Fault> {
        self.0.get_mut().write_all(command(words).as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let length = line.trim().strip_prefix('$').and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or_else(|| Fault(format!("{words:?}: {}", line.trim())))?;
        let mut text = vec![0; length + 2];
        self.0.read_exact(&mut text)?;
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
