//! Bodies of requests and answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use canvass_election::definition::Contest;
use canvass_election::event::{Counts, MAX_COUNT};
use canvass_election::ids::{RecordId, Timestamp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::problem::{Code, FieldFault, Problem};
use crate::time;

/// A text that lies in the bytes it was read from, unless it is written with escapes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text(Cow::Owned(text))
    }
}

/// A vote: `POST /api/v1/vote`, or one line of `POST /api/v1/votes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoteRequest<'a> {
    /// Text id of the contest.
    #[serde(borrow)]
    pub contest: Text<'a>,
    /// Text ids of the chosen selections.
    #[serde(borrow)]
    pub selections: SmallVec<[Text<'a>; 2]>,
    /// The voter's name for themselves, where no token names them.
    #[serde(borrow, default)]
    pub voter: Option<Text<'a>>,
    /// In a batch: the voter's token.
    #[serde(borrow, default)]
    pub token: Option<Text<'a>>,
    /// In a batch: the idempotency key of this line.
    #[serde(borrow, default)]
    pub key: Option<Text<'a>>,
}

/// Counts as a source or the desk states them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountsRequest {
    /// Votes by text id of the selection; every selection is named.
    pub votes: BTreeMap<String, u64>,
    /// Votes not counted because a ballot chose too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overvotes: u64,
    /// Votes not given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub undervotes: u64,
    /// Ballots, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ballots: Option<u64>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A return: `POST /api/v1/returns`, as one body or one line of NDJSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnRequest {
    /// Text id of the contest.
    pub contest: String,
    /// Text id of the reporting unit.
    pub unit: String,
    /// The count type's word.
    pub count_type: String,
    /// The unit's counts so far.
    pub counts: CountsRequest,
    /// The sum of the votes as the source states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// In a batch: the idempotency key of this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A correction: `POST /api/v1/returns/{record}/corrections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectionRequest {
    /// Why, for the public log.
    pub reason: String,
    /// The counts from now on.
    pub counts: CountsRequest,
}

/// An act of the desk that needs nothing but a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// Why, for the public log.
    pub reason: String,
}

/// A recount is opened: `POST /api/v1/recounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecountRequest {
    /// Text id of the contest.
    pub contest: String,
    /// Text id of the unit that is counted again with all below it.
    pub unit: String,
    /// Why, for the public log.
    pub reason: String,
}

/// A call is proposed: `POST /api/v1/contests/{id}/call`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// Text ids of the winners.
    pub winners: Vec<String>,
    /// On what basis, for the public log.
    pub reason: String,
}

/// A rehearsal's clock is set: `PUT /api/v1/clock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockRequest {
    /// The moment it is from now on.
    #[serde(with = "time::rfc3339")]
    pub now: Timestamp,
}

/// What the server says of a record it has made durable. A retry gets the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Where the record stands in the log.
    pub record: RecordId,
    /// When it was taken in.
    #[serde(with = "time::rfc3339")]
    pub time: Timestamp,
    /// The log's signed promise that the record is in it, as a tlog-proof (docs/audit.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<String>,
}

/// What became of an accepted event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Proof that it was recorded.
    pub receipt: Receipt,
    /// `counted` or `held`; `recorded` where another process counts and has not told yet.
    pub outcome: Cow<'static, str>,
    /// For a held return: the rule it broke, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_because: Option<String>,
}

/// Reads a JSON body; a fault names the field by its pointer.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // To keep track of the place costs more than to read; so that is done for bodies with a fault only.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json);
    let value = read.map_err(|e| {
        let pointer = pointer(e.path());
        let inner = e.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => Problem::new(Code::BadBody).field(pointer, plain(&inner)),
            _ => Problem::new(Code::BadJson).detail(inner.to_string()),
        }
    })?;
    json.end().map_err(|e| Problem::new(Code::BadJson).detail(e.to_string()))?;
    Ok(value)
}

