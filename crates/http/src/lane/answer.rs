//! Writes answers.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::StatusCode;
use canvass_election::ids::{RecordId, Timestamp};
use canvass_protocol::problem::Code;

use super::request::VOTE_PATH;
use super::shelf::Sheet;
use crate::confirmation::Confirmation;
use crate::reply::{Form, PRIVATE, Refused, refuse};
use crate::vote::Receipts;

/// What became of a vote, or what was asked for.
#[derive(Debug)]
pub(super) enum Ready {
    /// It counts, or did so before; or it is recorded, and what it did is not known yet.
    Counted { record: RecordId, time: Timestamp, known: bool, replayed: bool, receipts: Receipts },
    /// It was not looked at, since there is too much to do.
    Overloaded,
    /// No vote but a read.
    Prepared(Arc<Sheet>, Form),
    /// An answer in bytes.
    Written(Vec<u8>),
}

/// Most buffers that are kept for the connection that needs one next, and the largest of them.
const MAX_PAPERS: usize = 256;
const MAX_PAPER: usize = 128 << 10;

/// Writes answers; keeps what is the same for many of them.
pub(super) struct Pen {
    /// The heads of confirmations, of new votes, of repetitions and of votes that are recorded and no more is known, up
    /// to the body's length, while the second lasts.
    heads: [Vec<u8>; 3],
    /// What turns a vote away, while the second lasts: all of them share a trace id, which costs nothing.
    overloaded: Vec<u8>,
    /// The end of a head with the date, while the second lasts.
    date: String,
    confirmation: Confirmation,
    /// Buffers that no connection uses now.
    papers: Vec<Vec<u8>>,
    /// Digits of the last confirmation's length.
    digits: usize,
}

impl Pen {
    pub(super) fn new() -> Self {
        let mut pen = Pen {
            heads: Default::default(),
            overloaded: Vec::new(),
            date: String::new(),
            confirmation: Confirmation::new(),
            papers: Vec::new(),
            digits: 3,
        };
        pen.tick();
        pen
    }

    /// An empty buffer for answers.
    pub(super) fn paper(&mut self) -> Vec<u8> {
        self.papers.pop().unwrap_or_default()
    }

    /// Takes back a buffer that is empty, for the next connection that needs one.
    pub(super) fn take_back(&mut self, paper: Vec<u8>) {
        if self.papers.len() < MAX_PAPERS && paper.capacity() <= MAX_PAPER {
            self.papers.push(paper);
        }
    }

    /// Notes the present second.
    pub(super) fn tick(&mut self) {
        let headers = format!("content-type: application/json\r\ncache-control: {PRIVATE}\r\n");
        self.heads = ["201 Created", "200 OK", "202 Accepted"].map(|status| head(status, &headers));
        self.date = format!("date: {}\r\n\r\n", httpdate::fmt_http_date(SystemTime::now()));
        self.overloaded = refused(&refuse(Code::Overloaded.into(), VOTE_PATH, None));
    }

    /// Writes an answer to the end of `out`.
    pub(super) fn write(&mut self, ready: &Ready, out: &mut Vec<u8>) {
        match ready {
            Ready::Overloaded => out.extend_from_slice(&self.overloaded),
            Ready::Written(bytes) => out.extend_from_slice(bytes),
            Ready::Prepared(sheet, form) => sheet.write(*form, &self.date, out),
            Ready::Counted { record, time, known, replayed, receipts } => {
                let head = if *known { usize::from(*replayed) } else { 2 };
                out.extend_from_slice(&self.heads[head]);
                // The body is written in its place, behind room for as many digits as the last length had.
                let length = out.len()..out.len() + self.digits;
                out.resize(length.end, b'0');
                out.extend_from_slice(b"\r\n\r\n{");
                let receipts = receipts.as_ref().and_then(|receipts| receipts.get());
                self.confirmation.write((*record, *time, *known), receipts, out);
                out.push(b'}');
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(out.len() - length.end - 4).as_bytes();
                self.digits = digits.len();
                if digits.len() == length.len() {
                    out[length].copy_from_slice(digits);
                } else {
                    out.splice(length, digits.iter().copied());
                }
            }
        }
    }
}

/// The answer that refuses a request.
pub(super) fn refused(refused: &Refused) -> Vec<u8> {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: String =
        refused.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut out = head(&status.to_string(), &headers);
    close(&refused.body, &mut out);
    out
}

/// The head of an answer up to the length of its body.
fn head(status: &str, headers: &str) -> Vec<u8> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut out = Vec::with_capacity(512);
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status}\r\n{headers}date: {date}\r\nx-content-type-options: nosniff\r\ncontent-length: "
    );
    out
}

/// Writes the length of the body, and the body.
fn close(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use canvass_election::ids::{Offset, PartitionId};

    use super::*;

    fn written(ready: &Ready) -> (String, String) {
        let mut out = Vec::new();
        Pen::new().write(ready, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn new_votes_and_repetitions_have_their_status() {
        let record = RecordId { partition: PartitionId::votes(3), offset: Offset(9), position: 17 };
        for (known, replayed, status) in [
            (true, false, "HTTP/1.1 201 Created\r\n"),
            (true, true, "HTTP/1.1 200 OK\r\n"),
            (false, false, "HTTP/1.1 202 Accepted\r\n"),
        ] {
            let time = Timestamp(5);
            let (head, body) = written(&Ready::Counted { record, time, known, replayed, receipts: None });
            assert!(
                head.starts_with(status) && head.contains("\r\ncontent-type: application/json\r\n"),
                "{head}"
            );
            let body: canvass_protocol::api::Accepted = serde_json::from_str(&body).unwrap();
            assert_eq!((body.receipt.record, body.receipt.time), (record, Timestamp(5)));
        }
    }

    #[test]
    fn who_comes_too_fast_is_told_to_come_back() {
        let (head, body) = written(&Ready::Overloaded);
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/problem+json\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["code"], "overloaded");
        assert_eq!(body["trace_id"].as_str().map(str::len), Some(32));
    }
}
