//! MariaDB: inserts of many rows that leave what is there as it is.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::super::legs::{Bench, Leg, Trial, announce};
use super::super::votes::{Expected, each, id};
use super::super::{Fault, SERVER_CORE, stage};
use super::{eventually, found, free_address, output, shares};

/// The user whom Debian's package makes.
const USER: &str = "mysql";
/// Rows of one insert.
const ROWS: u64 = 1_000;

/// A row names the batch that brought it, by which a batch's new votes are counted in its own transaction.
const TABLES: &str = "CREATE DATABASE bench; USE bench;
    CREATE TABLE votes (voter BIGINT PRIMARY KEY, selection TINYINT NOT NULL, batch INT NOT NULL, KEY (batch));
    CREATE TABLE counts (batch INT, selection TINYINT, n BIGINT NOT NULL, PRIMARY KEY (batch, selection))";

pub(super) fn batch(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    let suite = bench.suite;
    let folder = suite.peer_folder(leg.name, USER)?;
    let (data, socket) = (format!("--datadir={}", folder.display()), folder.join("socket"));
    let mut install = Command::new(found("mariadb-install-db")?);
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data]);
    let user = rustix::process::geteuid().is_root().then(|| format!("--user={USER}"));
    output(install.args(&user))?;
    let address = free_address()?;
    let mut command = stage::pinned(SERVER_CORE, found("mariadbd")?);
    command.args(["--no-defaults", &data, "--bind-address=127.0.0.1", "--skip-log-bin"]).args(&user);
    command.arg(format!("--port={}", address.port())).arg(format!("--socket={}", socket.display()));
    command.args(["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=1G"]);
    // With the default isolation, the counting of one batch would wait for the rows of another.
    command.args(["--innodb-log-file-size=2G", "--transaction-isolation=READ-COMMITTED"]);
    let log = std::fs::File::create(suite.stage.folder().join("mariadb.log"))?;
    let pid = suite.stage.start(command.stdout(Stdio::null()).stderr(log), Signal::KILL)?.pid;
    announce(leg, pid);
    let client = found("mariadb")?;
    let session = || {
        let mut command = Command::new(&client);
        command.args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-N", "-B"]);
        command.args(["-P", &address.port().to_string()]);
        command
    };
    let query = |sql: &str| output(session().args(["-e", sql]));
    eventually(|| query("SELECT 1").is_ok(), || "MariaDB does not answer".to_owned())?;
    query(TABLES)?;
    let mut expected = Expected::default();
    let mut commands = Vec::new();
    for (i, votes) in shares(bench.votes) {
        let (text, part) = inserts(votes);
        expected += part;
        let file = suite.stage.folder().join(format!("insert-{i}.sql"));
        std::fs::write(&file, text)?;
        let mut command = session();
        command.arg("bench");
        commands.push((command, file));
    }
    let trial = suite.sessions(bench.votes, commands)?;
    let cast = expected.totals.iter().enumerate();
    let cast = cast.fold(String::new(), |text, (i, n)| text + &format!("{i}\t{n}\n"));
    for table in ["(SELECT selection, 1 AS n FROM bench.votes)", "bench.counts"] {
        let found = query(&format!(
            "SELECT selection, SUM(n) FROM {table} AS t GROUP BY selection ORDER BY selection"
        ))?;
        if found != cast {
            return Err(Fault(format!("{table}: {found:?} is counted, {cast:?} was cast")));
        }
    }
    suite.stage.end(pid)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(trial)
}

fn inserts(votes: std::ops::Range<u64>) -> (String, Expected) {
    let (mut text, mut expected) = (String::new(), Expected::default());
    let mut first = votes.start;
    while first < votes.end {
        let end = (first + ROWS).min(votes.end);
        text.push_str("BEGIN; INSERT INTO votes VALUES ");
        let mut comma = "";
        expected += each(first..end, |voter, choice| {
            let _ = write!(text, "{comma}({},{choice},{first})", id(voter));
            comma = ",";
        });
        let _ = writeln!(
            text,
            " ON DUPLICATE KEY UPDATE voter = VALUES(voter);\n\
             INSERT INTO counts SELECT batch, selection, COUNT(*) FROM votes WHERE batch = {first} \
             GROUP BY selection; COMMIT;"
        );
        first = end;
    }
    (text, expected)
}
