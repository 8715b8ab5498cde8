//! Writes answers to votes.

use std::io::Write;
use std::time::SystemTime;

use axum::http::StatusCode;
use canvass_election::ids::{RecordId, Timestamp};
use canvass_protocol::problem::Code;
use canvass_protocol::time;

use super::request::VOTE_PATH;
use crate::reply::{PRIVATE, Refused, refuse};

/// What became of a vote.
#[derive(Debug)]
pub(super) enum Ready {
    /// It counts, or did so before.
    Counted { record: RecordId, time: Timestamp, replayed: bool },
    /// It was not looked at, since there is too much to do.
    Overloaded,
    /// An answer in bytes.
    Written(Vec<u8>),
}

/// Writes answers; keeps what is the same for many of them.
pub(super) struct Pen {
    /// The `date` header, as long as its second lasts.
    date: String,
    /// The last time of a record and its text: a batch's records have one time.
    time: (Timestamp, String),
    body: Vec<u8>,
    /// What turns a vote away, as long as the second lasts: all of them share a trace id, which costs nothing.
    overloaded: Vec<u8>,
}

impl Pen {
    pub(super) fn new() -> Self {
        let mut pen = Pen {
            date: String::new(),
            time: (Timestamp(0), time::format(Timestamp(0))),
            body: Vec::new(),
            overloaded: Vec::new(),
        };
        pen.tick();
        pen
    }

    /// Notes the present second.
    pub(super) fn tick(&mut self) {
        self.date = httpdate::fmt_http_date(SystemTime::now());
        self.overloaded = self.refused(&refuse(Code::Overloaded.into(), VOTE_PATH, None));
    }

    /// Writes an answer to the end of `out`.
    pub(super) fn write(&mut self, ready: &Ready, out: &mut Vec<u8>) {
        match ready {
            Ready::Overloaded => out.extend_from_slice(&self.overloaded),
            Ready::Written(bytes) => out.extend_from_slice(bytes),
            Ready::Counted { record, time, replayed } => self.counted(*record, *time, *replayed, out),
        }
    }

    /// The same bytes as those of an `Accepted`, without the steps in between.
    fn counted(&mut self, record: RecordId, time: Timestamp, replayed: bool, out: &mut Vec<u8>) {
        if self.time.0 != time {
            self.time = (time, time::format(time));
        }
        self.body.clear();
        let mut body = std::mem::take(&mut self.body);
        // Writing to memory cannot fail.
        let _ = write!(
            body,
            r#"{{"receipt":{{"record":"{record}","time":"{}"}},"outcome":"counted"}}"#,
            self.time.1
        );
        let line = if replayed { "200 OK" } else { "201 Created" };
        let _ =
            write!(out, "HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncache-control: {PRIVATE}\r\n");
        self.finish(&body, out);
        self.body = body;
    }

    /// The answer that refuses a request.
    pub(super) fn refused(&self, refused: &Refused) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let _ = write!(out, "HTTP/1.1 {status}\r\n");
        for (name, value) in &refused.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        self.finish(&refused.body, &mut out);
        out
    }

    fn finish(&self, body: &[u8], out: &mut Vec<u8>) {
        let (length, date) = (body.len(), &self.date);
        let _ = write!(
            out,
            "x-content-type-options: nosniff\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n"
        );
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use canvass_election::ids::{Offset, PartitionId};
    use canvass_protocol::api::{Accepted, Receipt};

    use super::*;

    #[test]
    fn the_body_is_that_of_an_accepted_event() {
        let mut pen = Pen::new();
        for millis in [0, 1_604_452_819_239, 1_604_452_819_239, 5] {
            let record = RecordId { partition: PartitionId::votes(3), offset: Offset(millis), position: 17 };
            let (time, outcome) = (Timestamp(millis), "counted".to_owned());
            let accepted = Accepted { receipt: Receipt { record, time }, outcome, held_because: None };
            let mut out = Vec::new();
            pen.write(&Ready::Counted { record, time, replayed: millis == 5 }, &mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, serde_json::to_string(&accepted).unwrap());
            assert!(head.starts_with(if millis == 5 {
                "HTTP/1.1 200 OK\r\n"
            } else {
                "HTTP/1.1 201 Created\r\n"
            }));
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        }
    }
}
