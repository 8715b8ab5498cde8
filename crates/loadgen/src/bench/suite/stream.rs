//! Many clients follow one contest, which changes once a second: Canvass against nginx with nchan.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::canvass::Credentials;
use super::crowd::{Crowd, Form};
use super::http::ask;
use super::night::{FOLLOW, Night};
use super::peers::found;
use super::report::{Row, Table};
use super::{Fault, Suite, stage};
use crate::bench::{micros, per_second};

/// Districts that report at once: what follows from it takes about 2.7 KB.
const DISTRICTS: u64 = 20;
/// A follower of Canvass is first told where it is, and then what there is.
const GREETINGS: u64 = 2;
const TICK: Duration = Duration::from_secs(1);
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const NCHAN: &str = "location = /sub { nchan_subscriber websocket eventsource; nchan_channel_id bench; \
                     nchan_subscriber_first_message newest; }\n\
                     location = /pub { nchan_publisher; nchan_channel_id bench; }";

/// Whom to let follow, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Clients.
    pub clients: usize,
    /// Seconds of one trial, in each of which there is one publication.
    pub seconds: u64,
    /// Trials of each.
    pub rounds: u32,
}

/// What one trial came to.
struct Trial {
    /// Deliveries in a second of the server's time on a core.
    deliveries_per_core: u64,
    /// From the first client that has a publication to the last, for the middle one of the publications.
    spread_us: u64,
    /// Bytes of the server's memory for each client.
    bytes_a_connection: u64,
}

/// Who delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Canvass,
    Nchan,
}

const LEGS: [(&str, By, Form); 4] = [
    ("canvass websocket", By::Canvass, Form::WebSocket),
    ("nchan websocket", By::Nchan, Form::WebSocket),
    ("canvass sse", By::Canvass, Form::Events),
    ("nchan sse", By::Nchan, Form::Events),
];

impl Suite {
    /// The table `stream`.
    pub fn stream(&self, options: &Options) -> Result<Table, Fault> {
        found("nginx")?;
        if !Path::new(MODULE).is_file() {
            return Err(Fault("nginx has no nchan; install Debian's package libnginx-mod-nchan".to_owned()));
        }
        let credentials = self.credentials()?;
        let payload = self.payload(&credentials)?;
        let mut trials: Vec<Vec<Trial>> = LEGS.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for ((name, by, form), trials) in LEGS.iter().zip(&mut trials) {
                let trial = match by {
                    By::Canvass => self.by_canvass(*form, options, &credentials),
                    By::Nchan => self.by_nchan(*form, options, &payload),
                };
                trials.push(trial.map_err(|fault| Fault(format!("{name}: {fault}")))?);
            }
        }
        Ok(table(options, payload.len(), &trials))
    }

    /// One change as it goes to those who follow.
    fn payload(&self, credentials: &Credentials) -> Result<Vec<u8>, Fault> {
        let mut night = Night::begin(self, credentials, "payload")?;
        let mut crowd = Crowd::connect(night.server.address, (Form::WebSocket, &websocket()), 1, GREETINGS)?;
        night.report(DISTRICTS)?;
        crowd.reach(1)?;
        self.remove(&night.server)?;
        Ok(crowd.last)
    }

    fn by_canvass(&self, form: Form, options: &Options, credentials: &Credentials) -> Result<Trial, Fault> {
        let mut night = Night::begin(self, credentials, "stream")?;
        let path = match form {
            Form::WebSocket => websocket(),
            Form::Events => format!("/api/v1/events{FOLLOW}"),
        };
        let (pid, address) = (night.server.pid, night.server.address);
        let followed = Followed { pid, address, form, path, greetings: GREETINGS };
        let trial = followed.trial(options, || night.report(DISTRICTS))?;
        self.remove(&night.server)?;
        Ok(trial)
    }

    fn by_nchan(&self, form: Form, options: &Options, payload: &[u8]) -> Result<Trial, Fault> {
        let nginx = self.nginx(&format!("load_module {MODULE};"), NCHAN, |_| Ok(()))?;
        let mut request =
            format!("POST /pub HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", payload.len())
                .into_bytes();
        request.extend_from_slice(payload);
        let (pid, address) = (nginx.worker, nginx.address);
        let followed = Followed { pid, address, form, path: "/sub".to_owned(), greetings: 0 };
        let trial = followed.trial(options, || ask(address, &request).map(drop))?;
        self.remove_nginx(&nginx)?;
        Ok(trial)
    }
}

fn websocket() -> String {
    format!("/api/v1/stream{FOLLOW}")
}

/// What is followed.
struct Followed {
    /// The process that delivers.
    pid: u32,
    address: SocketAddr,
    form: Form,
    path: String,
    /// Texts that each client gets to begin with.
    greetings: u64,
}

impl Followed {
    /// Lets clients follow while something is published every second.
    fn trial(
        &self,
        options: &Options,
        mut publish: impl FnMut() -> Result<(), Fault> + Send,
    ) -> Result<Trial, Fault> {
        let empty = stage::memory(self.pid)?;
        let mut crowd =
            Crowd::connect(self.address, (self.form, &self.path), options.clients, self.greetings)?;
        // The first publication makes what is kept from one to the next.
        publish()?;
        crowd.reach(1)?;
        let clients = u64::try_from(options.clients).unwrap_or(u64::MAX);
        let held = stage::memory(self.pid)?.saturating_sub(empty);
        let busy = stage::time_on_core(self.pid)?;
        let mut spreads = Vec::new();
        for number in 1..=options.seconds {
            let next = Instant::now() + TICK;
            // Who publishes waits for its answer: clients must be heard in the meantime.
            let (first, last) = std::thread::scope(|scope| {
                let published = scope.spawn(&mut publish);
                let reached = crowd.reach(number + 1)?;
                published.join().map_err(|_| Fault("the publisher failed".to_owned()))??;
                Ok::<_, Fault>(reached)
            })?;
            spreads.push(micros(last - first));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let busy = stage::time_on_core(self.pid)?.saturating_sub(busy);
        spreads.sort_unstable();
        Ok(Trial {
            deliveries_per_core: per_second(clients * options.seconds, busy),
            spread_us: spreads[spreads.len() / 2],
            bytes_a_connection: (held * 1_024).checked_div(clients).unwrap_or(0),
        })
    }
}

fn table(options: &Options, payload: usize, trials: &[Vec<Trial>]) -> Table {
    let row = |leg: usize, what: &str, unit: &str, of: fn(&Trial) -> u64| {
        let name = format!("{} {what}", LEGS[leg].0);
        Row::new(&name, unit, trials[leg].iter().map(of).collect(), String::new())
    };
    let mut table = Table::new("stream", Vec::new());
    for leg in 0..LEGS.len() {
        table.rows.push(row(leg, "deliveries", "/s a core", |t| t.deliveries_per_core));
        table.rows.push(row(leg, "first to last", "us", |t| t.spread_us));
        table.rows.push(row(leg, "memory", "B a client", |t| t.bytes_a_connection));
    }
    for kind in ["websocket", "sse"] {
        let (own, peer) = (format!("canvass {kind}"), format!("nchan {kind}"));
        table.compare(&format!("{own} deliveries"), &format!("{peer} deliveries"), Some(200));
        table.compare(&format!("{peer} memory"), &format!("{own} memory"), Some(200));
        table.compare(&format!("{peer} first to last"), &format!("{own} first to last"), None);
    }
    table.notes.push(format!(
        "{} clients, one publication of {payload} bytes a second, {} of them a trial",
        options.clients, options.seconds
    ));
    table
}
