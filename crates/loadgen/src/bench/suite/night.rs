//! A night as readers see it: one contest in many districts, which report again and again.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::canvass::{Credentials, Server};
use super::peers::eventually;
use super::{Fault, Suite};
use crate::client::{Client, Request};

const CONTEST: &str = "governor";
const DISTRICTS: u64 = 100;
const CANDIDATES: [&str; 4] = ["ash", "birch", "cedar", "elm"];

/// Where the results of all districts are read.
pub(crate) const RESULTS: &str = "/api/v1/results?contest=governor";
/// The same as a page.
pub(crate) const PAGE: &str = "/contests/governor";
/// Where they are followed, behind `/api/v1/stream` or `/api/v1/events`.
pub(crate) const FOLLOW: &str = "?contest=governor";

fn definition() -> String {
    let mut text = String::from("id = \"bench\"\nname = \"Bench\"\nis_test = true\n");
    text.push_str("[[units]]\nid = \"state\"\nname = \"The state\"\n");
    for n in 0..DISTRICTS {
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "[[units]]\nid = \"district-{n}\"\nname = \"District {n}\"\nparent = \"state\"");
    }
    let selections = CANDIDATES.map(|id| format!("{{ id = \"{id}\", name = \"{id}\" }}")).join(", ");
    let _ = writeln!(
        text,
        "[[contests]]\nid = \"{CONTEST}\"\nname = \"Governor\"\nkind = \"single-choice\"\n\
         counting = \"returns\"\nselections = [{selections}]"
    );
    text
}

/// A server that counts such a night.
pub(crate) struct Night<'a> {
    pub(crate) server: Server,
    suite: &'a Suite,
    client: Client,
    key: String,
    /// How many times districts have reported.
    reported: u64,
}

impl<'a> Night<'a> {
    /// Starts a server on the night's beginning.
    pub(crate) fn begin(suite: &'a Suite, credentials: &Credentials, name: &str) -> Result<Self, Fault> {
        let server = suite.canvass_for(credentials, name, &definition())?;
        let client = Client::new(&format!("http://{}", server.address))?;
        Ok(Night { server, suite, client, key: credentials.key.clone(), reported: 0 })
    }

    /// Lets the first `districts` report higher counts, in one request.
    pub(crate) fn report(&mut self, districts: u64) -> Result<(), Fault> {
        self.reported += 1;
        let mut lines = String::new();
        for n in 0..districts.min(DISTRICTS) {
            let votes: serde_json::Map<_, _> = (3u64..)
                .zip(CANDIDATES)
                .map(|(i, id)| (id.to_owned(), json!(self.reported * (1_000 + n * i) + i)))
                .collect();
            let line = json!({
                "contest": CONTEST, "unit": format!("district-{n}"), "count_type": "total",
                "counts": { "votes": votes }, "key": format!("{n}-{}", self.reported),
            });
            let _ = writeln!(lines, "{line}");
        }
        let request = Request::batch("/api/v1/returns", lines.into_bytes()).bearer(Some(self.key.clone()));
        let answer = self.suite.runtime.block_on(self.client.send(&request))?;
        let answer = answer.good()?;
        let body = String::from_utf8_lossy(&answer.body);
        match body.lines().find(|line| !line.contains("\"status\":201")) {
            Some(line) => Err(Fault(format!("a return was not taken: {line}"))),
            None => Ok(()),
        }
    }

    /// Waits until what was reported is published.
    pub(crate) fn settle(&self) -> Result<(), Fault> {
        let votes =
            |n| CANDIDATES.iter().zip(3..).map(|(_, i)| self.reported * (1_000 + n * i) + i).sum::<u64>();
        let wanted = (0..DISTRICTS).map(votes).sum::<u64>();
        eventually(
            || {
                let results = self.suite.runtime.block_on(self.client.get::<Value>(RESULTS));
                results.is_ok_and(|results| results["counts"]["total"].as_u64() == Some(wanted))
            },
            || format!("the results do not reach {wanted} votes"),
        )
    }
}
