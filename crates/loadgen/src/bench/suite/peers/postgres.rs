//! PostgreSQL: a prepared statement a vote, or `COPY` into a staging table.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::super::legs::{Bench, Leg, Trial, Watch, announce};
use super::super::votes::{Expected, each, id};
use super::super::{Fault, SERVER_CORE, Suite, stage};
use super::{as_user, eventually, found, free_address, output, shares};

/// The user whom Debian's package makes, since the server refuses to run as root.
const USER: &str = "postgres";
/// One trial of single inserts is this part of the votes of the others, which take less time.
const PART: u64 = 10;
/// Rows of one `COPY`.
const ROWS: u64 = 10_000;

const TABLES: &str = "CREATE TABLE votes (voter bigint PRIMARY KEY, selection smallint NOT NULL);
    CREATE TABLE counts (slot int, selection smallint, n bigint NOT NULL, PRIMARY KEY (slot, selection))
        WITH (fillfactor = 20);";

/// Each session counts in a row of its own: in one row for all, they would wait for each other's commits.
const INSERT: &str = "\\set i :i + 1
\\set n case when :i % 100 = 99 then :i - 50 else :i end
\\set voter hash_murmur2(:client_id * 1000000000 + :n)
\\set selection :n % 4
WITH new AS (INSERT INTO votes VALUES (:voter, :selection) ON CONFLICT DO NOTHING RETURNING selection)
    UPDATE counts SET n = n + 1 FROM new WHERE counts.slot = :client_id AND counts.selection = new.selection;
";
const COUNT_NEW: &str =
    "WITH new AS (INSERT INTO votes SELECT * FROM staging ON CONFLICT DO NOTHING RETURNING selection)
    INSERT INTO counts SELECT nextval('batch'), selection, count(*) FROM new GROUP BY selection;";

struct Server {
    pid: u32,
    address: SocketAddr,
    folder: PathBuf,
}

fn start(suite: &Suite, leg: &Leg) -> Result<Server, Fault> {
    let folder = suite.peer_folder(leg.name, USER)?;
    let initdb = as_user(USER, &found("initdb")?);
    let mut init = Command::new(&initdb[0]);
    init.args(&initdb[1..])
        .args(["-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"])
        .arg(&folder);
    output(&mut init)?;
    let address = free_address()?;
    let words = as_user(USER, &found("postgres")?);
    let mut command = stage::pinned(SERVER_CORE, &words[0]);
    command.args(&words[1..]).arg("-D").arg(&folder).arg("-k").arg(&folder);
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
    let settings = ["fsync=on", "synchronous_commit=on", "shared_buffers=1GB", "max_wal_size=8GB"];
    settings.iter().for_each(|setting| {
        command.args(["-c", setting]);
    });
    let log = std::fs::File::create(suite.stage.folder().join("postgres.log"))?;
    let pid = suite.stage.start(command.stdout(Stdio::null()).stderr(log), Signal::QUIT)?.pid;
    announce(leg, pid);
    let server = Server { pid, address, folder };
    eventually(|| server.query("SELECT 1").is_ok(), || "PostgreSQL does not answer".to_owned())?;
    server.query(TABLES)?;
    Ok(server)
}

impl Server {
    fn client(&self, program: &str) -> Result<Command, Fault> {
        let mut command = Command::new(found(program)?);
        command.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "-U", "bench"]);
        Ok(command)
    }

    fn psql(&self) -> Result<Command, Fault> {
        let mut command = self.client("psql")?;
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        Ok(command)
    }

    fn query(&self, sql: &str) -> Result<String, Fault> {
        output(self.psql()?.args(["-c", sql]))
    }

    /// Holds the votes and the counts against what was sent, and ends the server.
    fn check(&self, suite: &Suite, expected: &Expected) -> Result<(), Fault> {
        let text: String = expected
            .totals
            .iter()
            .enumerate()
            .fold(String::new(), |text, (i, n)| text + &format!("{i}|{n}\n"));
        for table in ["(SELECT selection, 1 AS n FROM votes)", "counts"] {
            let found = self.query(&format!(
                "SELECT selection, sum(n) FROM {table} AS t GROUP BY selection ORDER BY selection"
            ))?;
            if found != text {
                return Err(Fault(format!("{table}: {found:?} is counted, {text:?} was cast")));
            }
        }
        suite.stage.end(self.pid)?;
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

/// pgbench with one thread, as its users measure it.
pub(super) fn insert(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    let server = start(bench.suite, leg)?;
    let sessions = u64::try_from(leg.connections).unwrap_or(1);
    let each = bench.votes / PART / sessions;
    server.query(&format!(
        "INSERT INTO counts SELECT slot, selection, 0 FROM generate_series(0, {}) slot, generate_series(0, 3) selection",
        sessions - 1
    ))?;
    let script = bench.suite.stage.folder().join("insert.sql");
    std::fs::write(&script, INSERT)?;
    let mut command = server.client("pgbench")?;
    command.args(["-n", "-M", "prepared", "-j", "1", "-c", &sessions.to_string(), "-t", &each.to_string()]);
    command.args(["-D", "i=-1", "-f"]).arg(script).arg("postgres");
    let watch = Watch::start()?;
    let since = std::time::Instant::now();
    let said = output(&mut command)?;
    let mut trial = watch.stop(each * sessions, since.elapsed())?;
    // Its own figure leaves out the time that the sessions took to connect.
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split('.').next()?.parse().ok());
    trial.votes_per_second = rate.ok_or_else(|| Fault(format!("pgbench told no rate: {said}")))?;
    let expected = (0..each).filter(|i| i % 100 != 99).fold(Expected::default(), |mut expected, i| {
        expected.totals[usize::try_from(i % 4).unwrap_or(0)] += sessions;
        expected
    });
    server.check(bench.suite, &expected)?;
    Ok(trial)
}

/// Sessions that copy rows into a table of their own and insert from there what is new.
pub(super) fn copy(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    let server = start(bench.suite, leg)?;
    server.query("CREATE SEQUENCE batch")?;
    let mut expected = Expected::default();
    let mut commands = Vec::new();
    for (session, votes) in shares(bench.votes) {
        let mut text = "CREATE TEMP TABLE staging (LIKE votes) ON COMMIT DELETE ROWS;\n".to_owned();
        let mut first = votes.start;
        while first < votes.end {
            let end = (first + ROWS).min(votes.end);
            text.push_str("BEGIN;\nCOPY staging FROM STDIN;\n");
            expected += each(first..end, |voter, choice| {
                let _ = writeln!(text, "{}\t{choice}", id(voter));
            });
            let _ = writeln!(text, "\\.\n{COUNT_NEW}\nCOMMIT;");
            first = end;
        }
        let file = bench.suite.stage.folder().join(format!("copy-{session}.sql"));
        std::fs::write(&file, text)?;
        commands.push((server.psql()?, file));
    }
    let trial = bench.suite.sessions(bench.votes, commands)?;
    server.check(bench.suite, &expected)?;
    Ok(trial)
}
