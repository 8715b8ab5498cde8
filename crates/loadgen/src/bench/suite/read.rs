//! Results as JSON and as a page, against nginx, which serves the same bytes as files.

use std::net::SocketAddr;

use super::drive::Driver;
use super::http::{Same, ask};
use super::legs::{Bench, Leg, Options, Trial, Watch, announce};
use super::night::{Night, PAGE, RESULTS};
use super::peers::find;
use super::report::Table;
use super::votes::Requests;
use super::{Fault, Suite};

const CONNECTIONS: usize = 256;

const LEGS: [Leg; 4] = [
    Leg { name: "canvass-json", connections: CONNECTIONS, depth: 1, trial: canvass },
    Leg { name: "nginx-json", connections: CONNECTIONS, depth: 1, trial: nginx },
    Leg { name: "canvass-page", connections: CONNECTIONS, depth: 1, trial: canvass },
    Leg { name: "nginx-page", connections: CONNECTIONS, depth: 1, trial: nginx },
];

/// What is read.
struct Reading {
    path: &'static str,
    /// The name of the file that nginx serves.
    file: &'static str,
    cache_control: &'static str,
}

impl Reading {
    fn of(leg: &Leg) -> Self {
        let (path, file) =
            if leg.name.ends_with("json") { (RESULTS, "results.json") } else { (PAGE, "page.html") };
        let cache_control = "public, max-age=1, stale-while-revalidate=10, stale-if-error=600";
        Reading { path, file, cache_control }
    }
}

/// What a browser asks, as far as a server must look at it.
fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: results.example.org\r\naccept: */*\r\naccept-encoding: gzip\r\n\r\n"
    )
    .into()
}

impl Suite {
    /// The table `read`.
    pub fn read(&self, options: &Options) -> Result<Table, Fault> {
        if find("nginx").is_none() {
            return Err(Fault("there is no `nginx`; install Debian's package nginx-light".to_owned()));
        }
        let mut table = self.in_turn("read", &LEGS, options)?;
        table.rows.iter_mut().for_each(|row| row.unit = "reads/s".to_owned());
        table.compare("canvass-json", "nginx-json", Some(120));
        table.compare("canvass-page", "nginx-page", Some(120));
        Ok(table)
    }
}

/// A night on which all districts have reported, and what a reader gets of it.
fn night<'a>(bench: &'a Bench<'_>, reading: &Reading) -> Result<(Night<'a>, Vec<u8>), Fault> {
    let mut night = Night::begin(bench.suite, &bench.credentials, "read")?;
    night.report(u64::MAX)?;
    night.settle()?;
    let body = ask(night.server.address, &request(reading.path))?;
    Ok((night, body))
}

fn canvass(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    let reading = Reading::of(leg);
    let (night, body) = night(bench, &reading)?;
    announce(leg, night.server.pid);
    let trial = read(bench, leg, night.server.address, &request(reading.path), &body)?;
    bench.suite.remove(&night.server)?;
    Ok(trial)
}

fn nginx(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    let reading = Reading::of(leg);
    let (night, body) = night(bench, &reading)?;
    bench.suite.remove(&night.server)?;
    let server = format!("gzip_static always;\nadd_header cache-control \"{}\";", reading.cache_control);
    let name = format!("{}.gz", reading.file);
    let nginx = bench.suite.nginx("", &server, |root| std::fs::write(root.join(name), &body))?;
    announce(leg, nginx.worker);
    let trial = read(bench, leg, nginx.address, &request(&format!("/{}", reading.file)), &body)?;
    bench.suite.remove_nginx(&nginx)?;
    Ok(trial)
}

/// Asks the same again and again; each answer must be the same bytes.
fn read(
    bench: &Bench<'_>,
    leg: &Leg,
    address: SocketAddr,
    request: &[u8],
    body: &[u8],
) -> Result<Trial, Fault> {
    let mut requests = Requests::default();
    (0..bench.votes).for_each(|_| requests.push(request));
    let mut driver = Driver::connect(address, leg.connections, &requests, Same { body, count: 0 })?;
    let watch = Watch::start()?;
    let elapsed = driver.closed(leg.depth)?;
    watch.stop(driver.answers.count, elapsed)
}
