//! NDJSON batches: many lines in one request, each answered by itself.

use canvass_protocol::api::{Accepted, Receipt};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use crate::client::{Client, Error, Pauses, Problem, Request};

/// Most lines that are sent in one request; far below what a server takes.
pub const MAX_LINES: usize = 1_000;
/// Most bytes that are sent in one request.
pub const MAX_BYTES: usize = 4 << 20;

/// What became of one line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LineAnswer {
    /// The line, from 1.
    pub line: usize,
    /// The status it would have had as a request of its own.
    pub status: u16,
    /// Proof that it was recorded.
    #[serde(default)]
    pub receipt: Option<Receipt>,
    /// `counted` or `held`.
    #[serde(default)]
    pub outcome: Option<Cow<'static, str>>,
    /// The rule that a held return broke.
    #[serde(default)]
    pub held_because: Option<String>,
    /// Why it was not recorded.
    #[serde(default)]
    pub problem: Option<Problem>,
}

impl LineAnswer {
    /// An answer with nothing but its status.
    pub(crate) fn of_status(status: u16) -> Self {
        LineAnswer { line: 1, status, receipt: None, outcome: None, held_because: None, problem: None }
    }

    /// The receipt and outcome of a line that was recorded; anything else is an error about `what`.
    pub fn accepted(self, what: impl FnOnce() -> String) -> Result<Accepted, Error> {
        match (self.receipt, self.outcome) {
            (Some(receipt), Some(outcome)) if matches!(self.status, 200 | 201) => {
                Ok(Accepted { receipt, outcome, held_because: self.held_because })
            }
            _ => {
                let (what, status, problem) = (what(), self.status, self.problem.unwrap_or_default());
                Err(Error::Refused { what, status, problem })
            }
        }
    }

    fn again(&self) -> bool {
        matches!(self.status, 429 | 503)
    }
}

/// The lines of a batch as JSON.
pub fn lines<T: Serialize>(items: &[T]) -> Vec<Vec<u8>> {
    // Lines are plain structs with text keys, which JSON always can.
    items.iter().map(|item| serde_json::to_vec(item).unwrap_or_default()).collect()
}

/// Sends the lines in as many requests as they need, and gives one answer for each, in their order. Lines that
/// the server had no room for are sent again, with the same keys, until it has.
pub async fn send(client: &Client, path: &str, lines: &[Vec<u8>]) -> Result<Vec<LineAnswer>, Error> {
    let mut answers: Vec<Option<LineAnswer>> = vec![None; lines.len()];
    let mut open: Vec<usize> = (0..lines.len()).collect();
    let mut pauses = Pauses::new(client);
    while !open.is_empty() {
        let mut sent = 0;
        while let Some(rest) = open.get(sent..).filter(|rest| !rest.is_empty()) {
            let part = fitting(rest, lines);
            for (line, answer) in part.iter().zip(send_part(client, path, part, lines).await?) {
                if let Some(slot) = answers.get_mut(*line) {
                    *slot = Some(answer);
                }
            }
            sent += part.len();
        }
        let again = |line: &usize| answers.get(*line).and_then(Option::as_ref).is_some_and(LineAnswer::again);
        open.retain(again);
        if let Some(first) = open.first() {
            let problem = answers.get(*first).cloned().flatten().and_then(|a| a.problem);
            pauses.wait(None, problem.unwrap_or_default().to_string()).await?;
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// As many of the first lines as one request may hold, at least one.
fn fitting<'a>(open: &'a [usize], lines: &[Vec<u8>]) -> &'a [usize] {
    let mut bytes = 0;
    let fits = |line: &&usize| {
        bytes += lines.get(**line).map_or(0, Vec::len) + 1;
        bytes <= MAX_BYTES
    };
    let count = open.iter().take(MAX_LINES).take_while(fits).count().max(1);
    open.split_at(count.min(open.len())).0
}

async fn send_part(
    client: &Client,
    path: &str,
    part: &[usize],
    lines: &[Vec<u8>],
) -> Result<Vec<LineAnswer>, Error> {
    let mut body = Vec::new();
    for line in part.iter().filter_map(|line| lines.get(*line)) {
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    let answer = client.send(&Request::batch(path, body)).await?;
    read_answers(&answer.good()?.body, part.len())
        .map_err(|fault| Error::Answer { what: format!("POST {path}"), fault })
}

fn read_answers(body: &[u8], expected: usize) -> Result<Vec<LineAnswer>, String> {
    let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let answers = lines.map(serde_json::from_slice).collect::<Result<Vec<LineAnswer>, _>>();
    let answers = answers.map_err(|e| e.to_string())?;
    let in_order = answers.iter().map(|a| a.line).eq(1..=expected);
    if !in_order {
        return Err(format!("{} lines were sent, {} were answered or not in order", expected, answers.len()));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_one_a_line_and_in_order() {
        let good = br#"{"line":1,"status":201,"receipt":{"record":"returns-0-17-3","time":"2020-11-03T20:00:00.000Z"},"outcome":"counted"}
{"line":2,"status":409,"problem":{"type":"x","title":"y","status":409,"code":"already-voted","record":"votes-1-2-3"}}
"#;
        let answers = read_answers(good, 2).unwrap();
        let problem = answers[1].problem.clone().unwrap();
        assert_eq!(
            (problem.code.as_str(), problem.record.as_deref()),
            ("already-voted", Some("votes-1-2-3"))
        );
        assert!(answers[1].clone().accepted(|| "x".into()).is_err());
        let accepted = answers[0].clone().accepted(|| "x".into()).unwrap();
        assert_eq!(accepted.receipt.record.to_string(), "returns-0-17-3");
        assert!(read_answers(good, 3).is_err());
        assert!(read_answers(b"{\"line\":2,\"status\":201}\n", 1).is_err());
        assert!(read_answers(b"oops", 1).is_err());
    }

    #[test]
    fn a_request_holds_at_least_one_line_and_no_more_than_the_limits() {
        let small: Vec<Vec<u8>> = vec![vec![b'x'; 10]; MAX_LINES + 5];
        let all: Vec<usize> = (0..small.len()).collect();
        assert_eq!(fitting(&all, &small).len(), MAX_LINES);
        assert_eq!(fitting(&all[MAX_LINES..], &small).len(), 5);
        let large = vec![vec![b'x'; MAX_BYTES + 1], vec![b'x'; 10], vec![b'x'; MAX_BYTES - 10]];
        assert_eq!(fitting(&[0, 1, 2], &large), &[0]);
        assert_eq!(fitting(&[1, 2], &large), &[1]);
    }
}