/// The error's text without the place in the text, which the pointer says better.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(cut) => text[..cut].to_owned(),
        None => text,
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

impl CountsRequest {
    /// The counts in the contest's order; `at` is the pointer to this object in the body.
    pub fn to_counts(&self, contest: &Contest, at: &str) -> Result<Counts, Problem> {
        let mut faults = Vec::new();
        let mut fault = |pointer: String, detail: String| faults.push(FieldFault { pointer, detail });
        let mut unknown = false;
        for name in self.votes.keys().filter(|name| contest.selection_by_id(name).is_none()) {
            unknown = true;
            fault(format!("{at}/votes/{name}"), format!("the contest has no selection `{name}`"));
        }
        for missing in contest.selections.iter().filter(|s| !self.votes.contains_key(&s.id)) {
            fault(
                format!("{at}/votes/{}", missing.id),
                "is missing; state 0 where there are none".to_owned(),
            );
        }
        let others = [("overvotes", self.overvotes), ("undervotes", self.undervotes)];
        let named = self.votes.iter().map(|(name, n)| (format!("votes/{name}"), *n));
        let others = others.into_iter().chain(self.ballots.map(|n| ("ballots", n)));
        for (name, n) in named.chain(others.map(|(name, n)| (name.to_owned(), n))) {
            if n > MAX_COUNT {
                fault(format!("{at}/{name}"), format!("is above the limit of {MAX_COUNT}"));
            }
        }
        let sum = self.votes.values().fold(0u64, |sum, n| sum.saturating_add(*n));
        if faults.is_empty() && sum > MAX_COUNT {
            faults.push(FieldFault {
                pointer: format!("{at}/votes"),
                detail: format!("the votes together are above the limit of {MAX_COUNT}"),
            });
        }
        if faults.is_empty() {
            let votes = contest.selections.iter().map(|s| self.votes.get(&s.id).copied().unwrap_or(0));
            let (overvotes, undervotes, ballots) = (self.overvotes, self.undervotes, self.ballots);
            return Ok(Counts { votes: votes.collect(), overvotes, undervotes, ballots });
        }
        let code = if unknown { Code::UnknownSelection } else { Code::BadCounts };
        Err(Problem::new(code).fields(faults))
    }

    /// The JSON form of counts.
    pub fn from_counts(contest: &Contest, counts: &Counts) -> Self {
        let ids = contest.selections.iter().map(|s| s.id.clone());
        CountsRequest {
            votes: ids.zip(counts.votes.iter().copied()).collect(),
            overvotes: counts.overvotes,
            undervotes: counts.undervotes,
            ballots: counts.ballots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_body_names_the_field() {
        let rows = [
            (r#"{"contest":"a","selections":"b"}"#, Code::BadBody, "/selections"),
            (r#"{"contest":"a","selections":["b",4]}"#, Code::BadBody, "/selections/1"),
            (r#"{"contest":"a","selections":[],"vote":1}"#, Code::BadBody, "/vote"),
            (r#"{"contest":"a"}"#, Code::BadBody, ""),
        ];
        for (body, code, place) in rows {
            let problem = read::<VoteRequest>(body.as_bytes()).unwrap_err();
            assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (code, place), "{body}");
        }
        for body in ["", "{", "vote!", r#"{"contest":"a","selections":[]} x"#] {
            assert_eq!(read::<VoteRequest>(body.as_bytes()).unwrap_err().code, Code::BadJson, "{body}");
        }
    }

    #[test]
    fn negative_huge_and_fractional_counts_are_refused() {
        for number in ["-1", "1.5", "18446744073709551616", "\"4\"", "null"] {
            let body = format!(r#"{{"votes":{{"a":{number}}}}}"#);
            let problem = read::<CountsRequest>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code, Code::BadBody);
            assert_eq!(problem.errors[0].pointer, "/votes/a", "{number}");
        }
    }
}
